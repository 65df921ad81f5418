//! The verified messages of one height: what is held before the height starts, what a peer that
//! connects is given, what is relayed, and who equivocated.
//!
//! Bounded: one vote per validator, kind and round; two proposals a round; the newest polka and
//! round certificate. Rounds are admitted up to [`MAX_ROUNDS_AHEAD`] above the current one. Nothing
//! is admitted that has not been verified; what is held already is recognized before the signature
//! is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::types::{
    BlockHash, CommitCertificate, ConsensusKey, Height, PolkaCertificate, Proposal, Round,
    RoundCertificate, ValidatorSet, Vote, VoteKind,
};

/// Messages of rounds further ahead than this are dropped; the engine would drop them too.
pub(super) const MAX_ROUNDS_AHEAD: u32 = 10;

/// The most proposals of one round: an honest proposer makes one, and two prove the other kind.
const MAX_PROPOSALS_PER_ROUND: usize = 2;

/// The most pairs of evidence against one validator at one height.
const MAX_EVIDENCE_PER_VALIDATOR: usize = 3;

/// Two signed messages of one validator that exclude each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Evidence {
    /// Two votes of one kind, height and round.
    Votes(Vote, Vote),
    /// Two proposals of one height and round.
    Proposals(Proposal, Proposal),
}

impl Evidence {
    /// One sentence for people.
    pub(super) fn sentence(&self, validators: &ValidatorSet) -> String {
        let name = |key: &ConsensusKey| {
            validators
                .get(key)
                .map_or_else(|| key.to_string(), |(_, one)| one.name.clone())
        };
        let block = |block: Option<BlockHash>| block.map_or("nil".into(), |hash| hash.to_string());
        match self {
            Evidence::Votes(a, b) => format!(
                "{} signed two {}s at height {}, round {}: for {} and for {}",
                name(&a.voter),
                match a.kind {
                    VoteKind::Prevote => "prevote",
                    VoteKind::Precommit => "precommit",
                },
                a.height,
                a.round,
                block(a.block),
                block(b.block),
            ),
            Evidence::Proposals(a, b) => format!(
                "{} signed two proposals at height {}, round {}: {} and {}",
                name(&a.proposer),
                a.height,
                a.round,
                a.block,
                b.block,
            ),
        }
    }
}

/// What became of an offered message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is new: feed and relay it.
    New,
    /// It says nothing new.
    Known,
    /// It contradicts one that is held. `feed` when the engine should see it all the same.
    Equivocation { evidence: Box<Evidence>, feed: bool },
}

/// Where a validator votes once.
type Slot = (Round, VoteKind, ConsensusKey);

/// The messages of one height.
#[derive(Debug)]
pub(super) struct Book {
    height: Height,
    validators: Arc<ValidatorSet>,
    votes: BTreeMap<Slot, Vote>,
    /// Votes that only certificates held when they came: to be compared, not to be counted. A
    /// certificate has an honest signer, so these are of no more rounds than there are.
    in_certificates: BTreeMap<Slot, Vote>,
    proposals: BTreeMap<Round, Vec<Proposal>>,
    polka: Option<PolkaCertificate>,
    polkas_seen: BTreeSet<(Round, BlockHash)>,
    round_certificate: Option<RoundCertificate>,
    commit: Option<CommitCertificate>,
    power: BTreeMap<(Round, VoteKind, Option<BlockHash>), u64>,
    voters: BTreeSet<ConsensusKey>,
    voters_power: u64,
    evidence: BTreeMap<ConsensusKey, usize>,
}

impl Book {
    pub(super) fn new(height: Height, validators: Arc<ValidatorSet>) -> Self {
        Self {
            height,
            validators,
            votes: BTreeMap::new(),
            in_certificates: BTreeMap::new(),
            proposals: BTreeMap::new(),
            polka: None,
            polkas_seen: BTreeSet::new(),
            round_certificate: None,
            commit: None,
            power: BTreeMap::new(),
            voters: BTreeSet::new(),
            voters_power: 0,
            evidence: BTreeMap::new(),
        }
    }

    pub(super) fn height(&self) -> Height {
        self.height
    }

    /// Whether a vote can change nothing, so that its signature need not be checked.
    pub(super) fn settled_vote(&self, vote: &Vote) -> bool {
        self.votes
            .get(&slot_of(vote))
            .is_some_and(|held| held.block == vote.block || self.enough_evidence(&vote.voter))
    }

    /// The same for a proposal.
    pub(super) fn settled_proposal(&self, proposal: &Proposal) -> bool {
        self.proposals.get(&proposal.round).is_some_and(|held| {
            held.iter().any(|one| same_proposal(one, proposal))
                || held.len() >= MAX_PROPOSALS_PER_ROUND
        })
    }

    /// The same for a polka certificate.
    pub(super) fn settled_polka(&self, polka: &PolkaCertificate) -> bool {
        self.polkas_seen.contains(&(polka.round, polka.block))
    }

    /// The same for a round certificate.
    pub(super) fn settled_round_certificate(&self, certificate: &RoundCertificate) -> bool {
        self.round_certificate.as_ref().is_some_and(|held| {
            (held.round, held.precommit) >= (certificate.round, certificate.precommit)
        })
    }

    fn enough_evidence(&self, key: &ConsensusKey) -> bool {
        self.evidence
            .get(key)
            .is_some_and(|pairs| *pairs >= MAX_EVIDENCE_PER_VALIDATOR)
    }

    /// Adds a verified vote of a validator.
    pub(super) fn add_vote(&mut self, vote: Vote) -> Added {
        let slot = slot_of(&vote);
        let held = self.votes.get(&slot).copied();
        // The engine counts a validator's first vote; a second one would tell it nothing.
        let feed = held.is_none();
        if feed {
            self.count(vote);
        }
        let other = held.or_else(|| self.in_certificates.remove(&slot));
        match other.and_then(|other| self.contradiction(other, vote)) {
            Some(evidence) => Added::Equivocation { evidence, feed },
            None if feed => Added::New,
            None => Added::Known,
        }
    }

    /// Compares a verified vote, which came in a certificate, with what else its voter has said.
    pub(super) fn compare(&mut self, vote: Vote) -> Option<Box<Evidence>> {
        let slot = slot_of(&vote);
        let held = match self.votes.get(&slot) {
            Some(held) => *held,
            None => *self.in_certificates.entry(slot).or_insert(vote),
        };
        self.contradiction(held, vote)
    }

    /// Two votes of one slot for different blocks, unless enough such pairs are known.
    fn contradiction(&mut self, held: Vote, vote: Vote) -> Option<Box<Evidence>> {
        if held.block == vote.block || self.enough_evidence(&vote.voter) {
            return None;
        }
        *self.evidence.entry(vote.voter).or_default() += 1;
        Some(Box::new(Evidence::Votes(held, vote)))
    }

    /// Keeps the first vote of a slot.
    fn count(&mut self, vote: Vote) {
        let power = self
            .validators
            .get(&vote.voter)
            .map_or(0, |(_, voter)| voter.power);
        *self
            .power
            .entry((vote.round, vote.kind, vote.block))
            .or_default() += power;
        if self.voters.insert(vote.voter) {
            self.voters_power += power;
        }
        self.votes.insert(slot_of(&vote), vote);
    }

    /// Adds a verified proposal of its round's proposer.
    pub(super) fn add_proposal(&mut self, proposal: Proposal) -> Added {
        if self.settled_proposal(&proposal) {
            return Added::Known;
        }
        let held = self.proposals.entry(proposal.round).or_default();
        let first = held.first().copied();
        held.push(proposal);
        match first {
            None => Added::New,
            Some(first) => {
                *self.evidence.entry(proposal.proposer).or_default() += 1;
                // Others may have prevoted for either: the engine must be able to follow both.
                Added::Equivocation {
                    evidence: Box::new(Evidence::Proposals(first, proposal)),
                    feed: true,
                }
            }
        }
    }

    /// Adds a verified polka certificate; false when it was seen before.
    pub(super) fn add_polka(&mut self, polka: PolkaCertificate) -> bool {
        if !self.polkas_seen.insert((polka.round, polka.block)) {
            return false;
        }
        if self
            .polka
            .as_ref()
            .is_none_or(|held| held.round <= polka.round)
        {
            self.polka = Some(polka);
        }
        true
    }

    /// Adds a verified round certificate; false when a newer one is held.
    pub(super) fn add_round_certificate(&mut self, certificate: RoundCertificate) -> bool {
        if self.settled_round_certificate(&certificate) {
            return false;
        }
        self.round_certificate = Some(certificate);
        true
    }

    /// Holds a verified commit certificate.
    pub(super) fn set_commit(&mut self, certificate: CommitCertificate) {
        self.commit = Some(certificate);
    }

    /// The verified commit certificate, when one is held.
    pub(super) fn commit(&self) -> Option<&CommitCertificate> {
        self.commit.as_ref()
    }

    pub(super) fn votes(&self) -> impl Iterator<Item = &Vote> {
        self.votes.values()
    }

    pub(super) fn proposals(&self) -> impl Iterator<Item = &Proposal> {
        self.proposals.values().flatten()
    }

    /// Whether anything that this key has signed is held, be it in a certificate.
    pub(super) fn holds_any_of(&self, key: &ConsensusKey) -> bool {
        let votes = self.votes().chain(self.in_certificates.values());
        let proposers = self.proposals().map(|proposal| proposal.proposer);
        (votes.map(|vote| vote.voter).chain(proposers)).any(|signer| signer == *key)
    }

    /// The proposals of one round.
    pub(super) fn proposals_of(&self, round: Round) -> &[Proposal] {
        self.proposals.get(&round).map_or(&[], Vec::as_slice)
    }

    /// The newest polka certificate received or assembled.
    pub(super) fn newest_polka(&self) -> Option<PolkaCertificate> {
        let counted = self
            .power
            .iter()
            .rev()
            .find_map(|(slot, power)| match slot {
                (round, VoteKind::Prevote, Some(block)) if self.validators.is_quorum(*power) => {
                    Some((*round, *block))
                }
                _ => None,
            });
        match (&self.polka, counted) {
            (Some(held), Some((round, _))) if held.round >= round => Some(held.clone()),
            (held, None) => held.clone(),
            (_, Some((round, block))) => Some(PolkaCertificate {
                height: self.height,
                round,
                block,
                signatures: self.signatures(round, VoteKind::Prevote, block),
            }),
        }
    }

    /// Whether a polka or round certificate is held.
    pub(super) fn holds_certificate(&self) -> bool {
        self.polka.is_some() || self.round_certificate.is_some()
    }

    pub(super) fn round_certificate(&self) -> Option<&RoundCertificate> {
        self.round_certificate.as_ref()
    }

    /// Whether votes from more than a third of the power are held.
    pub(super) fn more_than_third_voted(&self) -> bool {
        self.validators.is_more_than_third(self.voters_power)
    }

    /// Whether a quorum has prevoted or precommitted a block in some round.
    pub(super) fn has_quorum_for(&self, block: BlockHash) -> bool {
        self.polkas_seen.iter().any(|(_, polka)| *polka == block)
            || self.power.iter().any(|((_, _, voted), power)| {
                *voted == Some(block) && self.validators.is_quorum(*power)
            })
    }

    /// The rounds and blocks for which a quorum of prevotes or of precommits is held.
    pub(super) fn quorums(&self) -> Vec<(Round, BlockHash)> {
        let slots = self.power.iter();
        slots
            .filter(|(_, power)| self.validators.is_quorum(**power))
            .filter_map(|((round, _, block), _)| Some((*round, (*block)?)))
            .collect()
    }

    /// The commit certificate that the held precommits of a round make, if they are a quorum.
    pub(super) fn decision(&self, round: Round, block: BlockHash) -> Option<CommitCertificate> {
        let power = self.power.get(&(round, VoteKind::Precommit, Some(block)))?;
        self.validators
            .is_quorum(*power)
            .then(|| CommitCertificate {
                height: self.height,
                round,
                block,
                signatures: self.signatures(round, VoteKind::Precommit, block),
            })
    }

    fn signatures(
        &self,
        round: Round,
        kind: VoteKind,
        block: BlockHash,
    ) -> Vec<(ConsensusKey, crate::types::Signature)> {
        let least = (round, kind, ConsensusKey([0; 32]));
        let most = (round, kind, ConsensusKey([255; 32]));
        self.votes
            .range(least..=most)
            .filter(|(_, vote)| vote.block == Some(block))
            .map(|((_, _, key), vote)| (*key, vote.signature))
            .collect()
    }

    /// Who voted for a block, in any round.
    pub(super) fn voters_for(&self, block: BlockHash) -> BTreeSet<ConsensusKey> {
        self.votes
            .values()
            .filter(|vote| vote.block == Some(block))
            .map(|vote| vote.voter)
            .collect()
    }
}

fn slot_of(vote: &Vote) -> Slot {
    (vote.round, vote.kind, vote.voter)
}

fn same_proposal(a: &Proposal, b: &Proposal) -> bool {
    (a.block, a.polka_round) == (b.block, b.polka_round)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::tests;
    use crate::types::GenesisHash;

    struct Fixture {
        book: Book,
        genesis: GenesisHash,
    }

    fn fixture() -> Fixture {
        let genesis = tests::genesis(&[10, 20, 30, 40]);
        let validators = Arc::new(ValidatorSet::from_genesis(&genesis));
        Fixture {
            book: Book::new(Height(1), validators),
            genesis: genesis.hash(),
        }
    }

    impl Fixture {
        fn vote(&self, voter: usize, kind: VoteKind, round: u32, block: Option<u8>) -> Vote {
            Vote::sign(
                &tests::key(voter),
                &self.genesis,
                kind,
                Height(1),
                Round(round),
                block.map(|byte| BlockHash([byte; 32])),
            )
        }
    }

    #[test]
    fn one_vote_a_slot_and_bounded_evidence() {
        let mut f = fixture();
        let first = f.vote(0, VoteKind::Prevote, 0, Some(1));
        assert_eq!(f.book.add_vote(first), Added::New);
        assert!(f.book.settled_vote(&first));
        assert_eq!(f.book.add_vote(first), Added::Known);
        for block in 2..5 {
            let second = f.vote(0, VoteKind::Prevote, 0, Some(block));
            assert!(!f.book.settled_vote(&second));
            let added = f.book.add_vote(second);
            assert!(matches!(added, Added::Equivocation { feed: false, .. }));
        }
        let more = f.vote(0, VoteKind::Prevote, 0, Some(9));
        assert!(f.book.settled_vote(&more));
        assert_eq!(f.book.add_vote(more), Added::Known);
        assert_eq!(f.book.votes().count(), 1);
    }

    #[test]
    fn quorums_give_a_polka_and_a_decision_that_verify() {
        let mut f = fixture();
        for voter in [1, 3] {
            f.book
                .add_vote(f.vote(voter, VoteKind::Precommit, 2, Some(7)));
            f.book
                .add_vote(f.vote(voter, VoteKind::Prevote, 2, Some(7)));
        }
        let block = BlockHash([7; 32]);
        assert_eq!(f.book.decision(Round(2), block), None, "60 of 100");
        assert!(!f.book.has_quorum_for(block));
        assert_eq!(f.book.newest_polka(), None);
        f.book.add_vote(f.vote(0, VoteKind::Precommit, 2, Some(7)));
        f.book.add_vote(f.vote(0, VoteKind::Prevote, 2, Some(7)));
        let validators = f.book.validators.clone();
        let decision = f.book.decision(Round(2), block).unwrap();
        decision.verify(&validators, &f.genesis).unwrap();
        let polka = f.book.newest_polka().unwrap();
        polka.verify(&validators, &f.genesis).unwrap();
        assert!(f.book.has_quorum_for(block));
        assert_eq!(f.book.voters_for(block).len(), 3);
    }

    #[test]
    fn votes_of_more_than_a_third_are_counted_once_a_voter() {
        let mut f = fixture();
        f.book.add_vote(f.vote(2, VoteKind::Prevote, 0, None));
        f.book.add_vote(f.vote(2, VoteKind::Precommit, 1, None));
        assert!(!f.book.more_than_third_voted(), "30 of 100");
        f.book.add_vote(f.vote(0, VoteKind::Prevote, 5, None));
        assert!(f.book.more_than_third_voted(), "40 of 100");
    }

    #[test]
    fn two_proposals_a_round_and_no_more() {
        let mut f = fixture();
        let proposal = |block: u8| {
            Proposal::sign(
                &tests::key(0),
                &f.genesis,
                Height(1),
                Round(0),
                BlockHash([block; 32]),
                None,
            )
        };
        assert_eq!(f.book.add_proposal(proposal(1)), Added::New);
        assert_eq!(f.book.add_proposal(proposal(1)), Added::Known);
        let second = f.book.add_proposal(proposal(2));
        assert!(matches!(second, Added::Equivocation { feed: true, .. }));
        assert!(f.book.settled_proposal(&proposal(3)));
        assert_eq!(f.book.add_proposal(proposal(3)), Added::Known);
        assert_eq!(f.book.proposals_of(Round(0)).len(), 2);
    }
}
