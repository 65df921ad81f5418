//! Whole syncs over loopback: from one peer, beside peers of no use, and what others feel of it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use timed::net::NetTiming;
use timed::node::Node;
use timed::types::PeerIp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::machine::{Stored, next_address, p99};
use crate::node::{self, Place};
use crate::peers::{Conduct, Peer};

/// Between two pings and two calls while delays are measured: 50 a second, less than the 64 pings
/// that a peer may send.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// How long delays are measured while nothing happens.
const IDLE: Duration = Duration::from_secs(5);

/// Syncs a new node from these peers; returns blocks a second.
pub async fn rate(source: &Stored, folder: &Path, conducts: &[Conduct]) -> Result<f64> {
    let timing = NetTiming::RECOMMENDED;
    let mut peers = Vec::new();
    for conduct in conducts {
        let peer = Peer::start(&source.chain, next_address(), conduct.clone(), timing, &[])?;
        peers.push(peer);
    }
    let own = folder.join("client");
    let place = Place {
        folder: &own,
        address: next_address(),
        peers: peers.iter().map(|peer| peer.address).collect(),
        timing,
    };
    let node = node::start(source.chain.genesis(), &place).await?;
    connected(&node, conducts.len()).await?;
    let tip = source.chain.tip();
    let (reached, took) = node::reach(&node, tip.height).await?;
    anyhow::ensure!(reached == tip, "the node has another chain than its peers");
    node.stop().await?;
    for peer in peers {
        peer.stop().await;
    }
    std::fs::remove_dir_all(&own)?;
    Ok(tip.height.0 as f64 / took.as_secs_f64())
}

/// What the other peers of a node and the users of its RPC wait for.
pub struct Delays {
    pub ping: Duration,
    pub rpc: Duration,
    /// Of the sync; 0 without one.
    pub blocks_per_s: f64,
}

/// Delays of a node with two peers that have nothing for it; with `source`, while it syncs from it.
pub async fn delays(empty: &Stored, source: Option<&Stored>, folder: &Path) -> Result<Delays> {
    let timing = NetTiming {
        ping_interval: PROBE_INTERVAL,
        ..NetTiming::RECOMMENDED
    };
    let mut peers = Vec::new();
    for _ in 0..2 {
        peers.push(Peer::start(
            &empty.chain,
            next_address(),
            Conduct::Honest,
            timing,
            &[],
        )?);
    }
    let serving = next_address();
    let mut addresses: Vec<SocketAddr> = peers.iter().map(|peer| peer.address).collect();
    addresses.push(serving);
    let own = folder.join("client");
    let place = Place {
        folder: &own,
        address: next_address(),
        peers: addresses,
        timing,
    };
    let node = node::start(empty.chain.genesis(), &place).await?;
    connected(&node, peers.len()).await?;
    let done = CancellationToken::new();
    let rpc = node.rpc_addr().context("the node has an RPC")?;
    let calls = tokio::spawn(call_until(rpc, done.clone()));
    let blocks_per_s = match source {
        None => {
            tokio::time::sleep(IDLE).await;
            0.0
        }
        Some(source) => {
            peers.push(Peer::start(
                &source.chain,
                serving,
                Conduct::Honest,
                NetTiming::RECOMMENDED,
                &[],
            )?);
            let tip = source.chain.tip().height;
            let (_, took) = node::reach(&node, tip).await?;
            tip.0 as f64 / took.as_secs_f64()
        }
    };
    let ping = worst_ping(&node, PeerIp::from(serving));
    done.cancel();
    let rpc = p99(calls.await??);
    node.stop().await?;
    for peer in peers {
        peer.stop().await;
    }
    std::fs::remove_dir_all(&own)?;
    Ok(Delays {
        ping,
        rpc,
        blocks_per_s,
    })
}

/// The higher of the 99th percentiles of all peers but one.
fn worst_ping(node: &Node, except: PeerIp) -> Duration {
    let peers = node.net().peers().into_iter();
    let others = peers.filter(|peer| peer.ip != except);
    let p99 = others.filter_map(|peer| Some(peer.rtt?.p99_us)).max();
    Duration::from_micros(p99.unwrap_or_default())
}

async fn connected(node: &Node, count: usize) -> Result<()> {
    let mut changes = node.net().watch_peers();
    let all = async {
        while node.net().peers().len() < count {
            changes.changed().await?;
        }
        anyhow::Ok(())
    };
    let limit = Duration::from_secs(30);
    let waited = tokio::time::timeout(limit, all).await;
    waited.context("the peers do not connect")?
}

/// Calls the RPC again and again; how long each call took.
async fn call_until(rpc: SocketAddr, done: CancellationToken) -> Result<Vec<Duration>> {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "getblockchaininfo", "params": [] });
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("http://{rpc}/");
    let (calls, due) = std::sync::mpsc::channel::<()>();
    // The client blocks: it has a thread of its own, and takes no worker from the node.
    let (results, mut took) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while due.recv().is_ok() {
            let start = Instant::now();
            let answer = agent.post(&url).send_json(&body);
            let read = answer.and_then(|mut answer| answer.body_mut().read_to_string());
            if results.send(read.map(|_| start.elapsed())).is_err() {
                return;
            }
        }
    });
    let mut samples = Vec::new();
    while !done.is_cancelled() {
        calls.send(()).context("the client has ended")?;
        samples.push(took.recv().await.context("the client has ended")??);
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
    Ok(samples)
}

/// A chain at height 0.
pub async fn empty(folder: &Path, source: &Stored) -> Result<Stored> {
    Stored::open(&folder.join("empty.redb"), source.chain.genesis()).await
}
