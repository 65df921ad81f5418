//! Drives the plan: requests as tasks, commits in order, progress for people.
//!
//! The only state here is what runs: tasks and the plan. The loop's branches are events of the plan;
//! after each, it does what the plan says. Every task reports through one channel of
//! [`MAX_REPORTS`]; when that is full, the tasks wait, and by flow control their peers do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::commits::Commits;
use super::fetch::{Event, FetchError, Fetcher};
use super::io::Network;
use super::plan::{Action, Failure, Limits, Plan, RequestId};
use super::report::Report;
use super::{SyncFailure, SyncStatus};
use crate::chain::{Chain, ChainError, CheckedBody, VerifiedSegment};
use crate::env::Offload;
use crate::types::{Height, Tip, Transaction};

/// The most reports of tasks that wait for the actor.
const MAX_REPORTS: usize = 4;

/// How often the bytes of requests in flight are looked at.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Fetches and commits.
pub(super) struct Actor<N> {
    plan: Plan<Arc<VerifiedSegment>, CheckedBody>,
    fetcher: Fetcher<N>,
    reports: mpsc::Receiver<(RequestId, Event)>,
    requests: JoinSet<()>,
    running: BTreeMap<RequestId, Running>,
    commits: Commits,
    report: Report,
}

/// A request's task.
struct Running {
    task: AbortHandle,
    /// Bytes received, once the peer has the request.
    received: Option<watch::Receiver<u64>>,
}

impl<N: Network> Actor<N> {
    pub(super) fn new(
        chain: Chain,
        net: N,
        offload: Offload,
        masternode: bool,
        status: watch::Sender<SyncStatus>,
    ) -> Self {
        let (events, reports) = mpsc::channel(MAX_REPORTS);
        let tip = chain.tip();
        Self {
            plan: Plan::new(Limits::RECOMMENDED, masternode, (tip.height, tip.hash)),
            commits: Commits::new(chain.clone()),
            fetcher: Fetcher {
                rules: chain.rules(),
                chain,
                net,
                offload,
                events,
            },
            reports,
            requests: JoinSet::new(),
            running: BTreeMap::new(),
            report: Report::new(status),
        }
    }

    /// Runs until `cancel`, or until the chain can go no further.
    pub(super) async fn run(mut self, cancel: CancellationToken) -> Result<(), SyncFailure> {
        let mut peers = self.fetcher.net.watch_peers();
        let mut tip = self.fetcher.chain.watch_tip();
        peers.mark_changed();
        loop {
            let now = Instant::now();
            self.note_progress(now);
            for action in self.plan.actions(now) {
                self.perform(action);
            }
            self.report.update(&self.plan, now);
            let wake = self.wake(now);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                ended = self.commits.ended() => self.committed(ended)?,
                Some((id, event)) = self.reports.recv() => self.reported(id, event)?,
                Some(ended) = self.requests.join_next() => task_ended(ended),
                Ok(()) = tip.changed() => {
                    let tip = *tip.borrow_and_update();
                    self.plan.set_tip(tip.height, tip.hash);
                }
                Ok(()) = peers.changed() => {
                    peers.mark_unchanged();
                    self.plan.set_peers(Instant::now(), self.fetcher.net.peers());
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn wake(&self, now: Instant) -> Instant {
        let planned = self.plan.next_wake(now);
        let progress = (!self.running.is_empty()).then_some(now + PROGRESS_INTERVAL);
        let wakes = planned.into_iter().chain(progress);
        let wakes = wakes.chain(self.report.next_wake());
        wakes.min().unwrap_or(now + Duration::from_secs(3600))
    }

    fn note_progress(&mut self, now: Instant) {
        for (id, running) in &mut self.running {
            if let Some(received) = &mut running.received
                && received.has_changed().unwrap_or(false)
            {
                let bytes = *received.borrow_and_update();
                self.plan.received(now, *id, bytes);
            }
        }
    }

    fn perform(&mut self, action: Action<Arc<VerifiedSegment>, CheckedBody>) {
        match action {
            Action::Ask { id, peer, ask } => {
                let fetch = self.fetcher.clone().fetch(id, peer, ask);
                let task = self.requests.spawn(fetch);
                let received = None;
                self.running.insert(id, Running { task, received });
            }
            Action::Cancel(id) => {
                if let Some(running) = self.running.remove(&id) {
                    running.task.abort();
                }
            }
            Action::Commit { segment, bodies } => {
                let bodies = bodies.into_iter().map(|(_, body)| body);
                self.commits.push(segment, bodies.collect());
            }
        }
    }

    fn reported(&mut self, id: RequestId, event: Event) -> Result<(), SyncFailure> {
        let now = Instant::now();
        match event {
            Event::Opened(received) => {
                self.plan.opened(now, id);
                if let Some(running) = self.running.get_mut(&id) {
                    running.received = Some(received);
                }
            }
            Event::Headers(segment) => {
                let last = segment.certificate();
                let (height, hash) = (last.height, last.block);
                let empty = segment.empty_bodies().into_iter();
                let empty = empty.map(|body| (body.height(), body));
                self.plan.headers(now, id, height, hash, segment, empty);
            }
            Event::Bodies(bodies) => {
                for body in bodies {
                    let transactions = body.transactions().iter();
                    let bytes = transactions.map(Transaction::encoded_bytes).sum();
                    self.plan.body(now, id, body.height(), bytes, body);
                }
            }
            Event::Ended(result) => {
                self.running.remove(&id);
                match result {
                    Ok(()) => self.plan.finished(now, id),
                    Err(FetchError::Fork(fork)) => return Err(fork.into()),
                    Err(FetchError::Refused(refused)) => self.refused(id, &refused),
                    Err(FetchError::Peer(failure)) => self.plan.failed(now, id, failure),
                }
            }
        }
        Ok(())
    }

    fn committed(&mut self, ended: Result<(usize, Tip), ChainError>) -> Result<(), SyncFailure> {
        match ended {
            Ok((blocks, tip)) => {
                self.report.synced(blocks as u64);
                self.plan.committed(tip.height, tip.hash);
                Ok(())
            }
            Err(stop @ (ChainError::Store(_) | ChainError::Fork { .. })) => Err(stop.into()),
            Err(refused) => {
                tell(self.plan.height(), &refused);
                self.plan
                    .commit_refused(Instant::now(), refused.to_string());
                Ok(())
            }
        }
    }

    /// What has arrived is certified, and refused all the same: the request is given up.
    fn refused(&mut self, id: RequestId, refused: &ChainError) {
        tell(self.plan.height(), refused);
        let failure = Failure::Wrong(refused.to_string());
        self.plan.failed(Instant::now(), id, failure);
    }
}

fn tell(tip: Height, refused: &ChainError) {
    error!(
        height = tip.next().0,
        reason = %refused,
        "certified blocks are refused here; is this software older than its peers'?"
    );
}

fn task_ended(ended: Result<(), JoinError>) {
    match ended {
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Done, or given up.
        Ok(()) | Err(_) => {}
    }
}
