//! What one connection counts: bytes by kind of stream, when bytes last came, drops.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::{Duration, Instant};

use super::StreamBytes;
use crate::wire::StreamKind;

/// Shared by all tasks of a connection.
pub struct Meter {
    started: Instant,
    /// Milliseconds after `started`.
    last_received_ms: AtomicU64,
    sent: [AtomicU64; 5],
    received: [AtomicU64; 5],
    dropped: AtomicU64,
}

impl Meter {
    /// All zero; the silence limit counts from now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            last_received_ms: AtomicU64::new(0),
            sent: Default::default(),
            received: Default::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Application bytes were handed to QUIC.
    pub fn sent(&self, kind: StreamKind, bytes: usize) {
        self.sent[kind as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Application bytes have come.
    pub fn received(&self, kind: StreamKind, bytes: usize) {
        self.received[kind as usize].fetch_add(bytes as u64, Ordering::Relaxed);
        let now = self.started.elapsed().as_millis() as u64;
        self.last_received_ms.store(now, Ordering::Relaxed);
    }

    /// Messages were dropped because a queue was full.
    pub fn dropped(&self, messages: usize) {
        self.dropped.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// How long the connection has been there.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// When application bytes last came on any stream.
    pub fn last_received(&self) -> Instant {
        self.started + Duration::from_millis(self.last_received_ms.load(Ordering::Relaxed))
    }

    /// Bytes by kind, in the order of [`StreamKind::ALL`].
    pub fn streams(&self) -> [StreamBytes; 5] {
        std::array::from_fn(|at| StreamBytes {
            sent: self.sent[at].load(Ordering::Relaxed),
            received: self.received[at].load(Ordering::Relaxed),
        })
    }

    /// Messages dropped so far.
    pub fn total_dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
