//! What every other part of a node stands on: the store, the chain and the network.
//!
//! Queues from the network into the parts are bounded by the constants below. A full one holds
//! back that stream's reader, and by QUIC's flow control the sender; nothing is dropped here.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::tasks::Tasks;
use super::{NodeError, bans, peers};
use crate::chain::Chain;
use crate::config::{Config, NodeFacts};
use crate::consensus::check_state;
use crate::env::DurableFile;
use crate::net::{
    self, ConsensusEvent, Identity, Inbound, NetEnvironment, NetHandle, NetTiming, SyncServe,
    TransactionsEvent,
};
use crate::store::{Backend, Store, StoreError, StoreThreads};
use crate::types::{Genesis, MasternodeDirectory};

/// Consensus events waiting, at most. A complete body holds up to 4 MB, so this bounds memory too.
const CONSENSUS_QUEUE: usize = 128;

/// Messages waiting for the mempool, at most; each is at most 1 MiB.
const TRANSACTIONS_QUEUE: usize = 64;

/// Requests waiting for the sync server, at most; each holds one open stream.
const SYNC_QUEUE: usize = 64;

/// What the base is made of.
pub(super) struct BaseParts {
    pub config: Config,
    pub genesis: Arc<Genesis>,
    pub directory: MasternodeDirectory,
    pub identity: Identity,
    /// This node's position in genesis.
    pub own_masternode: Option<usize>,
    pub timing: NetTiming,
    pub backend: Backend,
    pub threads: StoreThreads,
    pub consensus_state: Arc<dyn DurableFile>,
    pub net: NetEnvironment,
}

/// The started base, and what the network hands to the parts above it.
pub(super) struct Base {
    pub store: Store,
    pub chain: Chain,
    pub net: NetHandle,
    /// The number of the list of bans that is on disk.
    pub bans_stored: watch::Receiver<u64>,
    pub consensus_events: mpsc::Receiver<ConsensusEvent>,
    pub transactions_events: mpsc::Receiver<TransactionsEvent>,
    pub sync_requests: mpsc::Receiver<SyncServe>,
}

impl Base {
    pub(super) async fn start(parts: BaseParts, tasks: &mut Tasks) -> Result<Self, NodeError> {
        let offload = parts.net.offload;
        let (genesis, backend, threads) = (parts.genesis.clone(), parts.backend, parts.threads);
        let opening = move || Store::open(backend, genesis, threads);
        let store = offload.run(opening).await?;
        let chain = Chain::open(parts.genesis, store.clone(), offload).await?;
        if let Some(own) = parts.own_masternode {
            // Before the network starts, and before anybody is told that the node runs.
            let (state, genesis) = (parts.consensus_state, chain.genesis_hash());
            let key = chain.genesis().masternodes[own].consensus_key;
            let checking = move || check_state(&*state, &genesis, &key);
            offload.run(checking).await?;
        }

        let own_record = parts
            .own_masternode
            .and_then(|own| parts.directory.record(own));
        let facts = NodeFacts {
            network: chain.genesis().network,
            genesis: chain.genesis_hash(),
            own_masternode: parts.own_masternode,
            recorded_ip: own_record.map(|record| record.ip),
            earlier_peers: earlier_peers(&store).await?,
            bans: store.bans().await?,
            timing: parts.timing,
        };
        let (consensus_in, consensus_events) = mpsc::channel(CONSENSUS_QUEUE);
        let (transactions_in, transactions_events) = mpsc::channel(TRANSACTIONS_QUEUE);
        let (sync_in, sync_requests) = mpsc::channel(SYNC_QUEUE);
        let inbound = Inbound {
            consensus: parts.own_masternode.map(|_| consensus_in),
            transactions: transactions_in,
            sync: sync_in,
        };
        let net = tasks.try_part("the network", |cancel| {
            net::start(
                parts.config.net_config(facts),
                parts.identity,
                parts.directory,
                parts.net,
                inbound,
                chain.watch_tip(),
                cancel,
            )
        })?;
        tasks.add("the list of peers", |cancel| {
            peers::keep(store.clone(), net.clone(), cancel)
        });
        let (stored, bans_stored) = watch::channel(0);
        tasks.add("the list of bans", |cancel| {
            bans::keep(store.clone(), net.clone(), stored, cancel)
        });
        Ok(Self {
            store,
            chain,
            net,
            bans_stored,
            consensus_events,
            transactions_events,
            sync_requests,
        })
    }
}

async fn earlier_peers(store: &Store) -> Result<Vec<std::net::SocketAddr>, StoreError> {
    let peers = store.earlier_peers().await?;
    Ok(peers
        .into_iter()
        .map(|(ip, port)| ip.with_port(port))
        .collect())
}
