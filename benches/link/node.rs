//! The network of one masternode at one end of a link.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use timed::env::{Entropy, FileInMemory, Offload, SystemClock, WallClock};
use timed::net::{
    ConsensusEvent, Identity, Inbound, NetConfig, NetEnvironment, NetHandle, NetTiming, PeerInfo,
    SyncServe, TokioRuntime, TransactionsEvent,
};
use timed::types::{
    Address, Amount, BlockHash, Genesis, GenesisMasternode, Height, MasternodeDirectory,
    MasternodeRecord, Network, PeerIp, Signature, StateCommitment, Timeouts, Tip,
};
use timed::wire::Role;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::place::End;
use crate::session::Plan;

/// A running network and what it delivers.
pub struct Node {
    pub net: NetHandle,
    pub consensus: mpsc::Receiver<ConsensusEvent>,
    pub transactions: mpsc::Receiver<TransactionsEvent>,
    pub sync: mpsc::Receiver<SyncServe>,
}

impl Node {
    /// Starts it among `tasks`.
    pub fn start(
        index: usize,
        end: &End,
        genesis: &Genesis,
        keys: &[SigningKey; 2],
        plan: Plan,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<Self> {
        let (consensus_in, consensus) = mpsc::channel(1024);
        let (transactions_in, transactions) = mpsc::channel(64);
        let (sync_in, sync) = mpsc::channel(16);
        let inbound = Inbound {
            consensus: Some(consensus_in),
            transactions: transactions_in,
            sync: sync_in,
        };
        let environment = NetEnvironment {
            socket: end.udp()?,
            runtime: Arc::new(TokioRuntime),
            clock: Arc::new(SystemClock),
            entropy: Entropy::from_os()?,
            pins: Arc::new(FileInMemory::default()),
            offload: Offload::Threads,
        };
        let tip = watch::Sender::new(Tip {
            height: Height(0),
            hash: BlockHash([0; 32]),
            time_ms: 0,
            state: StateCommitment([0; 32]),
        });
        let (net, running) = timed::net::start(
            config(index, end, genesis, plan),
            identity(index, end)?,
            directory(index, end, genesis, keys)?,
            environment,
            inbound,
            tip.subscribe(),
            CancellationToken::new(),
        )?;
        tasks.spawn(async move {
            // The tip is held for as long as the network runs.
            let _tip = tip;
            running.await.map_err(Into::into)
        });
        Ok(Self {
            net,
            consensus,
            transactions,
            sync,
        })
    }

    /// Waits until the consensus stream to the other end can be written.
    pub async fn connected(&self, end: &End) -> anyhow::Result<()> {
        let mut changes = self.net.watch_peers();
        let there = |peer: &PeerInfo| peer.ip == PeerIp::from(end.peer);
        while !self.net.peers().iter().any(there) {
            changes.changed().await?;
        }
        Ok(())
    }
}

fn identity(index: usize, end: &End) -> anyhow::Result<Identity> {
    let seed = [1 + index as u8; 32];
    let name = format!("m{index}");
    let now_ms = SystemClock.now_ms();
    Ok(Identity::create(&seed, end.own.into(), &name, now_ms)?)
}

/// A chain of two masternodes.
pub fn genesis(keys: &[SigningKey; 2]) -> Genesis {
    let masternode = |index: usize| GenesisMasternode {
        name: format!("m{index}"),
        consensus_key: (&keys[index]).into(),
        power: 1,
        payout: Address([0; 32]),
    };
    Genesis {
        chain_id: "link".into(),
        network: Network::Dev,
        time_ms: 0,
        slot_ms: 5_000,
        min_block_interval_ms: 250,
        max_block_bytes: 4_000_000,
        min_fee_per_kb: Amount(1),
        uplink_mbit: 20,
        timeouts: Timeouts::default(),
        masternodes: (0..2).map(masternode).collect(),
        allocations: Vec::new(),
    }
}

/// The records as this end needs them: its own address, and the other end's as it is reached.
fn directory(
    index: usize,
    end: &End,
    genesis: &Genesis,
    keys: &[SigningKey; 2],
) -> anyhow::Result<MasternodeDirectory> {
    let record = |which: usize| {
        let address = if which == index { end.own } else { end.peer };
        // The pin is of the key, which the address in the certificate does not change.
        let pin = identity(which, end)?.node_id();
        let record = MasternodeRecord {
            name: format!("m{which}"),
            serial: 1,
            ip: address.into(),
            port: address.port(),
            pins: vec![pin],
            consensus_key: (&keys[which]).into(),
            payout: Address([0; 32]),
            signature: Signature([0; 64]),
        };
        anyhow::Ok(record.signed(&keys[which], Network::Dev))
    };
    let records = vec![record(0)?, record(1)?];
    Ok(MasternodeDirectory::new(genesis, records)?)
}

fn config(index: usize, end: &End, genesis: &Genesis, plan: Plan) -> NetConfig {
    NetConfig {
        network: Network::Dev,
        genesis: genesis.hash(),
        role: Role::Masternode,
        own_masternode: Some(index),
        own_ip: Some(end.own.into()),
        listen_port: end.own.port(),
        configured_peers: Vec::new(),
        earlier_peers: Vec::new(),
        accept_unpinned: false,
        bans: Vec::new(),
        max_unpinned: 0,
        agent: "timed/link".into(),
        timing: NetTiming {
            ping_interval: plan.ask_every,
            ..NetTiming::RECOMMENDED
        },
    }
}
