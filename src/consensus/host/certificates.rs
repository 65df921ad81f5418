//! What comes as a certificate. The votes in it are looked at one by one as well: an equivocator may
//! have sent the one to some and the other to others, and so may somebody who has this node's key.

use tokio::time::Instant;

use super::Host;
use crate::consensus::ConsensusError;
use crate::consensus::engine::Input;
use crate::consensus::ports::Ports;
use crate::consensus::wal::Entry;
use crate::types::{CommitCertificate, Height, PeerIp, PolkaCertificate, RoundCertificate, Vote};
use crate::wire::ConsensusMessage;

impl<P: Ports> Host<P> {
    pub(super) async fn on_polka(
        &mut self,
        peer: PeerIp,
        polka: PolkaCertificate,
    ) -> Result<(), ConsensusError> {
        let (validators, genesis) = (self.validators.clone(), self.genesis_hash);
        let Some(book) = self.book_of_mut(polka.height) else {
            return Ok(());
        };
        if book.settled_polka(&polka) {
            return Ok(());
        }
        if let Err(error) = polka.verify(&validators, &genesis) {
            self.blame(peer, &format!("a polka certificate: {error}"));
            return Ok(());
        }
        book.add_polka(polka.clone());
        self.look_at(polka.votes()).await?;
        let (height, round, block) = (polka.height, polka.round, polka.block);
        self.bodies
            .certify(height, block, round, Some(peer), Instant::now());
        self.pass_on_certificate(peer, &ConsensusMessage::Polka(polka.clone()));
        if height == self.height && self.running {
            // What the polka releases goes first, so that the engine never meets the one without
            // the other.
            while self.feed_body().await? {}
            self.feed(Input::Logged(Entry::Polka(polka))).await?;
        }
        Ok(())
    }

    pub(super) async fn on_round_certificate(
        &mut self,
        peer: PeerIp,
        certificate: RoundCertificate,
    ) -> Result<(), ConsensusError> {
        let (validators, genesis) = (self.validators.clone(), self.genesis_hash);
        let running = self.running && certificate.height == self.height;
        let past = running && certificate.round < self.engine.round();
        let Some(book) = self.book_of_mut(certificate.height) else {
            return Ok(());
        };
        if past || book.settled_round_certificate(&certificate) {
            return Ok(());
        }
        if let Err(error) = certificate.verify(&validators, &genesis) {
            self.blame(peer, &format!("a round certificate: {error}"));
            return Ok(());
        }
        book.add_round_certificate(certificate.clone());
        self.look_at(certificate.votes()).await?;
        self.pass_on_certificate(peer, &ConsensusMessage::Round(certificate.clone()));
        if running {
            self.feed(Input::Round(certificate)).await?;
        }
        Ok(())
    }

    pub(super) async fn on_commit(
        &mut self,
        peer: PeerIp,
        certificate: CommitCertificate,
    ) -> Result<(), ConsensusError> {
        let awaited = certificate.height == self.height && self.decision.is_none();
        let early = certificate.height == self.height.next() && self.next_book.commit().is_none();
        // To a node without any state a certificate of whatever height tells that it lost it.
        let telling = self.guard.may_have_lost_state() && certificate.height > Height::GENESIS;
        if !(awaited || early || telling) {
            return Ok(());
        }
        if let Err(error) = certificate.verify(&self.validators, &self.genesis_hash) {
            self.blame(peer, &format!("a commit certificate: {error}"));
            return Ok(());
        }
        self.guard.chain_has_blocks();
        if self.guard.refusal(self.height).is_some() {
            self.sign_no_more();
        }
        if awaited || early {
            self.look_at(certificate.votes()).await?;
        }
        if awaited {
            self.decide(certificate, false, Some(peer));
        } else if early {
            self.next_book.set_commit(certificate);
        }
        Ok(())
    }

    /// Looks at the votes of a verified certificate of this height or the next: one of the own key
    /// that is not in the log stops signing, and one that contradicts another is evidence. The
    /// certificate counts all the same.
    async fn look_at(&mut self, votes: impl Iterator<Item = Vote>) -> Result<(), ConsensusError> {
        for vote in votes {
            let logged = vote.height == self.height && self.log.holds_own_vote(&vote);
            if vote.voter == self.own && !logged {
                self.is_foreign(vote.height, "vote", vote.round).await?;
            }
            let book = self.book_of_mut(vote.height);
            if let Some(evidence) = book.and_then(|book| book.compare(vote)) {
                self.record(*evidence).await?;
            }
        }
        Ok(())
    }
}
