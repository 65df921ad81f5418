//! The loop that drives a behaviour, and the knowledge of whose turn it is.

use std::collections::BTreeSet;
use std::time::Duration;

use timed::net::{ConsensusEvent, SyncServe};
use timed::types::{ConsensusKey, Height, PeerIp, Round, Tip, VoteKind};
use timed::wire::ConsensusMessage;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Behaviour, Stage};

const TICK: Duration = Duration::from_millis(100);

pub(super) struct Script<B> {
    stage: Stage,
    behaviour: B,
    turns: Turns,
    told_tip: watch::Sender<Tip>,
    truthful: mpsc::Sender<SyncServe>,
}

impl<B: Behaviour> Script<B> {
    pub(super) fn new(
        stage: Stage,
        behaviour: B,
        told_tip: watch::Sender<Tip>,
        truthful: mpsc::Sender<SyncServe>,
    ) -> Self {
        Self {
            turns: Turns::new(stage.height()),
            stage,
            behaviour,
            told_tip,
            truthful,
        }
    }

    pub(super) async fn run(
        mut self,
        mut consensus: mpsc::Receiver<ConsensusEvent>,
        mut asked: mpsc::Receiver<SyncServe>,
    ) {
        let mut tips = self.stage.chain.watch_tip();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                changed = tips.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let tip = *tips.borrow_and_update();
                    self.told_tip.send_replace(self.behaviour.tip(tip));
                    self.turns = Turns::new(tip.height.next());
                }
                Some(event) = consensus.recv() => self.on_event(event),
                Some(request) = asked.recv() => {
                    if let Some(request) = self.behaviour.asked(&mut self.stage, request)
                        && self.truthful.send(request).await.is_err()
                    {
                        return;
                    }
                }
                _ = ticks.tick() => {
                    self.behaviour.tick(&mut self.stage);
                    self.take_turn().await;
                }
            }
        }
    }

    fn on_event(&mut self, event: ConsensusEvent) {
        match event {
            ConsensusEvent::Connected { masternode, .. } => {
                self.behaviour.joined(&mut self.stage, masternode);
            }
            ConsensusEvent::Message { peer, message } => {
                let quorum = self.stage.chain.validators().clone();
                self.turns
                    .heard(&message, |power| quorum.is_quorum(power as u64));
                if let Some(from) = self.number(peer) {
                    self.behaviour.heard(&mut self.stage, from, &message);
                }
            }
            ConsensusEvent::Disconnected { .. }
            | ConsensusEvent::Reach { .. }
            | ConsensusEvent::Body { .. } => {}
        }
    }

    fn number(&self, peer: PeerIp) -> Option<usize> {
        let is_it = |node: &usize| PeerIp::from(crate::world::address(*node)) == peer;
        self.stage.others().into_iter().find(is_it)
    }

    async fn take_turn(&mut self) {
        let stage = &self.stage;
        let (tip, own) = (stage.chain.tip(), stage.own_key());
        let Some(round) = self.turns.due(Instant::now()) else {
            return;
        };
        let proposer = stage.chain.validators().proposer(tip.height.next(), round);
        let now_ms = stage.clock.now_ms();
        let genesis = stage.chain.genesis();
        let slot_is_over = genesis.slot_at(now_ms) > genesis.slot_at(tip.time_ms);
        let may_propose = slot_is_over || round > Round(0) || *stage.mempool.watch_ready().borrow();
        if proposer.key != own || !may_propose {
            return;
        }
        let candidates = stage.mempool.select(1_000_000).await;
        let time_ms = now_ms.max(tip.time_ms + 1);
        let built = stage
            .chain
            .build_block(own, time_ms, candidates, 1_000_000)
            .await;
        // The tip may have moved on meanwhile.
        if let Ok(block) = built
            && block.header.height == self.stage.height()
        {
            self.turns.taken = Some(round);
            self.behaviour.turn(&mut self.stage, round, block);
        }
    }
}

/// The rounds of the height being decided, as far as precommits tell. All masternodes have the same
/// power in a world.
struct Turns {
    height: Height,
    round: Round,
    precommitted: BTreeSet<ConsensusKey>,
    next_round_at: Option<Instant>,
    /// The last round in which the puppet's turn was taken.
    taken: Option<Round>,
}

impl Turns {
    fn new(height: Height) -> Self {
        Self {
            height,
            round: Round(0),
            precommitted: BTreeSet::new(),
            next_round_at: None,
            taken: None,
        }
    }

    fn heard(&mut self, message: &ConsensusMessage, is_quorum: impl Fn(usize) -> bool) {
        let ConsensusMessage::Vote(vote) = message else {
            return;
        };
        let counts = vote.kind == VoteKind::Precommit
            && (vote.height, vote.round) == (self.height, self.round);
        if counts && self.precommitted.insert(vote.voter) && is_quorum(self.precommitted.len()) {
            let wait = Duration::from_millis(1_000 + 500 * u64::from(self.round.0));
            self.next_round_at.get_or_insert(Instant::now() + wait);
        }
    }

    /// The round, if its turn has not been taken.
    fn due(&mut self, now: Instant) -> Option<Round> {
        if self.next_round_at.is_some_and(|at| at <= now) {
            self.round = Round(self.round.0 + 1);
            self.precommitted.clear();
            self.next_round_at = None;
        }
        (self.taken < Some(self.round)).then_some(self.round)
    }
}
