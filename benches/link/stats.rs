//! Times and what is made of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;

/// The machine's clock: this program measures real time and nothing else.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark on real sockets and devices; virtual time has tests of its own"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Round trips of one kind.
#[derive(Default)]
pub struct Probe(Mutex<Samples>);

#[derive(Default)]
struct Samples {
    /// Not answered yet.
    waiting: BTreeMap<u64, Instant>,
    /// When sent, and how long it took.
    done: Vec<(Instant, Duration)>,
}

impl Probe {
    /// A request leaves.
    pub fn sent(&self, number: u64) {
        self.samples().waiting.insert(number, now());
    }

    /// Its answer is here.
    pub fn answered(&self, number: u64) {
        let mut samples = self.samples();
        if let Some(sent) = samples.waiting.remove(&number) {
            samples.done.push((sent, now() - sent));
        }
    }

    /// A round trip that somebody else has measured has just ended.
    pub fn took(&self, rtt: Duration) {
        let sent = now() - rtt;
        self.samples().done.push((sent, rtt));
    }

    /// Whether everything sent before then has been answered.
    pub fn all_answered(&self, before: Instant) -> bool {
        let samples = self.samples();
        (samples.waiting.first_key_value()).is_none_or(|(_, sent)| *sent >= before)
    }

    /// What was sent from `from` until before `to`. What is still not answered counts with the time
    /// that has passed since: the true value is no smaller.
    pub fn between(&self, from: Instant, to: Instant) -> Trips {
        let samples = self.samples();
        let within = |sent: &Instant| (from..to).contains(sent);
        let answered = (samples.done.iter()).filter(|(sent, _)| within(sent));
        let unanswered = samples.waiting.values().filter(|sent| within(sent));
        let lost = unanswered.clone().count();
        let mut ms: Vec<f64> = answered
            .map(|(_, rtt)| *rtt)
            .chain(unanswered.map(|sent| now() - *sent))
            .map(|rtt| rtt.as_secs_f64() * 1e3)
            .collect();
        ms.sort_by(f64::total_cmp);
        Trips {
            p50_ms: percentile(&ms, 50),
            p99_ms: percentile(&ms, 99),
            max_ms: percentile(&ms, 100),
            count: ms.len(),
            unanswered: lost,
        }
    }

    /// Every answered round trip: seconds from `zero` to its sending, and milliseconds.
    pub fn trace(&self, zero: Instant) -> Vec<(f64, f64)> {
        let samples = self.samples();
        let seconds = |sent: Instant| match sent.checked_duration_since(zero) {
            Some(after) => after.as_secs_f64(),
            None => -(zero - sent).as_secs_f64(),
        };
        let mut trace: Vec<(f64, f64)> = (samples.done.iter())
            .map(|(sent, rtt)| (seconds(*sent), rtt.as_secs_f64() * 1e3))
            .collect();
        trace.sort_by(|one, other| one.0.total_cmp(&other.0));
        trace
    }

    fn samples(&self) -> std::sync::MutexGuard<'_, Samples> {
        self.0.lock().expect("no holder panics")
    }
}

/// A summary of round trips, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Trips {
    /// The median.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// How many.
    pub count: usize,
    /// How many of them have had no answer.
    pub unanswered: usize,
}

impl Trips {
    /// The median run, figure by figure.
    pub fn median(runs: &[Trips]) -> Trips {
        let by = |value: fn(&Trips) -> f64| median(runs.iter().map(value));
        Trips {
            p50_ms: by(|one| one.p50_ms),
            p99_ms: by(|one| one.p99_ms),
            max_ms: by(|one| one.max_ms),
            count: runs.iter().map(|one| one.count).sum(),
            unanswered: runs.iter().map(|one| one.unanswered).sum(),
        }
    }
}

/// The middle one.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Nearest rank; not a number when there is nothing.
fn percentile(ascending: &[f64], percent: usize) -> f64 {
    let rank = (ascending.len() * percent).div_ceil(100);
    let index = rank.saturating_sub(1);
    ascending.get(index).copied().unwrap_or(f64::NAN)
}

const BUCKET: Duration = Duration::from_micros(20);
const BUCKETS: usize = 2_000;

/// How late packets were, in steps of 20 us up to 40 ms.
#[derive(Clone, Debug)]
pub struct Lateness {
    buckets: Vec<u64>,
    longest: Duration,
}

impl Default for Lateness {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            longest: Duration::ZERO,
        }
    }
}

impl Lateness {
    /// One packet more.
    pub fn count(&mut self, late: Duration) {
        let bucket = (late.as_micros() / BUCKET.as_micros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.longest = self.longest.max(late);
    }

    /// All packets of both.
    pub fn add(&mut self, other: &Lateness) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.longest = self.longest.max(other.longest);
    }

    /// The upper end of the bucket of this percentile, in milliseconds.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        let total: u64 = self.buckets.iter().sum();
        let rank = (total as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        let index = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let upper = BUCKET * (index.unwrap_or(0) as u32 + 1);
        upper.min(self.longest).as_secs_f64() * 1e3
    }

    /// The latest packet, in milliseconds.
    pub fn longest_ms(&self) -> f64 {
        self.longest.as_secs_f64() * 1e3
    }
}
