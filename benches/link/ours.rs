//! The node's own connection code: two masternodes that pin each other, sync answers as bulk,
//! votes that are echoed, and the node's own pings, all through the public API.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ed25519_dalek::SigningKey;
use timed::net::{ConsensusEvent, NetHandle, SyncServe};
use timed::types::{
    Address, Amount, BlockHash, EncodedBody, Height, PeerIp, Round, Transaction, TxOutput, Vote,
    VoteKind,
};
use timed::wire::{ConsensusMessage, StreamKind, SyncRequest, SyncResponse};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::node::{Node, genesis};
use crate::place::Link;
use crate::session::{BLOCK_BYTES, Plan, Session, Shown, started};
use crate::stats::Probe;

/// As many as the node opens to one peer.
const REQUESTS: u64 = 4;
/// As many as one request may ask for.
const HEIGHTS_A_REQUEST: u64 = 256;
/// Outputs of one transaction of the blocks that are sent.
const OUTPUTS: usize = 50;
/// How often the node is asked whether a pong has come.
const LOOK_EVERY: Duration = Duration::from_millis(4);
const CONNECT_WITHIN: Duration = Duration::from_secs(20);

/// Starts both nodes and waits until they are connected.
pub async fn open(link: &Link, plan: Plan) -> anyhow::Result<Session> {
    let keys = [0, 1].map(|index| SigningKey::from_bytes(&[101 + index; 32]));
    let genesis = genesis(&keys);
    let go = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    let mut nodes = Vec::new();
    for (index, end) in link.ends.iter().enumerate() {
        let node = Node::start(index, end, &genesis, &keys, plan, &mut tasks)?;
        nodes.push(node);
    }
    let [low, high] = <[Node; 2]>::try_from(nodes).ok().context("two nodes")?;
    for (node, end) in [(&low, &link.ends[0]), (&high, &link.ends[1])] {
        let connected = node.connected(end);
        (tokio::time::timeout(CONNECT_WITHIN, connected).await)
            .with_context(|| format!("not connected: {:?}", node.net.refused()))??;
    }
    let (ping, vote) = (Arc::new(Probe::default()), Arc::new(Probe::default()));
    let nets = [low.net.clone(), high.net.clone()];
    let peers = [0, 1].map(|index| PeerIp::from(link.ends[index].peer));
    tasks.spawn(read_pings(nets[0].clone(), ping.clone()));
    let template = Vote::sign(
        &keys[0],
        &genesis.hash(),
        VoteKind::Prevote,
        Height(1),
        Round(0),
        Some(BlockHash([7; 32])),
    );
    tasks.spawn(send_votes(
        nets[0].clone(),
        peers[0],
        template,
        plan,
        vote.clone(),
    ));
    tasks.spawn(hear_votes(low.consensus, vote.clone()));
    tasks.spawn(echo_votes(high.consensus, nets[1].clone(), peers[1]));
    let block = Arc::new(block());
    for (index, sync) in [low.sync, high.sync].into_iter().enumerate() {
        tasks.spawn(serve(sync, block.clone()));
        if plan.load.sends(index) {
            let receiver = 1 - index;
            for _ in 0..REQUESTS {
                let asked = fetch(nets[receiver].clone(), peers[receiver], go.subscribe());
                tasks.spawn(asked);
            }
        }
    }
    tasks.spawn(discard(low.transactions));
    tasks.spawn(discard(high.transactions));
    let received = move || nets.each_ref().map(sync_received);
    let shown = Shown {
        ping,
        vote: Some(vote),
        received: Box::new(received),
        go,
    };
    Ok(Session { shown, tasks })
}

/// A large block's transactions.
fn block() -> SyncResponse {
    let output = TxOutput {
        amount: Amount(1),
        address: Address([1; 32]),
    };
    let transaction = Transaction {
        version: 1,
        inputs: Vec::new(),
        outputs: vec![output; OUTPUTS],
    };
    let count = BLOCK_BYTES / transaction.encoded_bytes();
    SyncResponse::Body(EncodedBody::of(&vec![transaction; count]))
}

fn sync_received(net: &NetHandle) -> u64 {
    let sync = StreamKind::Sync as usize;
    net.peers()
        .iter()
        .map(|peer| peer.streams[sync].received)
        .sum()
}

/// Answers every request with as many blocks as it asks for.
async fn serve(
    mut requests: mpsc::Receiver<SyncServe>,
    block: Arc<SyncResponse>,
) -> anyhow::Result<()> {
    let mut answers = JoinSet::new();
    while let Some(mut serve) = requests.recv().await {
        let block = block.clone();
        answers.spawn(async move {
            let (first, last) = serve.request.range();
            for _ in first.0..=last.0 {
                serve.answer.send(&block).await?;
            }
            serve.answer.finish()
        });
        while let Some(answered) = answers.try_join_next() {
            answered??;
        }
    }
    anyhow::bail!("no requests any more")
}

/// Asks for blocks, one full request after the other.
async fn fetch(net: NetHandle, from: PeerIp, go: watch::Receiver<bool>) -> anyhow::Result<()> {
    started(go).await?;
    let request = SyncRequest::Bodies {
        first: Height(1),
        last: Height(HEIGHTS_A_REQUEST),
    };
    loop {
        let mut responses = net.request_sync(from, request).await?;
        while responses.next().await?.is_some() {}
    }
}

/// Takes the node's own round-trip times as they come. Of pongs that arrive together only the last
/// one's is seen.
async fn read_pings(net: NetHandle, probe: Arc<Probe>) -> anyhow::Result<()> {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = 0;
    loop {
        look.tick().await;
        let peers = net.peers();
        let peer = peers.first().context("the connection has ended")?;
        if let Some(rtt) = peer.rtt.filter(|_| peer.pongs_received != seen) {
            probe.took(Duration::from_micros(rtt.last_us));
        }
        seen = peer.pongs_received;
    }
}

async fn send_votes(
    net: NetHandle,
    to: PeerIp,
    template: Vote,
    plan: Plan,
    probe: Arc<Probe>,
) -> anyhow::Result<()> {
    let mut pace = tokio::time::interval(plan.ask_every);
    for number in 1.. {
        pace.tick().await;
        let mut vote = template;
        vote.height = Height(number);
        probe.sent(number);
        net.send_consensus(to, ConsensusMessage::Vote(vote))?;
    }
    Ok(())
}

async fn hear_votes(
    mut events: mpsc::Receiver<ConsensusEvent>,
    probe: Arc<Probe>,
) -> anyhow::Result<()> {
    while let Some(event) = events.recv().await {
        if let ConsensusEvent::Message {
            message: ConsensusMessage::Vote(vote),
            ..
        } = event
        {
            probe.answered(vote.height.0);
        }
    }
    anyhow::bail!("no votes any more")
}

async fn echo_votes(
    mut events: mpsc::Receiver<ConsensusEvent>,
    net: NetHandle,
    to: PeerIp,
) -> anyhow::Result<()> {
    while let Some(event) = events.recv().await {
        if let ConsensusEvent::Message { message, .. } = event {
            net.send_consensus(to, message)?;
        }
    }
    anyhow::bail!("no votes any more")
}

async fn discard<T>(mut events: mpsc::Receiver<T>) -> anyhow::Result<()> {
    while events.recv().await.is_some() {}
    anyhow::bail!("no transactions any more")
}
