//! What all designs have in common: requests that are echoed, bulk that is pumped and counted.
//!
//! End 0 asks and receives bulk, end 1 answers and sends it; with bulk both ways, both do both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::stats::Probe;

/// Of a request on a liveness channel.
pub const REQUEST_BYTES: usize = 64;
/// Of one write of bulk, where the design does not say otherwise; also of one read.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Of a large block: what a TIME Coin node of the old design sent as one frame.
pub const BLOCK_BYTES: usize = 946_000;

/// Which ends send bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// End 1 to end 0.
    OneWay,
    /// Both.
    BothWays,
}

impl Load {
    /// Whether this end sends.
    pub fn sends(self, end: usize) -> bool {
        end == 1 || self == Load::BothWays
    }
}

/// What a session is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Which ends send bulk.
    pub load: Load,
    /// Between two requests.
    pub ask_every: Duration,
}

/// One design at work over one link.
pub struct Session {
    /// What is watched.
    pub shown: Shown,
    /// Everything that runs; none of it ends by itself.
    pub tasks: JoinSet<anyhow::Result<()>>,
}

/// What a session shows, and its only switch.
pub struct Shown {
    /// Requests on the liveness channel.
    pub ping: Arc<Probe>,
    /// Votes, where the design has them.
    pub vote: Option<Arc<Probe>>,
    /// Bulk bytes that the application of each end has received so far.
    pub received: Box<dyn Fn() -> [u64; 2] + Send + Sync>,
    /// Bulk flows once this is true.
    pub go: watch::Sender<bool>,
}

/// The counters of a rival's session.
#[derive(Clone, Default)]
pub struct Received(Arc<[AtomicU64; 2]>);

impl Received {
    /// Bulk has come to this end.
    pub fn count(&self, end: usize, bytes: usize) {
        self.0[end].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// For [`Session::received`].
    pub fn reader(&self) -> Box<dyn Fn() -> [u64; 2] + Send + Sync> {
        let counters = self.0.clone();
        Box::new(move || [0, 1].map(|end| counters[end].load(Ordering::Relaxed)))
    }

    /// Counts bulk that one stream brings to this end.
    pub async fn drain(self, end: usize, mut stream: impl AsyncRead + Unpin) -> anyhow::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match stream.read(&mut buffer).await? {
                0 => anyhow::bail!("a bulk stream ended"),
                length => self.count(end, length),
            }
        }
    }
}

/// Waits until bulk may flow.
pub async fn started(mut go: watch::Receiver<bool>) -> anyhow::Result<()> {
    go.wait_for(|go| *go).await?;
    Ok(())
}

/// Writes as fast as the stream takes it.
pub async fn pump(
    mut stream: impl AsyncWrite + Unpin,
    go: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    started(go).await?;
    let chunk = vec![7; CHUNK_BYTES];
    loop {
        stream.write_all(&chunk).await?;
    }
}

/// The request of this number.
pub fn request(number: u64) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The number of a request or of its echo.
pub fn number(request: &[u8; REQUEST_BYTES]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *request;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Sends requests at a steady pace.
pub async fn ask(
    mut stream: impl AsyncWrite + Unpin,
    every: Duration,
    probe: Arc<Probe>,
) -> anyhow::Result<()> {
    let mut pace = tokio::time::interval(every);
    for next in 0.. {
        pace.tick().await;
        probe.sent(next);
        stream.write_all(&request(next)).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// Takes the echoes.
pub async fn hear(mut stream: impl AsyncRead + Unpin, probe: Arc<Probe>) -> anyhow::Result<()> {
    let mut bytes = [0; REQUEST_BYTES];
    loop {
        stream.read_exact(&mut bytes).await?;
        probe.answered(number(&bytes));
    }
}

/// Sends every request back.
pub async fn echo(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> anyhow::Result<()> {
    let mut bytes = [0; REQUEST_BYTES];
    loop {
        from.read_exact(&mut bytes).await?;
        to.write_all(&bytes).await?;
        to.flush().await?;
    }
}
