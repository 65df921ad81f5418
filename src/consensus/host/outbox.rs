//! What goes on to peers: messages that others lack, what a fresh stream begins with, and the certificate for one
//! that has missed a decision.

use std::time::Duration;

use tokio::time::Instant;

use super::Host;
use crate::consensus::ConsensusError;
use crate::consensus::ports::Ports;
use crate::types::{ConsensusKey, Height, PeerIp};
use crate::wire::ConsensusMessage;

/// A peer that still votes on the tip's height this long after its commit has missed the decision,
/// and is given the certificate, at most once in this time.
const REMIND_AFTER: Duration = Duration::from_secs(1);

/// A peer that connects gets this node's votes of so many rounds back.
const GREETING_ROUNDS: u32 = 10;

impl<P: Ports> Host<P> {
    pub(super) fn pass_on(&self, author: usize, from: PeerIp, message: &ConsensusMessage) {
        let to = self.peers.forward_to(author, Some(&from));
        self.send_all(&to, message);
    }

    pub(super) fn pass_on_certificate(&self, from: PeerIp, message: &ConsensusMessage) {
        if let Some(author) = self.peers.masternode(&from) {
            self.pass_on(author, from, message);
        }
    }

    /// Sends what is held of an author to a peer whose link to it has turned out to be missing.
    pub(super) fn pass_on_held(&self, author: usize, to: PeerIp) {
        let key = self.validators.validators()[author].key;
        for message in self.held_of(&key) {
            self.send(to, message);
        }
    }

    /// All proposals and votes of a key that are held, proposals first.
    fn held_of<'a>(&'a self, key: &'a ConsensusKey) -> impl Iterator<Item = ConsensusMessage> + 'a {
        [&self.book, &self.next_book].into_iter().flat_map(|book| {
            let proposals = book.proposals().filter(|one| one.proposer == *key);
            let votes = book.votes().filter(|one| one.voter == *key);
            proposals
                .copied()
                .map(ConsensusMessage::Proposal)
                .chain(votes.copied().map(ConsensusMessage::Vote))
        })
    }

    /// What a fresh consensus stream begins with.
    pub(super) async fn greet(
        &mut self,
        peer: PeerIp,
        masternode: usize,
    ) -> Result<(), ConsensusError> {
        self.load_last_commit().await?;
        let mut messages: Vec<ConsensusMessage> = Vec::new();
        messages.extend(self.last_commit.clone().map(ConsensusMessage::Commit));
        let theirs = self.validators.validators()[masternode].key;
        messages.extend(self.held_of(&theirs));
        let round = self.engine.round();
        let recent = round.0.saturating_sub(GREETING_ROUNDS);
        let mut pushed = None;
        if self.running {
            let entered = self.engine.round_certificate();
            let entered = entered.filter(|one| one.height == self.height);
            messages.extend(entered.map(ConsensusMessage::Round));
        }
        messages.extend(self.book.newest_polka().map(ConsensusMessage::Polka));
        for message in self.held_of(&self.own) {
            match &message {
                ConsensusMessage::Proposal(one) if one.round != round => continue,
                ConsensusMessage::Proposal(one) => pushed = Some(*one),
                ConsensusMessage::Vote(one) if one.round.0 < recent => continue,
                _ => {}
            }
            messages.push(message);
        }
        for message in messages {
            self.send(peer, message);
        }
        if let Some(proposal) = pushed {
            self.push_body(&proposal, &[peer]);
        }
        Ok(())
    }

    /// Gives the tip's certificate to a peer that still signs for the tip's height.
    pub(super) async fn remind(
        &mut self,
        peer: PeerIp,
        height: Height,
        author: &ConsensusKey,
    ) -> Result<(), ConsensusError> {
        let now = Instant::now();
        let sender = self.peers.masternode(&peer);
        let is_author = self.validators.get(author).map(|(index, _)| index) == sender;
        let last = self.reminded.get(&peer).unwrap_or(&self.committed_at);
        if height != self.tip.height || !is_author || now < *last + REMIND_AFTER {
            return Ok(());
        }
        self.reminded.insert(peer, now);
        self.load_last_commit().await?;
        if let Some(certificate) = self.last_commit.clone() {
            self.send(peer, ConsensusMessage::Commit(certificate));
        }
        Ok(())
    }

    /// Makes the tip's certificate available after the tip was moved by sync or by a restart.
    async fn load_last_commit(&mut self) -> Result<(), ConsensusError> {
        let held = self.last_commit.as_ref().map(|held| held.height);
        if held != Some(self.tip.height) && self.tip.height > Height::GENESIS {
            self.last_commit = self.ports.certificate(self.tip.height).await?;
        }
        Ok(())
    }
}
