//! The kinds of stream. A stream opens with one byte that names its kind.

use crate::types::genesis::MAX_BLOCK_BYTES;

/// Room for what a sync answer sends beside a block's body: the headers of a segment, a certificate.
const HEADERS_AND_CERTIFICATE_BYTES: usize = 256 * 1024;

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// Hello, Welcome, pings, tips: one unidirectional stream each way, for the connection's life.
    Keepalive,
    /// Votes, proposals, certificates: one unidirectional stream each way, masternodes only.
    Consensus,
    /// One block body: a unidirectional stream of its own, masternodes only.
    Proposal,
    /// Announcements and bodies of transactions: one unidirectional stream each way.
    Transactions,
    /// One request and its answer: a bidirectional stream of its own.
    Sync,
}

impl StreamKind {
    /// All kinds, in the order of their bytes.
    pub const ALL: [StreamKind; 5] = [
        StreamKind::Keepalive,
        StreamKind::Consensus,
        StreamKind::Proposal,
        StreamKind::Transactions,
        StreamKind::Sync,
    ];

    /// The byte that opens a stream of this kind.
    pub fn byte(self) -> u8 {
        match self {
            StreamKind::Keepalive => 1,
            StreamKind::Consensus => 2,
            StreamKind::Proposal => 3,
            StreamKind::Transactions => 4,
            StreamKind::Sync => 5,
        }
    }

    /// The kind that a byte names.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }

    /// The longest frame payload, in bytes.
    pub fn max_frame_bytes(self) -> usize {
        match self {
            StreamKind::Keepalive => 16 * 1024,
            StreamKind::Consensus => 256 * 1024,
            StreamKind::Proposal => MAX_BLOCK_BYTES as usize,
            StreamKind::Transactions => 1024 * 1024,
            StreamKind::Sync => MAX_BLOCK_BYTES as usize + HEADERS_AND_CERTIFICATE_BYTES,
        }
    }

    /// The priority of a sending half; higher goes first.
    pub fn priority(self) -> i32 {
        match self {
            StreamKind::Keepalive => 40,
            StreamKind::Consensus => 30,
            StreamKind::Proposal => 20,
            StreamKind::Transactions => 10,
            StreamKind::Sync => 0,
        }
    }

    /// The name in logs, metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            StreamKind::Keepalive => "keepalive",
            StreamKind::Consensus => "consensus",
            StreamKind::Proposal => "proposal",
            StreamKind::Transactions => "transactions",
            StreamKind::Sync => "sync",
        }
    }
}
