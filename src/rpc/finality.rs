//! How long blocks take to become final.

/// Upper bounds of the buckets, in milliseconds; one more takes the rest.
pub(super) const BOUNDS_MS: [u64; 11] = [
    100, 250, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 30_000, 60_000, 120_000,
];

/// From a block's time, which its proposer set, to its commit here. Only blocks that became final
/// while this node was not fetching any; the clocks of both count, so it is as exact as they agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FinalityHistogram {
    /// How many in each bucket, not cumulative.
    pub(super) buckets: [u64; BOUNDS_MS.len() + 1],
    /// The sum of all, in milliseconds.
    pub(super) sum_ms: u64,
}

impl FinalityHistogram {
    pub(super) fn observe(&mut self, took_ms: u64) {
        let bucket = BOUNDS_MS.partition_point(|bound| *bound < took_ms);
        self.buckets[bucket] += 1;
        self.sum_ms = self.sum_ms.saturating_add(took_ms);
    }
}
