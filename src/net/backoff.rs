//! The delay before the next dial: exponential with full jitter. Pure.

use std::time::Duration;

/// Counts the failures of one peer and draws delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    start: Duration,
    limit: Duration,
    failures: u32,
}

impl Backoff {
    /// No failure yet. The first delay is at most `start`; no delay is longer than `limit`.
    pub fn new(start: Duration, limit: Duration) -> Self {
        Self {
            start,
            limit,
            failures: 0,
        }
    }

    /// Failed attempts since the last [`Backoff::reset`].
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and gives the delay before the next attempt: uniform between zero and the
    /// ceiling, `jitter` (random) choosing the place. Full jitter spreads the dials of many nodes
    /// that lost the same peer at the same moment.
    pub fn fail(&mut self, jitter: u32) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
    }

    /// Forgets the failures: a connection has held.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    fn ceiling(&self) -> Duration {
        let doubled = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.start.saturating_mul(doubled).min(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Duration = Duration::from_millis(500);
    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn the_ceiling_doubles_up_to_the_limit_and_a_reset_starts_again() {
        let mut backoff = Backoff::new(START, LIMIT);
        let ceilings: Vec<u64> = (0..10)
            .map(|_| backoff.fail(u32::MAX).as_millis() as u64)
            .collect();
        assert_eq!(
            ceilings,
            [
                500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000
            ]
        );
        assert_eq!(backoff.failures(), 10);
        backoff.reset();
        assert_eq!(backoff.fail(u32::MAX), START);
    }

    proptest! {
        #[test]
        fn every_delay_is_between_zero_and_the_limit(failures in 0u32..200, jitter: u32) {
            let mut backoff = Backoff::new(START, LIMIT);
            for _ in 0..failures {
                backoff.fail(0);
            }
            let delay = backoff.fail(jitter);
            prop_assert!(delay <= LIMIT);
            prop_assert_eq!(backoff.failures(), failures + 1);
        }
    }
}
