//! What stands in the consensus log of a height, and the buffer in front of it.
//!
//! The first entry of a log is always [`Entry::Opened`], written before `consensus.state` names the
//! height: so a log without it, at a height that the file names, was lost. Entries are buffered
//! while the engine works through one input and become durable together, with the bodies that they
//! name, before anything of that input is sent: the log is always a whole number of inputs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::timers::Timeout;
use crate::types::codec::{self, CodecError};
use crate::types::{
    BlockHash, CommitCertificate, ConsensusKey, Height, PolkaCertificate, Proposal, Round, Vote,
    VoteKind,
};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// The log of this height exists: this node may sign at it.
    Opened(Height),
    /// Signing stopped in the middle of this height, with the reason.
    Stopped(String),
    /// A vote, own or received.
    Vote(Vote),
    /// A proposal, own or received.
    Proposal(Proposal),
    /// The verdict on a body.
    Value(ProposedBlock),
    /// A polka certificate.
    Polka(PolkaCertificate),
    /// A timeout that elapsed.
    Timeout(Timeout),
}

/// A body's verdict, as it was given to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProposedBlock {
    pub(super) height: Height,
    pub(super) round: Round,
    pub(super) proposer: ConsensusKey,
    pub(super) block: BlockHash,
    pub(super) valid: bool,
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DamagedLog {
    #[error("entry {position} of the consensus log of height {height} is damaged: {source}")]
    Entry {
        height: Height,
        position: usize,
        source: CodecError,
    },
    #[error("the consensus log of height {height} does not begin with its own opening entry")]
    Opening { height: Height },
}

/// Decodes a log; the opening entry is checked and left out. An empty log gives `None`.
pub(super) fn decode(
    height: Height,
    entries: &[Vec<u8>],
) -> Result<Option<Vec<Entry>>, DamagedLog> {
    let mut decoded = Vec::with_capacity(entries.len());
    for (position, bytes) in entries.iter().enumerate() {
        let entry = codec::decode(bytes).map_err(|source| DamagedLog::Entry {
            height,
            position,
            source,
        })?;
        decoded.push(entry);
    }
    if decoded.is_empty() {
        return Ok(None);
    }
    if decoded[0] != Entry::Opened(height) {
        return Err(DamagedLog::Opening { height });
    }
    decoded.remove(0);
    Ok(Some(decoded))
}

/// What must become durable next, for one height.
#[derive(Debug)]
pub(super) struct LogBuffer {
    /// Off at heights at which this node may not sign: their log would look like one that was kept.
    enabled: bool,
    /// Whether this node signs, so that what comes of the own key is its own.
    signing: bool,
    pending: Vec<Vec<u8>>,
    /// How many entries the log holds, its opening included.
    entries: u64,
    /// Whether a pending entry is this node's own signature.
    signed: bool,
    /// Bodies named by pending entries.
    named: BTreeSet<BlockHash>,
    /// Bodies that the log already holds.
    written: BTreeSet<BlockHash>,
    /// While replaying: what the log holds, so that nothing is appended again.
    replaying: Option<BTreeSet<Vec<u8>>>,
    /// What this node has signed at the height.
    own_votes: BTreeSet<(VoteKind, Round, Option<BlockHash>)>,
    own_proposals: BTreeSet<(Round, BlockHash)>,
}

impl LogBuffer {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            signing: enabled,
            pending: Vec::new(),
            entries: 1,
            signed: false,
            named: BTreeSet::new(),
            written: BTreeSet::new(),
            replaying: None,
            own_votes: BTreeSet::new(),
            own_proposals: BTreeSet::new(),
        }
    }

    /// A buffer over a log that is about to be replayed.
    pub(super) fn replaying(
        entries: &[Entry],
        bodies: impl IntoIterator<Item = BlockHash>,
        own: &ConsensusKey,
    ) -> Self {
        let mut buffer = Self::new(true);
        for entry in entries {
            buffer.note_own(entry, own);
        }
        buffer.entries += entries.len() as u64;
        buffer.replaying = Some(entries.iter().map(codec::encode).collect());
        buffer.written = bodies.into_iter().collect();
        buffer
    }

    /// From here on, what comes of the own key was not signed by this node.
    pub(super) fn stop_signing(&mut self) {
        self.signing = false;
    }

    pub(super) fn is_signing(&self) -> bool {
        self.signing
    }

    pub(super) fn end_replay(&mut self) {
        self.replaying = None;
    }

    /// Buffers an entry. During replay only what the log does not hold yet: a message that was
    /// signed just now must become durable like any other.
    pub(super) fn append(&mut self, entry: &Entry, own: &ConsensusKey) {
        if !self.enabled {
            return;
        }
        let own_signature = self.signing && self.note_own(entry, own);
        let bytes = codec::encode(entry);
        if let Some(known) = &self.replaying
            && known.contains(&bytes)
        {
            return;
        }
        self.signed |= own_signature;
        if let Entry::Value(value) = entry
            && value.valid
            && !self.written.contains(&value.block)
        {
            self.named.insert(value.block);
        }
        self.pending.push(bytes);
    }

    /// Remembers what this node has signed; false when it is another's, or no signature.
    fn note_own(&mut self, entry: &Entry, own: &ConsensusKey) -> bool {
        match entry {
            Entry::Vote(vote) if vote.voter == *own => {
                self.own_votes.insert((vote.kind, vote.round, vote.block));
            }
            Entry::Proposal(proposal) if proposal.proposer == *own => {
                self.own_proposals.insert((proposal.round, proposal.block));
            }
            _ => return false,
        }
        true
    }

    /// Whether this node's log holds this vote of its own key.
    pub(super) fn holds_own_vote(&self, vote: &Vote) -> bool {
        self.own_votes
            .contains(&(vote.kind, vote.round, vote.block))
    }

    /// Whether this node's log holds its own precommit for what a certificate decides.
    pub(super) fn holds_own_precommit_of(&self, certificate: &CommitCertificate) -> bool {
        let slot = (
            VoteKind::Precommit,
            certificate.round,
            Some(certificate.block),
        );
        self.own_votes.contains(&slot)
    }

    /// Whether this node's log holds this proposal of its own key.
    pub(super) fn holds_own_proposal(&self, proposal: &Proposal) -> bool {
        self.own_proposals
            .contains(&(proposal.round, proposal.block))
    }

    /// Takes what must be written.
    pub(super) fn take(&mut self) -> Option<Batch> {
        if self.pending.is_empty() {
            return None;
        }
        let named: Vec<BlockHash> = std::mem::take(&mut self.named).into_iter().collect();
        self.written.extend(named.iter().copied());
        let entries = std::mem::take(&mut self.pending);
        self.entries += entries.len() as u64;
        let signed = std::mem::take(&mut self.signed).then_some(self.entries);
        Some(Batch {
            entries,
            named,
            signed,
        })
    }
}

/// What becomes durable together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) entries: Vec<Vec<u8>>,
    /// The hashes of the bodies that the entries name.
    pub(super) named: Vec<BlockHash>,
    /// If this node signed something in it: how many entries the log then has.
    pub(super) signed: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GenesisHash;
    use ed25519_dalek::SigningKey;

    fn vote(key: &SigningKey, round: u32) -> Vote {
        let genesis = GenesisHash([0; 32]);
        Vote::sign(
            key,
            &genesis,
            VoteKind::Prevote,
            Height(3),
            Round(round),
            None,
        )
    }

    #[test]
    fn a_log_without_its_opening_entry_or_with_a_cut_entry_is_damaged() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let opened = codec::encode(&Entry::Opened(Height(3)));
        let voted = codec::encode(&Entry::Vote(vote(&key, 0)));
        assert!(matches!(decode(Height(3), &[]), Ok(None)));
        let good = decode(Height(3), &[opened.clone(), voted.clone()]);
        assert_eq!(good.unwrap().unwrap().len(), 1);
        assert!(matches!(
            decode(Height(3), std::slice::from_ref(&voted)),
            Err(DamagedLog::Opening { .. })
        ));
        assert!(matches!(
            decode(Height(4), std::slice::from_ref(&opened)),
            Err(DamagedLog::Opening { .. })
        ));
        assert!(matches!(
            decode(Height(3), &[opened, voted[..20].to_vec()]),
            Err(DamagedLog::Entry { position: 1, .. })
        ));
    }

    #[test]
    fn replay_appends_only_what_the_log_does_not_hold() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let own = ConsensusKey::from(&key);
        let logged = Entry::Vote(vote(&key, 0));
        let fresh = Entry::Vote(vote(&key, 1));
        let mut buffer = LogBuffer::replaying(std::slice::from_ref(&logged), [], &own);
        buffer.append(&logged, &own);
        assert!(buffer.take().is_none());
        buffer.append(&fresh, &own);
        let batch = buffer.take().unwrap();
        assert_eq!(batch.entries, [codec::encode(&fresh)]);
        assert_eq!(
            batch.signed,
            Some(3),
            "the opening, the logged one and this"
        );
        assert!(buffer.holds_own_vote(&vote(&key, 0)));
        assert!(!buffer.holds_own_vote(&vote(&key, 2)));
    }

    #[test]
    fn after_the_stop_nothing_of_the_own_key_is_taken_for_this_nodes() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let own = ConsensusKey::from(&key);
        let mut buffer = LogBuffer::new(true);
        buffer.append(&Entry::Vote(vote(&key, 0)), &own);
        buffer.take().unwrap();
        buffer.stop_signing();
        buffer.append(&Entry::Vote(vote(&key, 1)), &own);
        let batch = buffer.take().unwrap();
        assert_eq!((batch.entries.len(), batch.signed), (1, None));
        assert!(buffer.holds_own_vote(&vote(&key, 0)));
        assert!(!buffer.holds_own_vote(&vote(&key, 1)));
    }

    #[test]
    fn a_body_is_written_once_and_only_for_a_valid_verdict() {
        let own = ConsensusKey([9; 32]);
        let value = |block: u8, valid| {
            Entry::Value(ProposedBlock {
                height: Height(3),
                round: Round(0),
                proposer: own,
                block: BlockHash([block; 32]),
                valid,
            })
        };
        let mut buffer = LogBuffer::new(true);
        buffer.append(&value(1, true), &own);
        buffer.append(&value(2, false), &own);
        let batch = buffer.take().unwrap();
        assert_eq!((batch.entries.len(), batch.signed), (2, None));
        assert_eq!(batch.named, [BlockHash([1; 32])]);
        buffer.append(&value(1, true), &own);
        assert!(buffer.take().unwrap().named.is_empty());
    }
}
