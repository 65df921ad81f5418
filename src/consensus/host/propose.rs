//! Bodies on their way to the engine and to peers: building, checking, feeding, fetching, pushing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Done, Host};
use crate::chain::ChainError;
use crate::consensus::ConsensusError;
use crate::consensus::engine::Input;
use crate::consensus::ports::Ports;
use crate::consensus::timers;
use crate::consensus::wal::Entry;
use crate::types::{Block, BlockHash, Height, PeerIp, Proposal, Round, codec};
use crate::wire::{BodyHeader, ConsensusMessage};

/// However many rounds failed, a block may have this many bytes.
const MIN_BLOCK_BYTES: usize = 64 * 1024;

/// After a build that gave nothing to propose, the next waits this long.
const BUILD_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A peer gets a body at most once in this time.
const SERVE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Bodies of so many final heights are sent to peers that have not committed them yet.
const SERVED_HEIGHTS: u64 = 8;

/// The block that this node is to propose.
#[derive(Debug, Default)]
pub(super) struct Build {
    /// The round for which the engine wants a block.
    wanted: Option<Round>,
    in_progress: bool,
    not_before: Option<Instant>,
    /// What was built for a round of this height: a restart proposes it again.
    built: BTreeMap<Round, BlockHash>,
    /// How often the next block is halved, because rounds of this node failed.
    halvings: u32,
}

impl Build {
    pub(super) fn reset(&mut self) {
        self.new_round();
        self.built.clear();
    }

    pub(super) fn new_round(&mut self) {
        self.wanted = None;
        self.in_progress = false;
        self.not_before = None;
    }

    pub(super) fn want(&mut self, round: Round) {
        self.wanted = Some(round);
    }

    pub(super) fn note_built(&mut self, round: Round, block: BlockHash) {
        self.built.insert(round, block);
    }

    pub(super) fn round_failed(&mut self) {
        self.halvings = self.halvings.saturating_add(1);
    }

    pub(super) fn own_block_decided(&mut self) {
        self.halvings = 0;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some() && !self.in_progress
    }

    pub(super) fn next_attempt(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.is_wanted())
    }

    /// How long the next block may be.
    fn max_bytes(&self, limit: u32) -> usize {
        let limit = limit as usize;
        let halved = limit.checked_shr(self.halvings).unwrap_or(0);
        halved.max(MIN_BLOCK_BYTES.min(limit))
    }
}

impl<P: Ports> Host<P> {
    /// Begins to build when the engine wants a block and the rules allow one; true when the engine
    /// was given a block at once.
    pub(super) async fn build_if_due(&mut self) -> Result<bool, ConsensusError> {
        let now = Instant::now();
        let Some(round) = self.build.wanted.filter(|_| self.build.is_wanted()) else {
            return Ok(false);
        };
        if self.decision.is_some() {
            self.build.wanted = None;
            return Ok(false);
        }
        let proposals = self.book.proposals_of(round);
        if proposals.iter().any(|one| one.proposer == self.own) {
            self.build.wanted = None;
            return Ok(false);
        }
        if let Some(block) = self.build.built.get(&round).copied()
            && self.bodies.content(self.height, block).is_some()
        {
            self.propose(round, block).await?;
            return Ok(true);
        }
        let may_be_empty = round > Round(0) || self.until_boundary().is_zero();
        let too_soon = self.build.not_before.is_some_and(|at| at > now);
        if too_soon || !(may_be_empty || *self.ready.borrow()) {
            return Ok(false);
        }
        self.build.in_progress = true;
        let (ports, own, height) = (self.ports.clone(), self.own, self.height);
        let time_ms = self.clock.now_ms().max(self.tip.time_ms.saturating_add(1));
        let max_bytes = self.build.max_bytes(self.genesis.max_block_bytes);
        self.tasks.spawn(async move {
            Done::Built {
                height,
                round,
                result: ports.build_block(own, time_ms, max_bytes).await,
            }
        });
        Ok(false)
    }

    pub(super) async fn on_built(
        &mut self,
        height: Height,
        round: Round,
        result: Result<Block, ChainError>,
    ) -> Result<(), ConsensusError> {
        let awaited = height == self.height && self.build.wanted == Some(round);
        if !awaited || !self.running || self.decision.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        self.build.in_progress = false;
        let block = match result {
            Ok(block) => block,
            Err(error @ (ChainError::Invalid(_) | ChainError::NotNext { .. })) => {
                tracing::warn!(%height, %round, reason = %error, "no block could be built");
                self.build.not_before = Some(now + BUILD_AGAIN_AFTER);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let slot = self.genesis.slot_at(block.header.time_ms);
        let in_parents_slot = slot <= self.genesis.slot_at(self.tip.time_ms);
        if block.transactions.is_empty() && round == Round(0) && in_parents_slot {
            // What waited did not apply: an empty block has to wait for its slot.
            self.build.not_before = Some(now + BUILD_AGAIN_AFTER);
            return Ok(());
        }
        let hash = self.bodies.insert_built(block, round, now);
        self.build.note_built(round, hash);
        self.propose(round, hash).await
    }

    async fn propose(&mut self, round: Round, block: BlockHash) -> Result<(), ConsensusError> {
        self.build.wanted = None;
        let height = self.height;
        self.step(Input::Propose {
            height,
            round,
            block,
        })
        .await
    }

    /// Sends this node's own fresh block to peers. Whoever lacks the body of a re-proposal asks.
    pub(super) fn push_body(&self, proposal: &Proposal, to: &[PeerIp]) {
        if proposal.proposer != self.own || proposal.polka_round.is_some() {
            return;
        }
        let Some(content) = self.bodies.content(proposal.height, proposal.block) else {
            return;
        };
        let header = BodyHeader {
            height: proposal.height,
            round: proposal.round,
            block: proposal.block,
        };
        for peer in to {
            self.send_body(*peer, header, content.bytes.clone());
        }
    }

    pub(super) fn send_body(&self, to: PeerIp, header: BodyHeader, bytes: Arc<Vec<u8>>) {
        if let Err(error) = self.ports.send_body(to, header, bytes) {
            tracing::debug!(peer.ip = %to, height = %header.height, reason = %error, "body not sent");
        }
    }

    pub(super) fn send(&self, to: PeerIp, message: ConsensusMessage) {
        if let Err(error) = self.ports.send(to, message) {
            tracing::debug!(peer.ip = %to, reason = %error, "consensus message not sent");
        }
    }

    pub(super) fn send_all(&self, to: &[PeerIp], message: &ConsensusMessage) {
        for peer in to {
            self.send(*peer, message.clone());
        }
    }

    /// Starts the checks that are due, and gives the engine one verdict; true when it did.
    pub(super) async fn feed_body(&mut self) -> Result<bool, ConsensusError> {
        for (hash, block) in self.bodies.take_unchecked() {
            let (ports, height) = (self.ports.clone(), self.height);
            let check = self.tasks.spawn(async move {
                Done::Checked {
                    height,
                    block: hash,
                    result: ports.check_block(block).await,
                }
            });
            self.checks.insert(hash, check);
        }
        if !self.running || self.decision.is_some() {
            return Ok(false);
        }
        let Some(value) = self.bodies.take_feedable(self.clock.now_ms()) else {
            return Ok(false);
        };
        self.step(Input::Logged(Entry::Value(value))).await?;
        Ok(true)
    }

    /// Ends all checks, or all but that of one block: a decided one would wait for its turn behind
    /// them. What has begun on another thread ends there, with nobody waiting for it.
    pub(super) fn drop_checks(&mut self, but: Option<BlockHash>) {
        self.checks.retain(|block, check| {
            let stays = but == Some(*block);
            if !stays {
                check.abort();
            }
            stays
        });
    }

    pub(super) fn on_checked(
        &mut self,
        height: Height,
        block: BlockHash,
        result: Result<(), ChainError>,
    ) -> Result<(), ConsensusError> {
        if height != self.height {
            return Ok(());
        }
        self.checks.remove(&block);
        let valid = match result {
            Ok(()) => Some(true),
            Err(ChainError::Invalid(error)) => {
                self.blame_proposers(block, &error.to_string());
                Some(false)
            }
            // The tip has moved meanwhile: the block is checked again if it still matters.
            Err(ChainError::NotNext { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        self.bodies.checked(height, block, valid);
        Ok(())
    }

    /// A block that is not valid was proposed: those who signed for it have done wrong.
    fn blame_proposers(&mut self, block: BlockHash, reason: &str) {
        let (height, reason) = (self.height, format!("an invalid block: {reason}"));
        let of_block = self.book.proposals().filter(|one| one.block == block);
        for proposal in of_block {
            if let Some((index, proposer)) = self.validators.get(&proposal.proposer) {
                let name = &proposer.name;
                tracing::warn!(%height, %block, proposer = name, reason, "a proposed block is invalid");
                self.peers.blame(index, &reason);
            }
        }
    }

    /// Gives the engine one timeout that is due; true when it did.
    pub(super) async fn fire_timer(&mut self) -> Result<bool, ConsensusError> {
        if !self.running || self.decision.is_some() {
            return Ok(false);
        }
        let now = Instant::now();
        let longest = timers::longest_hold(&self.genesis);
        let (book, bodies) = (&self.book, &self.bodies);
        let hold = |round: Round, armed_at: Instant| {
            let proposals = book.proposals_of(round).iter();
            let progress = proposals
                .filter_map(|proposal| bodies.last_progress(proposal.block, now))
                .max();
            timers::held_until(now, armed_at, longest, progress)
        };
        let Some(timeout) = self.timers.take_due(now, hold) else {
            return Ok(false);
        };
        self.step(Input::Logged(Entry::Timeout(timeout))).await?;
        Ok(true)
    }

    /// Asks for bodies that are missing, one holder each.
    pub(super) fn request_bodies(&mut self) {
        let (book, peers, validators) = (&self.book, &self.peers, &self.validators);
        let height = self.height;
        let holders = |block: BlockHash| -> Vec<PeerIp> {
            let mut keys = book.voters_for(block);
            for proposal in book.proposals().filter(|one| one.block == block) {
                keys.insert(proposal.proposer);
            }
            keys.iter()
                .filter_map(|key| validators.get(key))
                .filter_map(|(index, _)| peers.ip(index))
                .collect()
        };
        let requests = self
            .bodies
            .take_requests(Instant::now(), &peers.all(), holders);
        for (peer, block) in requests {
            tracing::debug!(peer.ip = %peer, %height, %block, "asking for a body");
            self.send(peer, ConsensusMessage::GetBody { height, block });
        }
    }

    /// Answers a request for a body: now, when it arrives, or not at all.
    pub(super) fn on_get_body(&mut self, peer: PeerIp, height: Height, block: BlockHash) {
        let now = Instant::now();
        // A final height has one block, so what may be asked for is bounded whatever a peer names.
        let undecided = (height > self.tip.height).then_some(block);
        let slot = (peer, height, undecided);
        let again = self.served.get(&slot);
        if again.is_some_and(|at| now < *at + SERVE_AGAIN_AFTER) {
            return;
        }
        if let Some(content) = self.bodies.content(height, block) {
            let header = self.body_header(height, block);
            self.send_body(peer, header, content.bytes.clone());
            self.served.insert(slot, now);
            return;
        }
        match &self.last_body {
            Some((of, hash, bytes)) if (*of, *hash) == (height, block) => {
                let header = self.body_header(height, block);
                self.send_body(peer, header, bytes.clone());
                self.served.insert(slot, now);
            }
            _ if height <= self.tip.height => {
                // Whoever is further behind is served by sync.
                if self.tip.height.0 - height.0 < SERVED_HEIGHTS {
                    self.served.insert(slot, now);
                    let ports = self.ports.clone();
                    self.tasks.spawn(async move {
                        Done::Loaded {
                            peer,
                            block,
                            result: ports.block(height).await,
                        }
                    });
                }
            }
            _ => self.bodies.want((height, block), peer),
        }
    }

    /// Sends a committed block that was read for a peer.
    pub(super) fn serve_committed(&self, peer: PeerIp, block: &Block) {
        let header = self.body_header(block.header.height, block.hash());
        self.send_body(peer, header, Arc::new(codec::encode(block)));
    }

    pub(super) fn body_header(&self, height: Height, block: BlockHash) -> BodyHeader {
        BodyHeader {
            height,
            round: self.bodies.round_of(height, block).unwrap_or_default(),
            block,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_rounds_halve_the_next_block_down_to_a_floor() {
        let mut build = Build::default();
        assert_eq!(build.max_bytes(4_000_000), 4_000_000);
        build.round_failed();
        assert_eq!(build.max_bytes(4_000_000), 2_000_000);
        for _ in 0..100 {
            build.round_failed();
        }
        assert_eq!(build.max_bytes(4_000_000), MIN_BLOCK_BYTES);
        assert_eq!(build.max_bytes(1_000), 1_000);
        build.own_block_decided();
        assert_eq!(build.max_bytes(4_000_000), 4_000_000);
    }
}
