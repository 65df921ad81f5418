//! A network in memory under virtual time: hours pass in seconds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::*;
use crate::env::WallClock;

/// From one node to another.
const DELAY: Duration = Duration::from_millis(20);

struct Packet {
    from: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Inbox {
    packets: VecDeque<Packet>,
    reader: Option<Waker>,
}

#[derive(Default)]
pub(super) struct Wire {
    /// Ordered by (time, sequence).
    flying: Mutex<BTreeMap<(Instant, u64), (SocketAddr, Packet)>>,
    inboxes: Mutex<BTreeMap<SocketAddr, Inbox>>,
    sent: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sequence: u64,
    /// Packets between these and all others are lost.
    isolated: BTreeSet<SocketAddr>,
    /// Packets lost of a thousand.
    loss: u32,
    random: Option<ChaCha20Rng>,
    started: Option<Instant>,
    /// Over (time, from, to, length, fate) of every packet.
    trace: blake3::Hasher,
}

impl Wire {
    /// From now on every packet between these nodes and the others is lost.
    pub(super) fn isolate(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.state.lock().unwrap().isolated = addresses.into_iter().collect();
    }

    /// From now on so many packets of a thousand are lost, by a seed.
    pub(super) fn lose(&self, of_a_thousand: u32, seed: u64) {
        let mut state = self.state.lock().unwrap();
        state.loss = of_a_thousand;
        state.random = Some(ChaCha20Rng::seed_from_u64(seed));
    }

    /// A hash of everything that was sent so far.
    pub(super) fn trace(&self) -> blake3::Hash {
        self.state.lock().unwrap().trace.finalize()
    }

    /// Notes a packet; whether it arrives, and its sequence number.
    fn fate(&self, from: SocketAddr, to: SocketAddr, length: usize) -> (bool, u64) {
        let mut state = self.state.lock().unwrap();
        state.sequence += 1;
        let loss = state.loss;
        let lucky =
            (state.random.as_mut()).is_none_or(|random| random.random_range(0..1000) >= loss);
        let joined = state.isolated.contains(&from) == state.isolated.contains(&to);
        let at = state.started.map(|started| started.elapsed());
        let note = format!("{at:?} {from} {to} {length} {lucky} {joined}");
        state.trace.update(note.as_bytes());
        (lucky && joined, state.sequence)
    }

    /// A wire with its delivery task.
    pub(super) fn new() -> Arc<Self> {
        let wire = Arc::new(Self::default());
        wire.state.lock().unwrap().started = Some(Instant::now());
        tokio::spawn(wire.clone().deliver());
        wire
    }

    async fn deliver(self: Arc<Self>) {
        loop {
            let next = self.flying.lock().unwrap().keys().next().copied();
            match next {
                None => self.sent.notified().await,
                Some((at, _)) => {
                    sleep_until(at).await;
                    let (_, (to, packet)) = self.flying.lock().unwrap().pop_first().unwrap();
                    if let Some(inbox) = self.inboxes.lock().unwrap().get_mut(&to) {
                        inbox.packets.push_back(packet);
                        inbox.reader.take().into_iter().for_each(Waker::wake);
                    }
                }
            }
        }
    }

    pub(super) fn socket(self: &Arc<Self>, address: SocketAddr) -> Arc<dyn AsyncUdpSocket> {
        (self.inboxes.lock().unwrap()).insert(address, Inbox::default());
        Arc::new(Socket {
            wire: self.clone(),
            address,
        })
    }
}

struct Socket {
    wire: Arc<Wire>,
    address: SocketAddr,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({})", self.address)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        for bytes in transmit.contents.chunks(size.max(1)) {
            let (from, to) = (self.address, transmit.destination);
            let (arrives, sequence) = self.wire.fate(from, to, bytes.len());
            if arrives {
                let bytes = bytes.to_vec();
                let at = (Instant::now() + DELAY, sequence);
                let mut flying = self.wire.flying.lock().unwrap();
                flying.insert(at, (to, Packet { from, bytes }));
            }
        }
        self.wire.sent.notify_one();
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inboxes = self.wire.inboxes.lock().unwrap();
        let inbox = inboxes.get_mut(&self.address).unwrap();
        let mut received = 0;
        while received < bufs.len().min(meta.len()) {
            let Some(packet) = inbox.packets.pop_front() else {
                break;
            };
            let length = packet.bytes.len();
            bufs[received][..length].copy_from_slice(&packet.bytes);
            meta[received] = RecvMeta {
                addr: packet.from,
                len: length,
                stride: length,
                ecn: None,
                dst_ip: Some(self.address.ip()),
            };
            received += 1;
        }
        if received > 0 {
            return Poll::Ready(Ok(received));
        }
        inbox.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// The time of day, moving with virtual time.
struct VirtualClock(Instant);

impl WallClock for VirtualClock {
    fn now_ms(&self) -> u64 {
        1_795_000_000_000 + self.0.elapsed().as_millis() as u64
    }
}

/// Starts a planned node on a wire.
pub(super) fn start(plan: &Plan, seed: u8, wire: &Arc<Wire>) -> Node {
    start_with(plan, seed, plan.config(seed), wire)
}

pub(super) fn start_with(plan: &Plan, seed: u8, config: NetConfig, wire: &Arc<Wire>) -> Node {
    let environment = NetEnvironment {
        socket: wire.socket(plan.address(seed)),
        runtime: Arc::new(TokioRuntime),
        clock: Arc::new(VirtualClock(Instant::now())),
        entropy: Entropy::from_seed([seed; 32]),
        pins: Arc::new(FileInMemory::default()),
    };
    let ip = plan.ip(seed);
    let own = identity(seed, ip);
    Node::start(ip, config, own, plan.directory(), environment)
}

/// Runs a mesh of masternodes with a lossy wire and a partition. Gives the wire's trace and who was
/// connected to whom at the end, with the direction.
fn run_mesh(plan: &Plan, seed: u64) -> (blake3::Hash, Vec<Vec<(PeerIp, Direction)>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let wire = Wire::new();
        wire.lose(5, seed);
        let count = plan.addresses.len() as u8;
        let nodes: Vec<Node> = (1..=count).map(|seed| start(plan, seed, &wire)).collect();
        tokio::time::sleep(Duration::from_secs(60)).await;
        wire.isolate([plan.address(1), plan.address(count)]);
        tokio::time::sleep(Duration::from_secs(300)).await;
        wire.isolate([]);
        tokio::time::sleep(Duration::from_secs(180)).await;
        let connected = |node: &Node| {
            let peers = node.net.peers().into_iter();
            peers.map(|peer| (peer.ip, peer.direction)).collect()
        };
        (wire.trace(), nodes.iter().map(connected).collect())
    })
}

#[test]
fn a_mesh_heals_after_a_partition_with_one_connection_per_pair() {
    let mut plan = Plan::new(6, 0);
    plan.timing = NetTiming::RECOMMENDED;
    let (_, ends) = run_mesh(&plan, 1);
    for (at, peers) in ends.iter().enumerate() {
        let others = (plan.addresses.iter().enumerate()).filter(|(other, _)| *other != at);
        let expected: Vec<PeerIp> = others.map(|(_, address)| PeerIp::from(*address)).collect();
        let got: Vec<PeerIp> = peers.iter().map(|(ip, _)| *ip).collect();
        assert_eq!(got, expected);
        for (ip, direction) in peers {
            let other = expected_position(&plan, *ip);
            let back = &ends[other][if other < at { at - 1 } else { at }];
            assert_ne!(
                *direction, back.1,
                "the two ends hold different connections"
            );
        }
    }
}

fn expected_position(plan: &Plan, ip: PeerIp) -> usize {
    let mut addresses = plan.addresses.iter();
    addresses
        .position(|address| PeerIp::from(*address) == ip)
        .unwrap()
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let mut plan = Plan::new(3, 0);
    plan.timing = NetTiming::RECOMMENDED;
    let (first, _) = run_mesh(&plan, 7);
    assert_eq!(run_mesh(&plan, 7).0, first);
    assert_ne!(run_mesh(&plan, 8).0, first);
}
