//! The chain, consensus, mempool and sync.

use std::fmt;

use super::Snapshot;
use super::families::{Distribution, Families, Labels};
use crate::consensus::ConsensusStatus;
use crate::rpc::finality::{BOUNDS_MS, FinalityHistogram};

pub(super) fn describe(node: &Snapshot, to: &mut Families) -> fmt::Result {
    identity(node, to)?;
    chain(node, to)?;
    consensus(node.consensus.as_ref(), to)?;
    mempool(node, to)?;
    sync(node, to)
}

fn identity(node: &Snapshot, to: &mut Families) -> fmt::Result {
    let labels: Labels = vec![
        ("version", node.version.to_owned()),
        ("network", node.network.clone()),
        ("chain_id", node.chain_id.clone()),
        ("name", node.name.clone().unwrap_or_default()),
    ];
    to.gauges(
        "timed_node_info",
        "Who this node is; always 1",
        [(labels, 1.0)],
    )?;
    to.gauge(
        "process_start_time_seconds",
        "When the node started, Unix time",
        seconds(node.started_at_ms),
    )
}

fn chain(node: &Snapshot, to: &mut Families) -> fmt::Result {
    to.gauge(
        "timed_tip_height",
        "The height of the newest final block",
        node.tip.height.0 as f64,
    )?;
    to.gauge(
        "timed_tip_time_seconds",
        "The time in the newest final block's header, Unix time",
        seconds(node.tip.time_ms),
    )?;
    to.histograms(
        "timed_block_finality_seconds",
        "From a block's time to its commit here, for blocks that were not synced",
        [(Labels::new(), finality(&node.finality.blocks))],
    )?;
    to.histograms(
        "timed_transaction_finality_seconds",
        "From sendrawtransaction at this node to the commit here",
        [(Labels::new(), finality(&node.finality.transactions))],
    )?;
    to.gauge(
        "timed_database_bytes",
        "The size of chain.redb",
        node.database_bytes as f64,
    )
}

fn finality(histogram: &FinalityHistogram) -> Distribution {
    let bounds = BOUNDS_MS.iter().map(|bound| seconds(*bound));
    Distribution {
        buckets: bounds
            .chain([f64::INFINITY])
            .zip(histogram.buckets)
            .collect(),
        sum: seconds(histogram.sum_ms),
    }
}

/// A full node has no values here.
fn consensus(status: Option<&ConsensusStatus>, to: &mut Families) -> fmt::Result {
    let one = |value: fn(&ConsensusStatus) -> f64| status.map(|one| (Labels::new(), value(one)));
    to.gauges(
        "timed_consensus_height",
        "The height being decided",
        one(|status| status.height.0 as f64),
    )?;
    to.gauges(
        "timed_consensus_round",
        "The round being decided; no value while the height waits for its time",
        status.and_then(|one| Some((Labels::new(), f64::from(one.round?.0)))),
    )?;
    to.gauges(
        "timed_consensus_highest_round",
        "The most rounds that a height has taken since the start",
        one(|status| f64::from(status.highest_round.0)),
    )?;
    to.gauges(
        "timed_consensus_signing",
        "1 while this masternode signs, 0 while it may not",
        one(|status| f64::from(u8::from(status.not_signing.is_none()))),
    )?;
    to.gauges(
        "timed_quorum_power_present",
        "Voting power of this masternode and those that it reaches",
        one(|status| status.power_present as f64),
    )?;
    to.gauges(
        "timed_quorum_power_needed",
        "The least voting power that decides: more than two thirds of all",
        one(|status| (status.power_total * 2 / 3 + 1) as f64),
    )?;
    let evidence = status.map(|one| (Labels::new(), one.evidence));
    to.counters(
        "timed_equivocations",
        "Times that a masternode was seen signing two things for one slot",
        evidence,
    )
}

fn mempool(node: &Snapshot, to: &mut Families) -> fmt::Result {
    let stats = &node.mempool;
    for (name, help, value) in [
        (
            "timed_mempool_transactions",
            "Transactions that wait for a block",
            stats.transactions,
        ),
        ("timed_mempool_bytes", "Their bytes", stats.bytes),
        (
            "timed_mempool_orphans",
            "Transactions that wait for their inputs",
            stats.orphans,
        ),
        (
            "timed_mempool_wanted",
            "Ids offered by peers that have not arrived",
            stats.wanted,
        ),
    ] {
        to.gauge(name, help, value as f64)?;
    }
    let rejected = [
        ("invalid", stats.invalid),
        ("unrequested", stats.unrequested),
        ("over_limit", stats.over_limit),
    ];
    to.counters(
        "timed_mempool_rejected",
        "What peers sent that was not taken, by why",
        rejected.map(|(reason, count)| (vec![("reason", reason.to_owned())], count)),
    )
}

fn sync(node: &Snapshot, to: &mut Families) -> fmt::Result {
    let sync = &node.sync;
    to.gauge(
        "timed_sync_target_height",
        "The highest height that a connected peer names",
        sync.target.0 as f64,
    )?;
    let behind = sync.target.0.saturating_sub(node.tip.height.0);
    to.gauge(
        "timed_sync_blocks_behind",
        "How many blocks are missing up to that height",
        behind as f64,
    )?;
    to.gauge(
        "timed_sync_active",
        "1 while blocks are fetched",
        f64::from(u8::from(sync.syncing)),
    )?;
    to.gauge(
        "timed_sync_sources",
        "Peers that blocks are fetched from",
        sync.peers.len() as f64,
    )?;
    to.counter(
        "timed_sync_blocks",
        "Blocks committed by sync since the start",
        sync.synced_blocks,
    )
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
