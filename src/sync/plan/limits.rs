//! The bounds of a plan.

use std::time::Duration;

/// How much is in flight and held, and how long is waited.
#[derive(Clone, Copy, Debug)]
pub(in crate::sync) struct Limits {
    /// Requests in flight to one peer.
    pub requests_per_peer: usize,
    /// Requests in flight to all peers.
    pub requests: usize,
    /// Heights in one request for bodies.
    pub range_blocks: u64,
    /// Expected bytes of one request for bodies.
    pub range_bytes: usize,
    /// Bytes of bodies held, being committed, or expected from requests in flight.
    pub held_bytes: usize,
    /// Blocks in one commit.
    pub commit_blocks: usize,
    /// Bytes of bodies in one commit, but always one block.
    pub commit_bytes: usize,
    /// So many bytes of an answer, or a whole body, are progress. Less is none: an answer may not be
    /// drawn out for ever a byte at a time.
    pub progress_bytes: u64,
    /// Without progress for this long, another peer is asked as well.
    pub hedge_after: Duration,
    /// Without progress for this long, a request is given up.
    pub stall_after: Duration,
    /// The first time that a peer is set aside for.
    pub aside_first: Duration,
    /// The longest time that a peer is set aside for.
    pub aside_limit: Duration,
    /// The longest time for a peer that only does not hold what it was asked for.
    pub not_held_limit: Duration,
    /// How long a masternode leaves a single missing block to consensus.
    pub consensus_head_start: Duration,
}

impl Limits {
    /// The values for a running node.
    pub(in crate::sync) const RECOMMENDED: Limits = Limits {
        requests_per_peer: 4,
        requests: 16,
        range_blocks: 64,
        range_bytes: 4 * 1024 * 1024,
        held_bytes: 64 * 1024 * 1024,
        commit_blocks: 64,
        commit_bytes: 16 * 1024 * 1024,
        progress_bytes: 16 * 1024,
        hedge_after: Duration::from_secs(3),
        stall_after: Duration::from_secs(20),
        aside_first: Duration::from_secs(2),
        aside_limit: Duration::from_secs(300),
        not_held_limit: Duration::from_secs(10),
        consensus_head_start: Duration::from_secs(2),
    };
}
