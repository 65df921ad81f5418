//! How many bytes of bulk one connection may have in flight: a bound that follows the delay which
//! the bulk itself causes, after LEDBAT (RFC 6817). Pure: times and the path's state are arguments.
//!
//! - The base delay is the least round trip of the last minutes ([`BaseDelay`], RFC 6817 section
//!   3.4.2 with a shorter memory); what the path's round trip is above it is the queueing delay. Round trips
//!   stand in for one-way delays, which QUIC does not tell; while bulk comes in as well, the two
//!   directions add up, so the target doubles.
//! - The target is [`TARGET`] or the time of two packets, not RFC 6817's 100 ms: a vote waits behind
//!   it.
//! - Start: doubling each round trip until delay shows (RFC 6817 section 2.4.1 allows slow start).
//!   Then steps in proportion to what is missing to the target (section 2.4.2); above it, the bound
//!   falls to what would meet the target if all of the queue were its own.
//! - A bound that is not used does not grow (section 2.4.1), nor beyond a few times what was
//!   confirmed in a round trip: a slow reader or a small congestion window is no reason to write
//!   more.
//! - When shrinking costs speed and not queue, the queue is another's: the bound returns and grows
//!   slowly under QUIC's congestion window, as long as growth pays, and looks again every few seconds.
//! - A bound that meets its target hides the base delay: now and then it yields, so that the queue
//!   empties and the base is seen.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The bound of a new connection, and after a pause.
pub(super) const START_BYTES: u64 = 16 * 1024;
/// The queueing delay that bulk may cause.
const TARGET: Duration = Duration::from_millis(10);
/// On the slowest links the time of two packets is longer, up to this.
const MAX_TARGET: Duration = Duration::from_millis(400);
/// The bound is never less than so many packets.
const FLOOR_PACKETS: u64 = 2;
/// How long the path may be idle before its state is no longer believed.
const PAUSE: Duration = Duration::from_secs(10);
/// At multiples of this, by the wall clock, a bound yields that has not seen the base delay of late
/// or is beside foreign traffic. So all that share a queue look at once, and find it empty.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A change shows after two round trips and so many packets.
const SETTLED_PACKETS: u64 = 12;
/// Up to here the bound doubles each round trip at the start; beyond, it grows by a quarter, since what
/// it overshoots by in one round trip fills a queue.
const DOUBLING_BYTES: f64 = 64.0 * 1024.0;
/// In steady state: the most that a round may add, in parts of the bound, when no delay has shown for long.
const EAGER: f64 = 0.05;
/// A queue is another's only when its delay is so many times the target: others of this kind keep theirs shorter.
const FOREIGN: u32 = 3;
/// Beside foreign traffic: after so many round trips the growth must have paid.
const PAY_ROUNDS: u32 = 8;

/// What QUIC tells of the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// The congestion window, in bytes.
    pub window: u64,
    /// The packet size, in bytes.
    pub packet: u64,
}

/// The state of one connection's bound.
#[derive(Debug)]
pub(super) struct Credit {
    max: u64,
    bytes: f64,
    phase: Phase,
    base: BaseDelay,
    delay: Duration,
    round: Round,
    /// Bytes a second, over the last few rounds.
    pace: f64,
    /// Bytes a second of the fastest round, soon forgotten.
    rate: f64,
    /// Bytes a second over many rounds, and its greatest of late.
    carried: f64,
    most_carried: f64,
    /// Rounds in a row with hardly any delay.
    quiet: u32,
    /// What the last whole round confirmed.
    last_round: u64,
    /// When a queueing delay near zero was last seen.
    base_seen: Instant,
    look_at: Instant,
    last_confirmed: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Growing fast until delay shows.
    Startup,
    /// Around the target.
    Steady,
    /// After a step down.
    Shrinking(Step),
    /// Yielding for a moment.
    Looking(Step),
    /// The queue is another's.
    Competing { check: Mark, rounds: u32 },
}

/// A bound and what it carried.
#[derive(Clone, Copy, Debug)]
struct Mark {
    bytes: f64,
    pace: f64,
}

/// A step down: what there was before, and what has come since it can show.
#[derive(Clone, Copy, Debug)]
struct Step {
    before: Mark,
    rounds: u32,
    bytes: u64,
    time: Duration,
    limited: bool,
}

/// One round trip.
#[derive(Clone, Copy, Debug)]
struct Round {
    began: Instant,
    confirmed: u64,
    limited: bool,
}

/// What holds at the end of a round.
#[derive(Clone, Copy)]
struct Now {
    at: Instant,
    path: Path,
    target: Duration,
    both_ways: bool,
}

impl Credit {
    /// For a new connection; `max` holds whatever the path and the peer do. `now_ms` is the time of
    /// day.
    pub(super) fn new(max: u64, now: Instant, now_ms: u64) -> Self {
        let every_ms = LOOK_EVERY.as_millis() as u64;
        Self {
            max,
            bytes: START_BYTES.min(max) as f64,
            phase: Phase::Startup,
            base: BaseDelay::default(),
            delay: Duration::ZERO,
            round: Round::begin(now),
            pace: 0.0,
            rate: 0.0,
            carried: 0.0,
            most_carried: 0.0,
            quiet: 0,
            last_round: 0,
            base_seen: now,
            look_at: now + Duration::from_millis(every_ms - now_ms % every_ms),
            last_confirmed: None,
        }
    }

    /// The bound, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// The queueing delay when something was last confirmed.
    pub(super) fn delay(&self) -> Duration {
        self.delay
    }

    /// Something is written while nothing was outstanding: after a pause the path may be another.
    pub(super) fn resume(&mut self, now: Instant) {
        self.round = Round::begin(now);
        if self
            .last_confirmed
            .is_some_and(|last| now.duration_since(last) > PAUSE)
        {
            self.bytes = self.bytes.min(START_BYTES as f64);
            self.phase = Phase::Startup;
            self.last_round = 0;
        }
    }

    /// The peer has confirmed bytes. `limited`: a stream is waiting for the bound. `both_ways`:
    /// bulk comes in as well.
    pub(super) fn confirmed(
        &mut self,
        now: Instant,
        bytes: u64,
        path: Path,
        limited: bool,
        both_ways: bool,
    ) {
        self.last_confirmed = Some(now);
        self.delay = path.rtt.saturating_sub(self.base.note(now, path.rtt));
        self.round.confirmed += bytes;
        self.round.limited |= limited;
        let target = self.target(path, both_ways);
        if self.delay < target / 4 {
            self.base_seen = now;
        }
        if let Phase::Startup = self.phase {
            self.start_up(bytes, target);
        }
        if now.duration_since(self.round.began) >= path.rtt {
            self.end_round(Now {
                at: now,
                path,
                target,
                both_ways,
            });
        }
        // One that yields may go lower, or slow links would hide their base delay for ever.
        let packets = match self.phase {
            Phase::Looking(_) => 1,
            _ => FLOOR_PACKETS,
        };
        let floor = (packets * path.packet).min(self.max) as f64;
        self.bytes = self.bytes.clamp(floor, self.max as f64);
    }

    fn target(&self, path: Path, both_ways: bool) -> Duration {
        let two_packets = match self.rate {
            rate if rate > 0.0 => Duration::from_secs_f64(2.0 * path.packet as f64 / rate),
            _ => Duration::ZERO,
        };
        let target = TARGET.max(two_packets.min(MAX_TARGET));
        if both_ways { target * 2 } else { target }
    }

    fn start_up(&mut self, bytes: u64, target: Duration) {
        if self.delay > target {
            self.phase = Phase::Steady;
            // What the path carries at the base delay, as far as it is known.
            let carried = self.rate * (self.base.least() + target / 2).as_secs_f64();
            self.bytes = carried.clamp(self.bytes / 2.0, self.bytes);
        } else if self.may_grow() {
            let bytes = bytes as f64;
            self.bytes += if self.bytes < DOUBLING_BYTES {
                bytes
            } else {
                bytes / 4.0
            };
        }
    }

    fn may_grow(&self) -> bool {
        let recently = self.last_round.max(self.round.confirmed);
        self.round.limited && self.bytes() < 3 * recently + 2 * START_BYTES
    }

    fn end_round(&mut self, now: Now) {
        let lasted = now.at.duration_since(self.round.began);
        let pace = self.round.confirmed as f64 / lasted.as_secs_f64();
        if self.round.limited {
            self.rate = pace.max(self.rate * 0.95);
        }
        let average = |old: f64, part: f64| match old > 0.0 {
            true => old + (pace - old) * part,
            false => pace,
        };
        self.pace = average(self.pace, 0.5);
        self.carried = average(self.carried, 0.125);
        self.most_carried = self.carried.max(self.most_carried * 0.995);
        self.quiet = match self.delay < now.target / 4 {
            true => self.quiet + 1,
            false => 0,
        };
        match self.phase {
            Phase::Startup => {}
            Phase::Steady => self.steady(now),
            Phase::Shrinking(step) => {
                let (step, over) = step.after(self.round, lasted, now.path);
                self.phase = Phase::Shrinking(step);
                if over {
                    self.shrunk(step, now);
                }
            }
            Phase::Looking(step) => {
                let (step, over) = step.after(self.round, lasted, now.path);
                self.phase = Phase::Looking(step);
                if over {
                    self.looked(step, now);
                }
            }
            Phase::Competing { check, rounds } => self.compete(check, rounds + 1, now),
        }
        self.last_round = self.round.confirmed;
        self.round = Round::begin(now.at);
    }

    fn mark(&self) -> Mark {
        Mark {
            bytes: self.bytes,
            pace: self.pace,
        }
    }

    fn steady(&mut self, now: Now) {
        let unseen = now.at.duration_since(self.base_seen) >= LOOK_EVERY;
        if self.time_to_look(now.at) && unseen {
            return self.look(0.8 * part(self.base.least(), now.path.rtt));
        }
        let others = now.both_ways && self.carries_less() && self.delay < now.target * 3 / 2;
        if self.delay > now.target && !others {
            return self.shrink(self.mark(), now);
        }
        if self.may_grow() {
            // Half of what would fill the queue to the target, more when that shows nothing for long;
            // and nothing at the target.
            let part_of_bytes = (0.5 * part(now.target, now.path.rtt)).min(0.125);
            let eager = (f64::from(1 + self.quiet) * part_of_bytes).min(EAGER);
            let step = self.bytes * part_of_bytes.max(eager);
            let missing = 1.0 - part(self.delay, now.target);
            let missing = if others { missing.max(0.5) } else { missing };
            self.bytes += step.max(now.path.packet as f64) * missing;
        }
    }

    /// Whether the path has carried clearly more of late. One that is queueing in this direction carries
    /// all it can; so with bulk both ways the queue is that of the other direction.
    fn carries_less(&self) -> bool {
        self.carried < 0.93 * self.most_carried
    }

    /// A step towards what would meet the target if all of the queue were this bound's.
    fn shrink(&mut self, before: Mark, now: Now) {
        let aim = self.base.least() + now.target * 9 / 10;
        self.bytes *= part(aim, now.path.rtt).max(0.5);
        self.phase = Phase::Shrinking(Step::from(before));
    }

    /// A step down has had its time to show.
    fn shrunk(&mut self, step: Step, now: Now) {
        let within = self.delay <= now.target;
        if self.bytes > 0.9 * step.before.bytes {
            // Too little to tell by.
            match within {
                true => self.phase = Phase::Steady,
                false => self.shrink(step.before, now),
            }
        } else if self.delay > now.target * FOREIGN && step.cost(self.bytes) {
            self.bytes = step.before.bytes;
            self.phase = self.competing();
        } else {
            self.phase = Phase::Steady;
        }
    }

    fn competing(&self) -> Phase {
        Phase::Competing {
            check: self.mark(),
            rounds: 0,
        }
    }

    fn time_to_look(&mut self, now: Instant) -> bool {
        let time = now >= self.look_at;
        while self.look_at <= now {
            self.look_at += LOOK_EVERY;
        }
        time
    }

    fn look(&mut self, part: f64) {
        self.phase = Phase::Looking(Step::from(self.mark()));
        self.bytes *= part;
    }

    fn looked(&mut self, step: Step, now: Now) {
        self.base_seen = now.at;
        let queued = self.delay > now.target;
        if queued && step.cost(self.bytes) {
            self.bytes = step.before.bytes;
            self.phase = self.competing();
        } else {
            let carried = step.before.pace * (self.base.least() + now.target / 2).as_secs_f64();
            self.bytes = carried.clamp(self.bytes, step.before.bytes);
            self.phase = Phase::Steady;
        }
    }

    fn compete(&mut self, check: Mark, rounds: u32, now: Now) {
        let grown = self.bytes / check.bytes;
        let paid = self.pace > check.pace * (1.0 + 0.3 * (grown - 1.0));
        if self.delay < now.target || (rounds >= PAY_ROUNDS && grown > 1.1 && !paid) {
            self.phase = Phase::Steady;
        } else if self.time_to_look(now.at) {
            self.look(0.5);
        } else {
            if self.may_grow() {
                let step = (self.bytes / 32.0).max(now.path.packet as f64);
                let most = (now.path.window + now.path.packet) as f64;
                self.bytes = (self.bytes + step).min(most);
            }
            self.phase = match rounds >= PAY_ROUNDS {
                true => self.competing(),
                false => Phase::Competing { check, rounds },
            };
        }
    }
}

fn part(of: Duration, whole: Duration) -> f64 {
    (of.as_secs_f64() / whole.as_secs_f64().max(1e-6)).min(1.0)
}

impl Round {
    fn begin(now: Instant) -> Self {
        Self {
            began: now,
            confirmed: 0,
            limited: false,
        }
    }
}

impl Step {
    fn from(before: Mark) -> Self {
        Self {
            before,
            rounds: 0,
            bytes: 0,
            time: Duration::ZERO,
            limited: false,
        }
    }

    /// With one more round; and whether the step has had its time to show. What the first round
    /// confirms was still written before the step.
    fn after(mut self, round: Round, lasted: Duration, path: Path) -> (Self, bool) {
        self.rounds += 1;
        if self.rounds > 1 {
            self.bytes += round.confirmed;
            self.time += lasted;
            self.limited |= round.limited;
        }
        (
            self,
            self.rounds >= 2 && self.bytes >= SETTLED_PACKETS * path.packet,
        )
    }

    /// Whether the step down has cost speed: then the queue that was to shrink is not this bound's. Of
    /// its own queue, a part can go at no cost.
    fn cost(&self, bytes: f64) -> bool {
        let pace = self.bytes as f64 / self.time.as_secs_f64().max(1e-6);
        let given_up = 1.0 - bytes / self.before.bytes;
        self.limited && pace < self.before.pace * (1.0 - 0.3 * given_up)
    }
}

/// How long a part of the base delay's history is.
const HISTORY_STEP: Duration = Duration::from_secs(30);
/// How many parts it has: what was seen before is forgotten, so that a path that has become longer
/// is believed.
const HISTORY_STEPS: usize = 6;

/// The least round trips of late.
#[derive(Debug, Default)]
struct BaseDelay {
    /// Newest last: when each began, and its least.
    steps: VecDeque<(Instant, Duration)>,
}

impl BaseDelay {
    /// A round trip was measured; gives the base.
    fn note(&mut self, now: Instant, rtt: Duration) -> Duration {
        match self.steps.back_mut() {
            Some((began, least)) if now.duration_since(*began) < HISTORY_STEP => {
                *least = rtt.min(*least);
            }
            _ => self.steps.push_back((now, rtt)),
        }
        if self.steps.len() > HISTORY_STEPS {
            self.steps.pop_front();
        }
        self.least()
    }

    fn least(&self) -> Duration {
        let least = self.steps.iter().map(|(_, least)| *least).min();
        least.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
