//! What people see of sync: the status, and a few log lines when there is much to fetch.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::SyncStatus;
use super::plan::Plan;
use crate::types::{Height, PeerIp};

/// Being this many blocks behind is worth a log line.
const LOGGED_FROM_BLOCKS: u64 = 10;

/// Between two log lines of progress.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Publishes the status and tells the log.
pub(super) struct Report {
    status: watch::Sender<SyncStatus>,
    synced_blocks: u64,
    /// Faults of peers that the log has told of.
    faults: u64,
    catch_up: Option<CatchUp>,
}

/// From being many blocks behind to having caught up.
struct CatchUp {
    since: Instant,
    from: Height,
    next_line: Instant,
    sources: BTreeSet<PeerIp>,
}

impl Report {
    pub(super) fn new(status: watch::Sender<SyncStatus>) -> Self {
        Self {
            status,
            synced_blocks: 0,
            faults: 0,
            catch_up: None,
        }
    }

    /// Blocks have been committed by sync.
    pub(super) fn synced(&mut self, blocks: u64) {
        self.synced_blocks += blocks;
    }

    /// Publishes what has changed and logs what is due.
    pub(super) fn update<S: Clone, B>(&mut self, plan: &Plan<S, B>, now: Instant) {
        let (height, target) = (plan.height(), plan.target(now));
        let sources = plan.sources();
        self.log_faults(plan);
        self.log_catch_up(plan, now);
        let synced_blocks = self.synced_blocks;
        self.status.send_if_modified(|status| {
            let same = status.height == height
                && status.target == target
                && status.syncing == plan.is_busy()
                && status.peers == sources
                && status.synced_blocks == synced_blocks
                && status.replaced.iter().eq(plan.replaced());
            if !same {
                *status = SyncStatus {
                    height,
                    target,
                    syncing: plan.is_busy(),
                    peers: sources,
                    synced_blocks,
                    replaced: plan.replaced().iter().cloned().collect(),
                };
            }
            !same
        });
    }

    /// When a log line is due.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.catch_up.as_ref().map(|catch_up| catch_up.next_line)
    }

    fn log_faults<S: Clone, B>(&mut self, plan: &Plan<S, B>) {
        let new = plan.faults() - std::mem::replace(&mut self.faults, plan.faults());
        let replaced = plan.replaced();
        let told = replaced.len().saturating_sub(new as usize);
        for (peer, reason) in replaced.iter().skip(told) {
            info!(peer.ip = %peer, stream = "sync", reason, "sync: peer set aside for a while");
        }
    }

    fn log_catch_up<S: Clone, B>(&mut self, plan: &Plan<S, B>, now: Instant) {
        let (height, target) = (plan.height().0, plan.target(now).0);
        let behind = target.saturating_sub(height);
        let Some(catch_up) = &mut self.catch_up else {
            // What is only announced may be a lie.
            if plan.blocks_proved() >= LOGGED_FROM_BLOCKS {
                info!(height, target, "sync: {behind} blocks behind");
                self.catch_up = Some(CatchUp {
                    since: now,
                    from: plan.height(),
                    next_line: now + LOG_INTERVAL,
                    sources: BTreeSet::new(),
                });
            }
            return;
        };
        let sources = plan.sources();
        let peers = sources.len();
        catch_up.sources.extend(sources);
        if behind == 0 || !plan.is_busy() {
            catch_up.log_end(now, plan.height());
            self.catch_up = None;
        } else if now >= catch_up.next_line {
            catch_up.next_line = now + LOG_INTERVAL;
            let seconds = now.duration_since(catch_up.since).as_secs_f64();
            let rate = (height - catch_up.from.0) as f64 / seconds;
            info!(
                height,
                target, peers, "sync: {rate:.0} blocks/s, {behind} to go"
            );
        }
    }
}

impl CatchUp {
    fn log_end(&self, now: Instant, height: Height) {
        let blocks = height.0 - self.from.0;
        if blocks == 0 {
            let height = height.0;
            warn!(
                height,
                "sync: no peer serves the blocks that are missing; `timed sync` shows why"
            );
            return;
        }
        let seconds = now.duration_since(self.since).as_secs_f64();
        let sources: Vec<String> = self.sources.iter().map(PeerIp::to_string).collect();
        let sources = sources.join(", ");
        info!(
            height = height.0,
            "synced {blocks} blocks in {seconds:.1} s from {sources}"
        );
    }
}
