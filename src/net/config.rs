//! What the network is given: the configuration, its durations, and the environment it runs in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::env::{DurableFile, Entropy, Offload, WallClock};
use crate::types::{Ban, GenesisHash, Network, PeerIp};
use crate::wire::Role;

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
    /// Peers of an earlier run: dialed at once, preferred or not, while there are slots for them.
    pub earlier_peers: Vec<SocketAddr>,
    /// Bans of an earlier run.
    pub bans: Vec<Ban>,
    /// Whether unpinned full nodes may connect.
    pub accept_unpinned: bool,
    /// The most peers that neither a record nor the operator names, whoever dialed.
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

    /// Between pings while one is overdue: 1 s of the recommended 5 s.
    pub fn ping_interval_overdue(&self) -> Duration {
        self.ping_interval / 5
    }
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
    /// Where that file is written, and whether peers without a record have a thread of their own.
    pub offload: Offload,
}

#[cfg(test)]
impl NetEnvironment {
    /// The machine's own network at this address, and nothing kept: for tests of other modules.
    pub(crate) fn for_test(address: SocketAddr) -> std::io::Result<Self> {
        let runtime: Arc<dyn quinn::Runtime> = Arc::new(quinn::TokioRuntime);
        Ok(Self {
            socket: super::bind_udp(address, &*runtime)?,
            runtime,
            clock: Arc::new(crate::env::SystemClock),
            entropy: Entropy::from_os()?,
            pins: Arc::new(crate::env::FileInMemory::default()),
            offload: Offload::Inline,
        })
    }
}
