//! What can go wrong for a caller of the network.

use super::{IdentityError, PinError};
use crate::types::PeerIp;
use crate::wire::StreamKind;

/// Why a sync stream ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// The peer is not connected.
    #[error(transparent)]
    NotConnected(#[from] SendError),
    /// The stream or connection ended.
    #[error("sync stream with {peer} ended: {detail}")]
    Ended {
        /// The peer.
        peer: PeerIp,
        /// How.
        detail: String,
    },
    /// The peer sent bytes that are no answer.
    #[error("{peer} broke the sync protocol: {detail}")]
    Protocol {
        /// The peer.
        peer: PeerIp,
        /// How.
        detail: String,
    },
}

/// Why a message could not be queued for a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No connection to that address; the addresses that there are.
    #[error("peer {peer} is not connected; connected peers: {}", list(.connected))]
    UnknownPeer {
        /// Who was asked for.
        peer: PeerIp,
        /// Who is connected, ascending.
        connected: Vec<PeerIp>,
    },
    /// That peer has no such stream (not a masternode).
    #[error("peer {peer} has no {} stream: it is not a pinned masternode", .kind.name())]
    NoStream {
        /// Who was asked for.
        peer: PeerIp,
        /// Which stream.
        kind: StreamKind,
    },
    /// The message is longer than the stream's frame limit; nothing was queued.
    #[error("a {} message of {length} bytes is over the limit of {}", .kind.name(), .kind.max_frame_bytes())]
    TooLong {
        /// Which stream.
        kind: StreamKind,
        /// The message's length in bytes.
        length: usize,
    },
    /// The queue was full and the message was dropped and counted.
    #[error("the {} queue of peer {peer} is full", .kind.name())]
    QueueFull {
        /// Who was asked for.
        peer: PeerIp,
        /// Which stream.
        kind: StreamKind,
    },
}

fn list(peers: &[PeerIp]) -> String {
    if peers.is_empty() {
        return "none".into();
    }
    peers
        .iter()
        .map(PeerIp::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Why records or a certificate were not installed, or a pin not forgotten. What was in force stays.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The records are refused, or the pins cannot be kept.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network has ended.
    #[error("the node is stopping")]
    Stopping,
}

/// Why the network could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The node key or certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The pins cannot be used.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// QUIC cannot use the socket.
    #[error("the UDP socket cannot be used: {0}")]
    Socket(std::io::Error),
    /// The thread for peers without a record could not be started.
    #[error("the thread for peers without a record could not be started: {0}")]
    Thread(std::io::Error),
    /// QUIC has lost its socket.
    #[error("the UDP socket failed; the log names the error above")]
    EndpointLost,
    /// A task of the network panicked.
    #[error("a task of the network failed: {0}")]
    TaskFailed(String),
}
