//! Application pings of one connection: what is outstanding, round-trip times, the peer's tip.
//! Pure: the time is an argument.
//!
//! A late pong ends nothing. It makes the peer slow, which is shown, until one comes in time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{NetTiming, RttHistogram, RttSummary};

/// The most pings without a pong; no further one is sent until a pong comes.
pub(super) const MAX_OUTSTANDING: usize = 16;
/// How many round-trip times the percentiles are taken from.
const RTT_SAMPLES: usize = 1024;

/// The liveness of one connection.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    /// Nonce to the time of sending. Nonces ascend, so the first is the oldest.
    outstanding: BTreeMap<u64, Instant>,
    last_ping: Option<Instant>,
    rtt_us: VecDeque<u64>,
    min_us: u64,
    histogram: RttHistogram,
    last_was_late: bool,
    pings_sent: u64,
    pongs_received: u64,
    pings_received: u64,
}

/// The counters for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LivenessSummary {
    /// Round-trip times; `None` before the first pong.
    pub rtt: Option<RttSummary>,
    /// Round-trip times by size.
    pub histogram: RttHistogram,
    /// Since the last ping was sent.
    pub since_ping: Option<Duration>,
    /// Pings sent.
    pub pings_sent: u64,
    /// Pongs received for them.
    pub pongs_received: u64,
    /// Pings received, each answered.
    pub pings_received: u64,
    /// A ping is, or the last one was, unanswered for too long.
    pub slow: bool,
}

impl Liveness {
    /// When the next ping is due; `None` while too many are outstanding.
    pub(super) fn next_ping(&self, timing: &NetTiming, now: Instant) -> Option<Instant> {
        if self.outstanding.len() >= MAX_OUTSTANDING {
            return None;
        }
        let Some(last) = self.last_ping else {
            return Some(now);
        };
        let regular = last + timing.ping_interval;
        let Some((_, oldest)) = self.outstanding.first_key_value() else {
            return Some(regular);
        };
        let urgent = (*oldest + timing.slow_after).max(last + timing.ping_interval_overdue());
        Some(regular.min(urgent))
    }

    /// When the last ping was sent.
    pub(super) fn last_ping(&self) -> Option<Instant> {
        self.last_ping
    }

    /// A ping goes out; gives its nonce.
    pub(super) fn ping(&mut self, now: Instant) -> u64 {
        self.pings_sent += 1;
        self.last_ping = Some(now);
        self.outstanding.insert(self.pings_sent, now);
        self.pings_sent
    }

    /// A pong has come. One that answers no outstanding ping counts for nothing.
    pub(super) fn pong(
        &mut self,
        nonce: u64,
        timing: &NetTiming,
        now: Instant,
    ) -> Option<Duration> {
        let sent = self.outstanding.remove(&nonce)?;
        let rtt = now.saturating_duration_since(sent);
        let rtt_us = rtt.as_micros() as u64;
        if self.rtt_us.len() == RTT_SAMPLES {
            self.rtt_us.pop_front();
        }
        self.rtt_us.push_back(rtt_us);
        self.histogram.observe(rtt_us);
        self.min_us = match self.pongs_received {
            0 => rtt_us,
            _ => self.min_us.min(rtt_us),
        };
        self.pongs_received += 1;
        self.last_was_late = rtt > timing.slow_after;
        Some(rtt)
    }

    /// A ping has come and is being answered.
    pub(super) fn pinged(&mut self) {
        self.pings_received += 1;
    }

    /// The state for display.
    pub(super) fn summary(&self, timing: &NetTiming, now: Instant) -> LivenessSummary {
        let waiting_long = (self.outstanding.values().next())
            .is_some_and(|sent| now.saturating_duration_since(*sent) > timing.slow_after);
        LivenessSummary {
            rtt: self.rtt(),
            histogram: self.histogram,
            since_ping: (self.last_ping).map(|at| now.saturating_duration_since(at)),
            pings_sent: self.pings_sent,
            pongs_received: self.pongs_received,
            pings_received: self.pings_received,
            slow: waiting_long || self.last_was_late,
        }
    }

    fn rtt(&self) -> Option<RttSummary> {
        let last_us = *self.rtt_us.back()?;
        let mut sorted: Vec<u64> = self.rtt_us.iter().copied().collect();
        sorted.sort_unstable();
        let percentile = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
        Some(RttSummary {
            last_us,
            min_us: self.min_us,
            p50_us: percentile(50),
            p99_us: percentile(99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: NetTiming = NetTiming::RECOMMENDED;

    #[tokio::test(start_paused = true)]
    async fn pings_go_every_five_seconds_and_every_second_while_one_is_overdue() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut liveness = Liveness::default();
        assert_eq!(liveness.next_ping(&TIMING, start), Some(start));
        let first = liveness.ping(start);
        assert_eq!(liveness.next_ping(&TIMING, start), Some(at(2)));
        liveness.ping(at(2));
        assert_eq!(liveness.next_ping(&TIMING, at(2)), Some(at(3)));
        assert!(liveness.summary(&TIMING, at(3)).slow);
        let second = liveness.ping(at(3)) - 1;
        assert_eq!(
            liveness.pong(first, &TIMING, at(4)),
            Some(Duration::from_secs(4))
        );
        assert_eq!(
            liveness.pong(first, &TIMING, at(4)),
            None,
            "a pong counts once"
        );
        assert!(liveness.summary(&TIMING, at(4)).slow, "it came late");
        liveness.pong(second, &TIMING, at(4));
        liveness.pong(second + 1, &TIMING, at(4));
        assert!(!liveness.summary(&TIMING, at(4)).slow);
        assert_eq!(liveness.next_ping(&TIMING, at(4)), Some(at(8)));
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_sixteen_pings_are_outstanding() {
        let mut liveness = Liveness::default();
        let now = Instant::now();
        let nonces: Vec<u64> = (0..MAX_OUTSTANDING).map(|_| liveness.ping(now)).collect();
        assert_eq!(liveness.next_ping(&TIMING, now), None);
        liveness.pong(nonces[3], &TIMING, now);
        assert!(liveness.next_ping(&TIMING, now).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn percentiles_come_from_the_last_1024_and_the_minimum_from_all() {
        let mut liveness = Liveness::default();
        let start = Instant::now();
        for ms in std::iter::once(1).chain(100..1124) {
            let nonce = liveness.ping(start);
            liveness.pong(nonce, &TIMING, start + Duration::from_millis(ms));
        }
        let rtt = liveness.summary(&TIMING, start).rtt.unwrap();
        assert_eq!(rtt.min_us, 1_000);
        assert_eq!(rtt.last_us, 1_123_000);
        assert_eq!(rtt.p50_us, 611_000);
        assert_eq!(rtt.p99_us, 1_112_000);
    }
}
