//! How many bytes of bulk one connection may have in flight: a bound that follows the delay which
//! the bulk itself causes, after LEDBAT (RFC 6817). Pure: times and the path's state are arguments.
//!
//! - The delay that bulk causes is at most each of three: what the way there takes above its least
//!   of late, which the receiver's clock tells (as RFC 6817 wants it: the clocks' difference cancels
//!   out); what the round trip is above its least; and the time that the bound takes at the pace of
//!   late, less the round trip's least. The first is deaf to a queue on the way back, the second to what the peer
//!   tells, the third to a machine that was busy for a moment. The least of them is believed.
//! - The target is [`TARGET`] or the time of two packets, not RFC 6817's 100 ms: a vote waits behind
//!   it.
//! - Start: fast growth until delay shows (RFC 6817 section 2.4.1 allows slow start).
//! - Then up by about a packet each round trip, and down in proportion once the target is passed: so
//!   those that share a queue come to equal shares, which steps that stop at the target do not give.
//! - A bound that is not used does not grow (section 2.4.1), nor beyond a few times what was
//!   confirmed in a round trip: a slow reader or a small congestion window is no reason to write
//!   more.
//! - A queue that never empties hides the least delay. So all bounds yield now and then, at the same
//!   times of the day. If the queue is there all the same, it is of another kind of traffic: until the next such
//!   moment the bound follows QUIC's congestion window. Nobody decides that between two such moments:
//!   many that are at their least bound see a queue that their own steps do not shorten as well. Only one
//!   that was told so and sees the queue come back need not wait.

use std::time::Duration;

use tokio::time::Instant;

mod base;
mod least;

use base::Base;
use least::Least;

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
/// A bound yields each time so many round trips have passed, rounded up to a power of two of seconds
/// of the wall clock, up to [`LOOK_MOST_S`].
const LOOK_ROUNDS: u32 = 100;
const LOOK_MOST_S: u64 = 32;
/// After so many rounds with a queue that steps down do not shorten it is again another's.
const RELAPSE_ROUNDS: u32 = 6;
/// How many rounds a look takes.
const LOOK_TAKES: u32 = 3;
/// Up to here the bound doubles each round trip at the start.
const DOUBLING_BYTES: f64 = 64.0 * 1024.0;

/// At the start, beyond that, it grows so that one round trip adds the target to the queue, but by no less.
const LEAST_GROWTH: f64 = 0.125;
/// The start ends with so much of the target in the queue.
const START_TO: f64 = 0.6;
/// A step down goes so far below the target, in parts of it.
const STEP_TO: f64 = 0.8;
/// A queue of which two looks in a row leave so much, in parts of it and of the target, is none: the path has become
/// longer. One look alone may be that of late-comers to a crowd.
const STAYS: f64 = 0.9;
/// The pace of late is that of two round trips, and of no less than this: a pause of a busy machine is a
/// small part of it.
const PACE_OVER: Duration = Duration::from_millis(50);

/// What QUIC tells of the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// The least round-trip time of the connection.
    pub least_rtt: Duration,
    /// The congestion window, in bytes.
    pub window: u64,
    /// The packet size, in bytes.
    pub packet: u64,
}

/// What a confirmation tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirmed {
    /// Bytes, more than before.
    pub bytes: u64,
    /// The receiver's clock when it had the last of them less this node's when it was written, in
    /// microseconds.
    pub way_us: i64,
    /// This node's clock now less the receiver's then, in microseconds.
    pub back_us: i64,
    /// Whether a stream is waiting for the bound.
    pub limited: bool,
}

/// The state of one connection's bound.
#[derive(Debug)]
pub(super) struct Credit {
    max: u64,
    bytes: f64,
    phase: Phase,
    base: Base,
    back: Least<i64>,
    round: Round,
    delay: Duration,
    /// Bytes a second, over the last few rounds.
    pace: f64,
    /// Bytes a second of the fastest round, soon forgotten.
    rate: f64,
    /// Rounds in a row with hardly any delay.
    quiet: u32,
    /// What the last whole round confirmed.
    last_round: u64,
    /// A moment, and its time of day in milliseconds.
    noon: (Instant, u64),
    look_at: Instant,
    /// Whether the last look left the queue as it was.
    stayed: bool,
    /// Until the next look after the queue was another's: rounds in a row in which it is there again.
    relapse: Option<u32>,
    last_confirmed: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Growing fast until delay shows.
    Startup,
    /// Around the target.
    Steady,
    /// After a step down, until it shows.
    Shrunk { rounds: u32 },
    /// Yielding for a moment.
    Looking(Look),
    /// The queue is another's.
    Competing,
}

/// A bound that yields, and what was before.
#[derive(Clone, Copy, Debug)]
struct Look {
    rounds: u32,
    before: f64,
    /// Whether the queue was another's before.
    again: bool,
    /// What fills the queue to half of the target.
    after: f64,
    queue: Duration,
}

/// One round trip.
#[derive(Clone, Copy, Debug)]
struct Round {
    began: Instant,
    confirmed: u64,
    limited: bool,
    /// The least queue on the way there.
    least: Duration,
    samples: u32,
    /// Over all samples: round trips less the queue on the way there.
    idle: Duration,
    /// Over all samples.
    delay: Duration,
}

/// What holds at the end of a round.
#[derive(Clone, Copy)]
struct Now {
    at: Instant,
    path: Path,
    target: Duration,
    base: Duration,
    idle: Duration,
}

impl Credit {
    /// For a new connection; `max` holds whatever the path and the peer do. `now_ms` is the time of
    /// day.
    pub(super) fn new(max: u64, now: Instant, now_ms: u64) -> Self {
        Self {
            max,
            bytes: START_BYTES.min(max) as f64,
            phase: Phase::Startup,
            base: Base::new(now),
            back: Least::default(),
            round: Round::begin(now),
            delay: Duration::ZERO,
            pace: 0.0,
            rate: 0.0,
            quiet: 0,
            last_round: 0,
            noon: (now, now_ms),
            look_at: now,
            stayed: false,
            relapse: None,
            last_confirmed: None,
        }
    }

    /// The bound, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// The queueing delay of the last round.
    pub(super) fn delay(&self) -> Duration {
        self.delay
    }

    /// Something is written while nothing was outstanding: after a pause the path may be another.
    pub(super) fn resume(&mut self, now: Instant) {
        self.round = Round::begin(now);
        let pause = self.last_confirmed.map(|last| now.duration_since(last));
        if let Some(pause) = pause.filter(|pause| *pause > PAUSE) {
            self.base.paused(pause);
            self.bytes = self.bytes.min(START_BYTES as f64);
            self.phase = Phase::Startup;
            self.stayed = false;
            self.relapse = None;
            self.last_round = 0;
        }
    }

    /// The peer has confirmed bytes.
    pub(super) fn confirmed(&mut self, now: Instant, confirmed: Confirmed, path: Path) {
        if self.last_confirmed.replace(now).is_none() {
            self.base.begin(now, path);
            self.look_at = self.next_look(now, path.least_rtt);
        }
        let base = self.base.note(now, path);
        let back = self.back.note(now, confirmed.back_us);
        let way_base = base.as_micros() as i64;
        let way = confirmed
            .way_us
            .saturating_sub(way_base.saturating_sub(back));
        let queue = (path.rtt.saturating_sub(base)).min(Duration::from_micros(way.max(0) as u64));
        let own = match self.pace > 0.0 {
            true => (self.bytes / self.pace - base.as_secs_f64()).max(0.0),
            false => f64::MAX,
        };
        let delay = queue.min(Duration::try_from_secs_f64(own).unwrap_or(queue));
        let round = &mut self.round;
        round.confirmed += confirmed.bytes;
        round.limited |= confirmed.limited;
        round.least = round.least.min(queue);
        round.samples += 1;
        round.idle += path.rtt - queue;
        round.delay += delay;
        let now = Now {
            at: now,
            path,
            target: self.target(path),
            base,
            idle: self.round.idle / self.round.samples,
        };
        if let Phase::Startup = self.phase {
            self.start_up(confirmed.bytes, queue, now);
        }
        if now.at.duration_since(self.round.began) >= path.rtt {
            self.end_round(now);
        }
        // One that yields may go lower, or slow links would hide their base delay for ever.
        let packets = match self.phase {
            Phase::Looking(_) => 1,
            _ => FLOOR_PACKETS,
        };
        let floor = (packets * path.packet).min(self.max) as f64;
        self.bytes = self.bytes.clamp(floor, self.max as f64);
    }

    fn target(&self, path: Path) -> Duration {
        TARGET.max(self.packets_take(2, path).min(MAX_TARGET))
    }

    /// How long so many packets take at the rate of late; nothing until one is known.
    fn packets_take(&self, packets: u64, path: Path) -> Duration {
        match self.rate {
            rate if rate > 0.0 => Duration::from_secs_f64((packets * path.packet) as f64 / rate),
            _ => Duration::ZERO,
        }
    }

    fn start_up(&mut self, bytes: u64, queue: Duration, now: Now) {
        // A little that stays is a queue as well as more in a moment.
        let stays = now.at.duration_since(self.round.began) >= now.path.rtt * 2 / 5
            && self.round.least > now.target * 3 / 10;
        if stays || queue > now.target {
            // What is under way by now is more than shows yet. Where the link is idle in between, the
            // pace is not yet its rate, and what was under way when this delay came about fits it.
            let carried = self.rate * (now.idle + now.target.mul_f64(START_TO)).as_secs_f64();
            let fitted = match self.round.least < now.target / 4 {
                true => self.bytes / (1.0 + growth(now)),
                false => 0.0,
            };
            self.bytes = carried.max(fitted).clamp(self.bytes / 2.0, self.bytes);
            self.phase = Phase::Shrunk { rounds: 0 };
        } else if self.may_grow() {
            // What one round adds beyond the link's needs fills its queue for a round.
            let part = match self.bytes < DOUBLING_BYTES {
                true => 1.0,
                false => growth(now),
            };
            self.bytes += bytes as f64 * part;
        }
    }

    fn may_grow(&self) -> bool {
        let recently = self.last_round.max(self.round.confirmed);
        self.round.limited && self.bytes() < 3 * recently + 2 * START_BYTES
    }

    fn end_round(&mut self, now: Now) {
        let lasted = now
            .at
            .duration_since(self.round.began)
            .as_secs_f64()
            .max(1e-4);
        let pace = self.round.confirmed as f64 / lasted;
        if self.round.limited {
            self.rate = pace.max(self.rate * 0.95);
        }
        let weight = lasted / (now.path.rtt * 2).max(PACE_OVER).as_secs_f64();
        self.pace = match self.pace > 0.0 {
            true => self.pace + (pace - self.pace) * weight.min(1.0),
            false => pace,
        };
        self.delay = self.round.delay / self.round.samples;
        self.quiet = match self.round.least < now.target / 4 {
            true => self.quiet + 1,
            false => 0,
        };
        // At its floor a bound has no step down left that could show anything.
        let there =
            self.round.least > 2 * TARGET && self.bytes() > 2 * FLOOR_PACKETS * now.path.packet;
        self.relapse = (self.relapse).map(|rounds| if there { rounds + 1 } else { 0 });
        let time = self.time_to_look(now);
        match self.phase {
            Phase::Startup => {}
            Phase::Steady | Phase::Shrunk { .. } | Phase::Competing if time => self.look(now),
            Phase::Steady | Phase::Shrunk { .. } if self.relapse >= Some(RELAPSE_ROUNDS) => {
                self.phase = Phase::Competing;
            }
            Phase::Steady => self.steady(now),
            Phase::Shrunk { rounds } => {
                self.phase = match rounds >= 1 {
                    true => Phase::Steady,
                    false => Phase::Shrunk { rounds: rounds + 1 },
                };
            }
            Phase::Looking(look) if look.rounds + 1 >= LOOK_TAKES => self.looked(look, now),
            Phase::Looking(look) => {
                let rounds = look.rounds + 1;
                self.phase = Phase::Looking(Look { rounds, ..look });
            }
            Phase::Competing => self.compete(now),
        }
        self.last_round = self.round.confirmed;
        self.round = Round::begin(now.at);
    }

    fn steady(&mut self, now: Now) {
        if self.delay > now.target {
            self.shrink(self.delay, now);
        } else if self.may_grow() {
            let packet = (now.path.packet as f64).min(self.bytes / 8.0);
            // More while the target is far, and more yet when no delay shows for long; what shows is
            // a round trip old.
            let part_of_bytes = (0.45 * part(now.target, now.path.rtt)).min(0.125);
            let missing = 1.0 - part(self.delay, now.target);
            let eager = (f64::from(1 + self.quiet) * part_of_bytes).min(0.05);
            let grown = part_of_bytes.max(eager * missing) * missing;
            self.bytes += packet + self.bytes * grown;
        }
    }

    /// A step towards what would be below the target if all of the queue were this bound's.
    fn shrink(&mut self, delay: Duration, now: Now) {
        let aim = now.idle + now.target.mul_f64(STEP_TO);
        self.bytes *= part(aim, now.idle + delay).max(0.5);
        self.phase = Phase::Shrunk { rounds: 0 };
    }

    fn time_to_look(&mut self, now: Now) -> bool {
        let time = now.at >= self.look_at;
        if time {
            self.look_at = self.next_look(now.at, now.base);
        }
        time
    }

    fn next_look(&self, now: Instant, rtt: Duration) -> Instant {
        let wanted_s = (rtt * LOOK_ROUNDS).as_secs() + 1;
        let every_ms = 1_000 * wanted_s.next_power_of_two().min(LOOK_MOST_S);
        let today = self.noon.1 + now.duration_since(self.noon.0).as_millis() as u64;
        now + Duration::from_millis(every_ms - today % every_ms)
    }

    /// Yields so far that the queue empties although another knows its base delay no better than
    /// to the target.
    fn look(&mut self, now: Now) {
        let after = self.rate * (now.idle + now.target / 2).as_secs_f64();
        self.relapse = None;
        let again = matches!(self.phase, Phase::Competing);
        if again {
            // What is beyond QUIC's window has not left yet and is in no queue.
            self.bytes = self.bytes.min(now.path.window as f64);
        }
        self.phase = Phase::Looking(Look {
            rounds: 0,
            before: self.bytes,
            again,
            after: after.min(self.bytes),
            queue: self.round.least,
        });
        let known = part(now.idle, now.path.rtt);
        self.bytes *= 0.95 * known * part(now.idle, now.idle + now.target);
    }

    fn looked(&mut self, look: Look, now: Now) {
        // What would be left if all that share the queue had yielded as far.
        let left = (now.idle + look.queue).mul_f64(self.bytes / look.before);
        let left = left.saturating_sub(now.idle);
        let foreign = match look.again {
            true => TARGET.max(left),
            false => (TARGET * 3 / 2).max((left + look.queue) / 2),
        };
        let foreign = self.round.least > foreign && self.round.limited;
        (self.base).looked(now.at, foreign, self.packets_take(1, now.path));
        if foreign {
            self.stayed = false;
            self.bytes = look.before;
            self.phase = Phase::Competing;
        } else {
            let stays = self.round.least >= now.target.max(look.queue).mul_f64(STAYS);
            if stays && self.stayed {
                self.base.longer();
                self.back = Least::default();
            }
            self.stayed = stays;
            self.bytes = self.bytes.max(look.after);
            self.phase = Phase::Steady;
            self.relapse = look.again.then_some(0);
        }
    }

    fn compete(&mut self, now: Now) {
        if self.round.least < TARGET {
            self.phase = Phase::Steady;
            self.relapse = Some(0);
        } else if self.may_grow() {
            // A congestion window that is not used up does not grow.
            let most = 2.0 * now.path.window as f64;
            self.bytes = (self.bytes * 2.0).min(most);
        }
    }
}

/// The part that the start adds in a round trip.
fn growth(now: Now) -> f64 {
    part(now.target, now.base).clamp(LEAST_GROWTH, 1.0)
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
            least: Duration::MAX,
            samples: 0,
            idle: Duration::ZERO,
            delay: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests;
