//! Power cuts during a commit.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::*;
use crate::store::CHECKED_FILE_BYTES;
use crate::store::testing::fates;

/// How the crash tests open a store: `checked_bytes` 0 makes every file count as large.
async fn chain_with(net: &TestNet, disk: &Disk, checked_bytes: u64) -> Chain {
    let (backend, genesis) = (disk.backend(), net.genesis.clone());
    let store = Store::open_with(backend, genesis, StoreThreads::Inline, checked_bytes).unwrap();
    let chain = Chain::open(net.genesis.clone(), store, Offload::Inline);
    chain.await.unwrap()
}

/// The disk stops after every possible number of operations of one commit, and what was not synced
/// is kept, lost or torn: the commit is there whole, or not at all, and never lost once it was
/// reported. `blocks` are two committed ones and those that `commit` adds.
async fn cut_everywhere(
    net: &TestNet,
    disk: &Disk,
    blocks: &[Final],
    checked_bytes: u64,
    commit: impl AsyncFn(Chain) -> Result<Tip, ChainError>,
) {
    let before = blocks[1].0.header.height;
    let after = blocks.last().unwrap().0.header.height;
    let mut seen = BTreeSet::new();
    for operations in 0.. {
        let disk = Disk::with(disk.content());
        let chain = chain_with(net, &disk, checked_bytes).await;
        assert_eq!(chain.tip().height, before);
        disk.fail_after(operations, ErrorKind::Other);
        let reported = commit(chain.clone()).await;
        for fate in fates() {
            let crashed = disk.after_crash(fate);
            drop(chain_with(net, &crashed, checked_bytes).await);
            let tip = check_whole(net, &crashed, blocks).await.height;
            assert!(tip == before || tip == after, "cut into parts at {tip}");
            assert!(reported.is_err() || tip == after, "reported, then lost");
            seen.insert(tip);
        }
        if reported.is_ok() {
            break;
        }
        // What was not durable was not published.
        assert_eq!(chain.tip().height, before);
    }
    assert_eq!(seen.len(), 2, "the cut hit only one side");
}

#[tokio::test]
async fn a_commit_is_whole_or_not_at_all_wherever_the_power_fails() {
    for checked_bytes in [CHECKED_FILE_BYTES, 0] {
        let (net, disk) = (net(), Disk::default());
        let chain = chain_with(&net, &disk, checked_bytes).await;
        let mut blocks = net.grow(&chain, 2).await;
        let payment = net.payment(&chain).await;
        blocks.push(net.next_block(&chain, vec![payment]).await);
        drop(chain);
        let (block, certificate) = &blocks[2];
        cut_everywhere(&net, &disk, &blocks, checked_bytes, async |chain| {
            chain.commit(block.clone(), certificate.clone()).await
        })
        .await;
    }
}

#[tokio::test]
async fn a_batch_of_a_segment_is_whole_or_not_at_all_wherever_the_power_fails() {
    let (net, disk) = (net(), Disk::default());
    let source = net.chain().await;
    let mut blocks = net.grow(&source, 5).await;
    for (_, certificate) in &mut blocks[2..4] {
        certificate.signatures.clear();
    }
    let chain = net.chain_on(&disk).await;
    for (block, certificate) in &blocks[..2] {
        chain
            .commit(block.clone(), certificate.clone())
            .await
            .unwrap();
    }
    drop(chain);
    let segment = net.segment(&blocks);
    cut_everywhere(&net, &disk, &blocks, CHECKED_FILE_BYTES, async |chain| {
        let bodies = bodies(&blocks[2..]);
        commit_segment(&chain, segment.clone(), bodies).await
    })
    .await;
}
