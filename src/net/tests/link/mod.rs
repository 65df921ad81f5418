//! Bulk on an emulated link in virtual time, with pings and votes beside it: what the bound on bulk
//! promises, row by row. Each test prints its figures.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::raw::{self, Raw};
use super::sim;
use super::wire::{Link, Rate, Wire};
use super::*;
use crate::types::{ConsensusKey, Round, Vote, VoteKind};
use crate::wire::{ConsensusMessage, StreamKind, SyncRequest, encode_frame};

mod hostile;
mod shared;
mod single;
mod slow;

/// The blocks of the reference transfer.
const BLOCK_BYTES: usize = 946_000;
/// Between two votes to one peer.
const VOTE_EVERY: Duration = Duration::from_millis(20);

/// Runs a story in virtual time.
fn virtually<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(story)
}

/// A drop-tail link: its rate, the round trip of an idle one, and its queue.
fn link(mbit: u64, round_trip_ms: u64, queue_packets: usize) -> Link {
    Link {
        delay: Duration::from_micros(round_trip_ms * 500),
        rate: Some(Rate::mbit_per_s(mbit, queue_packets)),
        ..Link::CLEAN
    }
}

/// A node that answers every sync request without end, echoes votes, and times the echoes of its own.
struct Host {
    ip: PeerIp,
    net: NetHandle,
    votes: Arc<Mutex<Votes>>,
    /// Bytes of whole blocks that have come.
    bodies: Arc<Mutex<BTreeMap<PeerIp, u64>>>,
    /// Ends with the host.
    _cancel: tokio_util::sync::DropGuard,
    _tip: watch::Sender<Tip>,
}

#[derive(Default)]
struct Votes {
    sent: BTreeMap<u64, Instant>,
    round_trips: Vec<Duration>,
}

impl Host {
    fn start(plan: &Plan, seed: u8, wire: &Arc<Wire>) -> Self {
        Self::run(sim::start(plan, seed, wire))
    }

    fn run(node: Node) -> Self {
        let host = Self {
            ip: node.ip,
            net: node.net,
            votes: Arc::default(),
            bodies: Arc::default(),
            _cancel: node.cancel.drop_guard(),
            _tip: node.tip,
        };
        tokio::spawn(serve(node.sync));
        let (net, votes, bodies) = (host.net.clone(), host.votes.clone(), host.bodies.clone());
        tokio::spawn(hear(node.consensus, net, votes, bodies));
        let mut transactions = node.transactions;
        tokio::spawn(async move { while transactions.recv().await.is_some() {} });
        host
    }

    fn info(&self, peer: PeerIp) -> PeerInfo {
        let peers = self.net.peers();
        let found = peers.into_iter().find(|info| info.ip == peer);
        found.unwrap_or_else(|| panic!("{peer} is not connected: {:?}", self.net.refused()))
    }

    async fn connected_to(&self, count: usize) {
        while self.net.peers().len() < count {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Keeps so many sync requests of whole blocks going until the connection ends; counts the
    /// payload bytes of each.
    fn download(&self, from: PeerIp, requests: usize) -> Vec<Arc<AtomicU64>> {
        let counts: Vec<Arc<AtomicU64>> = (0..requests).map(|_| Arc::default()).collect();
        for count in counts.clone() {
            let net = self.net.clone();
            tokio::spawn(async move {
                let request = SyncRequest::Bodies {
                    first: Height(1),
                    last: Height(256),
                };
                while let Ok(mut answer) = net.request_sync(from, request).await {
                    let mut progress = answer.progress();
                    let counting = async {
                        while progress.changed().await.is_ok() {
                            count.store(*progress.borrow_and_update(), Ordering::Relaxed);
                        }
                    };
                    let reading = async { while let Ok(Some(_)) = answer.next_payload().await {} };
                    tokio::select! { () = counting => {}, () = reading => {} }
                }
            });
        }
        counts
    }

    fn downloaded(&self, from: PeerIp) -> u64 {
        self.info(from).streams[StreamKind::Sync as usize].received
    }

    /// Sends votes to a peer for ever.
    fn vote(&self, to: PeerIp, every: Duration) {
        let (net, votes) = (self.net.clone(), self.votes.clone());
        tokio::spawn(async move {
            loop {
                let id = {
                    let mut votes = votes.lock().unwrap();
                    let id = votes.sent.last_key_value().map_or(0, |(id, _)| id + 1);
                    votes.sent.insert(id, Instant::now());
                    id
                };
                if net.send_consensus(to, vote(VoteKind::Prevote, id)).is_err() {
                    return;
                }
                sleep(every).await;
            }
        });
    }

    fn forget_votes(&self) {
        self.votes.lock().unwrap().round_trips.clear();
    }

    fn vote_p99(&self) -> Duration {
        let votes = self.votes.lock().unwrap();
        percentile(&votes.round_trips, 0.99)
    }

    fn ping_p99(&self, peer: PeerIp) -> Duration {
        Duration::from_micros(self.info(peer).rtt.unwrap().p99_us)
    }
}

fn percentile(times: &[Duration], part: f64) -> Duration {
    assert!(times.len() >= 100, "only {} samples", times.len());
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn vote(kind: VoteKind, id: u64) -> ConsensusMessage {
    ConsensusMessage::Vote(Vote {
        kind,
        height: Height(id),
        round: Round(0),
        block: Some(BlockHash([7; 32])),
        voter: ConsensusKey([7; 32]),
        signature: Signature([7; 64]),
    })
}

/// Answers every request with 256 blocks.
async fn serve(mut requests: mpsc::Receiver<SyncServe>) {
    while let Some(mut serve) = requests.recv().await {
        tokio::spawn(async move {
            let mut frame = (BLOCK_BYTES as u32).to_le_bytes().to_vec();
            frame.resize(frame.len() + BLOCK_BYTES, 7);
            let frame = Bytes::from(frame);
            for _ in 0..256 {
                if serve.answer.send_frame(frame.clone()).await.is_err() {
                    return;
                }
            }
            // The reader may have gone meanwhile.
            serve.answer.finish().ok();
        });
    }
}

/// Echoes prevotes as precommits, and times the precommits that come back.
async fn hear(
    mut events: mpsc::Receiver<ConsensusEvent>,
    net: NetHandle,
    votes: Arc<Mutex<Votes>>,
    bodies: Arc<Mutex<BTreeMap<PeerIp, u64>>>,
) {
    while let Some(event) = events.recv().await {
        match event {
            ConsensusEvent::Message {
                peer,
                message: ConsensusMessage::Vote(heard),
            } => match heard.kind {
                VoteKind::Prevote => {
                    let echo = vote(VoteKind::Precommit, heard.height.0);
                    // Only a connection that has just ended refuses it.
                    net.send_consensus(peer, echo).ok();
                }
                VoteKind::Precommit => {
                    let mut votes = votes.lock().unwrap();
                    let sent = votes.sent.get(&heard.height.0).copied().unwrap();
                    votes.round_trips.push(sent.elapsed());
                }
            },
            ConsensusEvent::Body {
                peer,
                event: BodyEvent::Complete { bytes },
                ..
            } => *bodies.lock().unwrap().entry(peer).or_default() += bytes.into_vec().len() as u64,
            _ => {}
        }
    }
}

/// Two masternodes on a link of their own.
struct Pair {
    one: Host,
    other: Host,
}

impl Pair {
    /// Pings come so often that the last 1,024 of them fill the window that is measured.
    async fn start(way: Link, window: Duration) -> Self {
        let mut plan = Plan::new(2, 0);
        plan.timing = often(window);
        Self::start_with(plan, way, 0).await
    }

    async fn start_with(plan: Plan, way: Link, seed: u8) -> Self {
        let wire = Wire::start(Link::CLEAN, Entropy::from_seed([seed; 32]), |_| {});
        wire.set_link(plan.address(1), plan.address(2), way);
        wire.set_link(plan.address(2), plan.address(1), way);
        let one = Host::start(&plan, 1, &wire);
        let other = Host::start(&plan, 2, &wire);
        one.connected_to(1).await;
        other.connected_to(1).await;
        Self { one, other }
    }
}

/// Pings so often that the last 1,024 of them fill a window.
fn often(window: Duration) -> NetTiming {
    NetTiming {
        ping_interval: (window / 1024).max(VOTE_EVERY),
        ..NetTiming::RECOMMENDED
    }
}

/// Jain's index of fairness: 1 when all have the same.
fn fairness(parts: &[f64]) -> f64 {
    let (sum, squares) = (
        parts.iter().sum::<f64>(),
        parts.iter().map(|one| one * one).sum::<f64>(),
    );
    sum * sum / (parts.len() as f64 * squares)
}

/// Bytes that flow between two hosts outside of the node, with QUIC's own congestion control alone: starts a
/// stream that never ends, and counts what arrives. `messages` is how often a message as long as a vote goes
/// before it, which the other side echoes.
async fn plain_flow(
    plan: &Plan,
    wire: &Arc<Wire>,
    from: u8,
    to: u8,
    messages: Option<Duration>,
) -> Arc<AtomicU64> {
    let accepting = raw::endpoint_on(plan, from, wire.socket(plan.address(from)));
    let dialing = raw::endpoint_on(plan, to, wire.socket(plan.address(to)));
    tokio::spawn(async move {
        let quic = accepting.accept().await.unwrap().await.unwrap();
        if let Some(every) = messages {
            let (mut send, mut recv) = quic.open_bi().await.unwrap();
            send.set_priority(1).unwrap();
            let message = encode_frame(StreamKind::Consensus, &vote(VoteKind::Prevote, 1)).unwrap();
            tokio::spawn(async move {
                while send.write_all(&message).await.is_ok() {
                    sleep(every).await;
                }
            });
            tokio::spawn(
                async move { while let Ok(Some(_)) = recv.read_chunk(1 << 20, true).await {} },
            );
        }
        let mut stream = quic.open_uni().await.unwrap();
        let block = vec![7; 64 * 1024];
        while stream.write_all(&block).await.is_ok() {}
    });
    let transport = quinn::TransportConfig::default();
    let (endpoint, quic) = Raw::connect_from(dialing, plan, to, from, transport).await;
    let received = Arc::new(AtomicU64::new(0));
    let count = received.clone();
    tokio::spawn(async move {
        let _endpoint = endpoint;
        if messages.is_some() {
            let (mut send, mut recv) = quic.accept_bi().await.unwrap();
            tokio::spawn(async move {
                while let Ok(Some(chunk)) = recv.read_chunk(1 << 20, true).await {
                    send.write_all(&chunk.bytes).await.unwrap();
                }
            });
        }
        let mut stream = quic.accept_uni().await.unwrap();
        while let Ok(Some(chunk)) = stream.read_chunk(64 * 1024, true).await {
            count.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
        }
    });
    received
}

/// What a row has come to.
#[derive(Debug)]
#[allow(
    dead_code,
    reason = "shown in the failure message and the log of a row"
)]
struct Figures {
    ping_p99: Duration,
    vote_p99: Duration,
    /// Of the link's rate, each way.
    bulk: [f64; 2],
}

impl Figures {
    fn assert(&self, p99: Duration, bulk: f64) {
        assert!(self.ping_p99 <= p99, "{self:?}");
        assert!(self.vote_p99 <= p99, "{self:?}");
        assert!(self.bulk[0] >= bulk, "{self:?}");
    }
}

/// Bulk one way (from `one`) or both ways; measures a window after the settling time.
async fn measure(
    pair: &Pair,
    both_ways: bool,
    bytes_per_s: u64,
    settle: Duration,
    window: Duration,
) -> Figures {
    // On a slow link votes are themselves a load.
    let rare = Duration::from_millis(if bytes_per_s < 1_000_000 { 200 } else { 1 });
    let Pair { one, other, .. } = pair;
    one.vote(other.ip, VOTE_EVERY.min(window / 200).max(rare));
    other.download(one.ip, 4);
    if both_ways {
        one.download(other.ip, 4);
    }
    sleep(settle).await;
    one.forget_votes();
    let received = || [other.downloaded(one.ip), one.downloaded(other.ip)];
    let before = received();
    sleep(window).await;
    let after = received();
    let capacity = bytes_per_s as f64 * window.as_secs_f64();
    Figures {
        ping_p99: one.ping_p99(other.ip),
        vote_p99: one.vote_p99(),
        bulk: [0, 1].map(|way| (after[way] - before[way]) as f64 / capacity),
    }
}
