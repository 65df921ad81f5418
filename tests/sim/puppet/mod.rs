//! Masternodes that do not keep the rules. A puppet takes a masternode's place: its address, its node
//! key, its consensus key.
//!
//! - [`Puppet::start`]: the node's real network, chain, mempool and sync, and in the place of
//!   consensus a script that signs whatever its [`Behaviour`] wants;
//! - [`raw`]: only QUIC, for what the network of a node would never send.
//!
//! What a behaviour does is counted ([`Stage::act`]), so that a story can tell that it happened.

pub mod raw;
mod script;
mod stage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use timed::chain::Chain;
use timed::config::NodeFacts;
use timed::net::{self, Inbound, SyncServe};
use timed::node::{NodeEnvironment, NodeFiles};
use timed::store::Store;
use timed::sync::{self, SyncParts};
use timed::types::{Block, Round, Tip};
use timed::wire::ConsensusMessage;
use timed::{env::Offload, mempool};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::stage::{Agreeable, Stage, bogus_transaction};

/// Events that wait for a script.
const QUEUE: usize = 256;

/// What a puppet does with its place. Whatever is left out is silence, but sync is served.
pub trait Behaviour: Send + 'static {
    /// A masternode is connected.
    fn joined(&mut self, _stage: &mut Stage, _peer: usize) {}

    /// A masternode has said something.
    fn heard(&mut self, _stage: &mut Stage, _from: usize, _message: &ConsensusMessage) {}

    /// It is this puppet's turn to propose; `block` would be valid.
    fn turn(&mut self, _stage: &mut Stage, _round: Round, _block: Block) {}

    /// Time passes: called every 100 ms.
    fn tick(&mut self, _stage: &mut Stage) {}

    /// A peer asks for blocks. What is returned is answered truthfully.
    fn asked(&mut self, _stage: &mut Stage, request: SyncServe) -> Option<SyncServe> {
        Some(request)
    }

    /// What peers are told is the newest block.
    fn tip(&self, truth: Tip) -> Tip {
        truth
    }
}

/// A running puppet; it ends when it is dropped.
pub struct Puppet {
    tasks: JoinSet<()>,
    acts: Arc<AtomicU64>,
}

impl Puppet {
    /// Runs a behaviour on what the masternode's own node would have been given.
    pub async fn start(
        own: usize,
        files: NodeFiles,
        environment: NodeEnvironment,
        behaviour: impl Behaviour,
    ) -> Self {
        let genesis = files.genesis.clone();
        let recorded_ip = files.own_record().map(|record| record.ip);
        let store = Store::open(
            environment.store,
            genesis.clone(),
            environment.store_threads,
        );
        let chain = Chain::open(genesis.clone(), store.unwrap(), Offload::Inline).await;
        let chain = chain.unwrap();
        let (consensus_in, consensus) = mpsc::channel(QUEUE);
        let (transactions_in, transactions) = mpsc::channel(QUEUE);
        let (sync_in, asked) = mpsc::channel(QUEUE);
        let (truthful, serve) = mpsc::channel(QUEUE);
        let told_tip = watch::Sender::new(behaviour.tip(chain.tip()));
        let facts = NodeFacts {
            network: genesis.network,
            genesis: chain.genesis_hash(),
            own_masternode: Some(own),
            recorded_ip,
            earlier_peers: Vec::new(),
            bans: Vec::new(),
            timing: environment.timing,
        };
        // Never cancelled: a puppet's tasks are aborted.
        let cancel = CancellationToken::new();
        let (net, network) = net::start(
            files.config.net_config(facts),
            files.identity,
            files.directory,
            net::NetEnvironment {
                socket: environment.socket,
                runtime: environment.runtime,
                clock: environment.clock.clone(),
                entropy: environment.entropy.clone(),
                pins: environment.pins,
                offload: Offload::Inline,
            },
            Inbound {
                consensus: Some(consensus_in),
                transactions: transactions_in,
                sync: sync_in,
            },
            told_tip.subscribe(),
            cancel.clone(),
        )
        .unwrap();
        let (mempool, pooling) = mempool::start(
            chain.clone(),
            net.clone(),
            transactions,
            Offload::Inline,
            cancel.clone(),
        );
        let parts = SyncParts {
            chain: chain.clone(),
            net: net.clone(),
            serve,
            masternode: false,
            offload: Offload::Inline,
        };
        let (_, syncing) = sync::start(parts, cancel);
        let acts = Arc::new(AtomicU64::default());
        let stage = Stage {
            own,
            key: files.consensus_key.unwrap(),
            chain,
            net,
            mempool,
            clock: environment.clock,
            random: environment.entropy.rng("puppet"),
            acts: acts.clone(),
        };
        let script = script::Script::new(stage, behaviour, told_tip, truthful);
        let mut tasks = JoinSet::new();
        tasks.spawn(async { network.await.unwrap() });
        tasks.spawn(async { pooling.await.unwrap() });
        tasks.spawn(async { syncing.await.unwrap() });
        tasks.spawn(script.run(consensus, asked));
        Self { tasks, acts }
    }

    /// Runs an attack over QUIC alone against these masternodes, again and again.
    pub fn start_raw(
        own: usize,
        files: &NodeFiles,
        environment: NodeEnvironment,
        victims: &[usize],
        attack: impl raw::Attack,
    ) -> Self {
        let acts = Arc::new(AtomicU64::default());
        let dialer = Arc::new(raw::Dialer::new(own, files, environment, acts.clone()));
        let attack = Arc::new(attack);
        let mut tasks = JoinSet::new();
        for victim in victims {
            tasks.spawn(raw::run(dialer.clone(), *victim, attack.clone()));
        }
        Self { tasks, acts }
    }

    /// How often it has done what it is there for.
    pub fn acts(&self) -> u64 {
        self.acts.load(Ordering::Relaxed)
    }

    /// Panics where the puppet has panicked, so that a story does not go on without it.
    pub fn look(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            ended.expect("a puppet's task has failed");
        }
    }
}
