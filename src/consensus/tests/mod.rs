//! A network of masternodes in memory: the real actor on fake ports, in virtual time.
//!
//! The fakes keep what would be on disk (chain, log, `consensus.state`) apart from the actor, so
//! that a node can be crashed at any effect and started again. Everything that leaves a node is
//! recorded by who signed it, so that a slot that was signed twice is found.

mod byzantine;
mod crash;
mod fakes;
mod live;
mod mesh;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ports::Ports;
use super::{ConsensusError, ConsensusStatus, host};
use crate::env::{FileInMemory, Offload, WallClock};
use crate::net::{BodyEvent, ConsensusEvent};
use crate::types::{
    Address, Amount, Block, BlockHash, CommitCertificate, ConsensusKey, Genesis, GenesisMasternode,
    Height, Network, OutPoint, PeerIp, PublicKey, Round, Signature, Timeouts, Transaction, TxId,
    TxInput, TxOutput, ValidatorSet, VoteKind,
};
use crate::wire::{BodyHeader, ConsensusMessage, ReachSet};
use fakes::{CrashingFile, Disk, FakePorts, genesis_tip};
use mesh::{Mesh, Parcel};

pub(super) fn key(index: usize) -> SigningKey {
    SigningKey::from_bytes(&[index as u8 + 1; 32])
}

pub(super) fn ip(last: u8) -> PeerIp {
    PeerIp::from(IpAddr::from([127, 0, 0, last]))
}

fn node_ip(index: usize) -> PeerIp {
    ip(index as u8 + 1)
}

pub(super) fn genesis(powers: &[u64]) -> Genesis {
    let masternodes = powers.iter().enumerate().map(|(index, power)| {
        let key = key(index);
        GenesisMasternode {
            name: format!("node-{index}"),
            consensus_key: (&key).into(),
            power: *power,
            payout: Address([index as u8; 32]),
        }
    });
    Genesis {
        chain_id: "consensus-tests".into(),
        network: Network::Dev,
        time_ms: 1_800_000_000_000,
        slot_ms: 5_000,
        min_block_interval_ms: 250,
        max_block_bytes: 1_000_000,
        min_fee_per_kb: Amount(1),
        uplink_mbit: 20,
        timeouts: Timeouts::default(),
        masternodes: masternodes.collect(),
        allocations: Vec::new(),
    }
}

fn transaction(number: u64) -> Transaction {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_le_bytes());
    Transaction {
        version: 1,
        inputs: vec![TxInput {
            outpoint: OutPoint {
                txid: TxId(id),
                index: 0,
            },
            public_key: PublicKey([2; 32]),
            signature: Signature([3; 64]),
        }],
        outputs: vec![TxOutput {
            amount: Amount(1),
            address: Address([4; 32]),
        }],
    }
}

/// Virtual time as time of day, with an error of its own for each node.
struct TestClock {
    start: Instant,
    start_ms: u64,
    ahead_ms: u64,
}

impl WallClock for TestClock {
    fn now_ms(&self) -> u64 {
        self.start_ms + self.start.elapsed().as_millis() as u64 + self.ahead_ms
    }
}

/// One node: its disk, and its actor while it runs.
struct Node {
    ports: FakePorts,
    state: FileInMemory,
    ahead_ms: u64,
    unsafe_sign: bool,
    running: Option<Running>,
}

struct Running {
    actor: JoinHandle<Result<(), ConsensusError>>,
    status: watch::Receiver<ConsensusStatus>,
    stop: mpsc::Sender<String>,
    cancel: CancellationToken,
}

/// All nodes and the links between them.
struct World {
    genesis: Arc<Genesis>,
    start: Instant,
    mesh: Arc<Mutex<Mesh>>,
    nodes: Vec<Node>,
    cut: BTreeSet<(usize, usize)>,
    submitted: u64,
}

impl World {
    /// Nodes with these powers, not started.
    fn new(powers: &[u64]) -> Self {
        Self::of(genesis(powers))
    }

    fn of(genesis: Genesis) -> Self {
        let genesis = Arc::new(genesis);
        let validators = Arc::new(ValidatorSet::from_genesis(&genesis));
        let mesh = Arc::new(Mutex::new(Mesh {
            delay: Duration::from_millis(5),
            inboxes: BTreeMap::new(),
            links: BTreeMap::new(),
            filter: Box::new(|_, _, _| true),
            body_time: Duration::ZERO,
            signed: BTreeMap::new(),
            counts: BTreeMap::new(),
        }));
        let nodes = (0..genesis.masternodes.len())
            .map(|index| Node {
                ports: FakePorts {
                    index,
                    validators: validators.clone(),
                    genesis_hash: genesis.hash(),
                    disk: Arc::default(),
                    tip: Arc::new(watch::Sender::new(genesis_tip(&genesis))),
                    ready: Arc::new(watch::Sender::new(false)),
                    mempool: Arc::default(),
                    mesh: mesh.clone(),
                    plan: Arc::default(),
                    make_invalid: Arc::default(),
                    writer: Arc::default(),
                    heavy: Duration::from_secs(1),
                },
                state: FileInMemory::default(),
                ahead_ms: 0,
                unsafe_sign: false,
                running: None,
            })
            .collect();
        Self {
            genesis,
            start: Instant::now(),
            mesh,
            nodes,
            cut: BTreeSet::new(),
            submitted: 0,
        }
    }

    /// Nodes with these powers, all started and connected.
    async fn started(powers: &[u64]) -> Self {
        let mut world = Self::new(powers);
        for index in 0..powers.len() {
            world.start(index).await;
        }
        world
    }

    /// Starts a node and connects it to all that run, except over cut links.
    async fn start(&mut self, index: usize) {
        // Whoever was connected to an earlier run of the node has heard of its end.
        let delay = self.mesh.lock().unwrap().delay;
        tokio::time::sleep(delay * 2).await;
        let node = &mut self.nodes[index];
        let setup = host::Setup {
            key: key(index),
            genesis: self.genesis.clone(),
            genesis_hash: self.genesis.hash(),
            validators: node.ports.validators.clone(),
            state: Arc::new(CrashingFile {
                file: node.state.clone(),
                plan: node.ports.plan.clone(),
            }),
            clock: Arc::new(TestClock {
                start: self.start,
                start_ms: self.genesis.time_ms,
                ahead_ms: node.ahead_ms,
            }),
            offload: Offload::Inline,
            unsafe_sign: node.unsafe_sign,
        };
        let (inbox, inbound) = mpsc::channel(1_000);
        let (stop, stops) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let (status, actor) =
            host::start(setup, node.ports.clone(), inbound, stops, cancel.clone());
        node.running = Some(Running {
            actor: tokio::spawn(actor),
            status,
            stop,
            cancel,
        });
        self.mesh.lock().unwrap().inboxes.insert(index, inbox);
        for other in 0..self.nodes.len() {
            if other != index && self.nodes[other].running.is_some() {
                self.link(index, other);
            }
        }
        self.tell_reach();
    }

    /// Ends a node's actor where it stands and cuts its links.
    fn kill(&mut self, index: usize) {
        if let Some(running) = self.nodes[index].running.take() {
            running.actor.abort();
        }
        self.mesh.lock().unwrap().inboxes.remove(&index);
        for other in 0..self.nodes.len() {
            self.unlink(index, other);
        }
        self.tell_reach();
    }

    fn link(&mut self, a: usize, b: usize) {
        if self.cut.contains(&(a.min(b), a.max(b))) {
            return;
        }
        let mut mesh = self.mesh.lock().unwrap();
        for (from, to) in [(a, b), (b, a)] {
            let (sender, mut parcels) = mpsc::channel::<Parcel>(10_000);
            let inbox = mesh.inboxes[&to].clone();
            tokio::spawn(async move {
                while let Some((at, event)) = parcels.recv().await {
                    tokio::time::sleep_until(at).await;
                    if inbox.send(event).await.is_err() {
                        return;
                    }
                }
            });
            mesh.links.insert((from, to), sender);
            let connected = ConsensusEvent::Connected {
                peer: node_ip(from),
                masternode: from,
            };
            mesh.post(from, to, connected);
        }
    }

    fn unlink(&mut self, a: usize, b: usize) {
        let mut mesh = self.mesh.lock().unwrap();
        for (from, to) in [(a, b), (b, a)] {
            let disconnected = ConsensusEvent::Disconnected {
                peer: node_ip(from),
                masternode: from,
            };
            mesh.post(from, to, disconnected);
            mesh.links.remove(&(from, to));
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b), a.max(b)));
        self.unlink(a, b);
        self.tell_reach();
    }

    fn mend(&mut self, a: usize, b: usize) {
        self.cut.remove(&(a.min(b), a.max(b)));
        self.link(a, b);
        self.tell_reach();
    }

    /// Every node tells its peers whom it is connected to.
    fn tell_reach(&self) {
        let mesh = self.mesh.lock().unwrap();
        let links: Vec<(usize, usize)> = mesh.links.keys().copied().collect();
        for (from, to) in &links {
            let reach: ReachSet = links
                .iter()
                .filter(|(one, _)| one == from)
                .map(|(_, other)| *other)
                .collect();
            let peer = node_ip(*from);
            mesh.post(*from, *to, ConsensusEvent::Reach { peer, reach });
        }
    }

    /// Puts a new transaction into every mempool.
    fn submit(&mut self) {
        self.submitted += 1;
        for node in &self.nodes {
            let mut mempool = node.ports.mempool.lock().unwrap();
            mempool.push(transaction(self.submitted));
            node.ports.ready.send_replace(true);
        }
    }

    fn height(&self, index: usize) -> u64 {
        self.nodes[index].ports.tip.borrow().height.0
    }

    fn status(&self, index: usize) -> ConsensusStatus {
        let running = self.nodes[index].running.as_ref().unwrap();
        running.status.borrow().clone()
    }

    fn blocks(&self, index: usize) -> Vec<Block> {
        let disk = self.nodes[index].ports.disk.lock().unwrap();
        disk.blocks.iter().map(|(block, _)| block.clone()).collect()
    }

    fn count(&self, kind: &'static str) -> usize {
        let mesh = self.mesh.lock().unwrap();
        mesh.counts.get(kind).copied().unwrap_or(0)
    }

    fn filter(
        &self,
        filter: impl Fn(usize, usize, Option<&ConsensusMessage>) -> bool + Send + 'static,
    ) {
        self.mesh.lock().unwrap().filter = Box::new(filter);
    }

    /// A message that comes to a node over a link, as if its peer had sent it.
    fn inject(&self, from: usize, to: usize, message: ConsensusMessage) {
        let mesh = self.mesh.lock().unwrap();
        let peer = node_ip(from);
        mesh.post(from, to, ConsensusEvent::Message { peer, message });
    }

    /// A whole body that comes to a node over a link, as if its peer had sent it.
    fn inject_body(&self, from: usize, to: usize, header: BodyHeader, bytes: Vec<u8>) {
        let mesh = self.mesh.lock().unwrap();
        let (peer, bytes) = (node_ip(from), bytes.into());
        let event = ConsensusEvent::Body {
            peer,
            header,
            event: BodyEvent::Complete { bytes },
        };
        mesh.post(from, to, event);
    }

    /// Lets virtual time pass until the condition holds; fails after `seconds`.
    async fn until(&mut self, what: &str, seconds: u64, condition: impl Fn(&World) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !condition(self) {
            assert!(
                Instant::now() < end,
                "{what} did not come in {seconds} s: {}",
                self.describe()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until all these nodes are at a height, with transactions waiting all the time.
    async fn reach(&mut self, nodes: &[usize], height: u64, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while nodes.iter().any(|node| self.height(*node) < height) {
            assert!(
                Instant::now() < end,
                "height {height} was not reached in {seconds} s: {}",
                self.describe()
            );
            let busy = self.nodes[nodes[0]].ports.mempool.lock().unwrap().len();
            if busy < 2 {
                self.submit();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let status = node.running.as_ref().map(|running| {
                let status = running.status.borrow();
                format!("{status:?} ended: {}", running.actor.is_finished())
            });
            text += &format!("\nnode {index} at {}: {status:?}", self.height(index));
        }
        text
    }

    /// Whether all chains agree as far as they go.
    fn assert_agreement(&self) {
        let chains: Vec<Vec<Block>> = (0..self.nodes.len()).map(|at| self.blocks(at)).collect();
        for chain in &chains[1..] {
            for (ours, theirs) in chains[0].iter().zip(chain) {
                assert_eq!(
                    ours.hash(),
                    theirs.hash(),
                    "at height {}",
                    ours.header.height
                );
            }
        }
    }

    /// How many slots a node has signed.
    fn signed_by(&self, node: usize) -> usize {
        let own = ConsensusKey::from(&key(node));
        let mesh = self.mesh.lock().unwrap();
        let slots = mesh.signed.keys();
        slots.filter(|(signer, ..)| *signer == own).count()
    }

    fn double_signed(&self) -> usize {
        self.mesh.lock().unwrap().double_signed()
    }
}

impl World {
    /// What sync does: the blocks of one node are committed on another.
    fn give_blocks(&mut self, from: usize, to: usize) {
        self.give_blocks_up_to(from, to, self.height(from));
    }

    fn give_blocks_up_to(&mut self, from: usize, to: usize, last: u64) {
        let first = self.height(to) as usize;
        let disk = self.nodes[from].ports.disk.lock().unwrap();
        let blocks = disk.blocks[first..last as usize].to_vec();
        drop(disk);
        for (block, certificate) in blocks {
            self.nodes[to].ports.append(block, certificate);
        }
    }
}

#[test]
fn the_quorum_sentence_names_the_missing() {
    let mut status = ConsensusStatus {
        height: Height(1),
        round: None,
        proposer: None,
        not_signing: None,
        power_present: 70,
        power_total: 100,
        missing: vec!["node-2".into()],
        evidence: 0,
        highest_round: Round(0),
        blamed: Vec::new(),
    };
    assert_eq!(status.quorum_sentence(), "quorum: power 70 of 100");
    status.power_present = 60;
    status.missing.push("node-0".into());
    assert_eq!(
        status.quorum_sentence(),
        "no quorum: power 60 of 100, missing: node-2, node-0"
    );
}
