//! A whole node: reads its files, starts every part in the order of their dependence, owns every
//! task, and stops them in the opposite order of what must not be lost.
//!
//! Start: store, chain, network, mempool, sync, consensus, RPC. Stop, within [`STOP_LIMIT`]: RPC
//! (no new work from outside), consensus (no new blocks), sync, mempool, the lists of bans and of
//! peers, the network (every peer is told), and last the store.
//!
//! A part whose task ends without being asked ends the node: [`Node::wait`] returns its reason.

mod bans;
mod base;
mod environment;
pub mod files;
pub mod formats;
pub mod keys;
mod peers;
mod reindex;
mod reload;
pub mod setup;
mod tasks;
pub mod wallet;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::chain::{Chain, ChainError};
use crate::config::AGENT;
use crate::consensus::{self, ConsensusHandle, ConsensusParts, StateFileError};
use crate::mempool::{self, Mempool};
use crate::net::{self, Identity, NetError, NetHandle};
use crate::rpc::{self, NodeDescription, RpcContext, RpcError};
use crate::store::{Store, StoreError};
use crate::sync::{self, SyncHandle, SyncParts};
use crate::types::MasternodeDirectory;

use base::{Base, BaseParts};
pub use environment::NodeEnvironment;
use files::DataDirLock;
pub use files::NodeFiles;
pub use reindex::{Reindexed, reindex};
pub use reload::ReloadError;
use reload::Reloader;
use tasks::Tasks;

/// The longest time that stopping may take.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running node.
pub struct Node {
    store: Store,
    chain: Chain,
    mempool: Mempool,
    net: NetHandle,
    sync: SyncHandle,
    consensus: Option<ConsensusHandle>,
    rpc_addr: Option<SocketAddr>,
    reloader: Reloader,
    stop_requested: CancellationToken,
    tasks: Tasks,
    _lock: Option<DataDirLock>,
}

/// Why a node could not start or had to end. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another program has the port.
    #[error(
        "{protocol} port {port} of {ip} is in use: stop the program that has it, or change {key} in timed.toml"
    )]
    PortInUse {
        /// UDP or TCP.
        protocol: &'static str,
        /// The address.
        ip: IpAddr,
        /// The port.
        port: u16,
        /// The key in `timed.toml`.
        key: &'static str,
    },
    /// The machine has no such address.
    #[error("{ip} is not an address of this machine: set {key} in timed.toml to one that it has")]
    NotOurAddress {
        /// The address.
        ip: IpAddr,
        /// The key in `timed.toml`.
        key: &'static str,
    },
    /// The socket could not be opened.
    #[error("{protocol} {address} could not be opened: {source}")]
    Socket {
        /// UDP or TCP.
        protocol: &'static str,
        /// Address and port.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The operating system gives no randomness.
    #[error("the operating system gives no random bytes: {0}")]
    Randomness(std::io::Error),
    /// The store could not be opened, or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The chain could not be opened.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The database could not be built anew.
    #[error("{path}: {source}; nothing was changed, try again when that is solved")]
    Reindex {
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// `consensus.state` cannot be used.
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    /// The network could not start.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The RPC could not start.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// A critical task failed.
    #[error("{task} failed: {reason}")]
    TaskFailed {
        /// Which part of the node.
        task: &'static str,
        /// Its error.
        reason: String,
    },
    /// A critical task ended although nobody asked it to.
    #[error("{task} ended unexpectedly")]
    TaskEnded {
        /// Which part of the node.
        task: &'static str,
    },
    /// A part did not stop in time.
    #[error("{task} did not stop within {} seconds and was ended", STOP_LIMIT.as_secs())]
    StopTimeout {
        /// Which part of the node.
        task: &'static str,
    },
}

impl Node {
    /// Starts a node. Must be called on a tokio runtime.
    pub async fn start(files: NodeFiles, environment: NodeEnvironment) -> Result<Node, NodeError> {
        let own_masternode = files.own_masternode();
        let node = describe(&files, own_masternode);
        let (clock, entropy, offload) =
            (environment.clock, environment.entropy, environment.offload);
        let mut tasks = Tasks::default();
        let base = BaseParts {
            config: files.config,
            genesis: files.genesis.clone(),
            directory: files.directory,
            identity: files.identity,
            own_masternode,
            timing: environment.timing,
            backend: environment.store,
            threads: environment.store_threads,
            consensus_state: environment.consensus_state.clone(),
            net: net::NetEnvironment {
                socket: environment.socket,
                runtime: environment.runtime,
                clock: clock.clone(),
                entropy: entropy.clone(),
                pins: environment.pins,
                offload,
            },
        };
        let base = Base::start(base, &mut tasks).await?;
        let (chain, net) = (base.chain, base.net);

        let transactions = base.transactions_events;
        let mempool = tasks.part("the mempool", |cancel| {
            mempool::start(chain.clone(), net.clone(), transactions, offload, cancel)
        });
        let parts = SyncParts {
            chain: chain.clone(),
            net: net.clone(),
            serve: base.sync_requests,
            masternode: own_masternode.is_some(),
            offload,
        };
        let sync = tasks.part("sync", |cancel| sync::start(parts, cancel));
        let key = files.consensus_key.filter(|_| own_masternode.is_some());
        let consensus = key.map(|key| {
            let parts = ConsensusParts {
                key,
                chain: chain.clone(),
                mempool: mempool.clone(),
                net: net.clone(),
                inbound: base.consensus_events,
                wal: base.store.wal(),
                state: environment.consensus_state,
                clock: clock.clone(),
                offload,
                unsafe_sign: environment.unsafe_sign,
            };
            tasks.part("consensus", |cancel| consensus::start(parts, cancel))
        });

        let reloader = Reloader {
            dir: files.dir,
            genesis: files.genesis,
            own_masternode,
            net: net.clone(),
            consensus: consensus.clone(),
            offload,
        };
        let stop_requested = CancellationToken::new();
        let context = RpcContext {
            chain: chain.clone(),
            mempool: mempool.clone(),
            net: net.clone(),
            bans_stored: base.bans_stored,
            sync: sync.clone(),
            consensus: consensus.clone(),
            reload: reloader.for_rpc(),
            node,
            started_at_ms: clock.now_ms(),
            clock,
            stop_requested: stop_requested.clone(),
        };
        let served = environment.rpc.map(|outside| {
            tasks.try_part("the RPC", |cancel| {
                rpc::start(context, outside, &entropy, cancel)
            })
        });
        Ok(Node {
            store: base.store,
            chain,
            mempool,
            net,
            sync,
            consensus,
            rpc_addr: served.transpose()?,
            reloader,
            stop_requested,
            tasks,
            _lock: files.lock,
        })
    }

    /// The chain.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The mempool.
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// The network.
    pub fn net(&self) -> &NetHandle {
        &self.net
    }

    /// Sync.
    pub fn sync(&self) -> &SyncHandle {
        &self.sync
    }

    /// Consensus; `None` on a full node.
    pub fn consensus(&self) -> Option<&ConsensusHandle> {
        self.consensus.as_ref()
    }

    /// Where the RPC listens; `None` when the environment gives it no socket.
    pub fn rpc_addr(&self) -> Option<SocketAddr> {
        self.rpc_addr
    }

    /// Puts what `certs/`, `node.key` and `node.pem` say now in force, without a restart; gives one
    /// sentence that says what is in force. Refused as a whole, with everything left as it was.
    pub async fn reload(&self) -> Result<String, ReloadError> {
        self.reloader.reload().await
    }

    /// Puts other masternode records in force, and with `identity` another certificate for every
    /// handshake from now on: what [`Node::reload`] does with what it read.
    pub async fn install(
        &self,
        directory: MasternodeDirectory,
        identity: Option<Identity>,
    ) -> Result<(), ReloadError> {
        self.reloader.install(directory, identity).await
    }

    /// Waits until the node is asked to stop over its RPC, or until a part of it ends: then with
    /// that part's reason. In both cases [`Node::stop`] is what comes next. Cancel-safe.
    pub async fn wait(&mut self) -> Result<(), NodeError> {
        tokio::select! {
            biased;
            () = self.stop_requested.cancelled() => Ok(()),
            reason = self.tasks.first_end() => Err(reason),
        }
    }

    /// Stops every part in order, within [`STOP_LIMIT`]. The first failure is returned, after
    /// everything has ended.
    pub async fn stop(self) -> Result<(), NodeError> {
        let stopped = self.tasks.stop_newest_first(STOP_LIMIT).await;
        self.store.close().await;
        stopped
    }
}

fn describe(files: &NodeFiles, own_masternode: Option<usize>) -> NodeDescription {
    NodeDescription {
        agent: AGENT,
        name: own_masternode.map(|index| files.genesis.masternodes[index].name.clone()),
        masternode: own_masternode,
        listen: files.config.listen_addr(),
    }
}
