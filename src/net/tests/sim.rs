//! A network in memory under virtual time: hours pass in seconds.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
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
pub struct Wire {
    /// Ordered by (time, sequence).
    flying: Mutex<BTreeMap<(Instant, u64), (SocketAddr, Packet)>>,
    inboxes: Mutex<BTreeMap<SocketAddr, Inbox>>,
    sent: Notify,
    cut: AtomicBool,
    sequence: AtomicU64,
}

impl Wire {
    /// From now on every packet is lost.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// Packets arrive again.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }

    /// A wire with its delivery task.
    pub fn new() -> Arc<Self> {
        let wire = Arc::new(Self::default());
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

    pub fn socket(self: &Arc<Self>, address: SocketAddr) -> Arc<dyn AsyncUdpSocket> {
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
        if self.wire.cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut flying = self.wire.flying.lock().unwrap();
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        for bytes in transmit.contents.chunks(size.max(1)) {
            let sequence = self.wire.sequence.fetch_add(1, Ordering::SeqCst);
            let packet = Packet {
                from: self.address,
                bytes: bytes.to_vec(),
            };
            let at = (Instant::now() + DELAY, sequence);
            flying.insert(at, (transmit.destination, packet));
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
pub fn start(plan: &Plan, seed: u8, wire: &Arc<Wire>) -> Node {
    let environment = NetEnvironment {
        socket: wire.socket(plan.address(seed)),
        runtime: Arc::new(TokioRuntime),
        clock: Arc::new(VirtualClock(Instant::now())),
        entropy: Entropy::from_seed([seed; 32]),
        pins: Arc::new(FileInMemory::default()),
    };
    let ip = plan.ip(seed);
    let own = identity(seed, ip);
    Node::start(ip, plan.config(seed), own, plan.directory(), environment)
}
