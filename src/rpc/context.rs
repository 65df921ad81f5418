//! What the methods speak about.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::consensus::ConsensusHandle;
use crate::env::WallClock;
use crate::mempool::Mempool;
use crate::net::NetHandle;
use crate::sync::SyncHandle;

/// Re-reads `certs/` and the node's certificate; gives a sentence that says what is in force, or one
/// that says why nothing has changed.
pub type Reload =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

/// Handles to the running node.
pub struct RpcContext {
    /// The chain.
    pub chain: Chain,
    /// The mempool.
    pub mempool: Mempool,
    /// The network.
    pub net: NetHandle,
    /// The number of the list of bans that is on disk.
    pub bans_stored: watch::Receiver<u64>,
    /// Sync.
    pub sync: SyncHandle,
    /// Consensus; `None` on a full node.
    pub consensus: Option<ConsensusHandle>,
    /// Re-reads records and certificate.
    pub reload: Reload,
    /// Who this node is.
    pub node: NodeDescription,
    /// The time of day.
    pub clock: Arc<dyn WallClock>,
    /// When the node started, Unix milliseconds.
    pub started_at_ms: u64,
    /// Cancelled by `stop`: the node's owner then stops it.
    pub stop_requested: CancellationToken,
}

/// Who a node is.
#[derive(Clone, Debug)]
pub struct NodeDescription {
    /// Its software's name and version.
    pub agent: &'static str,
    /// Its name in genesis, when it is a masternode.
    pub name: Option<String>,
    /// Its position in genesis, when it is a masternode.
    pub masternode: Option<usize>,
    /// Where it listens for peers.
    pub listen: SocketAddr,
}
