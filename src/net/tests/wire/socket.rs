//! A host's socket on the network in memory.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::{Inbox, Wire};

/// One host's end of the network.
pub struct Socket {
    pub(super) wire: Arc<Wire>,
    pub(super) address: Mutex<SocketAddr>,
    pub(super) inbox: Arc<Mutex<Inbox>>,
}

impl Socket {
    /// The host has another address from now on.
    pub fn move_to(&self, address: SocketAddr) {
        let before = std::mem::replace(&mut *self.address.lock().unwrap(), address);
        let mut state = self.wire.state();
        state.inboxes.remove(&before);
        state.inboxes.insert(address, self.inbox.clone());
    }

    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({})", self.address())
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
        let from = self.address();
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        for bytes in transmit.contents.chunks(size.max(1)) {
            self.wire.send(from, transmit.destination, bytes);
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
                dst_ip: Some(self.address().ip()),
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
        Ok(self.address())
    }

    // Otherwise QUIC does not look for the path's packet size.
    fn may_fragment(&self) -> bool {
        false
    }
}
