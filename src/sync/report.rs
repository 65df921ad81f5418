//! What people see of sync: the status, and a few log lines when there is much to fetch.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::plan::Plan;
use super::progress::{Pace, named, seconds_left};
use super::{PROGRESS_LOG, SyncStatus};
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
    pace: Pace,
    /// Faults of peers before it began.
    faults: u64,
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
        self.log_faults(plan);
        self.follow(plan, now);
        let new = self.status_of(plan, now);
        self.log_progress(&new, now);
        self.status.send_if_modified(|status| {
            let changed = *status != new;
            *status = new;
            changed
        });
    }

    fn status_of<S: Clone, B>(&self, plan: &Plan<S, B>, now: Instant) -> SyncStatus {
        let (height, target) = (plan.height(), plan.target(now));
        let peers = plan.sources();
        let catch_up = self.catch_up.as_ref();
        let rate = catch_up.and_then(|one| one.pace.blocks_per_s(now, height));
        let behind = target.0.saturating_sub(height.0);
        SyncStatus {
            height,
            target,
            syncing: plan.is_busy(),
            blocks_per_s: rate.map(|rate| (rate * 10.0).round() / 10.0),
            seconds_left: rate.and_then(|rate| seconds_left(behind, rate)),
            set_aside: self.set_aside(plan, &peers, now),
            synced_blocks: self.synced_blocks,
            peers,
            replaced: plan.replaced().iter().cloned().collect(),
        }
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

    /// Who is not asked for a fault of this catch-up, or one that still counts; the newest last.
    fn set_aside<S: Clone, B>(
        &self,
        plan: &Plan<S, B>,
        sources: &[PeerIp],
        now: Instant,
    ) -> Vec<(PeerIp, String)> {
        let before = self
            .catch_up
            .as_ref()
            .map_or(plan.faults(), |one| one.faults);
        let of_late = (plan.faults() - before) as usize;
        let mut seen: BTreeSet<PeerIp> = sources.iter().copied().collect();
        let newest_first = plan.replaced().iter().rev().enumerate();
        let mut found: Vec<_> = newest_first
            .filter(|(age, (peer, _))| *age < of_late || plan.is_aside(*peer, now))
            .filter(|(_, (peer, _))| seen.insert(*peer))
            .map(|(_, one)| one.clone())
            .collect();
        found.reverse();
        found
    }

    /// Notes when it falls behind, how fast it catches up, and that it has.
    fn follow<S: Clone, B>(&mut self, plan: &Plan<S, B>, now: Instant) {
        let (height, target) = (plan.height(), plan.target(now));
        let Some(catch_up) = &mut self.catch_up else {
            // What is only announced may be a lie.
            if plan.blocks_proved() >= LOGGED_FROM_BLOCKS {
                let behind = target.0.saturating_sub(height.0);
                let (height_now, target) = (height.0, target.0);
                info!(height = height_now, target, "sync: {behind} blocks behind");
                self.catch_up = Some(CatchUp {
                    since: now,
                    from: height,
                    pace: Pace::new(now, height),
                    faults: plan.faults(),
                    next_line: now + LOG_INTERVAL,
                    sources: BTreeSet::new(),
                });
            }
            return;
        };
        catch_up.sources.extend(plan.sources());
        catch_up.pace.note(now, height);
        if height >= target || !plan.is_busy() {
            catch_up.log_end(now, height);
            self.catch_up = None;
        }
    }

    /// One line in a few seconds while it catches up.
    fn log_progress(&mut self, status: &SyncStatus, now: Instant) {
        let Some(catch_up) = &mut self.catch_up else {
            return;
        };
        if now < catch_up.next_line {
            return;
        }
        catch_up.next_line = now + LOG_INTERVAL;
        info!(
            target: PROGRESS_LOG,
            height = status.height.0,
            target = status.target.0,
            behind = status.behind(),
            blocks_per_s = status.blocks_per_s,
            seconds_left = status.seconds_left,
            peers = named(&status.peers),
            "sync: {}",
            status.sentence()
        );
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
        let sources: Vec<PeerIp> = self.sources.iter().copied().collect();
        let sources = named(&sources);
        info!(
            height = height.0,
            "synced {blocks} blocks in {seconds:.1} s from {sources}"
        );
    }
}
