//! Files of generated chains, whole and damaged.

use super::*;
use crate::chain::generator::{Generator, Shape, commit_segment};
use crate::types::Tip;

const BLOCKS: u64 = 300;

const SHAPE: Shape = Shape {
    validators: 4,
    transactions: 2,
};

/// A data directory whose database holds a chain, and a consensus log above it.
async fn chain_in(folder: &Path) -> (DataDir, Arc<Genesis>, Tip) {
    let dir = DataDir::new(folder);
    let mut generator = Generator::new(SHAPE);
    let genesis = generator.genesis().clone();
    let (store, chain) = open(&dir, &genesis).await.unwrap();
    generator.write(&chain, Height(BLOCKS)).await.unwrap();
    let tip = chain.tip();
    let entries = vec![vec![7; 40]; 3];
    let above = Height(BLOCKS + 1);
    store.wal().append(above, entries, vec![]).await.unwrap();
    store.wal().add_evidence(vec![1, 2, 3]).await.unwrap();
    store.close().await;
    (dir, genesis, tip)
}

async fn open(dir: &DataDir, genesis: &Arc<Genesis>) -> Result<(Store, Chain), ChainError> {
    let backend = Backend::File(dir.database());
    let store = Store::open(backend, genesis.clone(), StoreThreads::Inline)?;
    let chain = Chain::open(genesis.clone(), store.clone(), Offload::Inline).await?;
    Ok((store, chain))
}

#[tokio::test]
async fn a_whole_file_is_kept_but_its_log_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, genesis, tip) = chain_in(folder.path()).await;
    let done = reindex(&dir, &genesis).await.unwrap();
    assert_eq!((done.height, &done.stopped_by), (tip.height, &None));
    let first = done.old_file.unwrap();
    let again = reindex(&dir, &genesis).await.unwrap();
    assert_eq!(again.height, tip.height);
    let second = again.old_file.unwrap();
    assert!(first.exists() && second.exists() && first != second);
    let (store, chain) = open(&dir, &genesis).await.unwrap();
    assert_eq!(chain.tip(), tip);
    assert!(chain.certificate(tip.height).await.unwrap().is_some());
    let log = store.wal().load(tip.height.next()).await.unwrap();
    assert!(log.entries.is_empty());
    assert_eq!(store.wal().evidence().await.unwrap(), [[1, 2, 3]]);
}

#[tokio::test]
async fn what_is_damaged_is_named_and_what_proves_itself_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, genesis, tip) = chain_in(folder.path()).await;
    let sound = std::fs::read(dir.database()).unwrap();
    let block = {
        let (_store, chain) = open(&dir, &genesis).await.unwrap();
        chain.block(Height(120)).await.unwrap().unwrap()
    };
    let body = crate::types::codec::encode(&block.transactions);
    let mut flipped = sound.clone();
    let copies = (0..sound.len() - body.len()).filter(|at| sound[*at..].starts_with(&body));
    for at in copies {
        // It still decodes: only its root shows it.
        flipped[at + body.len() / 2] ^= 1;
    }
    assert_ne!(flipped, sound);
    let truncated = sound[..sound.len() / 2].to_vec();
    let noise = vec![0xa5; 100_000];
    for (content, kept) in [(flipped, Some(119)), (truncated, None), (noise, Some(0))] {
        std::fs::write(dir.database(), &content).unwrap();
        let refused = open(&dir, &genesis).await.err().unwrap();
        assert!(refused.to_string().contains("--reindex"), "{refused}");
        let done = reindex(&dir, &genesis).await.unwrap();
        assert!(done.stopped_by.is_some());
        assert!(
            kept.is_none_or(|kept| done.height == Height(kept)),
            "{done:?}"
        );
        // The rest comes as from peers, and leads to the same state.
        let (store, chain) = open(&dir, &genesis).await.unwrap();
        assert_eq!(chain.tip().height, done.height);
        let mut generator = Generator::new(SHAPE);
        while chain.tip().height < tip.height {
            let (segment, bodies) = generator.segment(tip.height);
            commit_segment(&chain, segment, bodies).await.unwrap();
        }
        assert_eq!(chain.tip(), tip);
        drop(chain);
        store.close().await;
    }
}

#[tokio::test]
async fn a_file_of_another_chain_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, genesis, _) = chain_in(folder.path()).await;
    let mut other = (*genesis).clone();
    other.chain_id.push('2');
    let refused = reindex(&dir, &Arc::new(other)).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("holds the chain of genesis"), "{refused}");
    assert!(open(&dir, &genesis).await.is_ok());
}
