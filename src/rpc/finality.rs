//! How long blocks and transactions take to become final.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::chain::Chain;
use crate::types::TxId;

/// Upper bounds of the buckets, in milliseconds; one more takes the rest.
pub(super) const BOUNDS_MS: [u64; 11] = [
    100, 250, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 30_000, 60_000, 120_000,
];

/// The most submitted transactions that are followed at a time; further ones are not measured.
const MAX_FOLLOWED: usize = 1_000;

/// A transaction that is not final after so long is not measured.
const FOLLOWED_FOR: Duration = Duration::from_secs(3_600);

/// What is measured.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Finality {
    pub(super) blocks: FinalityHistogram,
    /// From `sendrawtransaction` at this node to the commit here.
    pub(super) transactions: FinalityHistogram,
}

/// Transactions that were submitted here and are not final yet, with when that was.
#[derive(Default)]
pub(super) struct Followed(BTreeMap<TxId, Instant>);

impl Followed {
    /// Begins to follow a transaction.
    pub(super) fn add(&mut self, txid: TxId, submitted: Instant) {
        if self.0.len() < MAX_FOLLOWED {
            self.0.entry(txid).or_insert(submitted);
        }
    }

    /// How long each took that has become final, in milliseconds. A chain that cannot be read is not
    /// this one's to report.
    pub(super) async fn finished(&mut self, chain: &Chain) -> Vec<u64> {
        let now = Instant::now();
        let waiting: Vec<(TxId, Instant)> = self.0.iter().map(|(id, at)| (*id, *at)).collect();
        let mut took_ms = Vec::new();
        for (txid, submitted) in waiting {
            let took = now.duration_since(submitted);
            let final_now = matches!(chain.find_transaction(txid).await, Ok(Some(_)));
            if final_now {
                took_ms.push(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            }
            if final_now || took > FOLLOWED_FOR {
                self.0.remove(&txid);
            }
        }
        took_ms
    }
}

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
