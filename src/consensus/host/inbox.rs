//! What comes from peers: admission, verification, the book, the engine. Certificates have a file of
//! their own.
//!
//! The order is the defence: unknown heights, rounds and signers and all that is known already are
//! dropped before a signature is checked; what fails the check counts against its sender. The own
//! key's messages are checked whatever their round, since they may show that it is in use elsewhere;
//! they are kept like any other's.

use tokio::time::Instant;

use super::Host;
use crate::consensus::ConsensusError;
use crate::consensus::book::{Added, Book, Evidence, MAX_ROUNDS_AHEAD};
use crate::consensus::engine::Input;
use crate::consensus::ports::Ports;
use crate::consensus::wal::Entry;
use crate::net::{BodyEvent, ConsensusEvent};
use crate::types::codec;
use crate::types::{Height, PeerIp, Proposal, Round, Vote};
use crate::wire::{BodyHeader, ConsensusMessage};

impl<P: Ports> Host<P> {
    pub(super) async fn on_event(&mut self, event: ConsensusEvent) -> Result<(), ConsensusError> {
        match event {
            ConsensusEvent::Connected { peer, masternode } => {
                self.peers.connect(peer, masternode);
                self.count_presence();
                self.greet(peer, masternode).await?;
            }
            ConsensusEvent::Disconnected { peer, .. } => {
                self.peers.disconnect(&peer);
                self.count_presence();
                self.bodies.failed(None, peer, Instant::now());
            }
            ConsensusEvent::Reach { peer, reach } => {
                let missing = self.peers.set_reach(&peer, reach);
                self.count_presence();
                for (author, to) in missing {
                    self.pass_on_held(author, to);
                }
            }
            ConsensusEvent::Message { peer, message } => {
                if self.peers.is_heard(&peer) {
                    self.on_message(peer, message).await?;
                }
            }
            ConsensusEvent::Body {
                peer,
                header,
                event,
            } => {
                if self.peers.is_heard(&peer) {
                    self.on_body(peer, header, event);
                }
            }
        }
        Ok(())
    }

    async fn on_message(
        &mut self,
        peer: PeerIp,
        message: ConsensusMessage,
    ) -> Result<(), ConsensusError> {
        match message {
            ConsensusMessage::Vote(vote) => self.on_vote(peer, vote).await,
            ConsensusMessage::Proposal(proposal) => self.on_proposal(peer, proposal).await,
            ConsensusMessage::Polka(polka) => self.on_polka(peer, polka).await,
            ConsensusMessage::Round(certificate) => {
                self.on_round_certificate(peer, certificate).await
            }
            ConsensusMessage::Commit(certificate) => self.on_commit(peer, certificate).await,
            ConsensusMessage::GetBody { height, block } => {
                self.on_get_body(peer, height, block);
                Ok(())
            }
            // The network keeps these to itself.
            ConsensusMessage::Consumed { .. } => Ok(()),
        }
    }

    async fn on_vote(&mut self, peer: PeerIp, vote: Vote) -> Result<(), ConsensusError> {
        if vote.height < self.height {
            return self.remind(peer, vote.height, &vote.voter).await;
        }
        let own = vote.voter == self.own;
        let Some(book) = self.book_of(vote.height) else {
            return Ok(());
        };
        if book.settled_vote(&vote) || !(own || self.awaits_round(vote.height, vote.round)) {
            return Ok(());
        }
        let author = match self.check_vote(&vote) {
            Ok(author) => author,
            Err(reason) => {
                self.blame(peer, reason);
                return Ok(());
            }
        };
        let logged = vote.height == self.height && self.log.holds_own_vote(&vote);
        if own && !logged && self.is_foreign(vote.height, "vote", vote.round).await? {
            return Ok(());
        }
        if !self.awaits_round(vote.height, vote.round) {
            return Ok(());
        }
        let Some(book) = self.book_of_mut(vote.height) else {
            return Ok(());
        };
        match book.add_vote(vote) {
            Added::Known => return Ok(()),
            Added::New => {}
            Added::Equivocation { evidence, feed } => {
                self.record(*evidence).await?;
                if !feed {
                    return Ok(());
                }
            }
        }
        self.pass_on(author, peer, &ConsensusMessage::Vote(vote));
        if vote.height == self.height && self.running {
            self.feed(Input::Logged(Entry::Vote(vote))).await?;
            if let Some(block) = vote.block {
                self.note_quorum(vote.round, block);
            }
        }
        Ok(())
    }

    /// Whether a vote is what it says; returns the voter's position.
    fn check_vote(&self, vote: &Vote) -> Result<usize, &'static str> {
        let (author, _) = self
            .validators
            .get(&vote.voter)
            .ok_or("a vote of a key that is not in genesis")?;
        if !vote.verify(&self.genesis_hash) {
            return Err("a vote whose signature does not verify");
        }
        Ok(author)
    }

    /// Whether a proposal is what it says; returns the proposer's position.
    fn check_proposal(&self, proposal: &Proposal) -> Result<usize, &'static str> {
        let turn = self.validators.proposer(proposal.height, proposal.round);
        let (author, _) = self
            .validators
            .get(&proposal.proposer)
            .filter(|(_, proposer)| proposer.key == turn.key)
            .ok_or("a proposal of another than the round's proposer")?;
        if proposal
            .polka_round
            .is_some_and(|polka| polka >= proposal.round)
        {
            return Err("a proposal whose polka is not of an earlier round");
        }
        if !proposal.verify(&self.genesis_hash) {
            return Err("a proposal whose signature does not verify");
        }
        Ok(author)
    }

    /// A quorum of votes releases a held body, and precommits may decide without the engine.
    fn note_quorum(&mut self, round: Round, block: crate::types::BlockHash) {
        if self.book.has_quorum_for(block) {
            self.bodies
                .certify(self.height, block, round, None, Instant::now());
            self.decide_by_precommits(round, block);
        }
    }

    /// What the messages held before a height started say together: they are not seen again.
    pub(super) fn note_held_quorums(&mut self) {
        for (round, block) in self.book.quorums() {
            self.note_quorum(round, block);
        }
    }

    async fn on_proposal(
        &mut self,
        peer: PeerIp,
        proposal: Proposal,
    ) -> Result<(), ConsensusError> {
        let (height, round) = (proposal.height, proposal.round);
        if height < self.height {
            return self.remind(peer, height, &proposal.proposer).await;
        }
        let own = proposal.proposer == self.own;
        let Some(book) = self.book_of(height) else {
            return Ok(());
        };
        if book.settled_proposal(&proposal) || !(own || self.awaits_round(height, round)) {
            return Ok(());
        }
        let author = match self.check_proposal(&proposal) {
            Ok(author) => author,
            Err(reason) => {
                self.blame(peer, reason);
                return Ok(());
            }
        };
        let logged = height == self.height && self.log.holds_own_proposal(&proposal);
        if own && !logged && self.is_foreign(height, "proposal", round).await? {
            return Ok(());
        }
        if !self.awaits_round(height, round) {
            return Ok(());
        }
        let Some(book) = self.book_of_mut(height) else {
            return Ok(());
        };
        match book.add_proposal(proposal) {
            Added::Known => return Ok(()),
            Added::New => {}
            Added::Equivocation { evidence, feed } => {
                self.record(*evidence).await?;
                if !feed {
                    return Ok(());
                }
            }
        }
        // A fresh body is pushed by its proposer; others are fetched.
        let pusher = self.peers.ip(author);
        let pusher = pusher.filter(|_| proposal.polka_round.is_none());
        let now = Instant::now();
        self.bodies
            .name(height, proposal.block, round, Some(peer), pusher, now);
        self.pass_on(author, peer, &ConsensusMessage::Proposal(proposal));
        if height == self.height && self.running {
            self.feed(Input::Logged(Entry::Proposal(proposal))).await?;
        }
        Ok(())
    }

    fn on_body(&mut self, peer: PeerIp, header: BodyHeader, event: BodyEvent) {
        let now = Instant::now();
        let key = (header.height, header.block);
        let bytes = match event {
            BodyEvent::Started { .. } | BodyEvent::Progress { .. } => {
                return self.bodies.progress(key, peer, now);
            }
            BodyEvent::Failed => return self.bodies.failed(Some(key), peer, now),
            BodyEvent::Complete { bytes } => bytes.into_vec(),
        };
        if self.book_of(header.height).is_none() {
            return;
        }
        let proposer = self.validators.proposer(header.height, header.round);
        let sender = self.peers.masternode(&peer);
        let from_proposer = sender.is_some_and(|index| {
            self.validators.validators()[index].key == proposer.key
                && self.awaits_round(header.height, header.round)
        });
        match self.bodies.arrived(key, bytes, peer, from_proposer, now) {
            Ok(waiting) => {
                for waiting in waiting {
                    self.on_get_body(waiting, header.height, header.block);
                }
            }
            Err(refused) if refused.is_fault() => {
                self.blame(peer, &refused.to_string());
                self.bodies.failed(Some(key), peer, now);
            }
            Err(refused) => {
                tracing::debug!(peer.ip = %peer, height = %header.height, reason = %refused, "body dropped");
            }
        }
    }

    /// Feeds the engine unless the height has its outcome already.
    pub(super) async fn feed(&mut self, input: Input) -> Result<(), ConsensusError> {
        if self.decision.is_some() {
            return Ok(());
        }
        self.step(input).await
    }

    fn book_of(&self, height: Height) -> Option<&Book> {
        [&self.book, &self.next_book]
            .into_iter()
            .find(|book| book.height() == height)
    }

    pub(super) fn book_of_mut(&mut self, height: Height) -> Option<&mut Book> {
        [&mut self.book, &mut self.next_book]
            .into_iter()
            .find(|book| book.height() == height)
    }

    /// Whether messages of a round are taken: up to ten ahead of the current one.
    fn awaits_round(&self, height: Height, round: Round) -> bool {
        let current = match height == self.height && self.running {
            true => self.engine.round(),
            false => Round(0),
        };
        round.0 <= current.0.saturating_add(MAX_ROUNDS_AHEAD)
    }

    /// A message of this node's key that is not in its log. Where this node may not sign because it
    /// lost what it knew, it is its own from before, and counts like any other; otherwise somebody
    /// else signs with this key, and this node stops.
    pub(super) async fn is_foreign(
        &mut self,
        height: Height,
        what: &str,
        round: Round,
    ) -> Result<bool, ConsensusError> {
        if self.guard.refusal(height).is_some() {
            return Ok(false);
        }
        let reason = format!(
            "a {what} of this node's own key at height {height}, round {round}, is not in its log: \
             the key is in use elsewhere, or this node has lost state"
        );
        self.stop_signing(reason).await?;
        Ok(true)
    }

    /// Stores evidence of equivocation.
    pub(super) async fn record(&mut self, evidence: Evidence) -> Result<(), ConsensusError> {
        let sentence = evidence.sentence(&self.validators);
        tracing::error!(evidence = sentence, "equivocation");
        self.ports.add_evidence(codec::encode(&evidence)).await?;
        // The store keeps each piece once, and only so many.
        self.evidence = self.ports.evidence().await?.len() as u64;
        Ok(())
    }

    /// Counts a message that no honest peer sends.
    pub(super) fn blame(&mut self, peer: PeerIp, reason: &str) {
        if self.peers.count_bad(&peer, reason) {
            tracing::warn!(peer.ip = %peer, reason, "the peer is no longer heard until it reconnects");
        } else {
            tracing::debug!(peer.ip = %peer, reason, "bad consensus message");
        }
    }
}
