//! The node that catches up: a whole full node with its database in a file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use timed::config::Config;
use timed::env::{Entropy, FileInMemory, Offload, SystemClock};
use timed::net::{NetTiming, Runtime, TokioRuntime, bind_udp};
use timed::node::files::{DataDir, NodeFiles};
use timed::node::{Node, NodeEnvironment};
use timed::rpc::RpcEnvironment;
use timed::store::{Backend, StoreThreads};
use timed::types::{Genesis, Height, MasternodeDirectory, Network, Tip};
use tokio::time::Instant;

use crate::peers::identity;

/// A sync that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(3_600);

/// Where a node is and whom it asks.
pub struct Place<'a> {
    pub folder: &'a Path,
    pub address: SocketAddr,
    pub peers: Vec<SocketAddr>,
    pub timing: NetTiming,
}

pub async fn start(genesis: &Arc<Genesis>, place: &Place<'_>) -> Result<Node> {
    std::fs::create_dir_all(place.folder)?;
    let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
    let rpc = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let environment = NodeEnvironment {
        socket: bind_udp(place.address, &*runtime)?,
        runtime,
        clock: Arc::new(SystemClock),
        entropy: Entropy::from_os()?,
        store: Backend::File(place.folder.join("chain.redb")),
        store_threads: StoreThreads::Own,
        offload: Offload::Threads,
        pins: Arc::new(FileInMemory::default()),
        consensus_state: Arc::new(FileInMemory::default()),
        rpc: Some(RpcEnvironment {
            listener: rpc,
            cookie: Arc::new(FileInMemory::default()),
            log: None,
        }),
        timing: place.timing,
        unsafe_sign: false,
    };
    let mut config = Config::new(Network::Dev, place.address.ip());
    config.peers = place.peers.clone();
    let files = NodeFiles {
        dir: DataDir::new(place.folder),
        config,
        genesis: genesis.clone(),
        directory: MasternodeDirectory::new(genesis, [])?,
        identity: identity(place.address)?,
        consensus_key: None,
        lock: None,
    };
    Ok(Node::start(files, environment).await?)
}

/// Waits until the node knows of a height; then until it has it. Returns how long the second took.
pub async fn reach(node: &Node, height: Height) -> Result<(Tip, Duration)> {
    let mut status = node.sync().watch_status();
    let known = status.wait_for(|status| status.target >= height);
    let known = tokio::time::timeout(LIMIT, known).await;
    known.context("no peer tells of the chain")??;
    let start = Instant::now();
    let mut tip = node.chain().watch_tip();
    let reached = tip.wait_for(|tip| tip.height >= height);
    let reached = tokio::time::timeout(LIMIT, reached).await;
    let tip = *reached.with_context(|| {
        let status = node.sync().watch_status().borrow().clone();
        format!("the sync does not finish: {status:?}")
    })??;
    Ok((tip, start.elapsed()))
}
