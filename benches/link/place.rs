//! Where the two ends of a link live.
//!
//! With the right to it, each end has a network namespace and in it a TUN device, so that the
//! kernel's own TCP sees the link. Both are anonymous: a namespace belongs to the thread that made
//! it and to the sockets opened there, a device to its descriptor. So nothing is left behind,
//! however the process ends, and nothing on the machine can collide with it. Without the right, UDP
//! goes through a relay on 127.0.0.0/8 and there is no TCP: a relay in user space would accept what
//! a link drops.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;

use anyhow::Context;
use nix::sched::{CloneFlags, unshare};
use timed::net::{AsyncUdpSocket, TokioRuntime, bind_udp};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::emulator::{Emulator, LinkReport, Port, Shape};

/// The block that RFC 2544 sets aside for benchmarks; only inside the namespaces.
const TUN_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)];
const TUN_PREFIX: u8 = 24;
const TUN_MTU: u16 = 1_500;
const PORT: u16 = 24_200;

/// How the two ends are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// Namespaces and TUN devices.
    Tun,
    /// UDP only, through a relay.
    Relay,
    /// Directly, on the loopback device.
    Loopback,
}

impl Joined {
    /// The best that this process may do, and why it is not more.
    pub fn best() -> (Joined, Option<io::Error>) {
        match Host::with_device(TUN_ADDRESSES[0]) {
            Ok(_) => (Joined::Tun, None),
            Err(error) => (Joined::Relay, Some(error)),
        }
    }
}

/// Both ends, and what is between them.
pub struct Link {
    pub ends: [End; 2],
    emulator: Option<Emulator>,
}

impl Link {
    /// Makes the ends and starts the emulator.
    pub fn open(joined: Joined, shape: Shape, seed: u64) -> anyhow::Result<Self> {
        match joined {
            Joined::Tun => Self::open_tun(shape, seed).context("a link of two TUN devices"),
            Joined::Relay => Self::open_relay(shape, seed).context("a link through a relay"),
            Joined::Loopback => {
                let [low, high] = [free_address()?, free_address()?];
                let ends = [End::plain(low, high), End::plain(high, low)];
                Ok(Self {
                    ends,
                    emulator: None,
                })
            }
        }
    }

    fn open_tun(shape: Shape, seed: u64) -> io::Result<Self> {
        let [low, high] = TUN_ADDRESSES;
        let (low_host, low_device) = Host::with_device(low)?;
        let (high_host, high_device) = Host::with_device(high)?;
        let [low, high] = TUN_ADDRESSES.map(|ip| SocketAddr::from((ip, PORT)));
        let ports = [Port::Tun(low_device), Port::Tun(high_device)];
        Ok(Self {
            ends: [
                End::new(low_host, low, high),
                End::new(high_host, high, low),
            ],
            emulator: Some(Emulator::start(ports, shape, seed)?),
        })
    }

    /// Each end sees the other under the address of a socket of the relay. All four ascend, so that
    /// both agree which of them has the higher one.
    fn open_relay(shape: Shape, seed: u64) -> io::Result<Self> {
        let low = free_address()?;
        let [low_seen, high_seen] = [relay_socket()?, relay_socket()?];
        let high = free_address()?;
        let [low_seen_at, high_seen_at] = [low_seen.local_addr()?, high_seen.local_addr()?];
        high_seen.connect(low)?;
        low_seen.connect(high)?;
        let ports = [Port::Relay(high_seen), Port::Relay(low_seen)];
        Ok(Self {
            ends: [End::plain(low, high_seen_at), End::plain(high, low_seen_at)],
            emulator: Some(Emulator::start(ports, shape, seed)?),
        })
    }

    /// Stops the emulator; `None` on loopback.
    pub fn finish(self) -> io::Result<Option<LinkReport>> {
        self.emulator.map(Emulator::finish).transpose()
    }
}

/// One end: where sockets are opened.
#[derive(Clone)]
pub struct End {
    host: Host,
    /// Its own address.
    pub own: SocketAddr,
    /// Where it reaches the other end.
    pub peer: SocketAddr,
}

impl End {
    fn new(host: Host, own: SocketAddr, peer: SocketAddr) -> Self {
        Self { host, own, peer }
    }

    fn plain(own: SocketAddr, peer: SocketAddr) -> Self {
        Self::new(Host::Here, own, peer)
    }

    /// A UDP socket as the node binds it.
    pub fn udp(&self) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let own = self.own;
        self.host.run(move || bind_udp(own, &TokioRuntime))
    }

    /// Waits for TCP connections.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let own = self.own;
        self.host.run(move || {
            let listener = std::net::TcpListener::bind(own)?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        })
    }

    /// Connects to the other end's listener.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        // A socket stays in the namespace in which it was made.
        let socket = self.host.run(TcpSocket::new_v4)?;
        socket.connect(self.peer).await
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it, or this process's own.
#[derive(Clone)]
enum Host {
    Here,
    Namespace(mpsc::Sender<Job>),
}

impl Host {
    /// A new namespace with a device of this address.
    fn with_device(address: Ipv4Addr) -> io::Result<(Self, tun_rs::SyncDevice)> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (made_in, made) = mpsc::sync_channel(1);
        // The thread ends with the last `End`; the namespace with the last socket in it.
        std::thread::Builder::new()
            .name("namespace".into())
            .spawn(move || {
                if made_in.send(make_device(address)).is_ok() {
                    todo.into_iter().for_each(|job| job());
                }
            })?;
        let device = made.recv().map_err(io::Error::other)??;
        Ok((Host::Namespace(jobs), device))
    }

    /// Runs this in the namespace, inside the caller's runtime.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Host::Namespace(jobs) = self else {
            return work();
        };
        let runtime = tokio::runtime::Handle::current();
        let (result_in, result) = mpsc::sync_channel(1);
        let job = move || {
            let _inside = runtime.enter();
            // Nobody waits any more only when the caller has panicked.
            result_in.send(work()).ok();
        };
        jobs.send(Box::new(job))
            .map_err(|_| io::Error::other("the namespace's thread has ended"))?;
        result.recv().map_err(io::Error::other)?
    }
}

fn make_device(address: Ipv4Addr) -> io::Result<tun_rs::SyncDevice> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let device = tun_rs::DeviceBuilder::new()
        .name("link0")
        .ipv4(address, TUN_PREFIX, None)
        .mtu(TUN_MTU)
        .build_sync()?;
    device.set_nonblocking(true)?;
    Ok(device)
}

fn relay_socket() -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind((next_ip(), 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn free_address() -> io::Result<SocketAddr> {
    let ip = next_ip();
    std::net::UdpSocket::bind((ip, 0))?.local_addr()
}

/// Loopback addresses that ascend, and that no other process on this machine is likely to use.
fn next_ip() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [third, fourth] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let second = std::process::id() % 253 + 2;
    Ipv4Addr::new(127, second as u8, third, fourth)
}
