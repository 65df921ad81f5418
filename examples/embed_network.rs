//! Another program on this crate's network: two ends that take nobody but each other, by pinned
//! certificates, and talk. There is no chain. Keys and records are files of `timed init`.

#[expect(dead_code, reason = "other examples use more of it")]
mod support;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use timed::config::NodeFacts;
use timed::env::{Entropy, FileOnDisk, Offload, SystemClock};
use timed::net::{self, *};
use timed::node::NodeFiles;
use timed::types::{BlockHash, Height, StateCommitment, Tip, TxId};
use timed::wire::TransactionsMessage;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

type Inbox = mpsc::Receiver<TransactionsEvent>;
type Task = tokio::task::JoinHandle<Result<(), NetError>>;

/// Starts the network of a folder; it ends with `cancel`.
fn start(folder: &Path, cancel: CancellationToken) -> anyhow::Result<(NetHandle, Inbox, Task)> {
    let mut files = NodeFiles::load(folder)?;
    files.config.accept_unpinned = false;
    let config = files.config.net_config(NodeFacts {
        network: files.genesis.network,
        genesis: files.genesis.hash(),
        own_masternode: files.own_masternode(),
        recorded_ip: None,
        earlier_peers: Vec::new(),
        bans: Vec::new(),
        timing: NetTiming::RECOMMENDED,
    });
    let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
    let environment = NetEnvironment {
        socket: bind_udp(files.config.listen_addr(), &*runtime)?,
        runtime,
        clock: Arc::new(SystemClock),
        entropy: Entropy::from_os()?,
        pins: Arc::new(FileOnDisk(files.dir.pins())),
        offload: Offload::Threads,
    };
    // The streams that are listened to; a full queue holds its senders back.
    let (consensus, sync) = (None, mpsc::channel(1).0);
    let (transactions, inbox) = mpsc::channel(16);
    let inbound = Inbound {
        consensus,
        transactions,
        sync,
    };
    // Peers are told a height; without a chain it stays at the start.
    let tip = watch::Sender::new(Tip {
        height: Height::GENESIS,
        hash: BlockHash(files.genesis.hash().0),
        time_ms: files.genesis.time_ms,
        state: StateCommitment([0; 32]),
    });
    let (who, whom, tips) = (files.identity, files.directory, tip.subscribe());
    let (net, running) = net::start(config, who, whom, environment, inbound, tips, cancel)?;
    let task = tokio::spawn(async move {
        let _kept_for_the_network = tip;
        running.await
    });
    Ok((net, inbox, task))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let left = support::init(root.path(), "left", "127.77.0.1", true)?;
    let right = support::init(root.path(), "right", "127.77.0.2", true)?;
    let both = [&left, &right];
    support::build_genesis(root.path(), &both, &both, Vec::new())?;
    let cancel = CancellationToken::new();
    let (net, mut here, left) = start(&left, cancel.clone())?;
    let (_, mut there, right) = start(&right, cancel.clone())?;

    println!("left:  {:?}", here.recv().await.context("it has ended")?);
    println!("right: {:?}", there.recv().await.context("it has ended")?);
    let mut changes = net.watch_peers();
    changes.wait_for(|_| !net.peers().is_empty()).await?;
    let peer = net.peers().remove(0);
    println!("left:  it is {:?}, pin {}", peer.name, peer.node_id);
    let word = TxId(*blake3::hash(b"hello over a pinned connection").as_bytes());
    let said = TransactionsMessage::Announce(vec![word]);
    net.send_transactions(peer.ip, said.clone())?;
    let heard = there.recv().await.context("right has ended")?;
    println!("right: {heard:?}");
    let same = matches!(heard, TransactionsEvent::Message { message, .. } if message == said);
    ensure!(same, "right must hear what left said");

    cancel.cancel();
    left.await??;
    Ok(right.await??)
}
