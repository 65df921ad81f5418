//! The actor: one loop that owns all state of consensus.
//!
//! **Decisions.** The engine decides a height from votes and proposals. A commit certificate, be it
//! received or assembled here from precommits that the engine could not use (it lacked the
//! proposal), decides just as well and does not pass through the engine: the block is committed
//! under it, and the engine is started anew at the next height, whatever it was doing. So there is
//! one way to commit, and a decision whose body is missing waits for the body.
//!
//! **Waiting.** The loop awaits events only in its `select!`. Building and checking blocks run as
//! tasks; writing the log and committing a block are awaited in place, because nothing may be sent
//! before the one and there is nothing to do before the other.

mod certificates;
mod height;
mod inbox;
mod outbox;
mod propose;
mod recovery;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bodies::Bodies;
use super::book::Book;
use super::engine::Engine;
use super::guard::Guard;
use super::ports::Ports;
use super::relay::Peers;
use super::schedule::{self, Situation, Start};
use super::timers::Timers;
use super::wal::LogBuffer;
use super::{Blamed, ConsensusError, ConsensusStatus};
use crate::chain::ChainError;
use crate::env::{DurableFile, Offload, WallClock};
use crate::net::ConsensusEvent;
use crate::types::{
    Block, BlockHash, CommitCertificate, ConsensusKey, Genesis, GenesisHash, Height, PeerIp, Round,
    Tip, ValidatorSet,
};

/// The wall clock may be set at any time: what waits for it looks again after this long.
const CLOCK_CHECK: Duration = Duration::from_secs(1);

/// A quorum must have been there for this long before a node without any state starts height 1: the
/// certificates with which its peers greet it are on their way.
const FIRST_START_AFTER: Duration = Duration::from_millis(500);

/// What stays the same for the life of the actor.
pub(super) struct Setup {
    pub(super) key: SigningKey,
    pub(super) genesis: Arc<Genesis>,
    pub(super) genesis_hash: GenesisHash,
    pub(super) validators: Arc<ValidatorSet>,
    pub(super) state: Arc<dyn DurableFile>,
    pub(super) clock: Arc<dyn WallClock>,
    pub(super) offload: Offload,
    pub(super) unsafe_sign: bool,
}

/// Makes the actor; it runs when it is polled.
pub(super) fn start<P: Ports>(
    setup: Setup,
    ports: P,
    inbound: mpsc::Receiver<ConsensusEvent>,
    stops: mpsc::Receiver<String>,
    cancel: CancellationToken,
) -> (
    watch::Receiver<ConsensusStatus>,
    impl Future<Output = Result<(), ConsensusError>> + Send + 'static,
) {
    let (status, watched) = watch::channel(initial_status(&setup, ports.tip()));
    let actor = async move {
        let host = Host::recover(setup, ports, status).await?;
        match host.run(inbound, stops, &cancel).await {
            // Parts end in any order when the node shuts down.
            Err(_) if cancel.is_cancelled() => Ok(()),
            result => result,
        }
    };
    (watched, actor)
}

fn initial_status(setup: &Setup, tip: Tip) -> ConsensusStatus {
    ConsensusStatus {
        height: tip.height.next(),
        round: None,
        proposer: None,
        not_signing: Some("consensus is starting".into()),
        power_present: 0,
        power_total: setup.validators.total_power(),
        missing: Vec::new(),
        evidence: 0,
        highest_round: Round(0),
        blamed: Vec::new(),
    }
}

/// All state of consensus.
struct Host<P: Ports> {
    ports: P,
    own: ConsensusKey,
    genesis: Arc<Genesis>,
    genesis_hash: GenesisHash,
    validators: Arc<ValidatorSet>,
    clock: Arc<dyn WallClock>,
    engine: Engine,
    guard: Guard,
    peers: Peers,
    bodies: Bodies,
    timers: Timers,
    tasks: JoinSet<Done>,
    /// Checks of blocks of the current height that have not been answered.
    checks: BTreeMap<BlockHash, AbortHandle>,
    ready: watch::Receiver<bool>,
    status: watch::Sender<ConsensusStatus>,

    /// The newest final block.
    tip: Tip,
    /// The height being decided: the tip's next.
    height: Height,
    /// Whether the engine has been started at it.
    running: bool,
    /// Whether the log of the height has its opening entry.
    log_opened: bool,
    /// Entries of an earlier run, until they are replayed.
    recovered: Vec<super::wal::Entry>,
    log: LogBuffer,
    book: Book,
    next_book: Book,
    decision: Option<Decision>,
    build: propose::Build,
    /// When the last height was started here.
    last_start: Instant,

    /// The certificate and body of the tip, when they are at hand.
    last_commit: Option<CommitCertificate>,
    last_body: Option<(Height, BlockHash, Arc<Vec<u8>>)>,
    committed_at: Instant,
    /// When a peer that is one height behind was last given the tip's certificate.
    reminded: BTreeMap<PeerIp, Instant>,
    /// When a peer was last given a body: of a final height, or of a block that is not final.
    served: BTreeMap<(PeerIp, Height, Option<BlockHash>), Instant>,

    presence: Presence,
    evidence: u64,
    highest_round: Round,
}

/// A height's outcome.
struct Decision {
    certificate: CommitCertificate,
    /// Whether the engine decided it from votes as they came in.
    live: bool,
}

/// Who is there.
#[derive(Default)]
struct Presence {
    power: u64,
    missing: Vec<String>,
    /// Since when the power has been a quorum.
    quorum_since: Option<Instant>,
}

/// What a task of the actor has done.
enum Done {
    Built {
        height: Height,
        round: Round,
        result: Result<Block, ChainError>,
    },
    Checked {
        height: Height,
        block: BlockHash,
        result: Result<(), ChainError>,
    },
    Loaded {
        peer: PeerIp,
        block: BlockHash,
        result: Result<Option<Block>, ChainError>,
    },
}

impl<P: Ports> Host<P> {
    async fn run(
        mut self,
        mut inbound: mpsc::Receiver<ConsensusEvent>,
        mut stops: mpsc::Receiver<String>,
        cancel: &CancellationToken,
    ) -> Result<(), ConsensusError> {
        let mut tips = self.ports.watch_tip();
        let mut ready = self.ready.clone();
        let ended = |part| ConsensusError::Ended { part };
        loop {
            self.advance().await?;
            self.publish_status();
            let wake = self.next_wake();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                changed = tips.changed() => changed.map_err(|_| ended("chain"))?,
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(done) => self.on_done(done).await?,
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                Some(reason) = stops.recv() => self.stop_signing(reason).await?,
                event = inbound.recv() => {
                    self.on_event(event.ok_or(ended("network"))?).await?;
                }
                changed = ready.changed() => changed.map_err(|_| ended("mempool"))?,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Does all that can be done without waiting for an event.
    async fn advance(&mut self) -> Result<(), ConsensusError> {
        loop {
            let tip = self.ports.tip();
            if tip.height >= self.height {
                self.note_synced().await?;
                self.enter_height(tip);
                continue;
            }
            if self.commit_decided().await? || self.start_if_due().await? {
                continue;
            }
            if self.feed_body().await? || self.fire_timer().await? {
                continue;
            }
            self.request_bodies();
            if !self.build_if_due().await? {
                return Ok(());
            }
        }
    }

    /// Applies the start rule; true when the height was started.
    async fn start_if_due(&mut self) -> Result<bool, ConsensusError> {
        if self.running || self.decision.is_some() || self.first_start_at() > Some(Instant::now()) {
            return Ok(false);
        }
        match schedule::start(&self.situation()) {
            Start::After(_) => Ok(false),
            Start::Now(reason) => {
                tracing::debug!(height = %self.height, reason, "height starts");
                self.start_height().await?;
                Ok(true)
            }
        }
    }

    /// A node without any state may be one that lost it: it starts its first height only when a
    /// quorum has been there for long enough to tell, by a certificate, that the chain has blocks.
    fn first_start_at(&self) -> Option<Instant> {
        if self.height > Height(1) || !self.guard.may_have_lost_state() {
            return None;
        }
        let since = self.presence.quorum_since;
        Some(since.map_or(Instant::now() + CLOCK_CHECK, |since| {
            since + FIRST_START_AFTER
        }))
    }

    fn situation(&self) -> Situation {
        let interval = Duration::from_millis(self.genesis.min_block_interval_ms);
        Situation {
            interval_left: interval.saturating_sub(self.last_start.elapsed()),
            transaction_waits: *self.ready.borrow(),
            until_boundary: self.until_boundary(),
            proposal_held: !self.book.proposals_of(Round(0)).is_empty(),
            votes_held: self.book.more_than_third_voted(),
            certificate_held: self.book.holds_certificate(),
            log_held: !self.recovered.is_empty(),
        }
    }

    fn until_boundary(&self) -> Duration {
        let boundary = schedule::boundary_ms(&self.genesis, self.tip.time_ms);
        Duration::from_millis(boundary.saturating_sub(self.clock.now_ms()))
    }

    /// When something is to be done although no event comes.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + CLOCK_CHECK;
        if !self.running {
            if let Start::After(wait) = schedule::start(&self.situation()) {
                wake = wake.min(now + wait);
            }
            if let Some(first) = self.first_start_at().filter(|at| *at > now) {
                wake = wake.min(first);
            }
        }
        if let Some(build_at) = self.build.next_attempt().filter(|at| *at > now) {
            wake = wake.min(build_at);
        }
        if self.build.is_wanted() {
            wake = wake.min(now + self.until_boundary().max(Duration::from_millis(1)));
        }
        let clock_ms = self.clock.now_ms();
        if let Some(release_ms) = self.bodies.next_release_ms(clock_ms) {
            wake = wake.min(now + Duration::from_millis(release_ms - clock_ms));
        }
        // The engine arms the timer of repetitions after its decision; then no timer fires any more.
        let timer = self.timers.next_due();
        let timer = timer.filter(|_| self.decision.is_none());
        for at in [timer, self.bodies.next_request()] {
            wake = wake.min(at.unwrap_or(wake));
        }
        wake
    }

    /// Recounts who is there, after a change.
    fn count_presence(&mut self) {
        let reached: BTreeSet<usize> = self.peers.reached();
        let mut presence = Presence::default();
        for (index, validator) in self.validators.validators().iter().enumerate() {
            if reached.contains(&index) {
                presence.power += validator.power;
            } else {
                presence.missing.push(validator.name.clone());
            }
        }
        if self.validators.is_quorum(presence.power) {
            let since = self.presence.quorum_since;
            presence.quorum_since = Some(since.unwrap_or_else(Instant::now));
        }
        self.presence = presence;
    }

    fn blamed(&self) -> Vec<Blamed> {
        let blamed = self.peers.blamed();
        let named = blamed.map(|(index, count, last)| Blamed {
            name: self.validators.validators()[index].name.clone(),
            count,
            last: last.into(),
        });
        named.collect()
    }

    fn publish_status(&self) {
        let round = self.running.then(|| self.engine.round());
        let status = ConsensusStatus {
            height: self.height,
            round,
            proposer: round.map(|round| {
                let proposer = self.validators.proposer(self.height, round);
                proposer.name.clone()
            }),
            not_signing: self.guard.refusal(self.height),
            power_present: self.presence.power,
            power_total: self.validators.total_power(),
            missing: self.presence.missing.clone(),
            evidence: self.evidence,
            highest_round: self.highest_round,
            blamed: self.blamed(),
        };
        self.status.send_if_modified(|held| {
            let changed = *held != status;
            *held = status;
            changed
        });
    }
}
