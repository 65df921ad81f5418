//! A whole node: reads its files, starts every part in the order of their dependence, owns every
//! task, and stops them in the opposite order of what must not be lost.
//!
//! Start: store, chain, network, mempool, sync, consensus, RPC. Stop, within [`STOP_LIMIT`]: RPC
//! (no new work from outside), consensus (no new blocks), sync, mempool, the list of peers, the
//! network (every peer is told), and last the store.
//!
//! A part whose task ends without being asked ends the node: [`Node::wait`] returns its reason.
//!
//! Queues from the network into the parts are bounded by the constants below. A full one holds
//! back that stream's reader, and by QUIC's flow control the sender; nothing is dropped here.

mod bans;
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

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::chain::{Chain, ChainError};
use crate::config::{AGENT, NodeFacts};
use crate::consensus::{self, ConsensusHandle, ConsensusParts};
use crate::mempool::{self, Mempool};
use crate::net::{self, Identity, Inbound, NetError, NetHandle};
use crate::rpc::{self, NodeDescription, RpcContext, RpcError};
use crate::store::{Store, StoreError};
use crate::sync::{self, SyncHandle, SyncParts};
use crate::types::MasternodeDirectory;

pub use environment::NodeEnvironment;
use files::DataDirLock;
pub use files::NodeFiles;
pub use reindex::{Reindexed, reindex};
pub use reload::ReloadError;
use reload::Reloader;
use tasks::Tasks;

/// The longest time that stopping may take.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Consensus events waiting, at most. A complete body holds up to 4 MB, so this bounds memory too.
const CONSENSUS_QUEUE: usize = 128;

/// Messages waiting for the mempool, at most; each is at most 1 MiB.
const TRANSACTIONS_QUEUE: usize = 64;

/// Requests waiting for the sync server, at most; each holds one open stream.
const SYNC_QUEUE: usize = 64;

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
        let own_ip = files.own_record().map(|record| record.ip);
        let description = describe(&files, own_masternode);
        let NodeFiles {
            dir,
            config,
            genesis,
            directory,
            identity,
            consensus_key,
            lock,
            ..
        } = files;
        let mut tasks = Tasks::default();

        let store = {
            let (backend, threads) = (environment.store, environment.store_threads);
            let genesis = genesis.clone();
            let opening = move || Store::open(backend, genesis, threads);
            environment.offload.run(opening).await?
        };
        let chain = Chain::open(genesis.clone(), store.clone(), environment.offload).await?;
        let earlier_peers = store.earlier_peers().await?;
        let earlier_bans = store.bans().await?;

        let (consensus_in, consensus_events) = mpsc::channel(CONSENSUS_QUEUE);
        let (transactions_in, transactions_events) = mpsc::channel(TRANSACTIONS_QUEUE);
        let (sync_in, sync_requests) = mpsc::channel(SYNC_QUEUE);
        let net_config = config.net_config(NodeFacts {
            network: genesis.network,
            genesis: chain.genesis_hash(),
            own_masternode,
            recorded_ip: own_ip,
            earlier_peers: earlier_peers
                .into_iter()
                .map(|(ip, port)| ip.with_port(port))
                .collect(),
            bans: earlier_bans,
            timing: environment.timing,
        });
        let cancel = CancellationToken::new();
        let (net, running) = net::start(
            net_config,
            identity,
            directory,
            net::NetEnvironment {
                socket: environment.socket,
                runtime: environment.runtime,
                clock: environment.clock.clone(),
                entropy: environment.entropy.clone(),
                pins: environment.pins,
                offload: environment.offload,
            },
            Inbound {
                consensus: own_masternode.map(|_| consensus_in),
                transactions: transactions_in,
                sync: sync_in,
            },
            chain.watch_tip(),
            cancel.clone(),
        )?;
        tasks.add("the network", cancel, running);

        let cancel = CancellationToken::new();
        let saving = peers::keep(store.clone(), net.clone(), cancel.clone());
        tasks.add("the list of peers", cancel, saving);

        let cancel = CancellationToken::new();
        let (stored, bans_stored) = watch::channel(0);
        let saving = bans::keep(store.clone(), net.clone(), stored, cancel.clone());
        tasks.add("the list of bans", cancel, saving);

        let cancel = CancellationToken::new();
        let (mempool, running) = mempool::start(
            chain.clone(),
            net.clone(),
            transactions_events,
            environment.offload,
            cancel.clone(),
        );
        tasks.add("the mempool", cancel, running);

        let cancel = CancellationToken::new();
        let parts = SyncParts {
            chain: chain.clone(),
            net: net.clone(),
            serve: sync_requests,
            masternode: own_masternode.is_some(),
            offload: environment.offload,
        };
        let (sync, running) = sync::start(parts, cancel.clone());
        tasks.add("sync", cancel, running);

        let consensus = match (consensus_key, own_masternode) {
            (Some(key), Some(_)) => {
                let cancel = CancellationToken::new();
                let parts = ConsensusParts {
                    key,
                    chain: chain.clone(),
                    mempool: mempool.clone(),
                    net: net.clone(),
                    inbound: consensus_events,
                    wal: store.wal(),
                    state: environment.consensus_state,
                    clock: environment.clock.clone(),
                    offload: environment.offload,
                    unsafe_sign: environment.unsafe_sign,
                };
                let (handle, running) = consensus::start(parts, cancel.clone());
                tasks.add("consensus", cancel, running);
                Some(handle)
            }
            _ => None,
        };

        let reloader = Reloader {
            dir,
            genesis: genesis.clone(),
            own_masternode,
            net: net.clone(),
            consensus: consensus.clone(),
            offload: environment.offload,
        };
        let stop_requested = CancellationToken::new();
        let rpc_addr = match environment.rpc {
            Some(rpc_environment) => {
                let cancel = CancellationToken::new();
                let context = RpcContext {
                    chain: chain.clone(),
                    mempool: mempool.clone(),
                    net: net.clone(),
                    bans_stored,
                    sync: sync.clone(),
                    consensus: consensus.clone(),
                    reload: reloader.for_rpc(),
                    node: description,
                    clock: environment.clock.clone(),
                    started_at_ms: environment.clock.now_ms(),
                    stop_requested: stop_requested.clone(),
                };
                let (address, running) = rpc::start(
                    context,
                    rpc_environment,
                    &environment.entropy,
                    cancel.clone(),
                )?;
                tasks.add("the RPC", cancel, running);
                Some(address)
            }
            None => None,
        };
        Ok(Node {
            store,
            chain,
            mempool,
            net,
            sync,
            consensus,
            rpc_addr,
            reloader,
            stop_requested,
            tasks,
            _lock: lock,
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
