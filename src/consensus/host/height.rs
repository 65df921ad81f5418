//! The life of a height: start, inputs and outputs of the engine, decision, commit.

use tokio::time::Instant;

use super::{Decision, Done, Host};
use crate::chain::ChainError;
use crate::consensus::ConsensusError;
use crate::consensus::book::Book;
use crate::consensus::engine::{Input, Output};
use crate::consensus::ports::Ports;
use crate::consensus::timers;
use crate::consensus::wal::{Entry, LogBuffer};
use crate::types::{BlockHash, CommitCertificate, Height, PeerIp, Proposal, Round, Tip, Vote};
use crate::wire::ConsensusMessage;

/// The target of the events about this node's own signatures.
const SIGNED: &str = "timed::signed";

impl<P: Ports> Host<P> {
    /// Makes the tip's next height the current one, not started. What was held for it is kept;
    /// all else of the old height is dropped.
    pub(super) fn enter_height(&mut self, tip: Tip) {
        let now = Instant::now();
        self.tip = tip;
        self.height = tip.height.next();
        let next = Book::new(self.height.next(), self.validators.clone());
        let held = std::mem::replace(&mut self.next_book, next);
        if held.height() == self.height {
            self.book = held;
        } else if self.book.height() != self.height {
            self.book = Book::new(self.height, self.validators.clone());
        }
        self.drop_checks(None);
        self.bodies.set_height(self.height, tip.time_ms);
        self.timers.clear();
        self.running = false;
        self.log_opened = false;
        self.recovered.clear();
        self.log = LogBuffer::new(false);
        self.build.reset();
        self.decision = None;
        if let Some(certificate) = self.book.commit().cloned() {
            self.decide(certificate, false, None);
        }
        self.committed_at = now;
        self.reminded.clear();
        self.served.clear();
    }

    /// Starts the engine at the current height and gives it the log or what was held.
    pub(super) async fn start_height(&mut self) -> Result<(), ConsensusError> {
        let entries = std::mem::take(&mut self.recovered);
        self.open_log(&entries).await?;
        self.running = true;
        self.last_start = Instant::now();
        let outputs = self.engine.start_height(self.height)?;
        self.apply(outputs).await?;
        if entries.is_empty() {
            self.feed_held().await?;
            self.note_held_quorums();
            return Ok(());
        }
        self.note_recovered(&entries);
        let outputs = self.engine.replay(&entries)?;
        self.apply(outputs).await?;
        self.log.end_replay();
        self.note_held_quorums();
        tracing::info!(
            height = %self.height,
            round = %self.engine.round(),
            entries = entries.len(),
            "the consensus log was replayed"
        );
        Ok(())
    }

    /// Gives the engine what was held while the height had not started.
    async fn feed_held(&mut self) -> Result<(), ConsensusError> {
        let proposals = self.book.proposals().copied().map(Entry::Proposal);
        let mut inputs: Vec<Input> = proposals.map(Input::Logged).collect();
        if let Some(polka) = self.book.newest_polka() {
            inputs.push(Input::Logged(Entry::Polka(polka)));
        }
        inputs.extend(self.book.round_certificate().cloned().map(Input::Round));
        let votes = self.book.votes().copied().map(Entry::Vote);
        inputs.extend(votes.map(Input::Logged));
        for input in inputs {
            if self.decision.is_some() {
                break;
            }
            self.step(input).await?;
        }
        Ok(())
    }

    /// Feeds the engine and does what it wants.
    pub(super) async fn step(&mut self, input: Input) -> Result<(), ConsensusError> {
        let outputs = self.engine.feed(input)?;
        self.apply(outputs).await
    }

    /// Does what the engine wants: first all of it becomes durable, then it is sent.
    async fn apply(&mut self, outputs: Vec<Output>) -> Result<(), ConsensusError> {
        let mut must_be_durable = false;
        for output in &outputs {
            match output {
                Output::Log(entry) => self.log.append(entry, &self.own),
                Output::RoundStarted(_) | Output::Publish(_) | Output::Decided(_) => {
                    must_be_durable = true;
                }
                Output::Arm(_) | Output::Cancel(_) | Output::CancelAll | Output::Build(_) => {}
            }
        }
        if must_be_durable {
            self.flush_log().await?;
        }
        for output in outputs {
            match output {
                Output::Log(_) => {}
                Output::RoundStarted(round) => self.on_round_started(round),
                Output::Publish(message) => self.publish(message),
                Output::Arm(timeout) => {
                    let duration = timers::duration(&self.genesis.timeouts, timeout);
                    self.timers.arm(timeout, Instant::now(), duration);
                }
                Output::Cancel(timeout) => self.timers.cancel(timeout),
                Output::CancelAll => self.timers.clear(),
                Output::Build(round) => self.build.want(round),
                Output::Decided(certificate) => self.decide(certificate, true, None),
            }
        }
        Ok(())
    }

    async fn flush_log(&mut self) -> Result<(), ConsensusError> {
        let Some(batch) = self.log.take() else {
            return Ok(());
        };
        let bodies = (batch.named)
            .into_iter()
            .filter_map(|hash| {
                let content = self.bodies.content(self.height, hash)?;
                Some((hash, content.bytes.as_ref().clone()))
            })
            .collect();
        self.ports
            .wal_append(self.height, batch.entries, bodies)
            .await?;
        if let Some(entries) = batch.signed {
            self.guard.signed(entries).await?;
        }
        Ok(())
    }

    fn on_round_started(&mut self, round: Round) {
        if round > self.highest_round {
            self.highest_round = round;
        }
        if let Some(failed) = round.0.checked_sub(1).map(Round) {
            tracing::debug!(height = %self.height, %round, "a round has failed");
            let proposer = self.validators.proposer(self.height, failed);
            if proposer.key == self.own {
                self.build.round_failed();
            }
        }
        self.build.new_round();
        self.bodies.set_round(round);
    }

    /// Keeps and sends what this node says.
    fn publish(&mut self, message: ConsensusMessage) {
        match &message {
            ConsensusMessage::Vote(vote) => {
                trace_vote(vote);
                self.book.add_vote(*vote);
            }
            ConsensusMessage::Proposal(proposal) => {
                trace_proposal(proposal);
                self.book.add_proposal(*proposal);
            }
            ConsensusMessage::Polka(polka) => {
                self.book.add_polka(polka.clone());
            }
            ConsensusMessage::Round(certificate) => {
                self.book.add_round_certificate(certificate.clone());
            }
            ConsensusMessage::Commit(_)
            | ConsensusMessage::GetBody { .. }
            | ConsensusMessage::Consumed { .. } => {}
        }
        let to = self.peers.all();
        if let ConsensusMessage::Proposal(proposal) = &message {
            self.push_body(proposal, &to);
        }
        self.send_all(&to, &message);
    }

    /// Notes the outcome of the current height; the first one stays.
    pub(super) fn decide(
        &mut self,
        certificate: CommitCertificate,
        live: bool,
        source: Option<PeerIp>,
    ) {
        if self.decision.is_some() {
            return;
        }
        self.timers.clear();
        self.drop_checks(Some(certificate.block));
        let (block, round) = (certificate.block, certificate.round);
        self.bodies
            .certify(self.height, block, round, source, Instant::now());
        self.decision = Some(Decision { certificate, live });
    }

    /// Commits the decided block once its body is here; true when the height has ended.
    pub(super) async fn commit_decided(&mut self) -> Result<bool, ConsensusError> {
        let Some(decision) = &self.decision else {
            return Ok(false);
        };
        let certificate = decision.certificate.clone();
        let live = decision.live;
        let Some(content) = self.bodies.content(self.height, certificate.block).cloned() else {
            return Ok(false);
        };
        let header = content.block.header;
        let (now_ms, signing) = (self.clock.now_ms(), self.log.is_signing());
        let live = live && self.guard.shows_live(header.time_ms, now_ms, signing);
        if live || self.log.holds_own_precommit_of(&certificate) {
            self.guard.finalized_live().await?;
        }
        let committed = self.ports.commit(content.block, certificate.clone()).await;
        let tip = match committed {
            Ok(tip) => tip,
            // Sync has been faster.
            Err(ChainError::NotNext { .. }) if self.ports.tip().height >= self.height => {
                self.ports.tip()
            }
            Err(error) => return Err(error.into()),
        };
        tracing::debug!(
            height = %self.height,
            round = %certificate.round,
            block = %certificate.block,
            "block committed"
        );
        if header.proposer == self.own {
            self.build.own_block_decided();
        }
        self.last_body = Some((self.height, certificate.block, content.bytes));
        self.last_commit = Some(certificate);
        self.enter_height(tip);
        Ok(true)
    }

    /// Sync has brought the current height. At the first one, this node's part in it shows that the
    /// chain was new when the node began.
    pub(super) async fn note_synced(&mut self) -> Result<(), ConsensusError> {
        if self.height > Height(1) || !self.guard.may_have_lost_state() {
            return Ok(());
        }
        let certificate = self.ports.certificate(self.height).await?;
        if certificate.is_some_and(|certificate| self.log.holds_own_precommit_of(&certificate)) {
            self.guard.finalized_live().await?;
        }
        Ok(())
    }

    /// The certificate that precommits of a block make, when the engine has not decided by them.
    pub(super) fn decide_by_precommits(&mut self, round: Round, block: BlockHash) {
        if self.decision.is_none()
            && let Some(certificate) = self.book.decision(round, block)
        {
            self.decide(certificate, true, None);
        }
    }

    /// Stops signing for good, at once and durably for this height.
    pub(super) async fn stop_signing(&mut self, reason: String) -> Result<(), ConsensusError> {
        self.log.append(&Entry::Stopped(reason.clone()), &self.own);
        self.guard.stop(reason);
        self.sign_no_more();
        self.flush_log().await
    }

    /// From here on the engine follows this height without a say in it.
    pub(super) fn sign_no_more(&mut self) {
        self.engine.set_signing(false);
        self.log.stop_signing();
        self.build.reset();
    }

    pub(super) async fn on_done(&mut self, done: Done) -> Result<(), ConsensusError> {
        match done {
            Done::Built {
                height,
                round,
                result,
            } => self.on_built(height, round, result).await,
            Done::Checked {
                height,
                block,
                result,
            } => self.on_checked(height, block, result),
            Done::Loaded {
                peer,
                block,
                result,
            } => {
                if let Some(loaded) = result?.filter(|loaded| loaded.hash() == block) {
                    self.serve_committed(peer, &loaded);
                }
                Ok(())
            }
        }
    }
}

/// Says what this node has signed, once it is durable and before it leaves. Nothing else shows each
/// signature of a node, so tests for signing twice depend on the target and on the fields.
fn trace_vote(vote: &Vote) {
    tracing::trace!(
        target: SIGNED,
        voter = ?vote.voter,
        height = vote.height.0,
        round = vote.round.0,
        kind = ?vote.kind,
        block = ?vote.block,
    );
}

/// As [`trace_vote`].
fn trace_proposal(proposal: &Proposal) {
    tracing::trace!(
        target: SIGNED,
        voter = ?proposal.proposer,
        height = proposal.height.0,
        round = proposal.round.0,
        kind = ?"Proposal",
        block = ?(proposal.block, proposal.polka_round),
    );
}
