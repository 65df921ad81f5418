mod again;
mod orphans;

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::ledger::fixture::{ALLOCATED, Ledger, WALLETS, genesis_with_powers, wallet};
use crate::net::SendError;
use crate::types::{Address, PublicKey};
use crate::wire::{StreamKind, encode_frame};

/// Several mempools on one chain, connected in memory.
struct World {
    ledger: Ledger,
    cores: Vec<Core>,
    /// Messages under way: from, to, what.
    wire: VecDeque<(PeerIp, PeerIp, TransactionsMessage)>,
    /// How many bodies were sent in all.
    bodies: usize,
    /// How many further messages find their queue full.
    full: u32,
    now: Instant,
}

struct Wire<'a> {
    from: PeerIp,
    wire: &'a mut VecDeque<(PeerIp, PeerIp, TransactionsMessage)>,
    bodies: &'a mut usize,
    full: &'a mut u32,
}

impl Outbox for Wire<'_> {
    fn send(&mut self, to: PeerIp, message: TransactionsMessage) -> Result<(), SendError> {
        let kind = StreamKind::Transactions;
        encode_frame(kind, &message).expect("every message fits its stream");
        if *self.full > 0 {
            *self.full -= 1;
            return Err(SendError::QueueFull { peer: to, kind });
        }
        if let TransactionsMessage::Bodies(bodies) = &message {
            *self.bodies += bodies.len();
        }
        self.wire.push_back((self.from, to, message));
        Ok(())
    }
}

fn ip(index: usize) -> PeerIp {
    format!("127.0.0.{}", index + 1).parse().unwrap()
}

type Verdict = Result<TxId, MempoolError>;

impl World {
    /// Mempools with these links.
    fn new(count: usize, links: &[(usize, usize)]) -> Self {
        let ledger = Ledger::new(genesis_with_powers(&[1]));
        let rules = ledger.rules;
        let limits = PoolLimits::RECOMMENDED;
        let mut world = Self {
            ledger,
            cores: (0..count).map(|_| Core::new(rules, limits)).collect(),
            wire: VecDeque::new(),
            bodies: 0,
            full: 0,
            now: Instant::now(),
        };
        for (one, other) in links {
            world.connect(*one, *other);
        }
        world
    }

    fn connect(&mut self, one: usize, other: usize) {
        for (here, there) in [(one, other), (other, one)] {
            let event = TransactionsEvent::Connected { peer: ip(there) };
            self.cores[here].on_event(event, self.now);
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: TransactionsMessage) {
        let peer = ip(from);
        let event = TransactionsEvent::Message { peer, message };
        self.cores[to].on_event(event, self.now);
    }

    /// Submits and lets everything settle.
    fn submit(&mut self, index: usize, transaction: Transaction) -> Verdict {
        let (reply, mut verdict) = oneshot::channel();
        self.cores[index].submit(transaction, reply);
        self.settle();
        verdict.try_recv().expect("the verdict is in")
    }

    fn check_batches(&mut self) {
        for core in &mut self.cores {
            while let Some(batch) = core.next_batch() {
                let known = &self.ledger.outputs;
                let outputs = batch
                    .outpoints()
                    .into_iter()
                    .filter_map(|outpoint| Some((outpoint, known.output(&outpoint)?)));
                let checked = batch.check(outputs.collect(), &self.ledger.rules);
                core.on_checked(checked);
            }
        }
    }

    fn flush(&mut self) {
        for (index, core) in self.cores.iter_mut().enumerate() {
            let mut outbox = Wire {
                from: ip(index),
                wire: &mut self.wire,
                bodies: &mut self.bodies,
                full: &mut self.full,
            };
            core.flush(self.now, &mut outbox);
        }
    }

    /// Checks, sends and delivers until nothing is under way at this instant.
    fn settle(&mut self) {
        loop {
            self.check_batches();
            self.flush();
            let Some((from, to, message)) = self.wire.pop_front() else {
                return;
            };
            let to = self.index(to);
            self.deliver(self.index(from), to, message);
        }
    }

    fn index(&self, peer: PeerIp) -> usize {
        let mut indices = 0..self.cores.len();
        indices.find(|index| ip(*index) == peer).unwrap()
    }

    /// Lets time pass in steps of a tick.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(250);
            self.settle();
        }
    }

    fn block(&mut self, candidates: Vec<Transaction>) {
        let block = self.ledger.advance(candidates);
        for core in &mut self.cores {
            core.on_block(&block);
        }
    }

    fn payment(&self, from: u8, fee: u64) -> Transaction {
        let input = (self.ledger.allocation(from), from);
        self.ledger.spend(&[input], &[(from, ALLOCATED.0 - fee)])
    }

    fn child(&self, parent: &Transaction, fee: u64) -> Transaction {
        let (outpoint, output) = parent.created().next().unwrap();
        let owns = |index: &u8| Address::of(&PublicKey::from(&wallet(*index))) == output.address;
        let owner = (0..WALLETS).find(owns).unwrap();
        self.ledger
            .spend(&[(outpoint, owner)], &[(owner, output.amount.0 - fee)])
    }

    fn ids(&self, index: usize) -> Vec<TxId> {
        let mut ids = self.cores[index].pool().ids();
        ids.sort_unstable();
        ids
    }
}

fn bodies(transactions: &[&Transaction]) -> TransactionsMessage {
    TransactionsMessage::Bodies(transactions.iter().map(|one| (*one).clone()).collect())
}

const TRIANGLE: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];

#[test]
fn a_submission_reaches_every_node_and_every_body_travels_once() {
    let mut world = World::new(3, &TRIANGLE);
    let transaction = world.payment(0, 500);
    let txid = transaction.id();
    assert_eq!(world.submit(0, transaction.clone()), Ok(txid));
    for index in 0..3 {
        assert_eq!(world.ids(index), [txid]);
    }
    assert_eq!(world.bodies, 2);
    // Submitting it again, anywhere, is fine and moves no body.
    assert_eq!(world.submit(0, transaction.clone()), Ok(txid));
    assert_eq!(world.submit(2, transaction), Ok(txid));
    assert_eq!(world.bodies, 2);
    assert!(world.cores.iter().all(|core| core.stats().invalid == 0));
}

#[test]
fn a_node_that_connects_later_gets_what_waits() {
    let mut world = World::new(3, &[(0, 1)]);
    let first = world.payment(0, 500);
    let second = world.child(&first, 500);
    let ids = [first.id(), second.id()];
    for transaction in [first, second] {
        world.submit(1, transaction).unwrap();
    }
    world.connect(0, 2);
    world.settle();
    assert_eq!(world.cores[2].pool().ids(), ids);
}

#[test]
fn a_refused_submission_says_why_and_goes_nowhere() {
    let mut world = World::new(2, &[(0, 1)]);
    let first = world.payment(0, 500);
    let second = world.payment(0, 900);
    world.submit(0, first.clone()).unwrap();
    assert_eq!(
        world.submit(1, second.clone()),
        Err(MempoolError::Conflict {
            txid: second.id(),
            outpoint: world.ledger.allocation(0),
            other: first.id()
        })
    );
    let orphan = world.child(&second, 500);
    assert!(matches!(
        world.submit(0, orphan),
        Err(MempoolError::Invalid(_))
    ));
    assert_eq!(world.cores[0].stats().orphans, 0);
    assert_eq!(world.bodies, 1);
}

#[test]
fn too_many_submissions_at_once_are_told_to_come_back() {
    let mut world = World::new(1, &[]);
    let transaction = world.payment(0, 500);
    let mut verdicts = Vec::new();
    for _ in 0..=super::super::intake::MAX_SUBMISSIONS {
        let (reply, verdict) = oneshot::channel();
        world.cores[0].submit(transaction.clone(), reply);
        verdicts.push(verdict);
    }
    world.settle();
    let last = verdicts.pop().unwrap().try_recv().unwrap();
    assert_eq!(last, Err(MempoolError::Busy));
    for mut verdict in verdicts {
        assert_eq!(verdict.try_recv().unwrap(), Ok(transaction.id()));
    }
}

#[test]
fn a_forged_copy_does_not_keep_the_true_one_out() {
    // Node 1 is a liar under the test's control; node 2 is honest.
    let mut world = World::new(3, &[]);
    let transaction = world.payment(0, 500);
    let txid = transaction.id();
    let mut forged = transaction.clone();
    forged.inputs[0].signature.0[0] ^= 1;
    for peer in [ip(1), ip(2)] {
        world.cores[0].on_event(TransactionsEvent::Connected { peer }, world.now);
    }
    world.deliver(1, 0, TransactionsMessage::Announce(vec![txid]));
    world.flush();
    world.deliver(2, 0, TransactionsMessage::Announce(vec![txid]));
    world.wire.clear();
    world.deliver(1, 0, bodies(&[&forged]));
    world.check_batches();
    assert_eq!(world.cores[0].stats().invalid, 1);
    world.flush();
    let asked = (ip(0), ip(2), TransactionsMessage::Get(vec![txid]));
    assert_eq!(world.wire, [asked]);
    world.deliver(2, 0, bodies(&[&transaction]));
    world.check_batches();
    assert_eq!(world.ids(0), [txid]);
}

#[test]
fn a_block_empties_the_pools_and_a_late_announcement_fetches_nothing() {
    let mut world = World::new(2, &[(0, 1)]);
    let transaction = world.payment(0, 500);
    let txid = transaction.id();
    world.submit(0, transaction.clone()).unwrap();
    world.block(vec![transaction]);
    assert!(world.cores.iter().all(|core| core.pool().is_empty()));
    world.deliver(0, 1, TransactionsMessage::Announce(vec![txid]));
    world.settle();
    assert_eq!(world.cores[1].stats().wanted, 0);
    assert_eq!(world.bodies, 1);
}

#[test]
fn a_refused_id_is_not_fetched_again_before_the_next_block() {
    let mut world = World::new(2, &[(0, 1)]);
    let ours = world.payment(0, 500);
    let theirs = world.payment(0, 900);
    world.submit(0, ours.clone()).unwrap();
    let announce = TransactionsMessage::Announce(vec![theirs.id()]);
    world.deliver(1, 0, announce.clone());
    world.flush();
    world.wire.clear();
    world.deliver(1, 0, bodies(&[&theirs]));
    world.check_batches();
    let wanted_after = |world: &mut World| {
        world.deliver(1, 0, announce.clone());
        world.cores[0].stats().wanted
    };
    assert_eq!(wanted_after(&mut world), 0);
    world.block(vec![]);
    assert_eq!(wanted_after(&mut world), 1);
}

#[test]
fn a_recheck_drops_what_the_chain_no_longer_allows() {
    let mut world = World::new(1, &[]);
    let gone = world.payment(0, 500);
    let stays = world.payment(1, 500);
    world.submit(0, gone).unwrap();
    world.submit(0, stays.clone()).unwrap();
    let foreign = world.payment(0, 700);
    world.ledger.advance(vec![foreign]);
    let dropped = world.cores[0].recheck(&world.ledger.outputs);
    assert_eq!(dropped, 1);
    assert_eq!(world.ids(0), [stays.id()]);
}

#[test]
fn no_message_of_a_stranger_or_a_gone_peer_changes_anything() {
    let mut world = World::new(2, &[]);
    let transaction = world.payment(0, 500);
    world.deliver(1, 0, TransactionsMessage::Announce(vec![transaction.id()]));
    world.deliver(1, 0, TransactionsMessage::Get(vec![transaction.id()]));
    world.deliver(1, 0, bodies(&[&transaction]));
    world.cores[0].on_event(TransactionsEvent::Disconnected { peer: ip(1) }, world.now);
    world.check_batches();
    world.flush();
    assert!(world.wire.is_empty());
    assert_eq!(world.cores[0].stats(), MempoolStats::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn all_pools_of_a_connected_network_become_equal(
        count in 2usize..6,
        extra in proptest::collection::vec((0usize..6, 0usize..6), 0..6),
        spends in proptest::collection::vec((0u8..WALLETS, 0usize..6, any::<bool>()), 1..20),
        full in 0u32..12,
    ) {
        let line = (1..count).map(|index| (index - 1, index));
        let extra = extra
            .into_iter()
            .map(|(one, other)| (one % count, other % count))
            .filter(|(one, other)| one != other);
        let links: std::collections::BTreeSet<(usize, usize)> = line
            .chain(extra)
            .map(|(one, other)| (one.min(other), one.max(other)))
            .collect();
        let links: Vec<_> = links.into_iter().collect();
        let mut world = World::new(count, &links);
        world.full = full;
        // Each wallet spends its newest coin, so nothing conflicts but the chain of a wallet's
        // payments may be submitted to different nodes.
        let mut newest: Vec<Option<Transaction>> = vec![None; usize::from(WALLETS)];
        let mut expected = Vec::new();
        for (owner, node, settle_first) in spends {
            let slot = &mut newest[usize::from(owner)];
            let next = match slot.as_ref() {
                Some(last) => world.child(last, 500),
                None => world.payment(owner, 500),
            };
            if settle_first {
                world.pass(Duration::from_secs(1));
            }
            if world.submit(node % count, next.clone()).is_ok() {
                expected.push(next.id());
                newest[usize::from(owner)] = Some(next);
            }
        }
        world.pass(Duration::from_secs(30));
        expected.sort_unstable();
        for index in 0..count {
            prop_assert_eq!(&world.ids(index), &expected);
            let stats = world.cores[index].stats();
            prop_assert_eq!((stats.orphans, stats.wanted, stats.invalid), (0, 0, 0));
        }
        // On a settled network every body crosses into each node once.
        prop_assert_eq!(world.bodies, expected.len() * (count - 1));
    }
}
