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
//! - When shrinking does not lower the round trip, the queue is another's: the bound returns and
//!   grows slowly under QUIC's congestion window, and looks again every few seconds.
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
/// Without a sight of the base delay for so long, the bound yields to look.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Beside foreign traffic, how often the bound looks whether it is alone again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A change shows in the smoothed round trip after two round trips and so many packets.
const SETTLED_PACKETS: u64 = 12;

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
    /// Bytes a second: the fastest of late, slowly forgotten.
    rate: f64,
    /// What the last whole round confirmed.
    last_round: u64,
    /// When a queueing delay near zero was last seen.
    base_seen: Instant,
    last_confirmed: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Doubling; `gently` once delay has shown.
    Startup { gently: bool },
    /// Around the target.
    Steady,
    /// After a step down: what there was before it.
    Shrinking { before: Before, wait: Wait },
    /// Yielding for a moment, to see the base delay or whether the queue is another's.
    Looking {
        before: Before,
        wait: Wait,
        competing: bool,
    },
    /// The queue is another's.
    Competing { look_at: Instant },
}

#[derive(Clone, Copy, Debug)]
struct Before {
    bytes: f64,
    rtt: Duration,
}

/// Until a change shows.
#[derive(Clone, Copy, Debug)]
struct Wait {
    rounds: u32,
    bytes: u64,
}

/// One round trip.
#[derive(Clone, Copy, Debug)]
struct Round {
    began: Instant,
    confirmed: u64,
    limited: bool,
}

impl Credit {
    /// For a new connection; `max` holds whatever the path and the peer do.
    pub(super) fn new(max: u64, now: Instant) -> Self {
        Self {
            max,
            bytes: START_BYTES.min(max) as f64,
            phase: Phase::Startup { gently: false },
            base: BaseDelay::default(),
            delay: Duration::ZERO,
            round: Round::begin(now),
            rate: 0.0,
            last_round: 0,
            base_seen: now,
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
        if self.last_confirmed.is_some_and(|last| now.duration_since(last) > PAUSE) {
            self.bytes = self.bytes.min(START_BYTES as f64);
            self.phase = Phase::Startup { gently: false };
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
        if let Phase::Startup { gently } = self.phase {
            self.start_up(bytes, gently, target, path);
        }
        let lasted = now.duration_since(self.round.began);
        if lasted >= path.rtt {
            self.end_round(now, lasted, target, path);
        }
        let floor = (FLOOR_PACKETS * path.packet).min(self.max) as f64;
        if !matches!(self.phase, Phase::Looking { .. }) {
            self.bytes = self.bytes.max(floor);
        }
        self.bytes = self.bytes.clamp(path.packet.min(self.max) as f64, self.max as f64);
    }

    fn target(&self, path: Path, both_ways: bool) -> Duration {
        let two_packets = match self.rate {
            rate if rate > 0.0 => Duration::from_secs_f64(2.0 * path.packet as f64 / rate),
            _ => Duration::ZERO,
        };
        let target = TARGET.max(two_packets).min(MAX_TARGET);
        if both_ways { target * 2 } else { target }
    }

    fn start_up(&mut self, bytes: u64, gently: bool, target: Duration, path: Path) {
        if self.delay > target {
            self.phase = Phase::Steady;
            self.bytes *= part(self.base.least(), path.rtt);
            return;
        }
        if self.may_grow() {
            self.bytes += if gently { bytes / 4 } else { bytes } as f64;
        }
        let gently = gently || self.delay > target / 4;
        self.phase = Phase::Startup { gently };
    }

    fn may_grow(&self) -> bool {
        let recently = self.last_round.max(self.round.confirmed);
        self.round.limited && self.bytes() < 3 * recently + 2 * START_BYTES
    }

    fn end_round(&mut self, now: Instant, lasted: Duration, target: Duration, path: Path) {
        let round = self.round;
        if round.limited {
            let rate = round.confirmed as f64 / lasted.as_secs_f64();
            self.rate = rate.max(self.rate * 0.95);
        }
        match self.phase {
            Phase::Startup { .. } => {}
            Phase::Steady => self.steady(now, target, path),
            Phase::Shrinking { before, wait } => match wait.after(round, path) {
                Some(wait) => self.phase = Phase::Shrinking { before, wait },
                None => self.shrunk(now, before, target, path),
            },
            Phase::Looking {
                before,
                wait,
                competing,
            } => match wait.after(round, path) {
                Some(wait) => {
                    self.phase = Phase::Looking {
                        before,
                        wait,
                        competing,
                    }
                }
                None => self.looked(now, before, competing, path),
            },
            Phase::Competing { look_at } => self.compete(now, look_at, target, path),
        }
        if std::env::var_os("CREDIT_TRACE").is_some() {
            println!("{:?} {:p} credit {} delay {:?} target {target:?} rtt {:?} rate {} limited {} {:?} cwnd {}", now, self, self.bytes(), self.delay, path.rtt, self.rate as u64, round.limited, self.phase, path.window);
        }
        self.last_round = round.confirmed;
        self.round = Round::begin(now);
    }

    fn steady(&mut self, now: Instant, target: Duration, path: Path) {
        let before = Before {
            bytes: self.bytes,
            rtt: path.rtt,
        };
        if self.delay > target {
            return self.shrink(before, target);
        }
        if now.duration_since(self.base_seen) > LOOK_EVERY {
            self.bytes *= 0.75 * part(self.base.least(), path.rtt);
            self.phase = Phase::Looking {
                before,
                wait: Wait::NONE,
                competing: false,
            };
            return;
        }
        if self.may_grow() {
            // At most half of what would fill the queue to the target, and nothing at the target.
            let step = self.bytes * (0.5 * part(target, path.rtt)).min(0.125);
            self.bytes += step.max(path.packet as f64) * (1.0 - part(self.delay, target));
        }
    }

    fn shrink(&mut self, before: Before, target: Duration) {
        let aim = self.base.least() + target * 9 / 10;
        self.bytes *= part(aim, before.rtt).max(0.5);
        self.phase = Phase::Shrinking {
            before,
            wait: Wait::NONE,
        };
    }

    /// A step down has had its time to show.
    fn shrunk(&mut self, now: Instant, before: Before, target: Duration, path: Path) {
        if self.delay <= target {
            self.phase = Phase::Steady;
        } else if self.bytes > 0.7 * before.bytes {
            // Too little a step to tell by.
            self.bytes *= part(self.base.least() + target * 9 / 10, path.rtt).max(0.5);
            self.phase = Phase::Shrinking {
                before,
                wait: Wait::NONE,
            };
        } else if self.was_own_queue(before, path) {
            self.phase = Phase::Steady;
        } else {
            self.bytes = before.bytes;
            self.phase = Phase::Competing {
                look_at: now + LOOK_AGAIN,
            };
        }
    }

    /// Alone on the link, the round trip falls as the bound does, down to the base.
    fn was_own_queue(&self, before: Before, path: Path) -> bool {
        let alone = before.rtt.mul_f64(self.bytes / before.bytes);
        let expected = before.rtt - alone.max(self.base.least()).min(before.rtt);
        before.rtt.saturating_sub(path.rtt) * 2 > expected
    }

    fn looked(&mut self, now: Instant, before: Before, competing: bool, path: Path) {
        self.base_seen = now;
        if competing && !self.was_own_queue(before, path) {
            self.bytes = before.bytes;
            self.phase = Phase::Competing {
                look_at: now + LOOK_AGAIN,
            };
        } else {
            self.bytes = before.bytes * part(self.base.least(), before.rtt);
            self.phase = Phase::Steady;
        }
    }

    fn compete(&mut self, now: Instant, look_at: Instant, target: Duration, path: Path) {
        if self.delay < target {
            self.phase = Phase::Steady;
        } else if now >= look_at {
            self.phase = Phase::Looking {
                before: Before {
                    bytes: self.bytes,
                    rtt: path.rtt,
                },
                wait: Wait::NONE,
                competing: true,
            };
            self.bytes *= 0.5;
        } else if self.may_grow() {
            let step = (self.bytes / 32.0).max(path.packet as f64);
            self.bytes = (self.bytes + step).min((path.window + path.packet) as f64);
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

impl Wait {
    const NONE: Wait = Wait { rounds: 0, bytes: 0 };

    /// What is waited for after this round; `None` when it is over.
    fn after(self, round: Round, path: Path) -> Option<Wait> {
        let wait = Wait {
            rounds: self.rounds + 1,
            bytes: self.bytes + round.confirmed,
        };
        let over = wait.rounds >= 2 && wait.bytes >= SETTLED_PACKETS * path.packet;
        (!over).then_some(wait)
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
