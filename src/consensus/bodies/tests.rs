//! The gate, its bounds, held bodies, and who is asked for what.

use super::*;
use crate::consensus::{tests, timers};
use crate::types::block::BLOCK_VERSION;
use crate::types::{
    Amount, BlockHeader, OutPoint, PublicKey, Signature, StateCommitment, Transaction, TxId,
    TxInput, TxOutput, ValidatorSetHash,
};

struct Fixture {
    bodies: Bodies,
    genesis: Arc<Genesis>,
    now: Instant,
}

fn fixture() -> Fixture {
    let genesis = Arc::new(tests::genesis(&[10, 20, 30, 40]));
    let validators = Arc::new(ValidatorSet::from_genesis(&genesis));
    let mut bodies = Bodies::new(genesis.clone(), validators);
    bodies.set_height(Height(1), genesis.time_ms);
    Fixture {
        bodies,
        genesis,
        now: Instant::now(),
    }
}

fn transaction() -> Transaction {
    Transaction {
        version: 1,
        inputs: vec![TxInput {
            outpoint: OutPoint {
                txid: TxId([1; 32]),
                index: 0,
            },
            public_key: PublicKey([2; 32]),
            signature: Signature([3; 64]),
        }],
        outputs: vec![TxOutput {
            amount: Amount(1),
            address: crate::types::Address([4; 32]),
        }],
    }
}

impl Fixture {
    /// A block at `after_ms` from genesis, with or without a transaction.
    fn block(&self, height: u64, after_ms: u64, full: bool) -> Block {
        let transactions = if full { vec![transaction()] } else { vec![] };
        Block {
            header: BlockHeader {
                version: BLOCK_VERSION,
                height: Height(height),
                time_ms: self.genesis.time_ms + after_ms,
                parent: BlockHash([0; 32]),
                proposer: self.bodies.validators.validators()[0].key,
                transactions_root: transactions_root(&transactions),
                state: StateCommitment([0; 32]),
                validators: ValidatorSetHash([0; 32]),
            },
            transactions,
        }
    }

    fn arrive(&mut self, block: &Block, from: u8, proposer: bool) -> Result<(), BodyRefused> {
        let key = (block.header.height, block.hash());
        let bytes = codec::encode(block);
        self.bodies
            .arrived(key, bytes, tests::ip(from), proposer, self.now)
            .map(drop)
    }

    fn name(&mut self, block: &Block, round: u32) {
        let (height, hash) = (block.header.height, block.hash());
        self.bodies
            .name(height, hash, Round(round), None, None, self.now);
    }

    /// Lets the chain find all blocks valid; returns what the engine is given.
    fn feed(&mut self, clock_after_ms: u64) -> Vec<(BlockHash, bool)> {
        for (hash, block) in self.bodies.take_unchecked() {
            self.bodies.checked(block.header.height, hash, Some(true));
        }
        let clock = self.genesis.time_ms + clock_after_ms;
        std::iter::from_fn(|| self.bodies.take_feedable(clock))
            .map(|value| (value.block, value.valid))
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_fed_only_once_something_verified_names_it() {
    let mut f = fixture();
    let block = f.block(1, 6_000, false);
    f.arrive(&block, 1, true).unwrap();
    assert!(f.feed(6_000).is_empty());
    f.name(&block, 0);
    assert_eq!(f.feed(6_000), [(block.hash(), true)]);
    assert!(f.feed(6_000).is_empty(), "once");
}

/// A check takes its turn before the builds and commits that are asked for later.
#[tokio::test(start_paused = true)]
async fn a_body_is_checked_in_a_round_that_names_it_or_when_a_quorum_wants_it() {
    let mut f = fixture();
    let [current, later, wanted, passed] =
        [6_000, 6_001, 6_002, 6_003].map(|at| f.block(1, at, true));
    for (block, rounds) in [
        (&current, [0, 7]),
        (&later, [7, 3]),
        (&wanted, [3, 7]),
        (&passed, [1, 7]),
    ] {
        for round in rounds {
            f.name(block, round);
        }
        f.arrive(block, 1, true).unwrap();
    }
    let due = |f: &mut Fixture| -> Vec<BlockHash> {
        let due = f.bodies.take_unchecked();
        due.into_iter().map(|(hash, _)| hash).collect()
    };
    assert_eq!(due(&mut f), [current.hash()]);
    f.bodies
        .certify(Height(1), wanted.hash(), Round(3), None, f.now);
    assert_eq!(due(&mut f), [wanted.hash()]);
    f.bodies.set_round(Round(2));
    assert!(due(&mut f).is_empty());
    f.bodies.set_round(Round(3));
    assert_eq!(due(&mut f), [later.hash()]);
    f.bodies
        .certify(Height(1), passed.hash(), Round(1), None, f.now);
    assert_eq!(due(&mut f), [passed.hash()]);
}

#[tokio::test(start_paused = true)]
async fn unnamed_bodies_are_bounded_and_only_from_the_proposer() {
    let mut f = fixture();
    let stranger = f.block(1, 6_000, true);
    assert!(f.arrive(&stranger, 1, false).is_err());
    // One a peer: the newer replaces the older.
    let (first, second) = (f.block(1, 6_001, true), f.block(1, 6_002, true));
    f.arrive(&first, 1, true).unwrap();
    f.arrive(&second, 1, true).unwrap();
    assert!(f.bodies.content(Height(1), first.hash()).is_none());
    assert!(f.bodies.content(Height(1), second.hash()).is_some());
    for peer in 2..=MAX_UNNAMED as u8 {
        let block = f.block(1, 7_000 + u64::from(peer), true);
        f.arrive(&block, peer, true).unwrap();
    }
    let last = f.block(1, 9_000, true);
    assert!(f.arrive(&last, 99, true).is_err());
    f.name(&last, 0);
    f.arrive(&last, 99, true).unwrap();
}

#[tokio::test(start_paused = true)]
async fn named_bodies_are_bounded_and_certified_ones_stay() {
    let mut f = fixture();
    let certified = f.block(1, 6_000, true);
    f.name(&certified, 0);
    f.arrive(&certified, 1, true).unwrap();
    f.bodies
        .certify(Height(1), certified.hash(), Round(0), None, f.now);
    for round in 1..=MAX_HELD as u32 {
        let block = f.block(1, 6_000 + u64::from(round), true);
        f.name(&block, round);
        f.arrive(&block, 1, true).unwrap();
    }
    assert!(f.bodies.content(Height(1), certified.hash()).is_some());
    let held = f.bodies.bodies.values();
    assert_eq!(held.filter(|body| body.content.is_some()).count(), MAX_HELD);
}

/// A proposer of later rounds could otherwise have everybody drop the block that is voted on now.
#[tokio::test(start_paused = true)]
async fn bodies_of_other_rounds_and_heights_give_way_to_the_current_ones() {
    let mut f = fixture();
    let current = f.block(1, 6_000, true);
    f.name(&current, 0);
    f.arrive(&current, 1, true).unwrap();
    f.name(&current, 2 * MAX_HELD as u32);
    let mut later = Vec::new();
    for round in 0..MAX_HELD as u32 {
        for height in [1, 2] {
            let block = f.block(height, 6_001 + u64::from(round), true);
            f.name(&block, round + 1);
            f.arrive(&block, 1, true).unwrap();
            later.push(block);
        }
    }
    assert!(f.bodies.content(Height(1), current.hash()).is_some());
    // When one of its rounds comes, a body that was dropped is fetched again.
    let last = &later[later.len() - 2];
    f.name(last, 2 * MAX_HELD as u32);
    f.arrive(last, 1, true).unwrap();
    let asks_for = |f: &mut Fixture| {
        let requests = f.bodies.take_requests(f.now, &[], |_| vec![tests::ip(2)]);
        requests.contains(&(tests::ip(2), last.hash()))
    };
    assert!(f.bodies.content(Height(1), last.hash()).is_none());
    assert!(!asks_for(&mut f));
    f.bodies.set_round(Round(MAX_HELD as u32));
    assert!(asks_for(&mut f));
}

#[tokio::test(start_paused = true)]
async fn a_body_of_which_no_holder_is_known_is_asked_for_everywhere() {
    let mut f = fixture();
    let hash = f.block(1, 6_000, true).hash();
    f.bodies.certify(Height(1), hash, Round(0), None, f.now);
    let others = [tests::ip(7)];
    let requests = f.bodies.take_requests(f.now, &others, |_| Vec::new());
    assert_eq!(requests, [(tests::ip(7), hash)]);
}

#[tokio::test(start_paused = true)]
async fn a_body_ahead_of_the_clock_is_held_until_its_time_or_a_quorum() {
    let mut f = fixture();
    let block = f.block(1, 60_000, true);
    f.name(&block, 0);
    f.arrive(&block, 1, true).unwrap();
    assert!(f.feed(49_999).is_empty());
    let release = f.genesis.time_ms + 50_000;
    assert_eq!(f.bodies.next_release_ms(release - 1), Some(release));
    assert_eq!(f.bodies.last_progress(block.hash(), f.now), None);
    assert_eq!(f.feed(50_000), [(block.hash(), true)]);

    let other = f.block(1, 70_000, true);
    f.name(&other, 0);
    f.arrive(&other, 1, true).unwrap();
    assert!(f.feed(50_000).is_empty());
    f.bodies
        .certify(Height(1), other.hash(), Round(0), None, f.now);
    assert_eq!(f.feed(50_000), [(other.hash(), true)]);
}

/// Proposers of many rounds could otherwise have a block of whatever time accepted, by pushing it out.
#[tokio::test(start_paused = true)]
async fn a_held_body_that_was_dropped_is_fed_only_when_it_is_here_again_and_its_time_has_come() {
    let mut f = fixture();
    let last = MAX_HELD as u32 + 1;
    let held = f.block(1, 60_000, true);
    f.name(&held, 0);
    f.arrive(&held, 1, true).unwrap();
    assert!(f.feed(0).is_empty());
    let checking = f.block(1, 60_001, true);
    f.bodies.set_round(Round(1));
    f.name(&checking, 1);
    f.arrive(&checking, 1, true).unwrap();
    assert_eq!(f.bodies.take_unchecked().len(), 1);
    for round in 2..=last {
        let block = f.block(1, 60_000 + u64::from(round), true);
        f.bodies.set_round(Round(round));
        f.name(&block, round);
        f.arrive(&block, 1, true).unwrap();
        assert!(f.feed(0).is_empty(), "in round {round}");
    }
    f.bodies.checked(Height(1), checking.hash(), Some(true));
    for dropped in [&held, &checking] {
        assert!(f.bodies.content(Height(1), dropped.hash()).is_none());
    }
    assert!(f.feed(0).is_empty());
    f.name(&held, last);
    f.arrive(&held, 1, true).unwrap();
    assert!(f.feed(0).is_empty());
    let fed = f.feed(50_000);
    assert!(fed.contains(&(held.hash(), true)), "{fed:?}");
    assert!(!fed.contains(&(checking.hash(), true)), "{fed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_body_before_its_slot_counts_only_from_round_one_on() {
    let mut f = fixture();
    let slot = f.genesis.slot_ms;
    let early = f.block(1, slot - 1, false);
    f.name(&early, 0);
    f.arrive(&early, 1, true).unwrap();
    assert!(f.feed(slot).is_empty());
    f.name(&early, 1);
    assert!(f.feed(slot).is_empty(), "round 1 has not come");
    f.bodies.set_round(Round(1));
    assert_eq!(f.feed(slot), [(early.hash(), true)]);
    f.bodies.set_round(Round(0));
    let full = f.block(1, slot - 1, true);
    f.name(&full, 0);
    f.arrive(&full, 1, true).unwrap();
    assert_eq!(f.feed(slot).len(), 1);
    let on_time = f.block(1, slot, false);
    f.name(&on_time, 0);
    f.arrive(&on_time, 1, true).unwrap();
    assert_eq!(f.feed(slot).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn bodies_of_the_next_height_wait_for_their_parent() {
    let mut f = fixture();
    let next = f.block(2, 6_000, true);
    f.name(&next, 0);
    f.arrive(&next, 1, true).unwrap();
    assert!(f.feed(6_000).is_empty());
    let parent_ms = f.genesis.time_ms + 5_000;
    f.bodies.set_height(Height(2), parent_ms);
    assert_eq!(f.feed(6_000), [(next.hash(), true)]);
}

#[tokio::test(start_paused = true)]
async fn holders_are_asked_one_at_a_time_and_again_from_the_start() {
    let mut f = fixture();
    let block = f.block(1, 6_000, true);
    let hash = block.hash();
    let holders = |_| vec![tests::ip(2), tests::ip(3)];
    let pusher = Some(tests::ip(1));
    f.bodies
        .name(Height(1), hash, Round(0), None, pusher, f.now);
    let second = Duration::from_secs(1);
    assert!(f.bodies.take_requests(f.now, &[], holders).is_empty());
    f.bodies
        .progress((Height(1), hash), tests::ip(1), f.now + second / 2);
    assert!(
        f.bodies
            .take_requests(f.now + second, &[], holders)
            .is_empty()
    );
    let mut now = f.now + second * 2;
    assert_eq!(
        f.bodies.take_requests(now, &[], holders),
        [(tests::ip(2), hash)]
    );
    assert!(f.bodies.take_requests(now, &[], holders).is_empty());
    f.bodies.failed(None, tests::ip(2), now);
    assert_eq!(
        f.bodies.take_requests(now, &[], holders),
        [(tests::ip(3), hash)]
    );
    now += second;
    assert!(
        f.bodies.take_requests(now, &[], holders).is_empty(),
        "all tried"
    );
    now += second;
    assert_eq!(
        f.bodies.take_requests(now, &[], holders),
        [(tests::ip(2), hash)]
    );
    f.arrive(&block, 2, false).unwrap();
    assert_eq!(f.bodies.next_request(), None);
}

#[tokio::test(start_paused = true)]
async fn bytes_of_a_peer_that_was_not_asked_put_nothing_off() {
    let mut f = fixture();
    let key = (Height(1), f.block(1, 6_000, true).hash());
    let (holders, begin) = (|_| vec![tests::ip(2), tests::ip(3)], f.now);
    f.bodies.name(key.0, key.1, Round(0), None, None, begin);
    let mut ask = |after_ms: u64, bytes_of: u8| {
        let now = begin + Duration::from_millis(after_ms);
        let asked = f.bodies.take_requests(now, &[], holders);
        f.bodies.progress(key, tests::ip(bytes_of), now);
        let progress = f.bodies.last_progress(key.1, now);
        let asked: Vec<PeerIp> = asked.into_iter().map(|(peer, _)| peer).collect();
        (asked, progress == Some(now))
    };
    assert_eq!(ask(10, 9), (vec![tests::ip(2)], false));
    assert_eq!(ask(500, 9), (vec![], false));
    assert_eq!(ask(1_010, 9), (vec![tests::ip(3)], false));
    // One that was asked before may still deliver: that is progress, but the next is asked all the same.
    assert_eq!(ask(1_500, 2), (vec![], true));
    assert_eq!(ask(1_900, 3), (vec![], true));
    assert_eq!(ask(2_010, 9), (vec![], false));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_draws_its_body_out_is_joined_by_the_next() {
    let mut f = fixture();
    let key = (Height(1), f.block(1, 6_000, true).hash());
    f.bodies.name(key.0, key.1, Round(0), None, None, f.now);
    let (holders, begin) = (|_| vec![tests::ip(2), tests::ip(3)], f.now);
    let longest = timers::longest_hold(&f.genesis).as_millis() as u64;
    let mut second_asked_ms = None;
    for after_ms in (0..=longest + 1_000).step_by(100) {
        let now = begin + Duration::from_millis(after_ms);
        let asked = f.bodies.take_requests(now, &[], holders);
        if asked.contains(&(tests::ip(3), key.1)) {
            second_asked_ms.get_or_insert(after_ms);
        }
        f.bodies.progress(key, tests::ip(2), now);
    }
    assert_eq!(second_asked_ms, Some(longest));
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_block_or_with_trailing_bytes_is_refused() {
    let mut f = fixture();
    let (block, other) = (f.block(1, 6_000, true), f.block(1, 6_001, true));
    f.name(&block, 0);
    let key = (Height(1), block.hash());
    let mut arrive = |bytes| f.bodies.arrived(key, bytes, tests::ip(1), true, f.now);
    let error = arrive(codec::encode(&other)).unwrap_err();
    assert!(matches!(error, BodyRefused::OtherBlock { .. }) && error.is_fault());
    let mut trailing = codec::encode(&block);
    trailing.push(0);
    assert!(matches!(arrive(trailing), Err(BodyRefused::Malformed(_))));
    let mut stripped = block.clone();
    stripped.transactions.clear();
    assert!(matches!(
        arrive(codec::encode(&stripped)),
        Err(BodyRefused::OtherTransactions(_))
    ));
    assert!(arrive(codec::encode(&block)).is_ok());
}
