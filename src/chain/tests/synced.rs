//! Batches of segments: executed ahead of what is durable, then committed.

use super::*;
use crate::chain::CheckedBody;
use crate::chain::generator::{Generator, Shape};
use crate::ledger::Rules;

const SHAPE: Shape = Shape {
    validators: 4,
    transactions: 3,
};

/// A new chain and the first segment of a generated one, its bodies checked.
async fn segment() -> (Chain, Arc<VerifiedSegment>, Vec<CheckedBody>) {
    let mut generator = Generator::new(SHAPE);
    let genesis = generator.genesis().clone();
    let (backend, threads) = (Disk::default().backend(), StoreThreads::Inline);
    let store = Store::open(backend, genesis.clone(), threads).unwrap();
    let chain = Chain::open(genesis.clone(), store, Offload::Inline)
        .await
        .unwrap();
    let (segment, bodies) = generator.segment(Height(30));
    let check = |(height, body)| segment.check_body(height, body, &Rules::of(&genesis));
    let bodies = bodies.into_iter().map(check);
    let bodies = bodies.collect::<Result<_, _>>().unwrap();
    (chain, segment, bodies)
}

#[tokio::test]
async fn a_generated_chain_is_the_same_each_time_and_any_batches_lead_to_its_state() {
    let (chain, segment, mut bodies) = segment().await;
    let (_, again, _) = self::segment().await;
    assert_eq!(segment.headers(), again.headers());
    let last = bodies.split_off(20);
    let middle = bodies.split_off(10);
    // Every batch spends what the one before it made, which is not durable yet.
    let first = chain.execute_segment(segment.clone(), bodies, None);
    let first = first.await.unwrap();
    let second = chain.execute_segment(segment.clone(), middle, first.ahead());
    let second = second.await.unwrap();
    assert_eq!(chain.tip().height, Height(0));
    assert_eq!(chain.commit_executed(first).await.unwrap().height.0, 10);
    let third = chain.execute_segment(segment.clone(), last, second.ahead());
    let third = third.await.unwrap();
    chain.commit_executed(second).await.unwrap();
    let tip = chain.commit_executed(third).await.unwrap();
    let header = segment.headers().last().unwrap();
    assert_eq!((tip.hash, tip.state), (header.hash(), header.state));
    assert!(chain.certificate(Height(30)).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_two_batches_ahead_of_the_durable_state_is_not_executed() {
    let (chain, segment, mut bodies) = segment().await;
    let last = bodies.split_off(20);
    let middle = bodies.split_off(10);
    let first = chain.execute_segment(segment.clone(), bodies, None);
    let first = first.await.unwrap();
    let second = chain.execute_segment(segment.clone(), middle, first.ahead());
    let second = second.await.unwrap();
    let refused = chain.execute_segment(segment, last, second.ahead()).await;
    assert!(matches!(refused.err(), Some(ChainError::NotNext { .. })));
}

#[tokio::test]
async fn blocks_that_consensus_commits_meanwhile_are_skipped() {
    let (chain, segment, bodies) = segment().await;
    let early = bodies[..5].to_vec();
    let executed = chain.execute_segment(segment.clone(), bodies, None);
    let executed = executed.await.unwrap();
    let early = chain.execute_segment(segment.clone(), early, None);
    chain.commit_executed(early.await.unwrap()).await.unwrap();
    let tip = chain.commit_executed(executed).await.unwrap();
    assert_eq!(tip.hash, segment.headers().last().unwrap().hash());
}

#[tokio::test]
async fn a_batch_is_executed_on_the_chain_once_consensus_is_past_the_one_before_it() {
    let (chain, segment, mut bodies) = segment().await;
    let last = bodies.split_off(12);
    let first = chain.execute_segment(segment.clone(), bodies[..10].to_vec(), None);
    let first = first.await.unwrap();
    let by_consensus = chain.execute_segment(segment.clone(), bodies, None);
    let by_consensus = by_consensus.await.unwrap();
    chain.commit_executed(by_consensus).await.unwrap();
    let second = chain.execute_segment(segment.clone(), last, first.ahead());
    let second = second.await.unwrap();
    assert_eq!(chain.commit_executed(first).await.unwrap().height.0, 12);
    let tip = chain.commit_executed(second).await.unwrap();
    assert_eq!(tip.hash, segment.headers().last().unwrap().hash());
}

#[tokio::test]
async fn a_bad_signature_below_a_certificate_is_found_by_the_strict_check() {
    let (_, segment, bodies) = segment().await;
    let genesis = Generator::new(SHAPE).genesis().clone();
    let mut transactions = bodies[0].transactions().to_vec();
    transactions[1].inputs[0].signature.0[40] ^= 1;
    let rules = Rules::of(&genesis);
    let wrong_root = segment.check_body(Height(1), transactions.clone(), &rules);
    assert!(matches!(wrong_root, Err(ChainError::Body { .. })));

    // The same body, with a header that commits to it.
    let net = TestNet::new(&[1]);
    let mut header = segment.headers()[0];
    header.transactions_root = crate::types::block::transactions_root(&transactions);
    header.validators = net.validators.hash();
    let certificate = net.certify(&header);
    let segment = VerifiedSegment::verify(
        vec![header],
        certificate,
        &net.validators,
        &net.genesis_hash,
    );
    let refused = segment.unwrap().check_body(Height(1), transactions, &rules);
    assert!(
        matches!(refused, Err(ChainError::Invalid(_))),
        "{refused:?}"
    );
}
