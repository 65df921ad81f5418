//! Whole networks on loopback sockets, with throwaway identities and directories.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use quinn::{Runtime, TokioRuntime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::env::{Entropy, FileInMemory, SystemClock};
use crate::types::{
    Address, Amount, BlockHash, Genesis, GenesisMasternode, Height, MasternodeDirectory,
    MasternodeRecord, Network, NodeId, PeerIp, Signature, StateCommitment, Timeouts, Tip,
};
use crate::wire::{CloseCode, CloseReason, Role};

mod bans;
mod budgets;
mod bulk;
mod dialing;
mod flood;
mod identities;
mod keepalive;
mod link;
mod log;
mod raw;
mod refusals;
mod rotation;
mod sim;
mod strangers;
mod streams;
#[allow(dead_code, reason = "the simulation of whole nodes uses more of it")]
mod wire;

/// Long enough for any step on a busy machine; no test waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(120);

/// An address that no other test uses, in this process or another.
fn fresh_ip() -> PeerIp {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let low = NEXT.fetch_add(1, Ordering::Relaxed) + 1;
    let process = std::process::id() % 251 + 2;
    let bits = 127 << 24 | process << 16 | low;
    std::net::IpAddr::V4(Ipv4Addr::from_bits(bits)).into()
}

fn identity(seed: u8, ip: PeerIp) -> Identity {
    Identity::create(&[seed; 32], ip, "node", 1_795_000_000_000).unwrap()
}

fn consensus_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed + 100; 32])
}

/// A chain whose masternodes are `m1`, `m2`, ... with the seeds 1, 2, ...
fn genesis(masternodes: u8) -> Genesis {
    Genesis {
        chain_id: "test".into(),
        network: Network::Dev,
        time_ms: 1_795_000_000_000,
        slot_ms: 5_000,
        min_block_interval_ms: 250,
        max_block_bytes: 4_000_000,
        min_fee_per_kb: Amount(1),
        uplink_mbit: 20,
        timeouts: Timeouts::default(),
        masternodes: (1..=masternodes)
            .map(|seed| GenesisMasternode {
                name: format!("m{seed}"),
                consensus_key: (&consensus_key(seed)).into(),
                power: 1,
                payout: Address([0; 32]),
            })
            .collect(),
        allocations: Vec::new(),
    }
}

fn record(seed: u8, address: SocketAddr, pin: NodeId) -> MasternodeRecord {
    MasternodeRecord {
        name: format!("m{seed}"),
        serial: 1,
        ip: address.into(),
        port: address.port(),
        pins: vec![pin],
        consensus_key: (&consensus_key(seed)).into(),
        payout: Address([0; 32]),
        signature: Signature([0; 64]),
    }
    .signed(&consensus_key(seed), Network::Dev)
}

/// Who takes part, before anybody runs.
struct Plan {
    genesis: Genesis,
    records: Vec<MasternodeRecord>,
    /// By seed - 1: masternodes first, then full nodes.
    addresses: Vec<SocketAddr>,
    timing: NetTiming,
}

/// Quick dials; everything else as in the protocol.
const QUICK: NetTiming = NetTiming {
    dial_grace: Duration::from_millis(300),
    backoff_start: Duration::from_millis(50),
    backoff_limit: Duration::from_millis(500),
    ..NetTiming::RECOMMENDED
};

impl Plan {
    /// Masternodes with the seeds from 1 on, then full nodes; addresses ascend with the seeds.
    fn new(masternodes: u8, full: u8) -> Self {
        let addresses: Vec<SocketAddr> = (0..masternodes + full)
            .map(|_| {
                let ip = fresh_ip();
                let probe = std::net::UdpSocket::bind(ip.with_port(0)).unwrap();
                probe.local_addr().unwrap()
            })
            .collect();
        let records = (1..=masternodes)
            .map(|seed| {
                let address = addresses[usize::from(seed) - 1];
                record(seed, address, identity(seed, address.into()).node_id())
            })
            .collect();
        Self {
            genesis: genesis(masternodes),
            records,
            addresses,
            timing: QUICK,
        }
    }

    fn address(&self, seed: u8) -> SocketAddr {
        self.addresses[usize::from(seed) - 1]
    }

    fn ip(&self, seed: u8) -> PeerIp {
        self.address(seed).into()
    }

    /// Waits until the tasks of a node that has ended have freed its port.
    async fn freed(&self, seed: u8) {
        while std::net::UdpSocket::bind(self.address(seed)).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn directory(&self) -> MasternodeDirectory {
        MasternodeDirectory::new(&self.genesis, self.records.clone()).unwrap()
    }

    fn config(&self, seed: u8) -> NetConfig {
        let masternode = usize::from(seed) <= self.genesis.masternodes.len();
        NetConfig {
            network: Network::Dev,
            genesis: self.genesis.hash(),
            role: if masternode {
                Role::Masternode
            } else {
                Role::Full
            },
            own_masternode: masternode.then(|| usize::from(seed) - 1),
            own_ip: Some(self.ip(seed)),
            listen_port: self.address(seed).port(),
            configured_peers: Vec::new(),
            earlier_peers: Vec::new(),
            bans: Vec::new(),
            accept_unpinned: true,
            max_unpinned: 8,
            agent: "timed/test".into(),
            timing: self.timing,
        }
    }

    /// Starts a node as planned.
    fn start(&self, seed: u8) -> Node {
        self.start_with(seed, self.config(seed))
    }

    fn start_with(&self, seed: u8, config: NetConfig) -> Node {
        let identity = identity(seed, self.ip(seed));
        self.start_as(seed, config, identity, self.directory())
    }

    fn start_as(
        &self,
        seed: u8,
        config: NetConfig,
        identity: Identity,
        directory: MasternodeDirectory,
    ) -> Node {
        static STARTS: AtomicU32 = AtomicU32::new(0);
        let start = STARTS.fetch_add(1, Ordering::Relaxed).to_string();
        let runtime = Arc::new(TokioRuntime);
        let environment = NetEnvironment {
            socket: bind_udp(self.address(seed), &*runtime as &dyn Runtime).unwrap(),
            runtime,
            clock: Arc::new(SystemClock),
            entropy: Entropy::from_seed(Entropy::from_seed([seed; 32]).derive(&start)),
            pins: Arc::new(FileInMemory::default()),
            offload: crate::env::Offload::Inline,
        };
        Node::start(self.ip(seed), config, identity, directory, environment)
    }
}

/// A running network and what it delivers.
struct Node {
    ip: PeerIp,
    net: NetHandle,
    tip: watch::Sender<Tip>,
    consensus: mpsc::Receiver<ConsensusEvent>,
    transactions: mpsc::Receiver<TransactionsEvent>,
    sync: mpsc::Receiver<SyncServe>,
    cancel: CancellationToken,
    task: JoinHandle<Result<(), NetError>>,
}

impl Node {
    fn start(
        ip: PeerIp,
        config: NetConfig,
        identity: Identity,
        directory: MasternodeDirectory,
        environment: NetEnvironment,
    ) -> Self {
        let (consensus_in, consensus) = mpsc::channel(1024);
        let (transactions_in, transactions) = mpsc::channel(1024);
        let (sync_in, sync) = mpsc::channel(16);
        let inbound = Inbound {
            consensus: config.own_masternode.map(|_| consensus_in),
            transactions: transactions_in,
            sync: sync_in,
        };
        let tip = watch::Sender::new(tip(0));
        let cancel = CancellationToken::new();
        let (net, run) = start(
            config,
            identity,
            directory,
            environment,
            inbound,
            tip.subscribe(),
            cancel.clone(),
        )
        .unwrap();
        Self {
            ip,
            net,
            tip,
            consensus,
            transactions,
            sync,
            cancel,
            task: tokio::spawn(run),
        }
    }

    /// Waits until something that the peers' state shows has become true.
    async fn until(&self, what: &str, mut met: impl FnMut(&[PeerInfo]) -> bool) -> Vec<PeerInfo> {
        let waiting = async {
            loop {
                let peers = self.net.peers();
                if met(&peers) {
                    return peers;
                }
                // Counters change without an event; looking again soon is all there is.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(peers) => peers,
            Err(_) => panic!(
                "{}: not within {PATIENCE:?}: {what}\npeers: {:#?}\nknown: {:#?}\nrefused: {:#?}",
                self.ip,
                self.net.peers(),
                self.net.known_peers(),
                self.net.refused(),
            ),
        }
    }

    async fn connected_to(&self, peers: &[PeerIp]) -> Vec<PeerInfo> {
        let mut wanted = peers.to_vec();
        wanted.sort();
        self.until(&format!("connected to {wanted:?}"), |peers| {
            peers.iter().map(|peer| peer.ip).eq(wanted.iter().copied())
        })
        .await
    }

    /// Waits until a handshake with a peer was refused or failed.
    async fn refused_with(&self, peer: PeerIp) -> CloseReason {
        let mut reason = None;
        self.until(&format!("a refusal with {peer}"), |_| {
            let refused = self.net.refused();
            reason = refused.into_iter().find(|one| one.1 == peer);
            reason.is_some()
        })
        .await;
        reason.unwrap().3
    }

    /// Waits until a handshake with a peer was refused for this: later ones may have failed otherwise.
    async fn refused_as(&self, peer: PeerIp, code: CloseCode) -> CloseReason {
        let mut reason = None;
        self.until(&format!("{code:?} with {peer}"), |_| {
            let refused = self.net.refused();
            let found = refused
                .into_iter()
                .find(|one| (one.1, one.3.code) == (peer, code));
            reason = found.map(|one| one.3);
            reason.is_some()
        })
        .await;
        reason.unwrap()
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
    }

    fn info(&self, peer: PeerIp) -> PeerInfo {
        let peers = self.net.peers();
        peers.into_iter().find(|info| info.ip == peer).unwrap()
    }
}

fn tip(height: u64) -> Tip {
    Tip {
        height: Height(height),
        hash: BlockHash([height as u8; 32]),
        time_ms: 0,
        state: StateCommitment([0; 32]),
    }
}
