//! How much of each kind a peer may ask of this node: token buckets. Pure; time is an argument.
//!
//! | what | burst | a second | beyond it |
//! |---|---|---|---|
//! | pings | 64 | 64 | delayed: the keepalive stream is read no further |
//! | news of its tip | 32 | 8 | dropped; the next ping tells the tip again |
//! | addresses | 200 | 1 | dropped |
//! | transactions announced or asked for, ids | 50,000 | 10,000 | delayed |
//! | whole transactions, bytes | 16 MiB | 8 MiB | delayed |
//! | sync requests | 1,024 | 1,024 | delayed: the answer waits |
//!
//! An honest peer stays below all of them: it pings once in 5 s, or once a second when this node is
//! late; tells its tip at most 4 times a second; and asks for sync 4 times at once, for 64 blocks or
//! 256 headers each. What is delayed holds back only the stream that it came on, and by QUIC's flow
//! control its sender. Everything over a budget is counted and shown; none of it is a fault, and
//! none leads to a ban.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What a peer's budgets are for; each has a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spending {
    /// One ping.
    Ping,
    /// One news of a tip.
    Tip,
    /// One address.
    Address,
    /// One id of a transaction.
    TransactionId,
    /// One byte of a whole transaction.
    TransactionByte,
    /// One sync request.
    SyncRequest,
}

impl Spending {
    /// The largest burst, and what comes back in a second.
    fn limits(self) -> (u64, u64) {
        match self {
            Spending::Ping => (64, 64),
            Spending::Tip => (32, 8),
            Spending::Address => (200, 1),
            Spending::TransactionId => (50_000, 10_000),
            Spending::TransactionByte => (16 << 20, 8 << 20),
            Spending::SyncRequest => (1_024, 1_024),
        }
    }
}

/// A bucket that fills at a steady rate up to its burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBucket {
    burst: u64,
    per_second: u64,
    /// What there is, at `at`; negative when a delayed spender has taken more than there was.
    millitokens: i128,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub(super) fn new(spending: Spending, now: Instant) -> Self {
        let (burst, per_second) = spending.limits();
        Self {
            burst,
            per_second,
            millitokens: i128::from(burst) * 1_000,
            at: now,
        }
    }

    /// Takes tokens if they are there.
    pub(super) fn try_take(&mut self, tokens: u64, now: Instant) -> bool {
        self.refill(now);
        let wanted = i128::from(tokens) * 1_000;
        let there = self.millitokens >= wanted;
        if there {
            self.millitokens -= wanted;
        }
        there
    }

    /// Takes tokens, and says when they will all have been there: at once, or later.
    pub(super) fn take(&mut self, tokens: u64, now: Instant) -> Instant {
        self.refill(now);
        self.millitokens -= i128::from(tokens) * 1_000;
        let missing = u64::try_from(-self.millitokens).unwrap_or(0);
        now + Duration::from_millis(missing.div_ceil(self.per_second))
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        // Milliseconds times tokens a second are millitokens; what is less than one stays in `at`.
        let whole = Duration::from_millis(passed.as_millis() as u64);
        let earned = whole.as_millis() as i128 * i128::from(self.per_second);
        self.millitokens = (self.millitokens + earned).min(i128::from(self.burst) * 1_000);
        self.at += whole;
    }
}

/// One kind of spending of one stream, and the count of what was over its budget.
pub(super) struct Budget<'a> {
    bucket: TokenBucket,
    over: &'a AtomicU64,
}

impl<'a> Budget<'a> {
    /// A full budget whose excess is counted in `over`.
    pub(super) fn new(spending: Spending, over: &'a AtomicU64) -> Self {
        Self {
            bucket: TokenBucket::new(spending, Instant::now()),
            over,
        }
    }

    /// Whether there is enough; the excess is to be dropped.
    pub(super) fn allows(&mut self, tokens: u64) -> bool {
        let allowed = self.bucket.try_take(tokens, Instant::now());
        if !allowed {
            self.over.fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }

    /// Waits until there is enough.
    pub(super) async fn wait(&mut self, tokens: u64) {
        let now = Instant::now();
        let due = self.bucket.take(tokens, now);
        if due > now {
            self.over.fetch_add(1, Ordering::Relaxed);
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(Spending::Tip, start);
        for _ in 0..32 {
            assert!(bucket.try_take(1, start));
        }
        assert!(!bucket.try_take(1, start));
        let later = start + Duration::from_millis(125);
        assert!(bucket.try_take(1, later) && !bucket.try_take(1, later));
        let hours = start + Duration::from_secs(7_200);
        assert!((0..32).all(|_| bucket.try_take(1, hours)));
        assert!(
            !bucket.try_take(1, hours),
            "no more than the burst is saved up"
        );
    }

    #[test]
    fn what_is_taken_beyond_the_burst_is_due_later() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(Spending::SyncRequest, start);
        assert_eq!(bucket.take(1_024, start), start);
        assert_eq!(bucket.take(512, start), start + Duration::from_millis(500));
        assert_eq!(bucket.take(512, start), start + Duration::from_secs(1));
    }

    proptest! {
        /// Whoever waits as told never gets more than the burst and the rate.
        #[test]
        fn nobody_gets_more_than_burst_and_rate(
            steps in prop::collection::vec((0u64..3_000, 0u64..200), 1..100)
        ) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(Spending::Ping, start);
            let (mut now, mut taken) = (start, 0);
            for (pause_ms, tokens) in steps {
                now = bucket.take(tokens, now + Duration::from_millis(pause_ms));
                taken += tokens;
                let seconds = (now - start).as_millis() as u64;
                prop_assert!(taken * 1_000 <= 64 * 1_000 + 64 * seconds);
            }
        }

        /// Fractions are not lost: asking often gives as much as asking once.
        #[test]
        fn small_steps_earn_as_much_as_large_ones(step_us in 1u64..5_000) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(Spending::Ping, start);
            prop_assert!(bucket.try_take(64, start));
            let mut now = start;
            while now < start + Duration::from_secs(1) {
                now += Duration::from_micros(step_us);
                bucket.refill(now);
            }
            prop_assert!(bucket.try_take(64, now + Duration::from_millis(1)));
        }
    }
}
