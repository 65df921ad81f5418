//! The messages of each stream.

use serde::{Deserialize, Serialize};

use crate::types::{
    BlockHash, BlockHeader, CommitCertificate, EncodedBody, GenesisHash, Height, PeerIp,
    PolkaCertificate, Proposal, Round, RoundCertificate, Transaction, TxId, Vote,
};

/// The protocol versions that this software speaks, lowest and highest.
pub const PROTOCOL_VERSIONS: (u16, u16) = (1, 1);

/// The most ids in one announcement or request of transactions.
pub const MAX_TRANSACTION_IDS: usize = 1_000;

/// The longest agent text in a Hello, in bytes.
pub const MAX_AGENT_BYTES: usize = 64;

/// The most heights that one sync request may name: a segment.
pub const MAX_SYNC_HEIGHTS: u64 = 256;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Votes; named in genesis.
    Masternode,
    /// Follows the chain and relays transactions.
    Full,
}

/// Keepalive stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeepaliveMessage {
    /// The first message, both ways.
    Hello(Hello),
    /// The acceptor's word that the connection is established.
    Welcome(Welcome),
    /// A liveness probe.
    Ping(Ping),
    /// The answer to the ping with the same nonce.
    Pong {
        /// The ping's nonce.
        nonce: u64,
    },
    /// The sender's tip has changed.
    Tip {
        /// Its height.
        height: Height,
        /// Its hash.
        hash: BlockHash,
    },
    /// Peers that the sender is connected to, at most 100: address and port hint.
    Addresses(Vec<(PeerIp, u16)>),
    /// Which version of the receiver's masternode record the sender holds: told by the dialer at
    /// the start, as the acceptor does in its Welcome, and by both whenever it changes.
    Record {
        /// Its serial; 0 without one.
        serial: u64,
    },
}

/// Who speaks, on which chain, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::types::Network::magic`].
    pub magic: [u8; 4],
    /// Lowest and highest protocol version spoken.
    pub versions: (u16, u16),
    /// The chain.
    pub genesis: GenesisHash,
    /// Masternode or full node.
    pub role: Role,
    /// The sender's listening port: where to dial it.
    pub listen_port: u16,
    /// The sender's tip: height.
    pub tip_height: Height,
    /// The sender's tip: hash.
    pub tip_hash: BlockHash,
    /// The receiver's address as the sender sees it.
    pub observed: PeerIp,
    /// Name and version of the software, at most [`MAX_AGENT_BYTES`].
    pub agent: String,
    /// The sender's wall clock, Unix milliseconds.
    pub clock_ms: u64,
    /// Random, new at each process start.
    pub instance: u64,
}

/// The acceptor's answer to a Hello that it agrees with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version that both will speak: the highest common one.
    pub version: u16,
    /// Whether the acceptor holds a record that pins the dialer.
    pub pinned: bool,
    /// The serial of that record; 0 without one.
    pub record_serial: u64,
}

/// A liveness probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Names this ping in its pong.
    pub nonce: u64,
    /// The sender's tip: height.
    pub tip_height: Height,
    /// The sender's tip: hash.
    pub tip_hash: BlockHash,
    /// The masternodes that the sender is connected to.
    pub reach: ReachSet,
}

/// A set of masternodes: bit `i % 8` of byte `i / 8` stands for masternode `i` of genesis. No
/// trailing zero byte, so that a set has one encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReachSet(Vec<u8>);

impl ReachSet {
    /// Whether masternode `index` is in the set.
    pub fn contains(&self, index: usize) -> bool {
        self.0
            .get(index / 8)
            .is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    /// Adds masternode `index`.
    pub fn insert(&mut self, index: usize) {
        if self.0.len() <= index / 8 {
            self.0.resize(index / 8 + 1, 0);
        }
        self.0[index / 8] |= 1 << (index % 8);
    }

    /// Whether it is in its one form and names no masternode from `count` on.
    pub fn is_valid(&self, count: usize) -> bool {
        self.0.len() <= count.div_ceil(8)
            && self.0.last() != Some(&0)
            && (count..self.0.len() * 8).all(|index| !self.contains(index))
    }
}

impl FromIterator<usize> for ReachSet {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Self {
        let mut set = Self::default();
        for index in indices {
            set.insert(index);
        }
        set
    }
}

/// Consensus stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsensusMessage {
    /// A prevote or precommit, of the sender or relayed.
    Vote(Vote),
    /// A proposal, of the sender or relayed.
    Proposal(Proposal),
    /// More than two thirds prevoted a block.
    Polka(PolkaCertificate),
    /// A round can be entered or skipped to.
    Round(RoundCertificate),
    /// A block is final.
    Commit(CommitCertificate),
    /// Asks for a body that the receiver holds; it comes on a proposal stream.
    GetBody {
        /// The block's height.
        height: Height,
        /// The block.
        block: BlockHash,
    },
    /// How many bytes of a proposal stream of the receiver's have been consumed so far.
    Consumed {
        /// The QUIC stream id.
        stream: u64,
        /// Cumulative bytes, the kind byte and frame headers included.
        bytes: u64,
        /// When, in microseconds since a moment that the sender of this keeps for the whole connection.
        at_us: u64,
    },
}

/// First frame of a proposal stream; the second frame's payload is the encoded block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyHeader {
    /// The block's height.
    pub height: Height,
    /// The round that it is sent for.
    pub round: Round,
    /// The block.
    pub block: BlockHash,
}

/// Transactions stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionsMessage {
    /// The sender holds these, at most [`MAX_TRANSACTION_IDS`].
    Announce(Vec<TxId>),
    /// The sender wants these, at most [`MAX_TRANSACTION_IDS`].
    Get(Vec<TxId>),
    /// Whole transactions.
    Bodies(Vec<Transaction>),
}

/// Sync stream, from the requester.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncUp {
    /// The first frame.
    Request(SyncRequest),
    /// How many bytes of the answer have been consumed so far.
    Consumed {
        /// Cumulative bytes, frame headers included.
        bytes: u64,
        /// When, in microseconds, as in [`ConsensusMessage::Consumed`].
        at_us: u64,
    },
}

/// What a sync stream asks for. Heights are inclusive and at most [`MAX_SYNC_HEIGHTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// Headers from `first` on, and the certificate of the last one sent. The server ends at `last`
    /// or at the last height up to it whose certificate it holds.
    Headers {
        /// The first height.
        first: Height,
        /// The last height wanted.
        last: Height,
    },
    /// The transactions of each block, in order.
    Bodies {
        /// The first height.
        first: Height,
        /// The last height.
        last: Height,
    },
}

/// Sync stream, from the server; the stream's end is the answer's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncResponse {
    /// Headers in ascending order; in one frame.
    Headers(Vec<BlockHeader>),
    /// The commit certificate of the last header sent.
    Certificate(CommitCertificate),
    /// The transactions of the next block; one frame a block.
    Body(EncodedBody),
    /// The server cannot answer: it does not hold these heights.
    NotHeld {
        /// The server's tip.
        tip: Height,
    },
}

impl SyncRequest {
    /// The heights asked for.
    pub fn range(&self) -> (Height, Height) {
        match self {
            SyncRequest::Headers { first, last } | SyncRequest::Bodies { first, last } => {
                (*first, *last)
            }
        }
    }

    /// Whether the range is not empty, starts after genesis and is not too long.
    pub fn is_valid(&self) -> bool {
        let (first, last) = self.range();
        first > Height::GENESIS && first <= last && last.0 - first.0 < MAX_SYNC_HEIGHTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_set_has_one_form_and_stays_within_genesis() {
        let set: ReachSet = [0, 9].into_iter().collect();
        assert!(set.contains(0) && set.contains(9) && !set.contains(1) && !set.contains(100));
        assert!(set.is_valid(10));
        assert!(!set.is_valid(9), "bit 9 names a tenth masternode");
        assert!(!ReachSet(vec![1, 0]).is_valid(16), "a trailing zero byte");
        assert!(ReachSet::default().is_valid(0));
    }

    #[test]
    fn a_sync_range_starts_after_genesis_and_fits_a_segment() {
        let bodies = |first, last| SyncRequest::Bodies {
            first: Height(first),
            last: Height(last),
        };
        assert!(bodies(1, 256).is_valid());
        assert!(!bodies(0, 1).is_valid());
        assert!(!bodies(2, 1).is_valid());
        assert!(!bodies(1, 257).is_valid());
        assert!(!bodies(1, u64::MAX).is_valid());
    }
}
