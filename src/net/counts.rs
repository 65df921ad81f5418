//! What the network counts for metrics, beyond what one connection counts.

use std::collections::BTreeMap;

use super::Direction;
use crate::wire::CloseCode;

/// Upper bounds of the round-trip time histogram, in microseconds; one more bucket takes the rest.
pub const RTT_BOUNDS_US: [u64; 13] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_000_000, 5_000_000,
];

/// Round-trip times of one connection by size, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RttHistogram {
    /// How many in each bucket, not cumulative; the last has no upper bound.
    pub buckets: [u64; RTT_BOUNDS_US.len() + 1],
    /// The sum of all, in microseconds.
    pub sum_us: u64,
}

impl RttHistogram {
    pub(super) fn observe(&mut self, rtt_us: u64) {
        let bucket = RTT_BOUNDS_US.partition_point(|bound| *bound < rtt_us);
        self.buckets[bucket] += 1;
        self.sum_us = self.sum_us.saturating_add(rtt_us);
    }

    /// How many round trips there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Events since the network started. The reasons are the names of [`CloseCode`], so there are few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetCounts {
    /// Connections registered, by who dialed.
    pub established: BTreeMap<Direction, u64>,
    /// Refused or failed handshakes, by who dialed and why.
    pub refused: BTreeMap<(Direction, CloseCode), u64>,
    /// Registered connections that ended, by why; without the losers of two at once.
    pub ended: BTreeMap<CloseCode, u64>,
    /// Arrivals that never answered: scans, or packets with a forged source.
    pub unanswered: u64,
    /// Arrivals turned away before a handshake, because too many were in progress.
    pub turned_away: u64,
    /// Arrivals asked to prove their address first.
    pub retried: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_falls_into_the_bucket_that_its_bound_closes() {
        let mut histogram = RttHistogram::default();
        for rtt_us in [0, 500, 501, 5_000_000, 5_000_001] {
            histogram.observe(rtt_us);
        }
        assert_eq!(histogram.buckets[0], 2);
        assert_eq!(histogram.buckets[1], 1);
        assert_eq!(histogram.buckets[RTT_BOUNDS_US.len() - 1], 1);
        assert_eq!(histogram.buckets[RTT_BOUNDS_US.len()], 1);
        assert_eq!((histogram.count(), histogram.sum_us), (5, 10_001_002));
    }
}
