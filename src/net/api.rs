//! What the rest of the node sees of the network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Identity;
use crate::env::{DurableFile, Entropy, WallClock};
use crate::types::{
    BlockHash, GenesisHash, Height, MasternodeDirectory, Network, NodeId, PeerIp, Tip,
};
use crate::wire::{
    BodyHeader, CloseReason, ConsensusMessage, ReachSet, Role, StreamKind, SyncRequest,
    SyncResponse, TransactionsMessage,
};

/// What the network needs to know before it starts.
pub struct NetConfig {
    /// The chain's network.
    pub network: Network,
    /// The chain.
    pub genesis: GenesisHash,
    /// What this node is.
    pub role: Role,
    /// This node's position in genesis, when it is a masternode.
    pub own_masternode: Option<usize>,
    /// This node's address as peers see it, when it is known.
    pub own_ip: Option<PeerIp>,
    /// The port that peers dial.
    pub listen_port: u16,
    /// Peers that the operator configured.
    pub configured_peers: Vec<SocketAddr>,
    /// Peers of an earlier run: dialed at once, preferred or not.
    pub earlier_peers: Vec<SocketAddr>,
    /// Whether unpinned full nodes may connect.
    pub accept_unpinned: bool,
    /// The most unpinned peers.
    pub max_unpinned: usize,
    /// The software's name and version.
    pub agent: String,
    /// All durations.
    pub timing: NetTiming,
}

/// The durations of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetTiming {
    /// QUIC's own keepalive.
    pub quic_keepalive: Duration,
    /// Without any packet for this long, the transport is dead.
    pub idle_timeout: Duration,
    /// Between application pings.
    pub ping_interval: Duration,
    /// An unanswered ping of this age makes a peer slow: pings go out every second.
    pub slow_after: Duration,
    /// Without application bytes on any stream for this long, the connection ends.
    pub silence_limit: Duration,
    /// How long the side that is not preferred waits before it dials too.
    pub dial_grace: Duration,
    /// From the first packet to the Welcome.
    pub handshake_timeout: Duration,
    /// The first reconnect delay; doubles with each failure, with full jitter.
    pub backoff_start: Duration,
    /// The longest reconnect delay.
    pub backoff_limit: Duration,
    /// A connection that held this long resets the back-off.
    pub backoff_reset: Duration,
}

impl NetTiming {
    /// The values of the protocol.
    pub const RECOMMENDED: NetTiming = NetTiming {
        quic_keepalive: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(30),
        ping_interval: Duration::from_secs(5),
        slow_after: Duration::from_secs(2),
        silence_limit: Duration::from_secs(60),
        dial_grace: Duration::from_secs(10),
        handshake_timeout: Duration::from_secs(10),
        backoff_start: Duration::from_millis(500),
        backoff_limit: Duration::from_secs(60),
        backoff_reset: Duration::from_secs(30),
    };
}

/// What the network takes from the outside.
pub struct NetEnvironment {
    /// The bound UDP socket.
    pub socket: Arc<dyn quinn::AsyncUdpSocket>,
    /// Timers and tasks of QUIC.
    pub runtime: Arc<dyn quinn::Runtime>,
    /// The time of day.
    pub clock: Arc<dyn WallClock>,
    /// Randomness.
    pub entropy: Entropy,
    /// `pins.toml`: highest serials and first-use pins.
    pub pins: Arc<dyn DurableFile>,
}

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
        /// Who it is connected to.
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
        bytes: Vec<u8>,
    },
    /// The stream ended early.
    Failed,
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

/// The sending side of a sync stream.
pub struct SyncAnswer {
    _stub: (),
}

impl SyncAnswer {
    /// Sends one frame, waiting for bulk credit.
    pub async fn send(&mut self, response: &SyncResponse) -> Result<(), SyncError> {
        let _ = response;
        todo!()
    }

    /// Ends the answer.
    pub fn finish(self) -> Result<(), SyncError> {
        todo!()
    }
}

/// The receiving side of a sync stream. Confirms what it hands out.
pub struct SyncResponses {
    _stub: (),
}

impl SyncResponses {
    /// The next frame; `None` at the answer's end. Not cancel-safe: drop the whole value to give up.
    pub async fn next(&mut self) -> Result<Option<SyncResponse>, SyncError> {
        todo!()
    }

    /// Bytes received so far, for rate and progress: changes while a frame is still arriving.
    pub fn progress(&self) -> watch::Receiver<u64> {
        todo!()
    }
}

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

/// Who dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
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
    /// Pings sent to it.
    pub pings_sent: u64,
    /// Pongs received from it.
    pub pongs_received: u64,
    /// Pings received from it; each was answered.
    pub pings_received: u64,
    /// Whether a ping has been unanswered for longer than [`NetTiming::slow_after`].
    pub slow: bool,
    /// Bytes by kind of stream, in the order of [`StreamKind::ALL`].
    pub streams: [StreamBytes; 5],
    /// Bulk bytes written and not yet confirmed.
    pub bulk_unconfirmed: u64,
    /// Messages dropped because a queue was full.
    pub dropped: u64,
    /// Its wall clock less ours at the handshake, in milliseconds.
    pub clock_offset_ms: i64,
    /// This node's address as the peer sees it.
    pub observed_us_as: PeerIp,
    /// How often the pair has connected again since this process started.
    pub reconnects: u64,
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
    /// The last disconnect or refusal: when (Unix milliseconds), by whom, why.
    pub last_end: Option<(u64, Direction, String)>,
    /// One sentence: why it is not connected, or since when it is.
    pub explanation: String,
}

/// Why the network could not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Placeholder.
    #[error("{0}")]
    Other(String),
}

/// A cheap handle to the running network.
#[derive(Clone)]
pub struct NetHandle {
    _stub: (),
}

/// Starts the network. The future is the network itself: it ends after `cancel`, when all
/// connections are closed, or with the error that stopped it.
pub fn start(
    config: NetConfig,
    identity: Identity,
    directory: MasternodeDirectory,
    environment: NetEnvironment,
    inbound: Inbound,
    tip: watch::Receiver<Tip>,
    cancel: CancellationToken,
) -> Result<
    (
        NetHandle,
        impl Future<Output = Result<(), NetError>> + Send + 'static,
    ),
    NetError,
> {
    let _ = (
        config,
        identity.node_id(),
        directory,
        environment.clock.now_ms(),
        inbound,
        tip,
        cancel,
    );
    if true {
        todo!()
    }
    Ok((NetHandle { _stub: () }, async { Ok(()) }))
}

impl NetHandle {
    /// Queues a message on a masternode's consensus stream. When the queue is full, the oldest
    /// height in it is dropped first, and counted.
    pub fn send_consensus(&self, to: PeerIp, message: ConsensusMessage) -> Result<(), SendError> {
        let _ = (to, message);
        todo!()
    }

    /// Queues a block body for a stream of its own. A newer round's body displaces the oldest
    /// round's that waits.
    pub fn send_body(
        &self,
        to: PeerIp,
        header: BodyHeader,
        block: Arc<Vec<u8>>,
    ) -> Result<(), SendError> {
        let _ = (to, header, block);
        todo!()
    }

    /// Queues a message on a peer's transactions stream.
    pub fn send_transactions(
        &self,
        to: PeerIp,
        message: TransactionsMessage,
    ) -> Result<(), SendError> {
        let _ = (to, message);
        todo!()
    }

    /// Opens a sync stream and sends the request; waits while four are already open to that peer.
    pub async fn request_sync(
        &self,
        to: PeerIp,
        request: SyncRequest,
    ) -> Result<SyncResponses, SyncError> {
        let _ = (to, request);
        todo!()
    }

    /// The registered connections, ascending by address.
    pub fn peers(&self) -> Vec<PeerInfo> {
        todo!()
    }

    /// Everyone known, connected or not, ascending by address.
    pub fn known_peers(&self) -> Vec<KnownPeer> {
        todo!()
    }

    /// Refused and failed handshakes of the last hour, newest first, at most 100: when (Unix
    /// milliseconds), who, who dialed, why.
    pub fn refused(&self) -> Vec<(u64, PeerIp, Direction, CloseReason)> {
        todo!()
    }

    /// Changes whenever a peer connects, disconnects or has a new tip.
    pub fn watch_peers(&self) -> watch::Receiver<u64> {
        todo!()
    }

    /// Ends a peer's connection with a reason; it may come back.
    pub fn disconnect(&self, peer: PeerIp, reason: CloseReason) -> Result<(), SendError> {
        let _ = (peer, reason);
        todo!()
    }
}
