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
    /// The most expected bytes of one request for bodies.
    pub range_bytes: usize,
    /// The least, and those of the first request to a peer; but always one block.
    pub first_range_bytes: usize,
    /// How long a peer should take for one request.
    pub range_time: Duration,
    /// Bytes of bodies held, being committed, or expected from requests in flight.
    pub held_bytes: usize,
    /// Commits that wait or run: while one is being written, the next is executed.
    pub commits: usize,
    /// Blocks in one commit.
    pub commit_blocks: usize,
    /// Bytes of bodies in one commit, but always one block.
    pub commit_bytes: usize,
    /// So many bytes of an answer, or a whole body, are progress. Less is none: an answer may not be
    /// drawn out for ever a byte at a time.
    pub progress_bytes: u64,
    /// Without progress for this long, another peer is asked as well.
    pub hedge_after: Duration,
    /// The same for headers: they are small, and nothing goes on without them.
    pub hedge_headers_after: Duration,
    /// While commits wait for it, how long a request has before a faster peer is asked as well.
    pub outpace_after: Duration,
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
        range_blocks: 128,
        range_bytes: 4 * 1024 * 1024,
        first_range_bytes: 256 * 1024,
        range_time: Duration::from_secs(2),
        held_bytes: 64 * 1024 * 1024,
        commits: 2,
        commit_blocks: 256,
        commit_bytes: 16 * 1024 * 1024,
        progress_bytes: 16 * 1024,
        hedge_after: Duration::from_secs(3),
        hedge_headers_after: Duration::from_secs(1),
        outpace_after: Duration::from_millis(500),
        stall_after: Duration::from_secs(20),
        aside_first: Duration::from_secs(2),
        aside_limit: Duration::from_secs(300),
        not_held_limit: Duration::from_secs(10),
        consensus_head_start: Duration::from_secs(2),
    };
}
