//! What the benches take from the machine: folders, addresses, memory, percentiles.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use timed::chain::Chain;
use timed::env::Offload;
use timed::store::{Backend, Store, StoreThreads};
use timed::types::{Genesis, Height, Network};

use crate::shared::{Generator, Shape};

/// An address that nobody in this process has had, higher than all before: a socket may outlive its
/// node for a moment, and the higher of two dials at once.
pub fn next_address() -> SocketAddr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    let last = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, high.max(1), low, last);
    SocketAddr::from((ip, Network::Dev.p2p_port()))
}

/// A chain in a file.
pub struct Stored {
    pub chain: Chain,
    store: Store,
}

impl Stored {
    pub async fn open(path: &Path, genesis: &Arc<Genesis>) -> Result<Self> {
        let backend = Backend::File(path.to_owned());
        let store = Store::open(backend, genesis.clone(), StoreThreads::Own)?;
        let chain = Chain::open(genesis.clone(), store.clone(), Offload::Threads).await?;
        Ok(Self { chain, store })
    }

    /// A generated chain of this length. It is made once; later runs find its file in the folder.
    pub async fn generated(folder: &Path, shape: Shape, last: u64) -> Result<Self> {
        let mut generator = Generator::new(shape);
        let genesis = generator.genesis().clone();
        let name = format!("{}-{last}.redb", genesis.hash());
        let path = folder.join(name);
        if path.exists() {
            return Self::open(&path, &genesis).await;
        }
        let unfinished = path.with_extension("unfinished");
        if unfinished.exists() {
            std::fs::remove_file(&unfinished)?;
        }
        let stored = Self::open(&unfinished, &genesis).await?;
        generator.write(&stored.chain, Height(last)).await?;
        stored.close().await;
        std::fs::rename(&unfinished, &path)?;
        Self::open(&path, &genesis).await
    }

    pub async fn close(self) {
        drop(self.chain);
        self.store.close().await;
    }
}

/// A line of `/proc/self/status`, in MB.
pub fn memory_mb(line: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let found = status.lines().find_map(|one| one.strip_prefix(line));
    let value = found.and_then(|rest| rest.split_whitespace().nth(1));
    let kib: f64 = value
        .with_context(|| format!("no {line} in /proc/self/status"))?
        .parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// The 99th percentile; 0 of nothing.
pub fn p99(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    let at = (samples.len() * 99).div_ceil(100).saturating_sub(1);
    samples.get(at).copied().unwrap_or_default()
}
