//! The chain over a real store, mostly on disks in memory.

mod damage;
mod power;
mod synced;

use proptest::prelude::*;

use super::generator::commit_segment;
use super::testing::{Final, TestNet, bodies};
use super::*;
use crate::ledger::fixture::{self, ALLOCATED};
use crate::ledger::{BlockError, LtHash};
use crate::store::StoreThreads;
use crate::store::testing::{Disk, Fate};
use crate::types::{Amount, Round, StateCommitment};

fn net() -> TestNet {
    TestNet::new(&[1, 1, 1, 1])
}

/// Opens what a crash left, checks that everything agrees with the tip, and returns it. A
/// certificate without signatures stands for one that is not stored.
async fn check_whole(net: &TestNet, disk: &Disk, blocks: &[Final]) -> Tip {
    let chain = net.chain_on(disk).await;
    let tip = chain.tip();
    for (block, certificate) in blocks {
        let (height, hash) = (block.header.height, block.hash());
        let held = height <= tip.height;
        let stored = chain.block(height).await.unwrap();
        assert_eq!(stored.as_ref(), held.then_some(&**block));
        let certified = !certificate.signatures.is_empty();
        let stored = chain.certificate(height).await.unwrap();
        assert_eq!(stored.as_ref(), (held && certified).then_some(certificate));
        let stored = chain.height_of(hash).await.unwrap();
        assert_eq!(stored, held.then_some(height));
        for transaction in &block.transactions {
            let found = chain.find_transaction(transaction.id()).await.unwrap();
            assert_eq!(found.is_some(), held);
        }
    }
    assert_eq!(unspent_commitment(net, &chain, blocks).await, tip.state);
    tip
}

/// The set hash over what the store holds of all outputs that these blocks or genesis ever made.
async fn unspent_commitment(net: &TestNet, chain: &Chain, blocks: &[Final]) -> StateCommitment {
    let mut payees: Vec<Address> = (0..fixture::WALLETS).map(fixture::address).collect();
    payees.extend(net.validators.validators().iter().map(|one| one.payout));
    let spent = blocks.iter().flat_map(|(block, _)| &block.transactions);
    let outputs = spent.flat_map(|transaction| &transaction.outputs);
    payees.extend(outputs.map(|output| output.address));
    payees.sort();
    payees.dedup();
    let mut set = LtHash::empty();
    for payee in payees {
        for (outpoint, output) in chain.outputs_of(payee).await.unwrap() {
            let looked_up = chain.outputs(vec![outpoint]).await.unwrap();
            assert_eq!(looked_up, [Some(output)]);
            set.insert(&outpoint, &output);
        }
    }
    set.commitment()
}

#[tokio::test]
async fn a_restart_continues_where_it_stopped() {
    let (net, disk) = (net(), Disk::default());
    let chain = net.chain_on(&disk).await;
    let blocks = net.grow(&chain, 7).await;
    let tip = chain.tip();
    drop(chain);

    assert_eq!(check_whole(&net, &disk, &blocks).await, tip);
    let chain = net.chain_on(&disk).await;
    net.grow(&chain, 1).await;
    assert_eq!(chain.tip().height, Height(8));
}

#[tokio::test]
async fn the_real_threads_do_the_same() {
    let net = net();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.redb");
    let open = async || {
        let backend = crate::store::Backend::File(file.clone());
        let store = Store::open(backend, net.genesis.clone(), StoreThreads::Own).unwrap();
        let chain = Chain::open(net.genesis.clone(), store.clone(), Offload::Threads);
        (chain.await.unwrap(), store)
    };
    let (chain, store) = open().await;
    net.grow(&chain, 3).await;
    let tip = chain.tip();
    store.close().await;
    let closed = chain.header(Height(1)).await;
    assert!(matches!(
        closed,
        Err(ChainError::Store(StoreError::Closed { .. }))
    ));
    // The old handles still exist; the file is free nevertheless.
    let (again, _store) = open().await;
    assert_eq!(again.tip(), tip);
}

#[tokio::test]
async fn genesis_is_the_tip_of_a_new_chain() {
    let net = net();
    let chain = net.chain().await;
    let tip = chain.tip();
    assert_eq!(tip.height, Height::GENESIS);
    assert_eq!(tip.hash, net.genesis.as_parent());
    let outputs = chain.outputs_of(fixture::address(3)).await.unwrap();
    assert_eq!(outputs[0].0, net.allocation(3));
    assert_eq!(outputs[0].1.amount, ALLOCATED);
    assert_eq!(chain.block(Height::GENESIS).await.unwrap(), None);
    assert_eq!(chain.headers(Height(0), Height(9)).await.unwrap(), []);
}

#[tokio::test]
async fn the_tip_is_published_in_order_and_only_when_durable() {
    let (net, disk) = (net(), Disk::default());
    let chain = net.chain_on(&disk).await;
    let mut tips = chain.watch_tip();
    for height in 1..=5 {
        let (block, certificate) = net.next_block(&chain, vec![]).await;
        assert!(!tips.has_changed().unwrap());
        let tip = chain.commit(block, certificate).await.unwrap();
        assert!(tips.has_changed().unwrap());
        assert_eq!(*tips.borrow_and_update(), tip);
        assert_eq!(tip.height, Height(height));
        // A crash right after the publication keeps the block.
        let after = net.chain_on(&disk.after_crash(|_| Fate::Lost)).await;
        assert_eq!(after.tip(), tip);
    }
}

#[tokio::test]
async fn a_commit_whose_caller_goes_away_leaves_memory_and_disk_equal() {
    let net = net();
    let folder = tempfile::tempdir().unwrap();
    let backend = crate::store::Backend::File(folder.path().join("chain.redb"));
    let store = Store::open(backend, net.genesis.clone(), StoreThreads::Own).unwrap();
    let chain = Chain::open(net.genesis.clone(), store, Offload::Threads)
        .await
        .unwrap();
    for polls in 1..12 {
        let (block, certificate) = net.next_block(&chain, vec![]).await;
        let mut commit = Box::pin(chain.commit(block.clone(), certificate.clone()));
        for _ in 0..polls {
            let step = std::future::poll_fn(|context| {
                std::task::Poll::Ready(commit.as_mut().poll(context).is_ready())
            });
            if step.await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(commit);
        // Committing again is right in both cases.
        let tip = chain.commit(block.clone(), certificate).await.unwrap();
        assert_eq!(tip.hash, block.hash());
        assert_eq!(chain.tip(), tip);
    }
}

#[tokio::test]
async fn consensus_and_sync_may_commit_the_same_block_at_once() {
    let (net, other) = (net(), net().chain().await);
    let blocks = net.grow(&other, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let backend = crate::store::Backend::File(folder.path().join("chain.redb"));
    let store = Store::open(backend, net.genesis.clone(), StoreThreads::Own).unwrap();
    let chain = Chain::open(net.genesis.clone(), store, Offload::Threads)
        .await
        .unwrap();
    let segment = net.segment(&blocks);
    let (block, certificate) = blocks[0].clone();
    let (by_sync, by_consensus, again) = tokio::join!(
        commit_segment(&chain, segment, bodies(&blocks)),
        chain.commit(block.clone(), certificate.clone()),
        chain.commit(block, certificate),
    );
    let tip = by_sync.unwrap();
    assert_eq!(tip, other.tip());
    assert_eq!(by_consensus.unwrap(), tip);
    assert_eq!(again.unwrap(), tip);
}

#[tokio::test]
async fn a_certificate_must_prove_the_block() {
    let net = net();
    let chain = net.chain().await;
    let (block, good) = net.next_block(&chain, vec![]).await;
    let (height, hash) = (block.header.height, block.hash());

    let too_few = net.certify_by(&[0, 1], height, hash);
    let mut of_another = net.certify_by(&[0, 1, 2], height, BlockHash([9; 32]));
    let refused = chain.commit(block.clone(), too_few).await;
    assert!(matches!(refused, Err(ChainError::Certificate { .. })));
    let refused = chain.commit(block.clone(), of_another.clone()).await;
    assert!(matches!(refused, Err(ChainError::Certificate { .. })));
    of_another.block = hash;
    let refused = chain.commit(block.clone(), of_another).await;
    assert!(matches!(refused, Err(ChainError::Certificate { .. })));
    assert_eq!(chain.tip().height, Height::GENESIS);
    chain.commit(block, good).await.unwrap();
}

#[tokio::test]
async fn another_block_at_a_committed_height_is_a_fork_with_both_hashes() {
    let net = net();
    let (chain, other) = (net.chain().await, net.chain().await);
    let ours = net.grow(&chain, 2).await;
    let (foreign, certificate) = net.extend(&other, vec![]).await;

    let error = chain
        .commit(foreign.clone(), certificate)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(
        error,
        ChainError::Fork {
            height: Height(1),
            ..
        }
    ));
    assert!(text.contains(&ours[0].0.hash().to_string()), "{text}");
    assert!(text.contains(&foreign.hash().to_string()), "{text}");
    // Without a valid certificate it is only a wrong message.
    let forged = net.certify_by(&[0], Height(1), foreign.hash());
    let error = chain.commit(foreign, forged).await.unwrap_err();
    assert!(matches!(error, ChainError::Certificate { .. }));
    // The next height with another parent.
    let (child, certificate) = net.extend(&other, vec![]).await;
    let chain = net.chain().await;
    net.grow(&chain, 1).await;
    let error = chain.commit(child.clone(), certificate).await.unwrap_err();
    assert!(matches!(
        error,
        ChainError::Fork {
            height: Height(1),
            ..
        }
    ));
    let error = chain.check_block(child).await.unwrap_err();
    let ChainError::Invalid(BlockError::Parent { .. }) = error else {
        panic!("{error}");
    };
}

#[tokio::test]
async fn a_block_that_may_become_valid_is_told_from_one_that_cannot() {
    let net = net();
    let (chain, ahead) = (net.chain().await, net.chain().await);
    let (first, certificate) = net.extend(&ahead, vec![]).await;
    let (second, _) = net.extend(&ahead, vec![]).await;

    let early = chain.check_block(second.clone()).await.unwrap_err();
    assert!(matches!(
        early,
        ChainError::NotNext {
            height: Height(2),
            tip: Height(0)
        }
    ));
    chain.check_block(first.clone()).await.unwrap();
    chain.commit(first, certificate).await.unwrap();
    chain.check_block(second.clone()).await.unwrap();

    let mut wrong = (*second).clone();
    wrong.header.state = StateCommitment([0; 32]);
    let error = chain.check_block(Arc::new(wrong)).await.unwrap_err();
    assert!(matches!(
        error,
        ChainError::Invalid(BlockError::State { .. })
    ));
    let old = chain.block(Height(1)).await.unwrap().unwrap();
    let error = chain.check_block(Arc::new(old)).await.unwrap_err();
    assert!(matches!(
        error,
        ChainError::NotNext {
            height: Height(1),
            tip: Height(1)
        }
    ));
}

/// A header's hash says nothing about the body beside it.
#[tokio::test]
async fn a_checked_header_with_another_body_is_not_committed() {
    let net = net();
    let chain = net.chain().await;
    let payment = net.payment(&chain).await;
    let (block, certificate) = net.next_block(&chain, vec![payment]).await;
    chain.check_block(block.clone()).await.unwrap();
    let mut emptied = (*block).clone();
    emptied.transactions.clear();
    let error = chain
        .commit(Arc::new(emptied), certificate)
        .await
        .unwrap_err();
    let ChainError::Invalid(BlockError::TransactionsRoot { .. }) = error else {
        panic!("{error}");
    };
    assert_eq!(chain.tip().height, Height::GENESIS);
}

#[tokio::test]
async fn candidates_that_do_not_apply_are_left_out() {
    let net = net();
    let chain = net.chain().await;
    let proposer = net.validators.proposer(Height(1), Round(0)).key;
    let units = ALLOCATED.0 - 10_000;
    let good = net.spend(&[(net.allocation(1), 1)], &[(2, units)]);
    let twice = net.spend(&[(net.allocation(1), 1)], &[(3, units)]);
    let (outpoint, _) = good.created().next().unwrap();
    let child = net.spend(&[(outpoint, 2)], &[(3, units - 10_000)]);
    let unknown = net.spend(
        &[(
            OutPoint {
                txid: TxId([7; 32]),
                index: 0,
            },
            2,
        )],
        &[(3, 1)],
    );
    let candidates = vec![unknown, good.clone(), twice, child.clone()];
    let time_ms = chain.tip().time_ms + 1;
    let block = chain
        .build_block(proposer, time_ms, candidates, usize::MAX)
        .await
        .unwrap();
    assert_eq!(block.transactions, [good, child.clone()]);
    let certificate = net.certify(&block.header);
    chain.commit(Arc::new(block), certificate).await.unwrap();
    let received = chain.outputs_of(fixture::address(3)).await.unwrap();
    assert_eq!(received.len(), 2);
    let (spent, unspent) = (outpoint, child.created().next().unwrap());
    let outputs = chain.outputs(vec![spent, unspent.0]).await.unwrap();
    assert_eq!(outputs, [None, Some(unspent.1)]);
    assert_eq!(unspent.1.amount, Amount(units - 10_000));
}

#[tokio::test]
async fn a_segment_is_committed_in_parts_and_stores_its_certificate_at_its_end() {
    let net = net();
    let source = net.chain().await;
    let blocks = net.grow(&source, 10).await;
    let (segment, mut all) = (net.segment(&blocks), bodies(&blocks));
    let disk = Disk::default();
    let chain = net.chain_on(&disk).await;
    let mut tips = chain.watch_tip();

    let rest = all.split_off(4);
    let tip = commit_segment(&chain, segment.clone(), all.clone())
        .await
        .unwrap();
    assert_eq!(tip.height, Height(4));
    assert_eq!(*tips.borrow_and_update(), tip);
    let (first, last) = (Height(1), Height(256));
    assert_eq!(chain.last_certificate(first, last).await.unwrap(), None);
    assert_eq!(
        chain.block(Height(3)).await.unwrap().as_ref(),
        Some(&*blocks[2].0)
    );

    // Interrupted and resumed; blocks that are there already are skipped.
    drop(chain);
    let chain = net.chain_on(&disk).await;
    assert_eq!(chain.tip(), tip);
    all.extend(rest);
    let tip = commit_segment(&chain, segment.clone(), all.clone())
        .await
        .unwrap();
    assert_eq!(tip, source.tip());
    let stored = chain.last_certificate(first, last).await.unwrap();
    assert_eq!(stored.as_ref(), Some(&blocks[9].1));
    assert_eq!(chain.certificate(Height(9)).await.unwrap(), None);
    let headers = chain.headers(Height(3), last).await.unwrap();
    assert_eq!(headers, segment.headers()[2..]);
    assert_eq!(unspent_commitment(&net, &chain, &blocks).await, tip.state);
    // Nothing new is no error.
    assert_eq!(commit_segment(&chain, segment, all).await.unwrap(), tip);
}

#[tokio::test]
async fn a_wrong_body_or_a_gap_in_a_segment_commits_nothing() {
    let net = net();
    let blocks = net.grow(&net.chain().await, 4).await;
    let segment = net.segment(&blocks);
    let chain = net.chain().await;

    let mut wrong = bodies(&blocks);
    wrong[2].1.clear();
    let error = commit_segment(&chain, segment.clone(), wrong)
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        ChainError::Body {
            height: Height(3),
            ..
        }
    ));
    let mut gap = bodies(&blocks);
    gap.remove(1);
    let error = commit_segment(&chain, segment.clone(), gap)
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        ChainError::NotNext {
            height: Height(3),
            tip: Height(1)
        }
    ));
    let late = bodies(&blocks).split_off(1);
    let error = commit_segment(&chain, segment.clone(), late)
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        ChainError::NotNext {
            height: Height(2),
            tip: Height(0)
        }
    ));
    let later = net.segment(&blocks[2..]);
    let error = commit_segment(&chain, later, bodies(&blocks))
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        ChainError::NotNext {
            height: Height(3),
            tip: Height(0)
        }
    ));
    assert_eq!(chain.tip().height, Height::GENESIS);
    commit_segment(&chain, segment, bodies(&blocks))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_segment_of_another_fork_is_refused_wherever_it_lies() {
    let net = net();
    let chain = net.chain().await;
    net.grow(&chain, 5).await;
    let other = net.chain().await;
    let mut foreign = Vec::new();
    for _ in 0..7 {
        foreign.push(net.extend(&other, vec![]).await);
    }
    for range in [0..2, 2..7, 5..7, 4..5] {
        let part = &foreign[range];
        let segment = net.segment(part);
        let error = commit_segment(&chain, segment, bodies(part))
            .await
            .unwrap_err();
        assert!(matches!(error, ChainError::Fork { .. }), "{error}");
    }
    assert_eq!(chain.tip().height, Height(5));
}

#[tokio::test]
async fn headers_that_are_no_segment_are_refused() {
    let net = net();
    let blocks = net.grow(&net.chain().await, 5).await;
    let headers: Vec<BlockHeader> = blocks.iter().map(|(block, _)| block.header).collect();
    let certificate = blocks[4].1.clone();
    let verify = |headers: Vec<BlockHeader>, certificate: &CommitCertificate| {
        VerifiedSegment::verify(
            headers,
            certificate.clone(),
            &net.validators,
            &net.genesis_hash,
        )
    };
    verify(headers.clone(), &certificate).unwrap();

    let mut gap = headers.clone();
    gap.remove(2);
    let mut reordered = headers.clone();
    reordered.swap(0, 1);
    let mut altered = headers.clone();
    altered[2].time_ms += 1;
    let mut other_set = headers.clone();
    other_set[0].validators.0[0] ^= 1;
    let long = vec![headers[0]; MAX_SEGMENT_HEADERS + 1];
    for wrong in [vec![], gap, reordered, altered, other_set, long] {
        let error = verify(wrong, &certificate).unwrap_err();
        assert!(matches!(error, ChainError::Segment { .. }), "{error}");
    }
    // The right headers under the wrong certificate.
    let too_few = net.certify_by(&[0, 1], Height(5), headers[4].hash());
    for wrong in [&blocks[3].1, &too_few] {
        let error = verify(headers.clone(), wrong).unwrap_err();
        assert!(matches!(error, ChainError::Certificate { .. }), "{error}");
    }
    // Altering the last header leaves the certificate for another block.
    let mut altered = headers.clone();
    altered[4].time_ms += 1;
    let error = verify(altered, &certificate).unwrap_err();
    assert!(matches!(error, ChainError::Certificate { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// However a segment is cut into batches, the chain ends in the same state, and that state is
    /// what opening it again finds.
    #[test]
    fn any_cut_of_a_segment_gives_the_same_chain(cuts in proptest::collection::vec(1usize..5, 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let net = net();
            let source = net.chain().await;
            let blocks = net.grow(&source, 9).await;
            let segment = net.segment(&blocks);
            let disk = Disk::default();
            let mut at = 0;
            for cut in cuts.into_iter().chain([blocks.len()]) {
                let chain = net.chain_on(&disk).await;
                let end = blocks.len().min(at + cut);
                let part = bodies(&blocks[at..end]);
                let tip = commit_segment(&chain, segment.clone(), part).await.unwrap();
                assert_eq!(tip.height, Height(end as u64));
                at = end;
            }
            assert_eq!(net.chain_on(&disk).await.tip(), source.tip());
        });
    }
}
