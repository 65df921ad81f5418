//! `GET /metrics`: everything is read from the node's handles when it is asked for, into a registry
//! of that one answer. Nothing is registered globally, and nothing is counted twice.
//!
//! Names follow Prometheus: base units, `_total` for what only grows, `process_` for what every
//! exporter calls so. A peer's counters begin anew with its connection, as a process's do with it;
//! `rate()` takes that into account. The label `peer` has as many values as there are slots for peers.

mod families;
mod network;
mod node;
mod process;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::context::RpcContext;
use super::finality::Finality;
use crate::consensus::ConsensusStatus;
use crate::mempool::MempoolStats;
use crate::net::{HalfOpen, NetCounts, PeerInfo};
use crate::sync::SyncStatus;
use crate::types::Tip;
use families::Families;
use process::ProcessFacts;

/// The content type of the answer.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole answer.
pub(super) async fn render(node: &RpcContext, finality: Finality) -> String {
    text_of(Snapshot::take(node, finality).await)
}

fn text_of(snapshot: Snapshot) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

/// The node at one moment.
#[derive(Debug)]
struct Snapshot {
    version: &'static str,
    network: String,
    chain_id: String,
    name: Option<String>,
    /// Name, and whether it is this node.
    masternodes: Vec<(String, bool)>,
    peers: Vec<PeerInfo>,
    counts: Arc<NetCounts>,
    half_open: HalfOpen,
    tip: Tip,
    consensus: Option<ConsensusStatus>,
    sync: SyncStatus,
    mempool: MempoolStats,
    database_bytes: u64,
    started_at_ms: u64,
    finality: Finality,
    process: ProcessFacts,
}

impl Snapshot {
    async fn take(node: &RpcContext, finality: Finality) -> Self {
        let mempool = node.mempool.stats().await;
        let genesis = node.chain.genesis();
        let masternodes = genesis.masternodes.iter().enumerate();
        let consensus = node.consensus.as_ref();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            network: genesis.network.to_string(),
            chain_id: genesis.chain_id.clone(),
            name: node.node.name.clone(),
            masternodes: masternodes
                .map(|(index, one)| (one.name.clone(), node.node.masternode == Some(index)))
                .collect(),
            peers: node.net.peers(),
            counts: node.net.counts(),
            half_open: node.net.half_open(),
            tip: node.chain.tip(),
            consensus: consensus.map(|one| one.watch_status().borrow().clone()),
            sync: node.sync.watch_status().borrow().clone(),
            mempool,
            database_bytes: node.chain.stored_bytes(),
            started_at_ms: node.started_at_ms,
            finality,
            process: ProcessFacts::read(),
        }
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut families = Families::new(encoder);
        node::describe(self, &mut families)?;
        network::describe(self, &mut families)?;
        process::describe(self, &mut families)
    }
}

#[cfg(test)]
mod tests;
