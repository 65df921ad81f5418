//! Block bodies of the height being decided and of the next.
//!
//! The gate: the engine is given a body only once a verified proposal of its round's proposer, or a
//! verified certificate, names its hash. Until then at most one body a peer and
//! [`MAX_UNNAMED`] in all are kept, and only from the proposer of the round that it is sent for.
//! Bodies of the next height wait for their parent. At most [`MAX_HELD`] are kept: certified ones and
//! those of the current round go last; one that was dropped and is needed again is fetched again.
//!
//! A body that breaks only a rule which time or agreement can lift (its time is too far ahead of
//! this clock; it is empty in round 0 before its slot) is held, never given as invalid: it is given
//! as valid when the clock allows it, or when a quorum has voted for it. Dropped meanwhile, it stays
//! held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::wal::ProposedBlock;
use crate::types::block::transactions_root;
use crate::types::codec::{self, CodecError};
use crate::types::{Block, BlockHash, Genesis, Height, PeerIp, Round, ValidatorSet};

/// The most bodies that are kept before anything verified names them.
pub(super) const MAX_UNNAMED: usize = 8;

/// The most bodies that are kept in all.
pub(super) const MAX_HELD: usize = 16;

/// A holder that makes no progress for this long is replaced by the next; one that makes some, after
/// the time for which a round waits for a body.
pub(super) const FETCH_PATIENCE: Duration = Duration::from_secs(1);

/// How far a fresh block's time may be ahead of the receiver's clock.
pub(super) const MAX_AHEAD_MS: u64 = 10_000;

/// Why a body is not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyRefused {
    #[error("the body does not decode: {0}")]
    Malformed(#[from] CodecError),
    #[error("the body has {bytes} bytes, more than the {limit} that genesis allows")]
    TooLong { bytes: usize, limit: usize },
    #[error("the body is of block {found}, not {announced}")]
    OtherBlock {
        announced: BlockHash,
        found: BlockHash,
    },
    #[error("the body's transactions are not those that block {0} commits to")]
    OtherTransactions(BlockHash),
    #[error("nothing asks for the body")]
    NotWanted,
}

impl BodyRefused {
    /// Whether an honest peer never does this.
    pub(super) fn is_fault(&self) -> bool {
        !matches!(self, BodyRefused::NotWanted)
    }
}

/// A whole body.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) block: Arc<Block>,
    pub(super) bytes: Arc<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Unchecked,
    Checking,
    Valid,
    Invalid,
}

#[derive(Debug)]
struct Body {
    /// The rounds for which something verified names it: at most two bodies a round.
    rounds: BTreeSet<Round>,
    /// A quorum has voted for it.
    certified: bool,
    content: Option<Content>,
    verdict: Verdict,
    fed: bool,
    /// Its content was dropped to keep the bound.
    evicted: bool,
    /// Who sent it before it was named.
    pushed_by: Option<PeerIp>,
    /// Who is expected to send it since when, and when the next is asked.
    asked: Option<PeerIp>,
    asked_at: Instant,
    next_try: Instant,
    tried: BTreeSet<PeerIp>,
    /// Who named it to this node: they may hold it.
    sources: BTreeSet<PeerIp>,
    last_progress: Instant,
    /// Peers that asked for it before it was here.
    wanted_by: BTreeSet<PeerIp>,
}

impl Body {
    fn new(now: Instant) -> Self {
        Self {
            rounds: BTreeSet::new(),
            certified: false,
            content: None,
            verdict: Verdict::Unchecked,
            fed: false,
            evicted: false,
            pushed_by: None,
            asked: None,
            asked_at: now,
            next_try: now,
            tried: BTreeSet::new(),
            sources: BTreeSet::new(),
            last_progress: now,
            wanted_by: BTreeSet::new(),
        }
    }

    fn is_named(&self) -> bool {
        !self.rounds.is_empty() || self.certified
    }

    /// The newest round for which it is named.
    fn newest(&self) -> Option<Round> {
        self.rounds.last().copied()
    }

    /// Whether the engine needs it in this round. Of an earlier one it needs only what a quorum wants.
    fn is_due(&self, round: Round) -> bool {
        self.certified || self.rounds.contains(&round)
    }

    /// How far the nearest of its rounds is from this one.
    fn distance(&self, round: Round) -> u32 {
        let distances = self.rounds.iter().map(|named| named.0.abs_diff(round.0));
        distances.min().unwrap_or_default()
    }

    fn is_missing(&self) -> bool {
        self.content.is_none() && self.is_named() && !self.evicted
    }
}

/// The bodies of the height being decided and of the next.
pub(super) struct Bodies {
    genesis: Arc<Genesis>,
    validators: Arc<ValidatorSet>,
    height: Height,
    round: Round,
    parent_ms: u64,
    bodies: BTreeMap<(Height, BlockHash), Body>,
}

impl Bodies {
    pub(super) fn new(genesis: Arc<Genesis>, validators: Arc<ValidatorSet>) -> Self {
        Self {
            genesis,
            validators,
            height: Height::GENESIS,
            round: Round(0),
            parent_ms: 0,
            bodies: BTreeMap::new(),
        }
    }

    /// Moves to a height; bodies of lower ones are dropped.
    pub(super) fn set_height(&mut self, height: Height, parent_ms: u64) {
        self.height = height;
        self.parent_ms = parent_ms;
        self.bodies.retain(|(of, _), _| *of >= height);
        self.set_round(Round(0));
    }

    /// Moves to a round: what was dropped of it before it came is fetched again.
    pub(super) fn set_round(&mut self, round: Round) {
        self.round = round;
        let height = self.height;
        for ((of, _), body) in &mut self.bodies {
            if *of == height && body.rounds.contains(&round) && !body.fed {
                body.evicted = false;
            }
        }
    }

    /// A verified proposal names a body. `pusher` is its proposer, when that one is connected and
    /// will send the body by itself.
    pub(super) fn name(
        &mut self,
        height: Height,
        block: BlockHash,
        round: Round,
        source: Option<PeerIp>,
        pusher: Option<PeerIp>,
        now: Instant,
    ) {
        let body = self.entry(height, block, now);
        let first = !body.is_named();
        body.rounds.insert(round);
        body.sources.extend(source);
        body.evicted = false;
        if first {
            body.pushed_by = None;
            body.last_progress = now;
            (body.asked, body.asked_at) = (pusher, now);
            body.next_try = match pusher {
                Some(_) => now + FETCH_PATIENCE,
                None => now,
            };
        }
    }

    /// A verified polka, a quorum of precommits or a commit certificate names a body: its time no
    /// longer matters.
    pub(super) fn certify(
        &mut self,
        height: Height,
        block: BlockHash,
        round: Round,
        source: Option<PeerIp>,
        now: Instant,
    ) {
        let body = self.entry(height, block, now);
        body.certified = true;
        body.pushed_by = None;
        body.evicted = false;
        if body.rounds.is_empty() {
            body.rounds.insert(round);
        }
        body.sources.extend(source);
    }

    fn entry(&mut self, height: Height, block: BlockHash, now: Instant) -> &mut Body {
        self.bodies
            .entry((height, block))
            .or_insert_with(|| Body::new(now))
    }

    /// A whole body has arrived. `from_proposer`: its sender is the proposer of the round for which
    /// it was sent. Returns who asked for it meanwhile.
    pub(super) fn arrived(
        &mut self,
        key: (Height, BlockHash),
        bytes: Vec<u8>,
        from: PeerIp,
        from_proposer: bool,
        now: Instant,
    ) -> Result<Vec<PeerIp>, BodyRefused> {
        let named = match self.bodies.get(&key) {
            Some(body) if body.content.is_some() => return Err(BodyRefused::NotWanted),
            Some(body) => body.is_named(),
            None => false,
        };
        let acceptable = named || (from_proposer && self.make_room_unnamed(&from));
        if !acceptable {
            return Err(BodyRefused::NotWanted);
        }
        let content = self.decode(key, bytes)?;
        let body = self.entry(key.0, key.1, now);
        body.content = Some(content);
        body.evicted = false;
        body.last_progress = now;
        body.pushed_by = (!named).then_some(from);
        let waiting = std::mem::take(&mut body.wanted_by).into_iter().collect();
        self.evict();
        Ok(waiting)
    }

    fn decode(&self, key: (Height, BlockHash), bytes: Vec<u8>) -> Result<Content, BodyRefused> {
        let limit = self.genesis.max_block_bytes as usize;
        if bytes.len() > limit {
            let bytes = bytes.len();
            return Err(BodyRefused::TooLong { bytes, limit });
        }
        let block: Block = codec::decode(&bytes)?;
        let found = block.hash();
        if (block.header.height, found) != key {
            return Err(BodyRefused::OtherBlock {
                announced: key.1,
                found,
            });
        }
        // The hash covers the header alone. Without this check whoever delivers a body could have
        // an honest block found invalid for good.
        if transactions_root(&block.transactions) != block.header.transactions_root {
            return Err(BodyRefused::OtherTransactions(found));
        }
        Ok(Content {
            block: Arc::new(block),
            bytes: Arc::new(bytes),
        })
    }

    /// Whether one more unnamed body of this peer may be kept; its older one gives way.
    fn make_room_unnamed(&mut self, from: &PeerIp) -> bool {
        self.bodies
            .retain(|_, body| body.pushed_by.as_ref() != Some(from));
        let unnamed = self.bodies.values().filter(|body| body.pushed_by.is_some());
        unnamed.count() < MAX_UNNAMED
    }

    /// Drops contents beyond the bound: of the next height first, then of rounds far from the
    /// current one, certified ones last.
    fn evict(&mut self) {
        let (height, round) = (self.height, self.round);
        loop {
            let held = self.bodies.values().filter(|body| body.content.is_some());
            if held.count() <= MAX_HELD {
                return;
            }
            let least_needed = self
                .bodies
                .iter_mut()
                .filter(|(_, body)| body.content.is_some() && body.pushed_by.is_none())
                .max_by_key(|((of, _), body)| {
                    (!body.certified, *of > height, body.distance(round))
                });
            let Some((_, body)) = least_needed else {
                return;
            };
            body.content = None;
            body.evicted = true;
        }
    }

    /// Takes a block that this node built, checked by building it.
    pub(super) fn insert_built(&mut self, block: Block, round: Round, now: Instant) -> BlockHash {
        let hash = block.hash();
        let bytes = Arc::new(codec::encode(&block));
        let height = block.header.height;
        let body = self.entry(height, hash, now);
        body.content = Some(Content {
            block: Arc::new(block),
            bytes,
        });
        body.rounds.insert(round);
        body.verdict = Verdict::Valid;
        body.fed = true;
        self.evict();
        hash
    }

    /// Takes a body from the log, whose verdict the engine replays.
    pub(super) fn restore(
        &mut self,
        block: BlockHash,
        bytes: Vec<u8>,
        now: Instant,
    ) -> Result<(), BodyRefused> {
        let key = (self.height, block);
        let content = self.decode(key, bytes)?;
        let body = self.entry(key.0, key.1, now);
        body.content = Some(content);
        Ok(())
    }

    /// The engine was given this verdict in an earlier run.
    pub(super) fn restore_verdict(&mut self, value: &ProposedBlock, now: Instant) {
        let body = self.entry(value.height, value.block, now);
        body.rounds.insert(value.round);
        body.fed = true;
        body.evicted = body.content.is_none();
        body.verdict = match value.valid {
            true => Verdict::Valid,
            false => Verdict::Invalid,
        };
    }

    pub(super) fn content(&self, height: Height, block: BlockHash) -> Option<&Content> {
        self.bodies.get(&(height, block))?.content.as_ref()
    }

    /// Blocks of the current height that are due, here, and not yet checked: checks, builds and
    /// commits wait for each other, so that blocks of other rounds would hold up those of this
    /// one. Each is returned once: the answer goes to [`Self::checked`].
    pub(super) fn take_unchecked(&mut self) -> Vec<(BlockHash, Arc<Block>)> {
        let (height, round) = (self.height, self.round);
        let mut blocks = Vec::new();
        for ((of, hash), body) in &mut self.bodies {
            let ready = *of == height && body.is_due(round) && body.verdict == Verdict::Unchecked;
            if let (true, Some(content)) = (ready, &body.content) {
                body.verdict = Verdict::Checking;
                blocks.push((*hash, content.block.clone()));
            }
        }
        blocks
    }

    /// The chain's verdict on a block; `None` when it could not tell.
    pub(super) fn checked(&mut self, height: Height, block: BlockHash, valid: Option<bool>) {
        if let Some(body) = self.bodies.get_mut(&(height, block)) {
            body.verdict = match valid {
                Some(true) => Verdict::Valid,
                Some(false) => Verdict::Invalid,
                None => Verdict::Unchecked,
            };
        }
    }

    /// The next verdict to give to the engine. Each is returned once.
    pub(super) fn take_feedable(&mut self, clock_ms: u64) -> Option<ProposedBlock> {
        let height = self.height;
        let hash = self
            .bodies
            .iter()
            .filter(|((of, _), body)| *of == height && body.is_named() && !body.fed)
            .find(|(_, body)| match body.verdict {
                Verdict::Valid => self.released(body, clock_ms),
                Verdict::Invalid => true,
                Verdict::Unchecked | Verdict::Checking => false,
            })
            .map(|((_, hash), _)| *hash)?;
        let body = self.bodies.get_mut(&(height, hash))?;
        body.fed = true;
        let round = body.newest().unwrap_or_default();
        Some(ProposedBlock {
            height,
            round,
            proposer: self.validators.proposer(height, round).key,
            block: hash,
            valid: body.verdict == Verdict::Valid,
        })
    }

    /// Whether no rule that binds fresh proposals only holds a valid body back.
    fn released(&self, body: &Body, clock_ms: u64) -> bool {
        if body.certified {
            return true;
        }
        // Whether the rules hold a body that was dropped is known when it is here again.
        let Some(content) = &body.content else {
            return false;
        };
        let time_ms = content.block.header.time_ms;
        let in_parents_slot = self.genesis.slot_at(time_ms) <= self.genesis.slot_at(self.parent_ms);
        // The current round: who proposes later can name a block of this one.
        let too_early =
            content.block.transactions.is_empty() && self.round == Round(0) && in_parents_slot;
        !too_early && time_ms <= clock_ms.saturating_add(MAX_AHEAD_MS)
    }

    /// When the clock next releases a held body, Unix milliseconds.
    pub(super) fn next_release_ms(&self, clock_ms: u64) -> Option<u64> {
        self.bodies
            .iter()
            .filter(|((of, _), body)| {
                *of == self.height && body.is_named() && !body.fed && body.verdict == Verdict::Valid
            })
            .filter_map(|(_, body)| body.content.as_ref())
            .map(|content| content.block.header.time_ms.saturating_sub(MAX_AHEAD_MS))
            .filter(|at| *at > clock_ms)
            .min()
    }

    /// When a body that a round waits for last made progress; `None` when it is not awaited.
    pub(super) fn last_progress(&self, block: BlockHash, now: Instant) -> Option<Instant> {
        let body = self.bodies.get(&(self.height, block))?;
        match (&body.content, body.verdict) {
            (None, _) => body.is_missing().then_some(body.last_progress),
            (Some(_), Verdict::Unchecked | Verdict::Checking) => Some(now),
            (Some(_), Verdict::Valid | Verdict::Invalid) => None,
        }
    }

    /// The newest round for which a body is named.
    pub(super) fn round_of(&self, height: Height, block: BlockHash) -> Option<Round> {
        self.bodies.get(&(height, block))?.newest()
    }
}

mod requests;
#[cfg(test)]
mod tests;
