//! What the network delivers to the rest of the node.

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::SyncAnswer;
use crate::types::PeerIp;
use crate::wire::{BodyHeader, ConsensusMessage, ReachSet, SyncRequest, TransactionsMessage};

/// Where the network delivers. All bounded; a full channel holds back that stream's reader, and by
/// QUIC's flow control its sender.
pub struct Inbound {
    /// To consensus; `None` on a full node, which never opens or accepts such streams.
    pub consensus: Option<mpsc::Sender<ConsensusEvent>>,
    /// To the mempool.
    pub transactions: mpsc::Sender<TransactionsEvent>,
    /// To the sync server.
    pub sync: mpsc::Sender<SyncServe>,
}

/// What consensus hears from the network. For one peer: `Connected`, then the others in the order
/// of arrival, then `Disconnected`. Only pinned masternodes appear.
#[derive(Debug)]
pub enum ConsensusEvent {
    /// A masternode is connected and its consensus stream can be written.
    Connected {
        /// Its address.
        peer: PeerIp,
        /// Its position in genesis.
        masternode: usize,
    },
    /// It is no longer connected.
    Disconnected {
        /// Its address.
        peer: PeerIp,
        /// Its position in genesis.
        masternode: usize,
    },
    /// It told which masternodes it is connected to (when that has changed).
    Reach {
        /// Its address.
        peer: PeerIp,
        /// Who it is connected to, itself included.
        reach: ReachSet,
    },
    /// A message; never `Consumed`, which the network keeps.
    Message {
        /// Its address.
        peer: PeerIp,
        /// The message.
        message: ConsensusMessage,
    },
    /// A block body on a proposal stream.
    Body {
        /// Its address.
        peer: PeerIp,
        /// The stream's first frame.
        header: BodyHeader,
        /// What happened.
        event: BodyEvent,
    },
}

/// The progress of one body. `Started` and `Progress` may be dropped when consensus is behind;
/// `Complete` and `Failed` never are.
#[derive(Debug)]
pub enum BodyEvent {
    /// The length is known.
    Started {
        /// The body's length in bytes.
        total: usize,
    },
    /// More has arrived: sent at most every 64 KiB.
    Progress {
        /// How much so far.
        received: usize,
    },
    /// The whole encoded block; not decoded or checked.
    Complete {
        /// The bytes.
        bytes: BodyBytes,
    },
    /// The stream ended early.
    Failed,
}

/// The bytes of a block body on their way to consensus. Until it takes them they count against the
/// bodies that may be read from their sender at a time, which bounds what one peer can have waiting.
#[derive(Debug)]
pub struct BodyBytes {
    bytes: Vec<u8>,
    _held: Option<OwnedSemaphorePermit>,
}

impl BodyBytes {
    pub(super) fn held(bytes: Vec<u8>, permit: OwnedSemaphorePermit) -> Self {
        Self {
            bytes,
            _held: Some(permit),
        }
    }

    /// Takes the bytes out; their sender may send another body.
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

impl From<Vec<u8>> for BodyBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, _held: None }
    }
}

/// What the mempool hears from the network.
#[derive(Debug)]
pub enum TransactionsEvent {
    /// A peer is connected.
    Connected {
        /// Its address.
        peer: PeerIp,
    },
    /// It is no longer connected.
    Disconnected {
        /// Its address.
        peer: PeerIp,
    },
    /// A message.
    Message {
        /// Its address.
        peer: PeerIp,
        /// The message.
        message: TransactionsMessage,
    },
}

/// A sync request of a peer, to be answered.
pub struct SyncServe {
    /// Who asks.
    pub peer: PeerIp,
    /// What for; already checked with [`SyncRequest::is_valid`].
    pub request: SyncRequest,
    /// Where the answer goes; dropping it resets the stream unless it was finished.
    pub answer: SyncAnswer,
}
