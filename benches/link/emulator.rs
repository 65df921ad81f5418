//! The link: two ports and one thread that carries packets between them with a rate, a delay, a
//! queue that drops at its tail, and loss.
//!
//! The schedule is computed and not slept: a packet's time of delivery follows from the link's rate
//! and the packets before it, so that a thread that wakes late delays one packet and slows nothing.
//! How late it was is counted and part of the report.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::stats::{Lateness, now};

/// One link, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Megabits a second, IP headers included.
    pub mbit: f64,
    /// There and back, idle.
    pub rtt: Duration,
    /// Packets that wait or are being sent; the next one is dropped.
    pub queue_packets: usize,
    /// The share of packets lost at random.
    pub loss: f64,
}

/// What a host has sent is read from its port; what is written to it arrives at the host.
pub enum Port {
    /// A device in the host's namespace.
    Tun(tun_rs::SyncDevice),
    /// A connected socket that stands for the other host.
    Relay(std::net::UdpSocket),
}

/// An IPv4 header and a UDP header, which a relay does not see and a link carries.
const RELAY_HEADER_BYTES: usize = 28;
/// No packet is longer: the devices' MTU is 1,500; on loopback QUIC keeps below it too.
const MAX_PACKET_BYTES: usize = 65_536;
/// Packets read from one port before the other one's turn.
const READS_A_TURN: usize = 64;
/// Of the thread: before all others.
const PRIORITY: i32 = -20;
/// How soon the thread notices that it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

impl Port {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Port::Tun(device) => device.recv(buffer),
            Port::Relay(socket) => socket.recv(buffer),
        }
    }

    fn write(&self, packet: &[u8]) -> io::Result<usize> {
        match self {
            Port::Tun(device) => device.send(packet),
            Port::Relay(socket) => socket.send(packet),
        }
    }

    fn bytes_on_link(&self, length: usize) -> usize {
        match self {
            Port::Tun(_) => length,
            Port::Relay(_) => length + RELAY_HEADER_BYTES,
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Port::Tun(device) => device.as_fd(),
            Port::Relay(socket) => socket.as_fd(),
        }
    }
}

/// What the link has done.
#[derive(Clone, Debug, Default)]
pub struct LinkReport {
    /// Packets delivered.
    pub delivered: u64,
    /// Packets dropped at a full queue.
    pub dropped: u64,
    /// Packets lost at random.
    pub lost: u64,
    /// Packets that a port refused.
    pub refused: u64,
    /// How much later than due packets were delivered.
    pub lateness: Lateness,
}

/// A running link; it stops when dropped.
pub struct Emulator {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<LinkReport>>>,
}

impl Emulator {
    /// Starts the thread.
    pub fn start(ports: [Port; 2], shape: Shape, seed: u64) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut link = Link {
            lanes: [Lane::new(shape), Lane::new(shape)],
            ports,
            random: ChaCha8Rng::seed_from_u64(seed),
            report: LinkReport::default(),
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("link".into())
            .spawn(move || {
                // A link does not wait for the programs at its ends. Where this is not granted, the
                // report's lateness tells what it cost.
                rustix::process::setpriority_process(None, PRIORITY).ok();
                link.run().map(|()| link.report)
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Stops it and tells what it did.
    pub fn finish(mut self) -> io::Result<LinkReport> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("taken only here");
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the link's thread panicked")))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Link {
    ports: [Port; 2],
    /// By the port that was read.
    lanes: [Lane; 2],
    random: ChaCha8Rng,
    report: LinkReport,
    stop: Arc<AtomicBool>,
}

impl Link {
    fn run(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; MAX_PACKET_BYTES];
        while !self.stop.load(Ordering::Relaxed) {
            self.wait()?;
            for from in 0..2 {
                self.deliver(from);
                self.take(from, &mut buffer)?;
            }
        }
        Ok(())
    }

    /// Until a port has a packet or a packet is due.
    fn wait(&self) -> io::Result<()> {
        let next = self.lanes.iter().filter_map(Lane::next_due).min();
        let patience = next.map_or(STOP_CHECK, |due| {
            due.saturating_duration_since(now()).min(STOP_CHECK)
        });
        let mut fds = (self.ports.each_ref()).map(|port| PollFd::new(port.fd(), PollFlags::POLLIN));
        match ppoll(&mut fds, Some(TimeSpec::from_duration(patience)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&mut self, from: usize, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..READS_A_TURN {
            let length = match self.ports[from].read(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Told on a connected socket whose peer is gone; what follows may be received.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let lane = &mut self.lanes[from];
            // Drawn for each packet, whatever its fate: the same seed loses the same packets.
            if self.random.random::<f64>() < lane.shape.loss {
                self.report.lost += 1;
                continue;
            }
            let bytes = self.ports[from].bytes_on_link(length);
            if !lane.offer(now(), bytes, &buffer[..length]) {
                self.report.dropped += 1;
            }
        }
        Ok(())
    }

    fn deliver(&mut self, from: usize) {
        let now = now();
        while let Some((due, packet)) = self.lanes[from].take_due(now) {
            self.report.lateness.count(now - due);
            match self.ports[1 - from].write(&packet) {
                Ok(_) => self.report.delivered += 1,
                Err(_) => self.report.refused += 1,
            }
        }
    }
}

/// One direction.
struct Lane {
    shape: Shape,
    /// When each packet that waits or is being sent will have left.
    leaving: VecDeque<Instant>,
    /// Ascending by the time of delivery.
    travelling: VecDeque<(Instant, Vec<u8>)>,
}

impl Lane {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            leaving: VecDeque::new(),
            travelling: VecDeque::new(),
        }
    }

    /// Takes a packet, unless the queue is full.
    fn offer(&mut self, now: Instant, bytes: usize, packet: &[u8]) -> bool {
        while self.leaving.front().is_some_and(|left| *left <= now) {
            self.leaving.pop_front();
        }
        if self.leaving.len() >= self.shape.queue_packets {
            return false;
        }
        let begins = self.leaving.back().map_or(now, |last| (*last).max(now));
        let seconds = bytes as f64 * 8.0 / (self.shape.mbit * 1e6);
        let left = begins + Duration::from_secs_f64(seconds);
        self.leaving.push_back(left);
        let due = left + self.shape.rtt / 2;
        self.travelling.push_back((due, packet.to_vec()));
        true
    }

    fn next_due(&self) -> Option<Instant> {
        self.travelling.front().map(|(due, _)| *due)
    }

    fn take_due(&mut self, now: Instant) -> Option<(Instant, Vec<u8>)> {
        self.next_due().filter(|due| *due <= now)?;
        self.travelling.pop_front()
    }
}
