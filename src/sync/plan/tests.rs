//! The plan against peers of every kind, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

/// How a peer behaves.
#[derive(Clone, Debug)]
enum Nature {
    /// Serves what it has.
    Honest { tip: u64, latency_ms: u64 },
    /// Announces a height that nobody has, and holds nothing.
    HoldsNothing,
    /// Announces a height that nobody has, and never answers.
    Silent,
    /// The same, but a few bytes of its answer come every second.
    Drips,
    /// Answers what no honest peer answers.
    Wrong,
    /// Serves a few bodies of each request and then nothing more.
    StopsAfter(u64),
    /// Serves, but every request ends early.
    EndsAfter(u64),
    /// Serves headers one at a time.
    Short { tip: u64 },
    /// Announces a new height all the time, and never answers.
    Boaster,
}

const SKY: u64 = 1_000_000_000;

impl Nature {
    fn announced(&self, truth: u64) -> u64 {
        match self {
            Nature::Honest { tip, .. } | Nature::Short { tip } => (*tip).min(truth),
            Nature::StopsAfter(_) | Nature::EndsAfter(_) => truth,
            _ => SKY,
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Headers {
        id: RequestId,
        last: u64,
    },
    Body {
        id: RequestId,
        height: u64,
    },
    Finished {
        id: RequestId,
    },
    Failed {
        id: RequestId,
        failure: Failure,
    },
    Dripped {
        id: RequestId,
        bytes: u64,
    },
    Committed {
        last: u64,
    },
    /// Consensus commits one block by itself.
    Live,
    Boast,
}

/// The last height of a segment, as its cargo.
type Cargo = u64;

struct Asked {
    peer: PeerIp,
    headers: bool,
    next: u64,
    last: u64,
    asked_at: Instant,
    progress_at: Instant,
}

struct World {
    plan: Plan<Cargo, u64>,
    limits: Limits,
    natures: BTreeMap<PeerIp, Nature>,
    truth: u64,
    body_bytes: fn(u64) -> usize,
    is_empty: fn(u64) -> bool,
    now: Instant,
    start: Instant,
    boasts: u64,
    queue: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    in_flight: BTreeMap<RequestId, Asked>,
    committing: VecDeque<u64>,
    tip: u64,
    times_asked: BTreeMap<u64, u32>,
    asks: usize,
}

fn ip(index: usize) -> PeerIp {
    std::net::IpAddr::from([127, 0, 0, index as u8 + 2]).into()
}

fn hash_of(height: u64) -> BlockHash {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&height.to_le_bytes());
    BlockHash(hash)
}

impl World {
    fn new(masternode: bool, truth: u64, natures: impl IntoIterator<Item = Nature>) -> Self {
        let limits = Limits::RECOMMENDED;
        let start = Instant::now();
        let natures = natures.into_iter().enumerate();
        let natures: BTreeMap<_, _> = natures.map(|(at, nature)| (ip(at), nature)).collect();
        let mut world = Self {
            plan: Plan::new(limits, masternode, (Height(0), hash_of(0))),
            limits,
            natures,
            truth,
            body_bytes: |_| 1_000,
            is_empty: |_| false,
            now: start,
            start,
            boasts: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            in_flight: BTreeMap::new(),
            committing: VecDeque::new(),
            tip: 0,
            times_asked: BTreeMap::new(),
            asks: 0,
        };
        world.announce();
        if world
            .natures
            .values()
            .any(|one| matches!(one, Nature::Boaster))
        {
            world.after(1, Event::Boast);
        }
        world
    }

    fn announce(&mut self) {
        let views = self.natures.iter().map(|(ip, nature)| PeerView {
            ip: *ip,
            connection: 1,
            tip: Height(nature.announced(self.truth) + self.boasts),
        });
        self.plan.set_peers(self.now, views);
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.sequence += 1;
        let at = self.now + Duration::from_millis(ms);
        self.queue.insert((at, self.sequence), event);
    }

    /// Runs until the tip is `goal`; panics when that takes longer than `within` of virtual time.
    fn run_to(&mut self, goal: u64, within: Duration) {
        let end = self.now + within;
        let mut steps = 0;
        loop {
            for action in self.plan.actions(self.now) {
                self.perform(action);
            }
            self.check_bounds();
            if self.tip >= goal {
                return;
            }
            steps += 1;
            assert!(steps < 300_000, "at {} after {steps} steps", self.tip);
            let wake = self.plan.next_wake(self.now);
            let next = self.queue.keys().next().map(|(at, _)| *at);
            let at = wake.into_iter().chain(next).min();
            let at = at.unwrap_or_else(|| panic!("at {}: nothing more to wait for", self.tip));
            assert!(at <= end, "at {} after {within:?}", self.tip);
            self.now = at;
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                let event = entry.remove();
                self.deliver(event);
            }
        }
    }

    fn perform(&mut self, action: Action<Cargo, u64>) {
        match action {
            Action::Ask { id, peer, ask } => self.ask(id, peer, ask),
            Action::Cancel(id) => {
                // It may have ended in the same moment.
                self.in_flight.remove(&id);
            }
            Action::Commit { segment, bodies } => {
                assert!(self.committing.len() < self.limits.commits);
                let open = self.committing.back().copied().unwrap_or(self.tip);
                for ((height, body), expected) in bodies.iter().zip(open.max(self.tip) + 1..) {
                    assert_eq!((height.0, *body), (expected, expected));
                    assert!(height.0 <= segment);
                }
                assert!(bodies.len() <= self.limits.commit_blocks);
                let last = bodies.last().expect("never an empty commit").0.0;
                // One at a time, in order.
                let before = self.committing.len() as u64;
                self.committing.push_back(last);
                self.after(7 * (before + 1), Event::Committed { last });
            }
        }
    }

    fn ask(&mut self, id: RequestId, peer: PeerIp, ask: Ask<Cargo>) {
        self.asks += 1;
        let (headers, first, last) = match ask {
            Ask::Headers {
                first,
                last,
                parent,
            } => {
                assert_eq!(parent, hash_of(first.0 - 1));
                assert_eq!(last.0 % 256, 0);
                (true, first.0, last.0)
            }
            Ask::Bodies {
                first,
                last,
                segment,
            } => {
                assert!(last.0 <= segment && last.0 - first.0 < self.limits.range_blocks);
                (false, first.0, last.0)
            }
        };
        assert!(first <= last && last - first < MAX_SYNC_HEIGHTS);
        self.check_cause(headers, first, last);
        if !headers {
            for height in first..=last {
                *self.times_asked.entry(height).or_default() += 1;
            }
        }
        let asked = Asked {
            peer,
            headers,
            next: first,
            last,
            asked_at: self.now,
            progress_at: self.now,
        };
        self.in_flight.insert(id, asked);
        self.answer(id, peer, headers, first, last);
    }

    /// Whoever else is asked for the same has made no progress, and there is at most one.
    fn check_cause(&self, headers: bool, first: u64, last: u64) {
        let same: Vec<&Asked> = self
            .in_flight
            .values()
            .filter(|one| one.headers == headers && one.next <= last && first <= one.last)
            .collect();
        for one in &same {
            let (limits, now) = (&self.limits, self.now);
            let stalled = now >= one.progress_at + limits.hedge_after;
            let headers_stalled = headers && now >= one.progress_at + limits.hedge_headers_after;
            let outpaced = !headers && now >= one.asked_at + limits.outpace_after;
            assert!(stalled || headers_stalled || outpaced);
        }
        for height in first..=last {
            let also = same
                .iter()
                .filter(|one| one.next <= height && height <= one.last);
            assert!(also.count() <= 1, "{height} is asked of a third peer");
        }
    }

    fn answer(&mut self, id: RequestId, peer: PeerIp, headers: bool, first: u64, last: u64) {
        let fail = |failure| Event::Failed { id, failure };
        match self.natures[&peer].clone() {
            Nature::Honest { tip, latency_ms } => {
                let tip = tip.min(self.truth);
                assert!(first <= tip, "asked above the announced tip");
                self.serve(id, headers, first, last.min(tip), latency_ms, u64::MAX);
            }
            Nature::Short { tip } => {
                let last = if headers { first } else { last };
                self.serve(id, headers, first, last.min(tip), 5, u64::MAX);
            }
            Nature::HoldsNothing => self.after(5, fail(Failure::NotHeld)),
            Nature::Wrong => self.after(5, fail(Failure::Wrong("bad certificate".into()))),
            Nature::Silent | Nature::Boaster => {}
            Nature::Drips => self.after(1_000, Event::Dripped { id, bytes: 10 }),
            Nature::StopsAfter(count) if headers || first <= self.truth => {
                self.serve(id, headers, first, last.min(self.truth), 5, count);
            }
            Nature::EndsAfter(count) if !headers => {
                self.serve(id, headers, first, last, 5, count);
                self.after(400, fail(Failure::Ended("connection lost".into())));
            }
            _ => self.after(5, fail(Failure::Ended("connection lost".into()))),
        }
    }

    fn serve(&mut self, id: u64, headers: bool, first: u64, last: u64, ms: u64, most: u64) {
        if headers {
            return self.after(ms, Event::Headers { id, last });
        }
        for (height, at) in (first..=last).zip(0..most) {
            self.after(ms + at, Event::Body { id, height });
        }
        if last - first < most {
            self.after(ms + last - first, Event::Finished { id });
        }
    }

    fn deliver(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Headers { id, last } => {
                let first = self
                    .in_flight
                    .remove(&id)
                    .map_or(last + 1, |asked| asked.next);
                let empty = (first..=last).filter(|height| (self.is_empty)(*height));
                let empty: Vec<_> = empty.map(|height| (Height(height), height)).collect();
                self.plan
                    .headers(self.now, id, Height(last), hash_of(last), last, empty);
            }
            Event::Body { id, height } => {
                if let Some(asked) = self.in_flight.get_mut(&id) {
                    asked.next = height + 1;
                    asked.progress_at = now;
                }
                let bytes = (self.body_bytes)(height);
                self.plan.body(now, id, Height(height), bytes, height);
            }
            Event::Finished { id } => {
                self.in_flight.remove(&id);
                self.plan.finished(now, id);
            }
            Event::Failed { id, failure } => {
                self.in_flight.remove(&id);
                self.plan.failed(now, id, failure);
            }
            Event::Dripped { id, bytes } => {
                if self.in_flight.contains_key(&id) {
                    self.plan.received(now, id, bytes);
                    let bytes = bytes + 10;
                    self.after(1_000, Event::Dripped { id, bytes });
                }
            }
            Event::Committed { last } => {
                self.committing.pop_front();
                self.tip = self.tip.max(last);
                self.plan.committed(Height(self.tip), hash_of(self.tip));
            }
            Event::Live => {
                self.tip += 1;
                self.plan.set_tip(Height(self.tip), hash_of(self.tip));
            }
            Event::Boast => {
                self.boasts += 1;
                let honest = |nature: &Nature| nature.announced(0) < SKY;
                let views = self.natures.iter().map(|(ip, nature)| PeerView {
                    ip: *ip,
                    connection: if honest(nature) { 1 } else { self.boasts },
                    tip: Height(match nature {
                        Nature::Boaster => SKY + self.boasts,
                        other => other.announced(self.truth),
                    }),
                });
                self.plan.set_peers(now, views);
                let alive: BTreeSet<u64> = self.plan.requests.keys().copied().collect();
                let dropped: BTreeSet<u64> = self.plan.dropped.iter().copied().collect();
                self.in_flight
                    .retain(|id, _| alive.contains(id) || dropped.contains(id));
                self.after(250, Event::Boast);
            }
        }
    }

    fn check_bounds(&self) {
        assert!(self.in_flight.len() <= self.limits.requests);
        let mut per_peer = BTreeMap::<PeerIp, usize>::new();
        for asked in self.in_flight.values() {
            *per_peer.entry(asked.peer).or_default() += 1;
        }
        let most = per_peer.values().max().copied().unwrap_or_default();
        assert!(most <= self.limits.requests_per_peer);
        let largest = (self.body_bytes)(1).max((self.body_bytes)(self.tip + 1));
        assert!(self.plan.bytes_held() <= self.limits.held_bytes + largest);
        assert!(self.plan.segments.len() <= MAX_SEGMENTS);
        let ours: BTreeSet<_> = self.plan.requests.keys().collect();
        let theirs: BTreeSet<_> = self.in_flight.keys().collect();
        assert_eq!(ours, theirs, "the plan knows what is in flight");
    }
}

fn honest(tip: u64) -> Nature {
    Nature::Honest {
        tip,
        latency_ms: 20,
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_node_stuck_at_height_0_reaches_the_2480_of_the_others() {
    let mut world = World::new(false, 2480, [honest(2480), honest(2480), honest(2480)]);
    world.run_to(2480, MINUTE);
    assert!(
        (1..=2480).all(|height| world.times_asked[&height] == 1),
        "each body is asked for once"
    );
    assert!(world.plan.replaced().is_empty());
}

#[test]
fn several_peers_serve_at_once() {
    let mut world = World::new(false, 256, [honest(256), honest(256), honest(256)]);
    world.run_to(1, MINUTE);
    assert_eq!(world.plan.sources().len(), 3);
}

#[test]
fn a_peer_that_announces_what_nobody_has_delays_no_one() {
    for liar in [Nature::HoldsNothing, Nature::Silent, Nature::Boaster] {
        let mut world = World::new(false, 2480, [liar, honest(2480)]);
        world.run_to(2480, Duration::from_secs(20));
    }
}

#[test]
fn peers_that_draw_their_answers_out_delay_no_one_for_long() {
    let natures = [Nature::Drips, Nature::Drips, Nature::Drips, honest(300)];
    let mut world = World::new(false, 300, natures);
    world.run_to(300, 2 * MINUTE);
    let replaced = world.plan.replaced();
    assert!(
        replaced.iter().all(|(peer, _)| *peer != ip(3)),
        "{replaced:?}"
    );
}

#[test]
fn a_lone_silent_peer_is_given_up_after_20_s_and_asked_again_later() {
    let mut world = World::new(false, 10, [Nature::Silent]);
    let ten_minutes = 10 * MINUTE;
    let end = world.now + ten_minutes;
    while world.now < end {
        for action in world.plan.actions(world.now) {
            world.perform(action);
        }
        world.now = world.plan.next_wake(world.now).expect("it goes on");
    }
    let (peer, reason) = &world.plan.replaced()[0];
    assert_eq!((*peer, reason.as_str()), (ip(0), "no progress for 20 s"));
    // 20 s each, and 2, 4, 8, ... 256 s between them.
    assert!((5..=9).contains(&world.asks), "asked {} times", world.asks);
}

#[test]
fn a_masternode_leaves_the_next_block_to_consensus_for_two_seconds() {
    let mut world = World::new(true, 1, [honest(1)]);
    assert!(world.plan.actions(world.now).is_empty());
    world.run_to(1, MINUTE);
    assert!(world.now >= world.start + world.limits.consensus_head_start);

    let mut world = World::new(true, 2, [honest(2)]);
    assert_eq!(
        world.plan.actions(world.now).len(),
        1,
        "two behind: at once"
    );
}

#[test]
fn a_full_node_fetches_the_next_block_at_once() {
    let mut world = World::new(false, 1, [honest(1)]);
    assert_eq!(world.plan.actions(world.now).len(), 1);
}

#[test]
fn blocks_that_consensus_commits_meanwhile_are_not_fetched() {
    let mut world = World::new(true, 40, [honest(40)]);
    for ms in 0..40 {
        world.after(ms, Event::Live);
    }
    world.run_to(40, MINUTE);
    assert!(!world.plan.is_busy() || !world.committing.is_empty());
    world.plan.actions(world.now);
    assert!(world.plan.requests.is_empty());
}

#[test]
fn large_bodies_are_fetched_within_the_bytes_allowed() {
    let natures = [honest(400), honest(400), honest(400), honest(400)];
    let mut world = World::new(false, 400, natures);
    world.body_bytes = |height| if height > 30 { 4_000_000 } else { 500 };
    world.run_to(400, MINUTE);
}

#[test]
fn a_peer_that_is_wrong_is_set_aside_for_longer_each_time() {
    let mut world = World::new(false, 10, [Nature::Wrong]);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let asked = world.now;
        for action in world.plan.actions(world.now) {
            world.perform(action);
        }
        world.now += Duration::from_millis(5);
        let (_, event) = world.queue.pop_first().expect("it was asked");
        world.deliver(event);
        world.now = world.plan.next_wake(world.now).expect("it comes back");
        pauses.push((world.now - asked).as_secs());
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(world.plan.replaced().len(), 10);
}

#[test]
fn a_new_connection_lifts_what_the_old_one_caused_but_not_a_fault() {
    for (failure, lifted) in [
        (Failure::Ended("connection lost".into()), true),
        (Failure::Stalled("no progress".into()), false),
        (Failure::Wrong("bad certificate".into()), false),
    ] {
        let mut world = World::new(false, 10, [Nature::Silent]);
        let Action::Ask { id, .. } = world.plan.actions(world.now).remove(0) else {
            panic!("it asks");
        };
        world.plan.failed(world.now, id, failure);
        assert!(world.plan.actions(world.now).is_empty());
        let tip = Height(10);
        let view = PeerView {
            ip: ip(0),
            connection: 2,
            tip,
        };
        world.plan.set_peers(world.now, [view]);
        assert_eq!(world.plan.actions(world.now).is_empty(), !lifted);
    }
}

#[test]
fn refused_blocks_are_fetched_again_from_another_peer() {
    let mut world = World::new(false, 5, [honest(5), honest(5)]);
    let committing = |world: &mut World| {
        for _ in 0..100 {
            for action in world.plan.actions(world.now) {
                if matches!(action, Action::Commit { .. }) {
                    return;
                }
                world.perform(action);
            }
            let ((at, _), event) = world.queue.pop_first().expect("an answer comes");
            world.now = at;
            world.deliver(event);
        }
        panic!("no commit");
    };
    committing(&mut world);
    world.queue.clear();
    world
        .plan
        .commit_refused(world.now, "state mismatch".into());
    world.in_flight.clear();
    world.plan.dropped.clear();
    let blamed = world.plan.replaced()[0].0;
    let Action::Ask { peer, .. } = world.plan.actions(world.now).remove(0) else {
        panic!("it asks anew");
    };
    assert_ne!(peer, blamed);
}

#[test]
fn segments_end_at_multiples_of_256() {
    for (height, end) in [(1, 256), (256, 256), (257, 512), (2480, 2560)] {
        assert_eq!(segment_end(Height(height)), Height(end));
    }
}

fn any_nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        (0..2_000u64, 1..4_000u64).prop_map(|(tip, latency_ms)| Nature::Honest { tip, latency_ms }),
        Just(Nature::HoldsNothing),
        Just(Nature::Silent),
        Just(Nature::Drips),
        Just(Nature::Wrong),
        Just(Nature::Boaster),
        (0..70u64).prop_map(Nature::StopsAfter),
        (0..70u64).prop_map(Nature::EndsAfter),
    ]
}

/// How long it takes to reach the tip.
fn takes(tip: u64, natures: impl IntoIterator<Item = Nature>) -> Duration {
    let mut world = World::new(false, tip, natures);
    world.body_bytes = |_| 50_000;
    world.run_to(tip, 60 * MINUTE);
    world.now - world.start
}

/// They cost a moment at first; what they would hold up later is not given to them again.
#[test]
fn peers_of_no_use_hardly_slow_down_one_that_serves() {
    let (tip, latency_ms) = (20_000, 2_000);
    let slow = Nature::Honest { tip, latency_ms };
    let useless = [Nature::StopsAfter(0), slow, Nature::Wrong];
    let alone = takes(tip, [honest(tip)]);
    for one in &useless {
        let beside = takes(tip, [one.clone(), honest(tip)]);
        assert!(
            beside <= alone + 2 * SECOND,
            "{one:?}: {beside:?} for {alone:?}"
        );
    }
    let all = takes(tip, useless.into_iter().chain([honest(tip)]));
    assert!(all <= alone + 4 * SECOND, "{all:?} for {alone:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The bounds are checked after every step by `run_to`.
    #[test]
    fn it_finishes_when_one_honest_peer_remains(
        others in proptest::collection::vec(any_nature(), 0..6),
        position in 0..6usize,
        truth in 1..2_000u64,
        latency_ms in 1..2_500u64,
        masternode: bool,
        large: bool,
        live in proptest::collection::vec(0..60_000u64, 0..20),
    ) {
        let mut natures = others;
        let honest = Nature::Honest { tip: truth, latency_ms };
        natures.insert(position.min(natures.len()), honest);
        let mut world = World::new(masternode, truth, natures);
        if large {
            world.body_bytes = |height| if height % 7 == 0 { 3_000_000 } else { 20_000 };
        }
        for at in live {
            world.after(at, Event::Live);
        }
        world.run_to(truth, 60 * MINUTE);
    }
}

/// It was never measured, and a peer that is slower than another was asked only after it.
#[test]
fn a_peer_that_comes_back_all_the_time_and_never_answers_is_asked_last() {
    let fast_but_short = Nature::Honest {
        tip: 301,
        latency_ms: 1,
    };
    let natures = [honest(464), Nature::Boaster, fast_but_short];
    let mut world = World::new(false, 464, natures);
    world.body_bytes = |height| if height % 7 == 0 { 3_000_000 } else { 20_000 };
    world.run_to(464, MINUTE);
}

#[test]
fn headers_served_one_at_a_time_slow_nothing_down_for_good() {
    let mut world = World::new(false, 300, [Nature::Short { tip: 300 }, honest(300)]);
    world.run_to(300, 5 * MINUTE);
}
