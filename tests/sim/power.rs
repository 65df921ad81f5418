//! A machine's power, which can fail at any point at which its node writes or sends something.
//!
//! Every change and sync of the disk, every replacement of a small file and every packet is a point.
//! When the power fails at a point, that and all later ones do not happen any more.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use redb::StorageBackend;
use timed::env::{DurableFile, FileInMemory};
use timed::store::Backend;
use tokio::sync::Notify;

use super::disk::Disk;
use super::wire::Socket;

/// What a node is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    DiskChange,
    DiskSync,
    File,
    Packet,
}

/// The power of one machine, from one start of its node to the next.
#[derive(Clone, Debug, Default)]
pub struct Power(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    failed: Notify,
}

#[derive(Debug, Default)]
struct State {
    passed: Vec<Point>,
    /// How many points are passed before it fails; `None` for all.
    fails_after: Option<usize>,
    off: bool,
}

impl Power {
    /// The points passed so far, in order.
    pub fn passed(&self) -> Vec<Point> {
        self.state().passed.clone()
    }

    /// Lets so many points be passed in all; at the next one it fails.
    pub fn fail_after(&self, points: usize) {
        self.state().fails_after = Some(points);
    }

    /// Fails now.
    pub fn cut(&self) {
        self.state().off = true;
        self.0.failed.notify_one();
    }

    /// Waits until it has failed.
    pub async fn failed(&self) {
        while !self.state().off {
            self.0.failed.notified().await;
        }
    }

    /// Whether what comes next happens.
    fn pass(&self, point: Point) -> bool {
        let mut state = self.state();
        if state.off {
            return false;
        }
        if state.fails_after == Some(state.passed.len()) {
            drop(state);
            self.cut();
            return false;
        }
        state.passed.push(point);
        true
    }

    fn pass_or_fail(&self, point: Point) -> io::Result<()> {
        let passed = self.pass(point);
        passed
            .then_some(())
            .ok_or_else(|| io::Error::other("the power has failed"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }
}

/// A disk on this power.
#[derive(Clone, Debug)]
struct PoweredDisk {
    disk: Disk,
    power: Power,
}

/// A disk on this power, as a store's backend.
pub fn powered_disk(disk: &Disk, power: &Power) -> Backend {
    Backend::Custom(Box::new(PoweredDisk {
        disk: disk.clone(),
        power: power.clone(),
    }))
}

impl StorageBackend for PoweredDisk {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.power.pass_or_fail(Point::DiskChange)?;
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.power.pass_or_fail(Point::DiskSync)?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.power.pass_or_fail(Point::DiskChange)?;
        self.disk.write(offset, data)
    }
}

/// A small durable file on this power.
pub struct PoweredFile {
    pub file: FileInMemory,
    pub power: Power,
}

impl DurableFile for PoweredFile {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        self.file.load()
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        self.power.pass_or_fail(Point::File)?;
        self.file.replace(content)
    }

    fn name(&self) -> String {
        self.file.name()
    }
}

/// A socket on this power.
pub struct PoweredSocket {
    pub socket: Arc<Socket>,
    pub power: Power,
}

impl fmt::Debug for PoweredSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl AsyncUdpSocket for PoweredSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        match self.power.pass(Point::Packet) {
            true => self.socket.try_send(transmit),
            false => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
