//! A chain's file that something altered, and the log beside its blocks.

use super::*;
use crate::env::Entropy;
use crate::store::{CHECKED_FILE_BYTES, WalContent};
use crate::types::codec;

/// A file of a chain with some blocks and a log, as a closed node leaves it.
async fn sound_disk(net: &TestNet) -> Disk {
    let disk = Disk::default();
    let chain = net.chain_on(&disk).await;
    net.grow(&chain, 3).await;
    drop(chain);
    let wal = net.store(&disk).wal();
    wal.append(Height(4), vec![vec![5; 100]; 20], vec![])
        .await
        .unwrap();
    drop(wal);
    disk
}

async fn load_all(
    net: &TestNet,
    content: Vec<u8>,
    checked_bytes: u64,
) -> Result<(u64, WalContent), StoreError> {
    let (backend, genesis) = (Disk::with(content).backend(), net.genesis.clone());
    let store = Store::open_with(backend, genesis, StoreThreads::Inline, checked_bytes)?;
    let state = store.chain_state().await?.expect("written before");
    for height in 1..=state.tip.height.0 {
        store.block(Height(height)).await?;
    }
    Ok((state.tip.height.0, store.wal().load(Height(4)).await?))
}

#[tokio::test]
async fn damage_gives_a_sentence_and_never_other_content() {
    let net = TestNet::new(&[1, 1]);
    let sound = sound_disk(&net).await.content();
    let whole = load_all(&net, sound.clone(), CHECKED_FILE_BYTES)
        .await
        .unwrap();
    assert_eq!(whole.0, 3);

    // What must be noticed: an end cut off, noise, and every copy of a live row altered.
    let mut fatal: Vec<Vec<u8>> = Vec::new();
    for length in [1, 8, 100, 4_096, sound.len() / 2, sound.len() - 1] {
        fatal.push(sound[..length].to_vec());
    }
    let noise = Entropy::from_seed([3; 32]);
    let random: Vec<u8> = (0..sound.len() as u64 / 32)
        .flat_map(|at| noise.derive(&at.to_string()))
        .collect();
    fatal.push([&sound[..64], &random[64..]].concat());
    fatal.push(random);
    let block = net.store(&Disk::with(sound.clone())).block(Height(2)).await;
    let block = block.unwrap().unwrap();
    for row in [
        codec::encode(&block.header),
        codec::encode(&block.transactions),
        block.hash().0.to_vec(),
        block.transactions[0].id().0.to_vec(),
        net.genesis_hash.0.to_vec(),
        vec![5; 100],
    ] {
        let mut altered = sound.clone();
        let copies: Vec<usize> = (0..sound.len() - row.len())
            .filter(|at| sound[*at..].starts_with(&row))
            .collect();
        assert!(!copies.is_empty());
        for at in copies {
            altered[at + row.len() / 2] ^= 0x10;
        }
        fatal.push(altered);
    }
    for content in fatal {
        let error = load_all(&net, content, CHECKED_FILE_BYTES)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("--reindex"), "{error}");
    }

    // A single flip may lie in a page that is no longer used; then nothing else may change.
    let written: Vec<usize> = (0..sound.len()).filter(|at| sound[*at] != 0).collect();
    for at in written.iter().step_by(written.len() / 150) {
        let mut flipped = sound.clone();
        flipped[*at] ^= 0x10;
        match load_all(&net, flipped.clone(), CHECKED_FILE_BYTES).await {
            Ok(found) => assert_eq!(found, whole),
            Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error}"),
        }
        // A large file is trusted at open; what is noticed later is an error too.
        if let Err(error) = load_all(&net, flipped, 0).await {
            let damaged = matches!(error, StoreError::Damaged { .. });
            assert!(damaged || error.is_damaged_wal(), "{error}");
        }
    }
}

#[tokio::test]
async fn a_commit_prunes_the_log_up_to_its_height_and_no_further() {
    let (net, disk) = (TestNet::new(&[1, 1]), Disk::default());
    let store = net.store(&disk);
    let wal = store.wal();
    let chain = Chain::open(net.genesis.clone(), store, Offload::Inline)
        .await
        .unwrap();
    for height in 1..=3 {
        let body = (BlockHash([height; 32]), vec![height]);
        let height = Height(height.into());
        wal.append(height, vec![vec![1], vec![2]], vec![body])
            .await
            .unwrap();
    }
    net.grow(&chain, 2).await;
    for height in [1, 2] {
        let content = wal.load(Height(height)).await.unwrap();
        assert_eq!(content, WalContent::default());
    }
    let content = wal.load(Height(3)).await.unwrap();
    assert_eq!((content.entries.len(), content.bodies.len()), (2, 1));
}
