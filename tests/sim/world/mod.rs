//! N complete nodes on one wire: their keys, disks and clocks, and the faults that befall them.
//!
//! Every fault goes through here, so that the checker knows which disconnects have a cause.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use timed::config::Config;
use timed::consensus::ConsensusStatus;
use timed::env::{Entropy, FileInMemory, Offload, WallClock};
use timed::ledger::Rules;
use timed::net::{Identity, NetTiming, TokioRuntime};
use timed::node::files::{DataDir, NodeFiles};
use timed::node::wallet::{Transfer, Wallet};
use timed::node::{Node, NodeEnvironment, NodeError};
use timed::store::StoreThreads;
use timed::types::{
    Address, Allocation, Amount, Genesis, GenesisMasternode, Height, MasternodeDirectory,
    MasternodeRecord, Network, PeerIp, Round, Signature, Timeouts, TxId,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::check::{Checker, name};
use super::disk::{Disk, fates};
use super::journal::Journal;
use super::wire::{Link, Socket, Wire};

/// The time of day at which every run begins, and its chain with it.
const BEGIN_MS: u64 = 1_795_000_000_000;

/// Outputs to spend: as many transfers can be made.
const ALLOCATIONS: usize = 64;

/// How often the state of the world is looked at while it runs.
const STEP: Duration = Duration::from_secs(5);

/// How often it is looked at while something is awaited.
const LOOK: Duration = Duration::from_millis(250);

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Masternodes of power 1. The first has the lowest address.
    pub masternodes: usize,
    pub slot: Duration,
    pub link: Link,
}

impl Plan {
    pub fn new(masternodes: usize) -> Self {
        Self {
            masternodes,
            slot: Duration::from_secs(5),
            link: Link::CLEAN,
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
    records: Vec<MasternodeRecord>,
    machines: Vec<Machine>,
    submitted: Vec<TxId>,
    spent: usize,
}

/// What is left of a node when it does not run, and the node when it does.
struct Machine {
    disk: Disk,
    pins: FileInMemory,
    consensus_state: FileInMemory,
    skew_ms: Arc<AtomicI64>,
    genesis: Arc<Genesis>,
    starts: u64,
    running: Option<Running>,
}

struct Running {
    node: Node,
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
        let machine = |_| Machine {
            disk: Disk::default(),
            pins: FileInMemory::default(),
            consensus_state: FileInMemory::default(),
            skew_ms: Arc::default(),
            genesis: genesis.clone(),
            starts: 0,
            running: None,
        };
        let nodes = 0..plan.masternodes;
        let addresses = nodes.clone().map(|node| PeerIp::from(address(node)));
        Self {
            wire: Wire::start(journal.clone(), entropy.clone(), plan.link),
            checker: Arc::new(Checker::new(journal.clone(), addresses)),
            journal,
            random: entropy.rng("world"),
            entropy,
            records: nodes.clone().map(record).collect(),
            machines: nodes.map(machine).collect(),
            genesis,
            submitted: Vec::new(),
            spent: 0,
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
        let machine = &mut self.machines[node];
        assert!(machine.running.is_none(), "{} runs already", name(node));
        machine.starts += 1;
        self.journal.event(format!("{} starts", name(node)));
        let socket = self.wire.socket(address(node));
        let context = format!("{} start {}", name(node), machine.starts);
        let environment = NodeEnvironment {
            socket: socket.clone(),
            runtime: Arc::new(TokioRuntime),
            clock: Arc::new(Clock {
                began: Instant::now() - self.journal.elapsed(),
                skew_ms: machine.skew_ms.clone(),
            }),
            entropy: Entropy::from_seed(self.entropy.derive(&context)),
            store: machine.disk.backend(),
            store_threads: StoreThreads::Inline,
            offload: Offload::Inline,
            pins: Arc::new(machine.pins.clone()),
            consensus_state: Arc::new(machine.consensus_state.clone()),
            rpc: None,
            timing: NetTiming::RECOMMENDED,
            unsafe_sign: false,
        };
        let files = NodeFiles {
            dir: DataDir::new(Path::new("/simulated")),
            config: Config::new(Network::Dev, address(node).ip()),
            directory: MasternodeDirectory::new(&machine.genesis, self.records.clone()).unwrap(),
            genesis: machine.genesis.clone(),
            identity: identity(node),
            consensus_key: Some(consensus_key(node)),
            lock: None,
        };
        let started = Node::start(files, environment).await;
        let running = started.unwrap_or_else(|why| panic!("{} does not start: {why}", name(node)));
        let checker = self.checker.clone();
        let observing = checker.observe(node, running.chain().clone(), running.net().clone());
        machine.running = Some(Running {
            node: running,
            socket,
            observer: tokio::spawn(observing),
        });
        let machines = &self.machines;
        self.checker.faults_end(|a, b| {
            let both_run = machines[a].running.is_some() && machines[b].running.is_some();
            both_run && joined(&self.wire, a, b)
        });
    }

    pub async fn start_all(&mut self) {
        for node in self.all() {
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
        running.socket.unplug();
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

    // Faults.

    /// Nothing passes between these groups any more; nodes in no group are cut from all.
    pub fn partition(&mut self, groups: &[&[usize]]) {
        self.journal.event(format!("partition {groups:?}"));
        let together = |a, b| (groups.iter()).any(|group| group.contains(&a) && group.contains(&b));
        for a in self.all() {
            for b in self
                .all()
                .into_iter()
                .filter(|b| *b != a && !together(a, *b))
            {
                self.cut_one_way(a, b);
            }
        }
    }

    /// Nothing passes between two nodes any more.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Nothing passes from one node to another any more.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.journal
            .event(format!("{} -> {} is cut", name(from), name(to)));
        self.wire.cut(address(from), address(to));
        self.checker.fault_begins(from, to);
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.journal.event("all cuts end");
        self.wire.heal();
        let machines = &self.machines;
        let runs = |node: usize| machines[node].running.is_some();
        self.checker.faults_end(|a, b| runs(a) && runs(b));
    }

    /// From now on a node hears only whom it has written to.
    pub fn firewall(&mut self, node: usize) {
        self.wire.firewall(address(node));
    }

    /// From now on a machine's time of day is off by so much.
    pub fn skew(&mut self, node: usize, ms: i64) {
        self.journal
            .event(format!("{} has its clock off by {ms} ms", name(node)));
        self.machines[node].skew_ms.store(ms, Ordering::Relaxed);
    }

    /// Gives a machine that does not run an empty disk, and another chain or the true one.
    pub fn install(&mut self, node: usize, chain_id: &str) {
        let genesis = Genesis {
            chain_id: chain_id.into(),
            ..(*self.genesis).clone()
        };
        let machine = &mut self.machines[node];
        assert!(machine.running.is_none(), "{} runs", name(node));
        machine.genesis = Arc::new(genesis);
        machine.disk = Disk::default();
        machine.consensus_state = FileInMemory::default();
    }

    // Time.

    /// Lets virtual time pass, and looks at every node meanwhile.
    pub async fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(STEP.min(end - Instant::now())).await;
            self.look().await;
        }
    }

    /// Waits until all running nodes that a cut does not part are connected, both ends agreeing,
    /// and nobody else is. Returns how long that took.
    pub async fn connected_within(&mut self, limit: Duration) -> Duration {
        self.within(limit, "connected", Self::what_is_not_connected)
            .await
    }

    /// Waits until all running nodes of the chain have one tip.
    pub async fn level_within(&mut self, limit: Duration) -> Duration {
        self.within(limit, "level", Self::what_is_not_level).await
    }

    /// Waits until every submitted transaction is final on all running nodes of the chain.
    pub async fn transactions_final_within(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        for txid in self.submitted.clone() {
            for node in self.on_chain() {
                while self
                    .node(node)
                    .chain()
                    .find_transaction(txid)
                    .await
                    .unwrap()
                    .is_none()
                {
                    let node = name(node);
                    assert!(
                        Instant::now() < end,
                        "{txid} is not final on {node} within {limit:?}"
                    );
                    sleep(LOOK).await;
                }
            }
        }
    }

    async fn within(
        &mut self,
        limit: Duration,
        what: &str,
        missing: impl Fn(&Self) -> Option<String>,
    ) -> Duration {
        let began = Instant::now();
        while let Some(missing) = missing(self) {
            let waited = began.elapsed();
            assert!(waited < limit, "not {what} within {limit:?}: {missing}");
            sleep(LOOK).await;
        }
        self.look().await;
        self.journal
            .event(format!("{what} after {:?}", began.elapsed()));
        began.elapsed()
    }

    fn what_is_not_connected(&self) -> Option<String> {
        for a in self.all() {
            for b in self.all().into_iter().filter(|b| *b > a) {
                let ends = (self.checker.held(a, b), self.checker.held(b, a));
                let right = match ends {
                    (Some(a_end), Some(b_end)) if self.belong_together(a, b) => {
                        a_end.direction != b_end.direction
                    }
                    (None, None) => !self.belong_together(a, b),
                    _ => false,
                };
                if !right {
                    return Some(format!("{} - {}: {ends:?}", name(a), name(b)));
                }
            }
        }
        None
    }

    /// Consensus, which hears of peers through the network, misses just those that do not run.
    fn whom_consensus_misses(&self) -> Option<String> {
        let running = self.on_chain();
        let missing = |node: &usize| {
            let missing = self.consensus(*node).missing;
            let wrong = missing.len() != self.machines.len() - running.len();
            wrong.then(|| format!("{} misses {missing:?}", name(*node)))
        };
        running.iter().find_map(missing)
    }

    fn belong_together(&self, a: usize, b: usize) -> bool {
        let (one, other) = (&self.machines[a], &self.machines[b]);
        let run = one.running.is_some() && other.running.is_some();
        run && one.genesis == other.genesis && joined(&self.wire, a, b)
    }

    fn what_is_not_level(&self) -> Option<String> {
        let tips: Vec<_> = (self.on_chain().into_iter())
            .map(|node| self.node(node).chain().tip())
            .collect();
        let level = tips.windows(2).all(|two| two[0] == two[1]);
        let heights = tips.iter().map(|tip| tip.height.0).collect::<Vec<_>>();
        (!level).then(|| format!("heights {heights:?}"))
    }

    /// The running nodes of the true chain.
    fn on_chain(&self) -> Vec<usize> {
        let on_chain = |node: &usize| {
            let machine = &self.machines[*node];
            machine.running.is_some() && machine.genesis == self.genesis
        };
        self.all().into_iter().filter(on_chain).collect()
    }

    /// A running node is healthy, and its registry says what was observed.
    async fn look(&mut self) {
        self.checker.look_for_one_sided();
        for (node, machine) in self.machines.iter_mut().enumerate() {
            let Some(running) = &mut machine.running else {
                continue;
            };
            let ended = tokio::select! {
                biased;
                ended = running.node.wait() => Some(ended),
                () = std::future::ready(()) => None,
            };
            if let Some(ended) = ended {
                panic!("{} ended: {ended:?}", name(node));
            }
        }
    }

    /// What must hold at the end of every scenario.
    pub async fn finish(&mut self) {
        self.transactions_final_within(Duration::from_secs(60))
            .await;
        let limit = Duration::from_secs(30);
        self.within(limit, "heard by consensus", Self::whom_consensus_misses)
            .await;
        for node in self.on_chain() {
            let evidence = self.consensus(node).evidence;
            if evidence > 0 {
                let text = format!("{} saw {evidence} double signatures", name(node));
                self.journal.violation(text);
            }
            let (shown, held) = (
                self.node(node).net().peers().len(),
                self.checker.peers(node),
            );
            if shown != held {
                let text = format!("{} shows {shown} peers and has {held}", name(node));
                self.journal.violation(text);
            }
        }
    }

    // Transactions.

    /// Submits a transfer at a node; it must become final.
    pub async fn pay(&mut self, node: usize) {
        let unspent = self.genesis.outputs()[self.spent];
        self.spent += 1;
        let transfer = Transfer {
            to: Address([7; 32]),
            amount: Amount(1_000),
            fee: None,
        };
        let rules = Rules::of(&self.genesis);
        let transaction = wallet().transfer(&rules, &[unspent], &transfer).unwrap();
        let txid = self.node(node).mempool().submit(transaction).await.unwrap();
        self.submitted.push(txid);
    }

    fn running(&self, node: usize) -> &Running {
        let running = self.machines[node].running.as_ref();
        running.unwrap_or_else(|| panic!("{} does not run", name(node)))
    }
}

/// Whether packets pass both ways between two nodes.
fn joined(wire: &Wire, a: usize, b: usize) -> bool {
    let (a, b) = (address(a), address(b));
    wire.passes(a, b) && wire.passes(b, a)
}

/// Addresses ascend with the numbers.
pub fn address(node: usize) -> SocketAddr {
    let low = u8::try_from(node + 1).expect("worlds are small");
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, low), Network::Dev.p2p_port()))
}

fn key(node: usize, use_of_it: u8) -> [u8; 32] {
    let mut key = [use_of_it; 32];
    key[..8].copy_from_slice(&(node as u64).to_le_bytes());
    key
}

fn consensus_key(node: usize) -> SigningKey {
    SigningKey::from_bytes(&key(node, 1))
}

fn identity(node: usize) -> Identity {
    let ip = address(node).into();
    Identity::create(&key(node, 2), ip, &name(node), BEGIN_MS).unwrap()
}

fn wallet() -> Wallet {
    Wallet::new(SigningKey::from_bytes(&[3; 32]))
}

fn record(node: usize) -> MasternodeRecord {
    MasternodeRecord {
        name: name(node),
        serial: 1,
        ip: address(node).into(),
        port: address(node).port(),
        pins: vec![identity(node).node_id()],
        consensus_key: (&consensus_key(node)).into(),
        payout: Address([9; 32]),
        signature: Signature([0; 64]),
    }
    .signed(&consensus_key(node), Network::Dev)
}

fn genesis(plan: &Plan) -> Genesis {
    let masternode = |node| GenesisMasternode {
        name: name(node),
        consensus_key: (&consensus_key(node)).into(),
        power: 1,
        payout: Address([9; 32]),
    };
    let allocation = Allocation {
        address: wallet().address(),
        amount: Amount::from_time(10).unwrap(),
    };
    Genesis {
        chain_id: TRUE_CHAIN.into(),
        network: Network::Dev,
        time_ms: BEGIN_MS,
        slot_ms: plan.slot.as_millis() as u64,
        min_block_interval_ms: 250,
        max_block_bytes: 4_000_000,
        min_fee_per_kb: Amount(1_000),
        uplink_mbit: 20,
        timeouts: Timeouts::default(),
        masternodes: (0..plan.masternodes).map(masternode).collect(),
        allocations: vec![allocation; ALLOCATIONS],
    }
}

/// The chain that a world's nodes are on.
pub const TRUE_CHAIN: &str = "simulated";
