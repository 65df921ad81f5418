//! What the benches take from the machine: folders, addresses, memory, percentiles.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use timed::chain::Chain;
use timed::env::Offload;
use timed::store::{Backend, Store, StoreThreads};
use timed::types::{Genesis, Height, Network};

use crate::shared::{Generator, Shape};

/// An address of this process alone; `last` tells its peers apart.
pub fn address(last: u8) -> SocketAddr {
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

    /// A generated chain of this length.
    pub async fn generated(path: &Path, shape: Shape, last: u64) -> Result<Self> {
        let mut generator = Generator::new(shape);
        let stored = Self::open(path, generator.genesis()).await?;
        generator.write(&stored.chain, Height(last)).await?;
        Ok(stored)
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
