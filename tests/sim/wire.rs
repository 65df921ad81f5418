//! An IP network in memory. Each direction of each link has a seeded generator of its own, which
//! draws the same numbers per packet whatever happens to it: so what two pairs of nodes do at one
//! instant may happen in either order.
//!
//! One heap ordered by (time, from, to, sequence) and one task that delivers. An inbox holds what its socket
//! has not read, at most [`INBOX_PACKETS`]; more are lost, as in a kernel's buffer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use timed::env::Entropy;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::journal::Journal;

/// Packets that wait for one socket, at most.
const INBOX_PACKETS: usize = 4_096;

/// How long a firewall remembers that its host has sent to somebody.
const FIREWALL_MEMORY: Duration = Duration::from_secs(120);

/// How one direction of a link treats packets. Chances are per 10,000 packets.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub delay: Duration,
    /// Added to the delay, uniform from zero to this; packets stay in order.
    pub jitter: Duration,
    pub loss: u32,
    pub duplication: u32,
    /// A packet that leaves the order: it arrives up to `reordering_delay` late, behind others.
    pub reordering: u32,
    pub reordering_delay: Duration,
}

impl Link {
    /// 20 ms one way and nothing else.
    pub const CLEAN: Link = Link {
        delay: Duration::from_millis(20),
        jitter: Duration::ZERO,
        loss: 0,
        duplication: 0,
        reordering: 0,
        reordering_delay: Duration::ZERO,
    };

    /// A long path of the real Internet: 0.5 % loss, jitter, and now and then a packet twice or late.
    pub const INTERNET: Link = Link {
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(10),
        loss: 50,
        duplication: 10,
        reordering: 20,
        reordering_delay: Duration::from_millis(40),
    };
}

/// The network.
pub struct Wire {
    journal: Arc<Journal>,
    sent: Notify,
    state: Mutex<State>,
}

struct State {
    entropy: Entropy,
    /// Ordered by (time, from, to, sequence).
    flying: BTreeMap<(Instant, SocketAddr, SocketAddr, u64), Packet>,
    inboxes: BTreeMap<SocketAddr, Arc<Mutex<Inbox>>>,
    link: Link,
    ways: BTreeMap<(SocketAddr, SocketAddr), Way>,
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Hosts that hear only whom they have written to, and when they last did.
    firewalls: BTreeMap<SocketAddr, BTreeMap<SocketAddr, Instant>>,
}

/// One direction of a link.
struct Way {
    random: ChaCha20Rng,
    sequence: u64,
    /// When the newest packet that is in order arrives.
    newest: Instant,
}

struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Inbox {
    packets: VecDeque<Packet>,
    reader: Option<Waker>,
}

impl Wire {
    /// A network whose links are all alike, with its delivery task.
    pub fn start(journal: Arc<Journal>, entropy: Entropy, link: Link) -> Arc<Self> {
        let wire = Arc::new(Self {
            journal,
            sent: Notify::new(),
            state: Mutex::new(State {
                entropy,
                flying: BTreeMap::new(),
                inboxes: BTreeMap::new(),
                link,
                ways: BTreeMap::new(),
                cut: BTreeSet::new(),
                firewalls: BTreeMap::new(),
            }),
        });
        tokio::spawn(wire.clone().deliver());
        wire
    }

    /// From now on nothing sent from one reaches the other.
    pub fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.state().cut.insert((from, to));
    }

    /// Ends all cuts.
    pub fn heal(&self) {
        self.state().cut.clear();
    }

    /// Whether packets pass, losses aside.
    pub fn passes(&self, from: SocketAddr, to: SocketAddr) -> bool {
        !self.state().cut.contains(&(from, to))
    }

    /// From now on a host hears only those that it has written to within two minutes.
    pub fn firewall(&self, host: SocketAddr) {
        self.state().firewalls.insert(host, BTreeMap::new());
    }

    /// A socket at this address; an older one there hears nothing any more.
    pub fn socket(self: &Arc<Self>, address: SocketAddr) -> Arc<Socket> {
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        self.state().inboxes.insert(address, inbox.clone());
        Arc::new(Socket {
            wire: self.clone(),
            address,
            inbox,
            unplugged: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn send(&self, packet: Packet) {
        let mut state = self.state();
        let (from, to, length) = (packet.from, packet.to, packet.bytes.len());
        let arrivals = state.arrivals(from, to);
        self.journal.packet(from, to, length, arrivals[0].is_some());
        for (at, sequence) in arrivals.into_iter().flatten() {
            let key = (at, from, to, sequence);
            let bytes = packet.bytes.clone();
            state.flying.insert(key, Packet { from, to, bytes });
        }
        drop(state);
        self.sent.notify_one();
    }

    async fn deliver(self: Arc<Self>) {
        loop {
            let next = self.state().flying.keys().next().copied();
            match next {
                None => self.sent.notified().await,
                // A packet sent meanwhile may be due earlier, over a shorter link.
                Some((at, ..)) if at > Instant::now() => tokio::select! {
                    biased;
                    () = self.sent.notified() => {}
                    () = sleep_until(at) => {}
                },
                Some(_) => self.deliver_first(),
            }
        }
    }

    fn deliver_first(&self) {
        let mut state = self.state();
        let Some((_, packet)) = state.flying.pop_first() else {
            return;
        };
        if !state.firewall_passes(packet.from, packet.to) {
            return;
        }
        let Some(inbox) = state.inboxes.get(&packet.to).cloned() else {
            return;
        };
        drop(state);
        let mut inbox = inbox.lock().unwrap();
        if inbox.packets.len() < INBOX_PACKETS {
            inbox.packets.push_back(packet);
        }
        inbox.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// When a packet arrives, and when its duplicate does, each with its number on this way.
    fn arrivals(&mut self, from: SocketAddr, to: SocketAddr) -> [Option<(Instant, u64)>; 2] {
        let (link, now) = (self.link, Instant::now());
        let entropy = &self.entropy;
        let way = self.ways.entry((from, to)).or_insert_with(|| Way {
            random: entropy.rng(&format!("way from {from} to {to}")),
            sequence: 0,
            newest: now,
        });
        let [lost, doubled, late]: [u32; 3] =
            std::array::from_fn(|_| way.random.random_range(0..10_000));
        let [jitter, lateness]: [f64; 2] = std::array::from_fn(|_| way.random.random());
        way.sequence += 2;
        if let Some(heard) = self.firewalls.get_mut(&from) {
            heard.insert(to, now);
        }
        if lost < link.loss || self.cut.contains(&(from, to)) {
            return [None, None];
        }
        let mut at = now + link.delay + link.jitter.mul_f64(jitter);
        if late < link.reordering {
            at += link.reordering_delay.mul_f64(lateness);
        } else {
            at = at.max(way.newest);
            way.newest = at;
        }
        let again = (doubled < link.duplication).then_some((at, way.sequence + 1));
        [Some((at, way.sequence)), again]
    }

    fn firewall_passes(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.firewalls.get(&to).is_none_or(|heard| {
            heard
                .get(&from)
                .is_some_and(|last| last.elapsed() < FIREWALL_MEMORY)
        })
    }
}

/// One node's end of the network.
pub struct Socket {
    wire: Arc<Wire>,
    address: SocketAddr,
    inbox: Arc<Mutex<Inbox>>,
    unplugged: AtomicBool,
}

impl Socket {
    /// The machine is gone: what its dying tasks still send leaves no trace.
    pub fn unplug(&self) {
        self.unplugged.store(true, Ordering::Relaxed);
    }
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
        if self.unplugged.load(Ordering::Relaxed) {
            return Ok(());
        }
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        for bytes in transmit.contents.chunks(size.max(1)) {
            self.wire.send(Packet {
                from: self.address,
                to: transmit.destination,
                bytes: bytes.to_vec(),
            });
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.lock().unwrap();
        let mut received = 0;
        while received < buffers.len().min(meta.len()) {
            let Some(packet) = inbox.packets.pop_front() else {
                break;
            };
            let length = packet.bytes.len();
            buffers[received][..length].copy_from_slice(&packet.bytes);
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
        inbox.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    // Otherwise QUIC does not look for the path's packet size.
    fn may_fragment(&self) -> bool {
        false
    }
}
