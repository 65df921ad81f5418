//! What waits is announced again.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn announce(to: u8, ids: &[TxId]) -> (PeerIp, TransactionsMessage) {
    (peer(to), TransactionsMessage::Announce(ids.to_vec()))
}

impl World {
    /// Puts transactions into the pool and has them announced.
    fn accept(&mut self, count: u16) -> Vec<TxId> {
        let ids = self.fill(count, 190);
        for txid in &ids {
            self.gossip.accepted(*txid, &self.pool);
        }
        ids
    }

    /// Empties the pool.
    fn confirm_all(&mut self) {
        let all = self.pool.select(usize::MAX);
        self.pool.apply_block(&all);
        assert!(self.pool.is_empty());
    }
}

#[test]
fn what_waits_is_announced_again_every_minute_and_not_before() {
    let mut world = World::new(2);
    let old = world.accept(3);
    let both = |ids: &[TxId]| [announce(1, ids), announce(2, ids)];
    assert_eq!(world.at(START), both(&old));
    assert_eq!(world.gossip.next_tick(), Some(world.start + ROUND));
    assert!(world.at(ROUND - TICK).is_empty());
    // Peers that have announced it themselves are told too.
    world.gossip.announced(peer(2), &old, |_| false);
    assert_eq!(world.at(ROUND), both(&old));
    let new = world.accept(1);
    assert_eq!(world.at(ROUND + SECOND), both(&new));
    // It has not waited for a minute when the next round comes.
    assert!(world.at(2 * ROUND - TICK).is_empty());
    assert_eq!(world.at(2 * ROUND), both(&old));
    assert!(world.at(3 * ROUND - TICK).is_empty());
    assert_eq!(world.at(3 * ROUND), both(&[old, new].concat()));
}

#[test]
fn an_empty_pool_has_no_rounds_and_the_next_transaction_waits_for_a_whole_one() {
    let mut world = World::new(1);
    assert!(world.at(START).is_empty());
    assert_eq!(world.gossip.next_tick(), None);
    world.accept(1);
    assert_eq!(world.at(START).len(), 1);
    world.confirm_all();
    assert!(world.at(ROUND - SECOND).is_empty());
    assert_eq!(world.gossip.next_tick(), None);
    let ids = world.accept(2);
    assert_eq!(world.at(ROUND - SECOND), [announce(1, &ids)]);
    assert!(world.at(2 * ROUND - 2 * SECOND).is_empty());
    assert_eq!(world.at(2 * ROUND - SECOND), [announce(1, &ids)]);
}

#[test]
fn a_round_is_one_message_to_each_peer() {
    let mut world = World::new(1);
    let ids = world.accept(1_200);
    assert_eq!(world.at(START).len(), 2);
    assert_eq!(world.at(ROUND), [announce(1, &ids[..1_000])]);
    assert!(world.at(2 * ROUND - TICK).is_empty());
}

#[test]
fn a_peer_that_connected_since_the_last_round_is_not_told_twice() {
    let mut world = World::new(1);
    let ids = world.accept(1);
    assert_eq!(world.at(START), [announce(1, &ids)]);
    let now = world.start + ROUND - SECOND;
    world.gossip.connected(peer(2), &world.pool, now);
    assert_eq!(world.at(ROUND - SECOND), [announce(2, &ids)]);
    assert_eq!(world.at(ROUND), [announce(1, &ids)]);
    let both = [announce(1, &ids), announce(2, &ids)];
    assert_eq!(world.at(2 * ROUND), both);
}

#[test]
fn rounds_do_not_pile_up_for_a_peer_whose_queue_is_full() {
    let mut world = World::new(1);
    let ids = world.accept(2);
    world.queues.full.insert(peer(1));
    for turn in 0..10 {
        assert!(world.at(ROUND * turn).is_empty());
        world.gossip.announce_again(&ids, &world.pool);
    }
    world.queues.full.clear();
    assert_eq!(world.at(10 * ROUND - TICK), [announce(1, &ids)]);
}
