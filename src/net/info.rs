//! What the network tells about its peers.

use super::RttHistogram;
use crate::types::{BlockHash, Height, NodeId, PeerIp};
use crate::wire::Role;

/// Who dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The peer dialed.
    Inbound,
    /// This node dialed.
    Outbound,
}

/// Application round-trip times of one connection, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RttSummary {
    /// The newest.
    pub last_us: u64,
    /// The smallest.
    pub min_us: u64,
    /// The median of the last 1,024.
    pub p50_us: u64,
    /// The 99th percentile of the last 1,024.
    pub p99_us: u64,
}

/// Bytes of one kind of stream, frame headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StreamBytes {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// What waits in this node to be sent to one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct QueueLengths {
    /// Messages for its consensus stream.
    pub consensus_messages: usize,
    /// Their bytes.
    pub consensus_bytes: usize,
    /// Messages for its transactions stream.
    pub transactions_messages: usize,
    /// Their bytes.
    pub transactions_bytes: usize,
    /// Block bodies.
    pub bodies: usize,
}

/// One registered connection.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PeerInfo {
    /// The peer.
    pub ip: PeerIp,
    /// Where it listens.
    pub listen_port: u16,
    /// Its pin.
    pub node_id: NodeId,
    /// Its masternode name, when pinned by a record.
    pub name: Option<String>,
    /// Its position in genesis, when pinned by a record.
    pub masternode: Option<usize>,
    /// What it says it is.
    pub role: Role,
    /// Who dialed.
    pub direction: Direction,
    /// The connection's id, unique in this process.
    pub connection: u64,
    /// Since when, Unix milliseconds.
    pub connected_at_ms: u64,
    /// Its software.
    pub agent: String,
    /// Its tip: height.
    pub tip_height: Height,
    /// Its tip: hash.
    pub tip_hash: BlockHash,
    /// Round-trip times; `None` before the first pong.
    pub rtt: Option<RttSummary>,
    /// Round-trip times by size, for metrics.
    #[serde(skip)]
    pub rtt_histogram: RttHistogram,
    /// How long ago the last ping was sent, in milliseconds; `None` before the first.
    pub last_ping_ago_ms: Option<u64>,
    /// Pings sent to it.
    pub pings_sent: u64,
    /// Pongs received from it.
    pub pongs_received: u64,
    /// Pings received from it; each was answered.
    pub pings_received: u64,
    /// Whether a ping has been unanswered for longer than [`super::NetTiming::slow_after`].
    pub slow: bool,
    /// Bytes by kind of stream, in the order of [`crate::wire::StreamKind::ALL`].
    pub streams: [StreamBytes; 5],
    /// Bulk bytes written and not yet confirmed.
    pub bulk_unconfirmed: u64,
    /// How many may be: follows the delay that bulk causes on the path.
    pub bulk_credit: u64,
    /// The delay that bulk caused on the way there, over the last round trip with bulk, in microseconds.
    pub bulk_delay_us: u64,
    /// What waits to be sent.
    pub queues: QueueLengths,
    /// Messages dropped because a queue was full.
    pub dropped: u64,
    /// How often it asked for more than its budgets: delayed or dropped, and no fault.
    pub over_budget: u64,
    /// Its wall clock less ours at the handshake, in milliseconds.
    pub clock_offset_ms: i64,
    /// This node's address as the peer sees it.
    pub observed_us_as: PeerIp,
    /// How often the pair has connected again since this process started.
    pub reconnects: u64,
    /// The serial of this node's record that the peer holds, 0 for none; `None` before it told.
    pub record_serial: Option<u64>,
}

/// A peer that is known and what is to be said about it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct KnownPeer {
    /// The peer.
    pub ip: PeerIp,
    /// Where to dial it, when known.
    pub port: Option<u16>,
    /// Its masternode name, when recorded.
    pub name: Option<String>,
    /// Whether it is connected now.
    pub connected: bool,
    /// When the next dial is due, Unix milliseconds; `None` while connected or dialing.
    pub next_dial_ms: Option<u64>,
    /// Failed attempts since the last connection.
    pub failures: u32,
    /// The last disconnect: when (Unix milliseconds), who had dialed, why.
    pub last_end: Option<(u64, Direction, String)>,
    /// The last refused or failed handshake, in the same form.
    pub last_refusal: Option<(u64, Direction, String)>,
    /// Why, of the newer of these two.
    pub last_reason: Option<String>,
    /// The name of its [`crate::wire::CloseCode`].
    pub last_code: Option<&'static str>,
    /// Whether this node ended or refused it; `false` when the peer did.
    pub last_by_us: Option<bool>,
    /// One sentence: why it is not connected, or since when it is.
    pub explanation: String,
}
