mod again;

use std::collections::BTreeSet;

use super::peer::MAX_IN_FLIGHT;
use super::*;
use crate::ledger::Rules;
use crate::ledger::fixture::{Ledger, genesis_with_powers};
use crate::mempool::pool::{PoolLimits, Verified};
use crate::types::Transaction;
use crate::wire::{StreamKind, encode_frame};

/// Takes every message, or refuses those to a peer whose queue is full.
#[derive(Default)]
struct Queues {
    sent: Vec<(PeerIp, TransactionsMessage)>,
    full: BTreeSet<PeerIp>,
}

impl Outbox for Queues {
    fn send(&mut self, to: PeerIp, message: TransactionsMessage) -> Result<(), SendError> {
        let kind = StreamKind::Transactions;
        encode_frame(kind, &message).expect("every message fits its stream");
        if self.full.contains(&to) {
            return Err(SendError::QueueFull { peer: to, kind });
        }
        self.sent.push((to, message));
        Ok(())
    }
}

/// Gossip with some peers over a pool.
struct World {
    gossip: Gossip,
    pool: Pool,
    queues: Queues,
    start: Instant,
}

fn peer(number: u8) -> PeerIp {
    format!("127.0.0.{number}").parse().unwrap()
}

fn id(number: u16) -> TxId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    TxId(bytes)
}

fn get(ids: impl IntoIterator<Item = u16>) -> TransactionsMessage {
    TransactionsMessage::Get(ids.into_iter().map(id).collect())
}

impl World {
    fn new(peers: u8) -> Self {
        let ledger = Ledger::new(genesis_with_powers(&[1]));
        let mut world = Self {
            gossip: Gossip::default(),
            pool: Pool::new(ledger.rules, PoolLimits::RECOMMENDED),
            queues: Queues::default(),
            start: Instant::now(),
        };
        for number in 1..=peers {
            world
                .gossip
                .connected(peer(number), &world.pool, world.start);
        }
        world
    }

    /// Flushes at a time after the start and returns what was sent.
    fn at(&mut self, after: Duration) -> Vec<(PeerIp, TransactionsMessage)> {
        let now = self.start + after;
        self.gossip.flush(&self.pool, now, &mut self.queues);
        std::mem::take(&mut self.queues.sent)
    }

    fn announced(&mut self, number: u8, ids: impl IntoIterator<Item = u16>) {
        let ids: Vec<TxId> = ids.into_iter().map(id).collect();
        self.gossip.announced(peer(number), &ids, |_| true);
    }

    /// Whom a single wanted id is asked of, in order, when nobody brings it.
    fn asked_until_forgotten(&mut self) -> Vec<u8> {
        let mut asked = Vec::new();
        let mut after = START;
        while self.gossip.wanted() > 0 {
            for (to, _) in self.at(after) {
                asked.extend((1..=u8::MAX).find(|number| peer(*number) == to));
            }
            after += TICK;
        }
        asked
    }

    /// Puts `count` transactions into the pool; each of about `bytes` encoded bytes.
    fn fill(&mut self, count: u16, bytes: usize) -> Vec<TxId> {
        let mut ledger = Ledger::new(genesis_with_powers(&[1]));
        let share = ledger.outputs.values().next().unwrap().amount.0 / u64::from(count) - 10_000;
        let coins = vec![(0, share); usize::from(count)];
        let split = ledger.spend(&[(ledger.allocation(0), 0)], &coins);
        let block = ledger.advance(vec![split]);
        let created: Vec<_> = block.transactions[0].created().collect();
        let outputs = (bytes.saturating_sub(150) / 40).max(1);
        let mut ids = Vec::new();
        for (outpoint, _) in created {
            let payees = vec![(1, (share - 150_000) / outputs as u64); outputs];
            let transaction = ledger.spend(&[(outpoint, 0)], &payees);
            ids.push(transaction.id());
            let rules: Rules = ledger.rules;
            let verified = Verified::check(transaction, &rules).unwrap();
            self.pool.insert(verified, &ledger.outputs).unwrap();
        }
        ids
    }
}

const START: Duration = Duration::ZERO;

#[test]
fn an_id_is_asked_of_its_first_announcer_only() {
    let mut world = World::new(3);
    world.announced(2, [1, 2]);
    world.announced(1, [2, 3]);
    world.announced(3, [1]);
    let mut sent = world.at(START);
    sent.sort_by_key(|(to, _)| *to);
    // Nobody was asked yet when peer 1 announced 2 as well, and peer 1 comes first.
    assert_eq!(sent, [(peer(1), get([2, 3])), (peer(2), get([1]))]);
    assert!(world.at(TICK).is_empty());
}

#[test]
fn a_silent_announcer_loses_the_question_after_two_seconds() {
    let mut world = World::new(2);
    world.announced(1, [1]);
    assert_eq!(world.at(START), [(peer(1), get([1]))]);
    world.announced(2, [1]);
    assert!(world.at(ANSWER_TIMEOUT - TICK).is_empty());
    assert_eq!(world.at(ANSWER_TIMEOUT), [(peer(2), get([1]))]);
    // A late answer of the first is still welcome, and ends the question to the second.
    let late = world.start + ANSWER_TIMEOUT;
    assert!(world.gossip.arrived(peer(1), id(1), late));
    assert!(!world.gossip.arrived(peer(2), id(1), late));
    assert!(world.at(3 * ANSWER_TIMEOUT).is_empty());
    assert_eq!(world.gossip.next_tick(), None);
}

#[test]
fn an_id_that_nobody_brings_is_asked_for_six_times_and_forgotten() {
    let mut world = World::new(1);
    world.announced(1, [1]);
    let mut asked = 0;
    for turn in 0..40 {
        asked += world.at(TICK * 4 * turn).len();
    }
    assert_eq!(asked, MAX_ATTEMPTS as usize);
    assert_eq!(world.gossip.wanted(), 0);
    assert_eq!(world.gossip.next_tick(), None);
}

#[test]
fn every_announcer_is_asked_before_one_is_asked_again() {
    let mut world = World::new(3);
    for number in 1..=3 {
        world.announced(number, [1]);
    }
    assert_eq!(world.asked_until_forgotten(), [1, 2, 3, 1, 2, 3]);
}

#[test]
fn an_id_is_not_forgotten_before_all_its_announcers_were_asked() {
    let mut world = World::new(20);
    for number in 1..=20 {
        world.announced(number, [1]);
    }
    let everybody: Vec<u8> = (1..=20).collect();
    assert_eq!(world.asked_until_forgotten(), everybody);
}

#[test]
fn who_announces_late_comes_before_those_that_were_asked_already() {
    let mut world = World::new(2);
    world.announced(1, [1]);
    assert_eq!(world.at(START), [(peer(1), get([1]))]);
    // Its queue is full when the question is to be asked again.
    world.queues.full.insert(peer(1));
    assert!(world.at(ANSWER_TIMEOUT).is_empty());
    world.announced(2, [1]);
    world.queues.full = BTreeSet::from([peer(2)]);
    assert!(world.at(ANSWER_TIMEOUT + TICK).is_empty());
    world.queues.full.clear();
    let later = ANSWER_TIMEOUT + 2 * TICK;
    assert_eq!(world.at(later), [(peer(2), get([1]))]);
}

#[test]
fn when_an_announcer_leaves_the_others_are_offered_its_question() {
    let mut world = World::new(2);
    world.announced(1, [1]);
    assert_eq!(world.at(START), [(peer(1), get([1]))]);
    world.queues.full = BTreeSet::from([peer(1), peer(2)]);
    assert!(world.at(ANSWER_TIMEOUT).is_empty());
    world.announced(2, [1]);
    world.gossip.disconnected(peer(2));
    world.queues.full.clear();
    let later = ANSWER_TIMEOUT + TICK;
    assert_eq!(world.at(later), [(peer(1), get([1]))]);
}

#[test]
fn who_let_questions_lapse_is_asked_last() {
    let mut world = World::new(3);
    world.announced(1, [1]);
    world.announced(2, [2, 3]);
    assert_eq!(world.at(START).len(), 2);
    assert!(world.gossip.arrived(peer(2), id(2), world.start));
    let lapsed = world.at(ANSWER_TIMEOUT);
    assert_eq!(lapsed, [(peer(1), get([1])), (peer(2), get([3]))]);
    for txid in [1, 2, 3].map(id) {
        world.gossip.settled(&txid);
    }
    for number in 1..=3 {
        world.announced(number, [4]);
    }
    assert_eq!(world.at(ANSWER_TIMEOUT), [(peer(3), get([4]))]);
    assert_eq!(world.at(2 * ANSWER_TIMEOUT), [(peer(1), get([4]))]);
    // All three have now; on a new connection that counts no more.
    world.gossip.connected(peer(3), &world.pool, world.start);
    for number in 1..=3 {
        world.announced(number, [5]);
    }
    assert_eq!(world.at(2 * ANSWER_TIMEOUT), [(peer(3), get([5]))]);
}

#[test]
fn a_body_that_was_not_wanted_is_no_progress() {
    let mut world = World::new(2);
    world.announced(1, [1]);
    assert_eq!(world.at(START), [(peer(1), get([1]))]);
    let before = ANSWER_TIMEOUT - TICK;
    world.announced(2, [1, 2]);
    assert_eq!(world.at(before), [(peer(2), get([2]))]);
    let before = world.start + before;
    // One that nobody wants, and one that is wanted of another.
    assert!(!world.gossip.arrived(peer(1), id(9), before));
    assert!(!world.gossip.arrived(peer(1), id(2), before));
    assert_eq!(world.at(ANSWER_TIMEOUT), [(peer(2), get([1]))]);
}

#[test]
fn progress_keeps_a_question_but_not_for_ever() {
    let mut world = World::new(2);
    world.announced(1, 0..30);
    assert_eq!(world.at(START), [(peer(1), get(0..30))]);
    world.announced(2, [29]);
    let second = Duration::from_secs(1);
    for turn in 1..20 {
        let now = second * u32::from(turn);
        assert!(world.gossip.arrived(peer(1), id(turn), world.start + now));
        world.gossip.settled(&id(turn));
        assert!(world.at(now).is_empty(), "after {now:?}");
    }
    let sent = world.at(SLOW_ANSWER_TIMEOUT);
    assert!(sent.contains(&(peer(2), get([29]))), "{sent:?}");
}

#[test]
fn a_lost_peers_questions_pass_to_others_at_once() {
    let mut world = World::new(2);
    world.announced(1, [1, 2]);
    assert_eq!(world.at(START), [(peer(1), get([1, 2]))]);
    world.announced(2, [1]);
    world.gossip.disconnected(peer(1));
    assert_eq!(world.at(START), [(peer(2), get([1]))]);
    // What only the lost peer had is forgotten.
    assert_eq!(world.gossip.wanted(), 1);
}

#[test]
fn a_bad_copy_passes_the_question_on() {
    let mut world = World::new(2);
    world.announced(1, [1]);
    world.at(START);
    world.announced(2, [1]);
    assert!(world.gossip.arrived(peer(1), id(1), world.start));
    world.gossip.bad_copy(peer(1), id(1));
    assert_eq!(world.at(START), [(peer(2), get([1]))]);
    assert!(world.gossip.arrived(peer(2), id(1), world.start));
    world.gossip.bad_copy(peer(2), id(1));
    assert_eq!(world.gossip.wanted(), 0);
}

#[test]
fn after_a_bad_copy_all_that_have_it_are_asked_and_nobody_twice() {
    let mut world = World::new(4);
    // It was not needed when these three announced it: a copy was held already.
    for number in [1, 3, 4] {
        world.gossip.announced(peer(number), &[id(1)], |_| false);
    }
    world.announced(2, [1]);
    assert_eq!(world.at(START), [(peer(2), get([1]))]);
    // The copy held was that of peer 1, and is found bad while peer 2 is asked.
    world.gossip.bad_copy(peer(1), id(1));
    assert!(world.at(START).is_empty());
    for (bad, next) in [(2, 3), (3, 4)] {
        assert!(world.gossip.arrived(peer(bad), id(1), world.start));
        world.gossip.bad_copy(peer(bad), id(1));
        assert_eq!(world.at(START), [(peer(next), get([1]))]);
    }
    assert!(world.gossip.arrived(peer(4), id(1), world.start));
    world.gossip.bad_copy(peer(4), id(1));
    assert_eq!(world.gossip.wanted(), 0);
}

#[test]
fn a_peer_that_comes_back_while_its_bad_copy_is_checked_keeps_its_new_announcement() {
    let mut world = World::new(1);
    world.announced(1, [1]);
    world.at(START);
    assert!(world.gossip.arrived(peer(1), id(1), world.start));
    world.gossip.connected(peer(1), &world.pool, world.start);
    world.gossip.bad_copy(peer(1), id(1));
    assert_eq!(world.gossip.wanted(), 0);
    world.announced(1, [1]);
    assert_eq!(world.at(START), [(peer(1), get([1]))]);
}

#[test]
fn questions_to_one_peer_are_bounded() {
    let mut world = World::new(1);
    for batch in 0..11 {
        world.announced(1, batch * 1_000..(batch + 1) * 1_000);
    }
    assert_eq!(world.gossip.wanted(), MAX_WANTED_OF_PEER);
    assert_eq!(world.gossip.over_limit(), 1_000);
    let limit = MAX_IN_FLIGHT as u16;
    assert_eq!(world.at(START), [(peer(1), get(0..limit))]);
    for number in 0..10 {
        assert!(world.gossip.arrived(peer(1), id(number), world.start));
        world.gossip.settled(&id(number));
    }
    assert_eq!(world.at(START), [(peer(1), get(limit..limit + 10))]);
}

#[test]
fn too_many_ids_in_one_message_are_ignored_and_counted() {
    let mut world = World::new(1);
    world.announced(1, 0..1_001);
    world
        .gossip
        .requested(peer(1), (0..1_001).map(id).collect());
    assert_eq!(world.gossip.wanted(), 0);
    assert_eq!(world.gossip.over_limit(), 2);
    assert!(world.at(START).is_empty());
}

#[test]
fn bodies_that_nobody_asked_for_are_ignored_and_counted() {
    let mut world = World::new(2);
    assert!(!world.gossip.arrived(peer(1), id(1), world.start));
    assert_eq!(world.gossip.unrequested(), 1);
    world.announced(1, [1]);
    world.at(START);
    // Known to be wanted, but not from this peer.
    assert!(!world.gossip.arrived(peer(2), id(1), world.start));
    assert!(!world.gossip.arrived(peer(9), id(1), world.start));
}

#[test]
fn a_new_peer_is_told_of_the_whole_pool_in_batches() {
    let mut world = World::new(0);
    let ids = world.fill(1_200, 190);
    world.gossip.connected(peer(1), &world.pool, world.start);
    let sent = world.at(START);
    let announce = |ids: &[TxId]| (peer(1), TransactionsMessage::Announce(ids.to_vec()));
    assert_eq!(sent, [announce(&ids[..1_000]), announce(&ids[1_000..])]);
    assert!(world.at(TICK).is_empty());
}

#[test]
fn only_those_who_do_not_have_it_are_told() {
    let mut world = World::new(3);
    let txid = world.fill(1, 190)[0];
    world.gossip.announced(peer(2), &[txid], |_| false);
    world.gossip.accepted(txid, &world.pool);
    let told: Vec<PeerIp> = world.at(START).into_iter().map(|(to, _)| to).collect();
    assert_eq!(told, [peer(1), peer(3)]);
}

#[test]
fn what_a_full_queue_does_not_take_is_sent_at_a_later_tick() {
    let mut world = World::new(2);
    let txid = world.fill(1, 190)[0];
    world.queues.full.insert(peer(1));
    world.gossip.accepted(txid, &world.pool);
    world.announced(1, [1]);
    world.gossip.requested(peer(1), vec![txid]);
    let announcement = TransactionsMessage::Announce(vec![txid]);
    assert_eq!(world.at(START), [(peer(2), announcement.clone())]);
    world.queues.full.clear();
    assert!(world.at(TICK / 2).is_empty(), "not before the tick");
    let body = (**world.pool.get(&txid).unwrap()).clone();
    assert_eq!(
        world.at(TICK),
        [
            (peer(1), announcement),
            (peer(1), get([1])),
            (peer(1), TransactionsMessage::Bodies(vec![body])),
        ]
    );
}

#[test]
fn bodies_are_served_in_frames_in_the_order_asked_for() {
    let mut world = World::new(1);
    let mut ids = world.fill(7, 90_000);
    ids.reverse();
    let mut asked = ids.clone();
    asked.insert(3, id(7));
    world.gossip.requested(peer(1), asked);
    let mut served = Vec::new();
    let sent = world.at(START);
    assert_eq!(sent.len(), 4, "two of 90 kB fit into a frame");
    for (_, message) in sent {
        let TransactionsMessage::Bodies(bodies) = message else {
            panic!("expected bodies, got {message:?}");
        };
        served.extend(bodies.iter().map(Transaction::id));
    }
    assert_eq!(served, ids);
}

#[test]
fn a_peer_cannot_ask_for_more_than_the_limit_at_a_time() {
    let mut world = World::new(1);
    world.queues.full.insert(peer(1));
    let txid = world.fill(1, 190)[0];
    for _ in 0..3 {
        world
            .gossip
            .requested(peer(1), vec![txid; MAX_TRANSACTION_IDS]);
    }
    assert_eq!(world.gossip.over_limit(), 1);
    assert_eq!(world.gossip.peers[&peer(1)].to_serve.len(), MAX_TO_SERVE);
}
