//! N complete nodes on one wire: their keys, disks and clocks, and the faults that befall them.
//!
//! Every fault goes through here, so that the checker knows which disconnects have a cause.

mod bounds;
mod faults;
mod keys;
mod machines;
mod payments;
mod power;
mod puppets;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use timed::config::Config;
use timed::consensus::ConsensusStatus;
use timed::env::{Entropy, FileInMemory, Offload, WallClock};
use timed::ledger::Rules;
use timed::net::{Identity, NetTiming, TokioRuntime};
use timed::node::files::{DataDir, NodeFiles};
use timed::node::wallet::{Fee, Transfer};
use timed::node::{Node, NodeEnvironment, NodeError};
use timed::store::StoreThreads;
use timed::types::{
    Address, Amount, Genesis, Height, MasternodeDirectory, MasternodeRecord, Network, PeerIp,
    Round, TxId,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub use self::keys::{TRUE_CHAIN, address};
use self::keys::{consensus_key, genesis, identity, next_identity, record, wallet};
use self::payments::Submitted;
use super::check::{Checker, name};
use super::disk::{Disk, fates};
use super::journal::Journal;
use super::power::{Power, PoweredFile, PoweredSocket, powered_disk};
use super::puppet::Puppet;
use super::wire::{Link, Rate, Sent, Socket, Wire};

/// The time of day at which every run begins, and its chain with it.
const BEGIN_MS: u64 = 1_795_000_000_000;

/// What a world is made of. What is special about one machine is said of it before it starts, by the
/// methods in `machines` and `faults`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Masternodes. The first has the lowest address.
    pub masternodes: usize,
    /// Nodes without a consensus key, numbered after the masternodes, with higher addresses.
    pub full_nodes: usize,
    /// The masternodes' voting powers; 1 where none is given.
    pub powers: Vec<u64>,
    pub slot: Duration,
    pub link: Link,
    /// Outputs of 10 TIME to spend: one for each transaction of a story.
    pub allocations: usize,
}

impl Plan {
    pub fn new(masternodes: usize) -> Self {
        Self {
            masternodes,
            full_nodes: 0,
            powers: Vec::new(),
            slot: Duration::from_secs(5),
            link: Link::CLEAN,
            allocations: 64,
        }
    }
}

/// The nodes and everything around them.
pub struct World {
    pub wire: Arc<Wire>,
    pub journal: Arc<Journal>,
    pub checker: Arc<Checker>,
    entropy: Entropy,
    random: ChaCha20Rng,
    genesis: Arc<Genesis>,
    /// How many of the machines are masternodes.
    masternodes: usize,
    machines: Vec<Machine>,
    /// The masternodes that do not keep the rules.
    puppets: BTreeMap<usize, Puppet>,
    submitted: Vec<Submitted>,
    spent: usize,
    link: Link,
    /// Pairs whose links are worse than that.
    bad: BTreeSet<(usize, usize)>,
    /// Since when pairs that reach each other are not connected.
    apart: BTreeMap<(usize, usize), Instant>,
    /// What was shown wrongly at the last look.
    suspected: BTreeSet<String>,
}

/// What is left of a node when it does not run, and the node when it does.
struct Machine {
    disk: Disk,
    pins: FileInMemory,
    consensus_state: FileInMemory,
    skew_ms: Arc<AtomicI64>,
    genesis: Arc<Genesis>,
    /// Where its socket is.
    inside: SocketAddr,
    /// Where others see it: the same unless an address translation stands between.
    outside: SocketAddr,
    config: Config,
    identity: fn(usize) -> Identity,
    /// Whose consensus key it has.
    consensus_key: Option<usize>,
    /// The content of its `certs/`, by masternode.
    records: Vec<MasternodeRecord>,
    store_threads: StoreThreads,
    starts: u64,
    unsafe_sign: bool,
    running: Option<Running>,
}

/// What a node starts with.
struct Outfit {
    files: NodeFiles,
    environment: NodeEnvironment,
    socket: Arc<Socket>,
    power: Power,
}

struct Running {
    node: Node,
    power: Power,
    socket: Arc<Socket>,
    observer: JoinHandle<()>,
}

/// The time of day on one machine.
struct Clock {
    began: Instant,
    skew_ms: Arc<AtomicI64>,
}

impl WallClock for Clock {
    fn now_ms(&self) -> u64 {
        let now = BEGIN_MS + self.began.elapsed().as_millis() as u64;
        now.saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))
    }
}

impl World {
    /// Machines that are not running yet.
    pub fn new(plan: Plan, seed: u64, journal: Arc<Journal>) -> Self {
        let entropy = Entropy::from_seed(*blake3::hash(&seed.to_le_bytes()).as_bytes());
        let genesis = Arc::new(genesis(&plan));
        genesis.check().unwrap();
        let records: Vec<_> = (0..plan.masternodes).map(record).collect();
        let machine = |node| Machine::new(&plan, node, &genesis, &records);
        let packets = journal.clone();
        let watcher = move |sent: Sent| packets.packet(sent);
        let nodes = 0..plan.masternodes + plan.full_nodes;
        let addresses = nodes.clone().map(|node| PeerIp::from(address(node)));
        Self {
            wire: Wire::start(plan.link, entropy.clone(), watcher),
            checker: Arc::new(Checker::new(journal.clone(), addresses)),
            journal,
            random: entropy.rng("world"),
            entropy,
            masternodes: plan.masternodes,
            machines: nodes.map(machine).collect(),
            puppets: BTreeMap::new(),
            genesis,
            submitted: Vec::new(),
            spent: 0,
            link: plan.link,
            bad: BTreeSet::new(),
            apart: BTreeMap::new(),
            suspected: BTreeSet::new(),
        }
    }

    /// Every machine's number.
    pub fn all(&self) -> Vec<usize> {
        (0..self.machines.len()).collect()
    }

    pub fn node(&self, node: usize) -> &Node {
        &self.running(node).node
    }

    pub fn height(&self, node: usize) -> Height {
        self.node(node).chain().tip().height
    }

    pub fn consensus(&self, node: usize) -> ConsensusStatus {
        let consensus = self.node(node).consensus().expect("all are masternodes");
        consensus.watch_status().borrow().clone()
    }

    /// The latest round in which any of these heights was decided.
    pub async fn latest_round(&self, node: usize, from: Height, to: Height) -> Round {
        let mut latest = Round::default();
        for height in (from.0..=to.0).map(Height) {
            let certificate = self.node(node).chain().certificate(height).await.unwrap();
            latest = latest.max(certificate.map_or(latest, |certificate| certificate.round));
        }
        latest
    }

    // Starting and stopping.

    /// Starts a node with what its machine holds.
    pub async fn start(&mut self, node: usize) {
        let outfit = self.outfit(node);
        let started = Node::start(outfit.files, outfit.environment).await;
        let running = started.unwrap_or_else(|why| panic!("{} does not start: {why}", name(node)));
        let checker = self.checker.clone();
        let observing = checker.observe(node, running.chain().clone(), running.net().clone());
        self.machines[node].running = Some(Running {
            node: running,
            power: outfit.power,
            socket: outfit.socket,
            observer: tokio::spawn(observing),
        });
        self.note_ended_faults();
    }

    /// What a node starts with: what its machine holds, and a socket at its address.
    fn outfit(&mut self, node: usize) -> Outfit {
        let machine = &mut self.machines[node];
        assert!(machine.running.is_none(), "{} runs already", name(node));
        machine.starts += 1;
        self.journal.event(format!("{} starts", name(node)));
        let power = Power::default();
        let socket = self.wire.socket(machine.inside);
        let file = |file: &FileInMemory| PoweredFile {
            file: file.clone(),
            power: power.clone(),
        };
        let context = format!("{} start {}", name(node), machine.starts);
        let environment = NodeEnvironment {
            socket: Arc::new(PoweredSocket {
                socket: socket.clone(),
                power: power.clone(),
            }),
            runtime: Arc::new(TokioRuntime),
            clock: Arc::new(Clock {
                began: Instant::now() - self.journal.elapsed(),
                skew_ms: machine.skew_ms.clone(),
            }),
            entropy: Entropy::from_seed(self.entropy.derive(&context)),
            store: powered_disk(&machine.disk, &power),
            store_threads: machine.store_threads,
            offload: Offload::Inline,
            pins: Arc::new(file(&machine.pins)),
            consensus_state: Arc::new(file(&machine.consensus_state)),
            rpc: None,
            timing: NetTiming::RECOMMENDED,
            unsafe_sign: machine.unsafe_sign,
        };
        let files = NodeFiles {
            dir: DataDir::new(Path::new("/simulated")),
            config: machine.config.clone(),
            directory: MasternodeDirectory::new(&machine.genesis, machine.records.clone()).unwrap(),
            genesis: machine.genesis.clone(),
            identity: (machine.identity)(node),
            consensus_key: machine.consensus_key.map(consensus_key),
            lock: None,
        };
        Outfit {
            files,
            environment,
            socket,
            power,
        }
    }

    pub async fn start_all(&mut self) {
        for node in self.honest() {
            self.start(node).await;
        }
    }

    /// Stops a node in order.
    pub async fn stop(&mut self, node: usize) {
        self.journal.event(format!("{} stops", name(node)));
        let running = self.take(node);
        if let Err(why) = running.node.stop().await {
            self.journal
                .violation(format!("{} did not stop cleanly: {why}", name(node)));
        }
    }

    /// The machine loses power: what was not synced is kept, torn or lost, as the seed has it.
    pub fn crash(&mut self, node: usize) {
        self.journal.event(format!("{} crashes", name(node)));
        let running = self.take(node);
        running.power.cut();
        let fate = fates()[self.random.random_range(0..fates().len())];
        let disk = &mut self.machines[node].disk;
        *disk = disk.after_crash(fate);
        let content = blake3::hash(&disk.content());
        self.journal
            .event(format!("{} keeps the disk {content}", name(node)));
    }

    /// From now on every write to a machine's disk fails. Waits until its node has ended, and says
    /// why.
    pub async fn disk_fails(&mut self, node: usize, limit: Duration) -> NodeError {
        self.journal
            .event(format!("the disk of {} fails", name(node)));
        let mut running = self.take(node);
        self.machines[node]
            .disk
            .fail_after(0, ErrorKind::StorageFull);
        let ended = timeout(limit, running.node.wait()).await;
        let why = ended.unwrap_or_else(|_| panic!("{} goes on without a disk", name(node)));
        why.expect_err("nobody asked it to stop")
    }

    fn take(&mut self, node: usize) -> Running {
        for other in self.all().into_iter().filter(|other| *other != node) {
            self.checker.fault_begins(node, other);
        }
        let running = self.machines[node].running.take();
        let running = running.unwrap_or_else(|| panic!("{} does not run", name(node)));
        running.observer.abort();
        self.checker.gone(node);
        running
    }

    fn running(&self, node: usize) -> &Running {
        let running = self.machines[node].running.as_ref();
        running.unwrap_or_else(|| panic!("{} does not run", name(node)))
    }
}
