//! Transactions that arrive before what they spend.

use super::*;
use crate::types::{OutPoint, Transaction};

/// Node 1 announces a transaction to node 0, and sends, when it is asked, what it wants to.
fn arrives(world: &mut World, announced: &Transaction, sent: &Transaction) {
    world.deliver(1, 0, TransactionsMessage::Announce(vec![announced.id()]));
    world.flush();
    world.deliver(1, 0, bodies(&[sent]));
    world.check_batches();
}

#[test]
fn a_child_that_arrives_first_waits_for_its_parent_and_asks_for_it() {
    let mut world = World::new(2, &[]);
    let parent = world.payment(0, 500);
    let child = world.child(&parent, 500);
    world.cores[0].on_event(TransactionsEvent::Connected { peer: ip(1) }, world.now);
    world.deliver(1, 0, TransactionsMessage::Announce(vec![child.id()]));
    world.flush();
    world.wire.clear();
    world.deliver(1, 0, bodies(&[&child]));
    world.check_batches();
    assert_eq!(world.cores[0].stats().orphans, 1);
    world.flush();
    let asked = (ip(0), ip(1), TransactionsMessage::Get(vec![parent.id()]));
    assert_eq!(world.wire, [asked]);
    // The child is not asked for again while it is held.
    world.deliver(1, 0, TransactionsMessage::Announce(vec![child.id()]));
    world.deliver(1, 0, bodies(&[&parent]));
    world.check_batches();
    assert_eq!(world.cores[0].pool().ids(), [parent.id(), child.id()]);
    let stats = world.cores[0].stats();
    assert_eq!((stats.orphans, stats.wanted, stats.invalid), (0, 0, 0));
}

#[test]
fn an_orphan_whose_parent_becomes_final_enters_the_pool() {
    let mut world = World::new(2, &[]);
    let parent = world.payment(0, 500);
    let child = world.child(&parent, 500);
    world.cores[0].on_event(TransactionsEvent::Connected { peer: ip(1) }, world.now);
    arrives(&mut world, &child, &child);
    assert_eq!(world.cores[0].stats().orphans, 1);
    world.block(vec![parent]);
    world.check_batches();
    assert_eq!(world.ids(0), [child.id()]);
}

#[test]
fn a_forged_copy_that_waited_as_an_orphan_does_not_keep_the_true_one_out() {
    // Node 1 is a liar under the test's control; node 2 is honest.
    let mut world = World::new(3, &[]);
    let parent = world.payment(0, 500);
    let child = world.child(&parent, 500);
    let mut forged = child.clone();
    forged.inputs[0].signature.0[0] ^= 1;
    for peer in [ip(1), ip(2)] {
        world.cores[0].on_event(TransactionsEvent::Connected { peer }, world.now);
    }
    arrives(&mut world, &child, &forged);
    assert_eq!(world.cores[0].stats().orphans, 1);
    // While a copy is held, nobody is asked for another.
    world.deliver(2, 0, TransactionsMessage::Announce(vec![child.id()]));
    world.flush();
    world.wire.clear();
    world.deliver(1, 0, bodies(&[&parent]));
    world.check_batches();
    assert_eq!(world.cores[0].stats().invalid, 1);
    world.flush();
    let asked = (ip(0), ip(2), TransactionsMessage::Get(vec![child.id()]));
    assert!(world.wire.contains(&asked), "{:?}", world.wire);
    world.deliver(2, 0, bodies(&[&child]));
    world.check_batches();
    assert_eq!(world.cores[0].pool().ids(), [parent.id(), child.id()]);
}

#[test]
fn a_forged_copy_checked_together_with_the_true_one_asks_nobody() {
    let mut world = World::new(3, &[]);
    let parent = world.payment(0, 500);
    let child = world.child(&parent, 500);
    let mut forged = child.clone();
    forged.inputs[0].signature.0[0] ^= 1;
    for peer in [ip(1), ip(2)] {
        world.cores[0].on_event(TransactionsEvent::Connected { peer }, world.now);
    }
    arrives(&mut world, &child, &forged);
    world.deliver(2, 0, TransactionsMessage::Announce(vec![child.id()]));
    // The parent's block lets the forged copy be checked again; submissions come first in a batch.
    world.block(vec![parent]);
    world.submit(0, child.clone()).unwrap();
    assert_eq!(world.ids(0), [child.id()]);
    let stats = world.cores[0].stats();
    assert_eq!((stats.wanted, stats.invalid), (0, 1));
}

#[test]
fn an_orphan_that_spends_a_reward_enters_the_pool_with_the_rewards_block() {
    let mut world = World::new(2, &[]);
    let fee = 5_000;
    let block = vec![world.payment(0, fee)];
    let parent = world.ledger.parent.clone();
    let reward = OutPoint {
        txid: reward_txid(&parent.hash, parent.height.next()),
        index: 0,
    };
    let spending = |units| world.ledger.spend(&[(reward, 200)], &[(0, units)]);
    let (child, rival) = (spending(fee - 1_000), spending(fee - 2_000));
    world.cores[0].on_event(TransactionsEvent::Connected { peer: ip(1) }, world.now);
    let ids = vec![child.id(), rival.id()];
    world.deliver(1, 0, TransactionsMessage::Announce(ids));
    world.flush();
    world.deliver(1, 0, bodies(&[&child]));
    world.check_batches();
    let stats = world.cores[0].stats();
    assert_eq!((stats.orphans, stats.wanted), (1, 2));
    world.block(block);
    world.check_batches();
    assert_eq!(world.ids(0), [child.id()]);
    // Nobody is asked for the reward itself any more.
    assert_eq!(world.cores[0].stats().wanted, 1);
    // What spends it after another has is no orphan.
    world.block(vec![child]);
    world.deliver(1, 0, bodies(&[&rival]));
    world.check_batches();
    let stats = world.cores[0].stats();
    assert_eq!((stats.orphans, stats.wanted), (0, 0));
}
