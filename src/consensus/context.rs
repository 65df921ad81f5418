//! The engine's view of this crate's values: its `Context`, and the conversions both ways.
//!
//! An address is a consensus key, a value is a block hash (the body travels on a stream of its
//! own), and there are no vote extensions and no proposal parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_malachitebft_core_types as core;

use crate::types::vote::RoundVote;
use crate::types::{
    BlockHash, CommitCertificate, ConsensusKey, Height, PolkaCertificate, Proposal, Round,
    RoundCertificate, Signature, ValidatorSet, Vote, VoteKind,
};

/// Ties the engine's type parameters together.
#[derive(Clone, Debug)]
pub(super) struct EngineContext {
    pub(super) validators: Arc<ValidatorSet>,
}

/// A vote without its signature, as the engine handles it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EngineVote {
    kind: core::VoteType,
    height: Height,
    round: core::Round,
    block: core::NilOrVal<BlockHash>,
    voter: ConsensusKey,
}

/// A proposal without its signature, as the engine handles it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EngineProposal {
    height: Height,
    round: core::Round,
    block: BlockHash,
    polka_round: core::Round,
    proposer: ConsensusKey,
}

/// One voter as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EngineValidator {
    key: ConsensusKey,
    power: u64,
}

/// The voters as the engine sees them, in the order of genesis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EngineValidators {
    voters: Arc<Vec<EngineValidator>>,
    positions: Arc<BTreeMap<ConsensusKey, usize>>,
    total_power: u64,
}

impl EngineValidators {
    pub(super) fn new(validators: &ValidatorSet) -> Self {
        let voters: Vec<EngineValidator> = validators
            .validators()
            .iter()
            .map(|validator| EngineValidator {
                key: validator.key,
                power: validator.power,
            })
            .collect();
        let positions = voters
            .iter()
            .enumerate()
            .map(|(position, voter)| (voter.key, position))
            .collect();
        Self {
            voters: Arc::new(voters),
            positions: Arc::new(positions),
            total_power: validators.total_power(),
        }
    }
}

/// A type of which there is no value: proposal parts and vote extensions are not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Never {}

/// Names the types of keys and signatures; signing itself is done in [`super::engine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ed25519;

impl core::Context for EngineContext {
    type Address = ConsensusKey;
    type Height = Height;
    type ProposalPart = Never;
    type Proposal = EngineProposal;
    type Validator = EngineValidator;
    type ValidatorSet = EngineValidators;
    type Timeouts = core::LinearTimeouts;
    type Value = BlockHash;
    type Vote = EngineVote;
    type Extension = Never;
    type SigningScheme = Ed25519;

    fn select_proposer<'a>(
        &self,
        set: &'a EngineValidators,
        height: Height,
        round: core::Round,
    ) -> &'a EngineValidator {
        let round = from_round(round).unwrap_or_default();
        let key = self.validators.proposer(height, round).key;
        &set.voters[set.positions[&key]]
    }

    fn new_proposal(
        &self,
        height: Height,
        round: core::Round,
        block: BlockHash,
        polka_round: core::Round,
        proposer: ConsensusKey,
    ) -> EngineProposal {
        EngineProposal {
            height,
            round,
            block,
            polka_round,
            proposer,
        }
    }

    fn new_prevote(
        &self,
        height: Height,
        round: core::Round,
        block: core::NilOrVal<BlockHash>,
        voter: ConsensusKey,
    ) -> EngineVote {
        EngineVote {
            kind: core::VoteType::Prevote,
            height,
            round,
            block,
            voter,
        }
    }

    fn new_precommit(
        &self,
        height: Height,
        round: core::Round,
        block: core::NilOrVal<BlockHash>,
        voter: ConsensusKey,
    ) -> EngineVote {
        EngineVote {
            kind: core::VoteType::Precommit,
            height,
            round,
            block,
            voter,
        }
    }
}

impl core::Height for Height {
    const ZERO: Self = Height(0);
    const INITIAL: Self = Height(1);

    fn increment_by(&self, n: u64) -> Self {
        Height(self.0.saturating_add(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Height)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

impl core::Address for ConsensusKey {}

impl core::Value for BlockHash {
    type Id = BlockHash;

    fn id(&self) -> BlockHash {
        *self
    }
}

impl core::Validator<EngineContext> for EngineValidator {
    fn address(&self) -> &ConsensusKey {
        &self.key
    }

    fn public_key(&self) -> &ConsensusKey {
        &self.key
    }

    fn voting_power(&self) -> u64 {
        self.power
    }
}

impl core::ValidatorSet<EngineContext> for EngineValidators {
    fn count(&self) -> usize {
        self.voters.len()
    }

    fn total_voting_power(&self) -> u64 {
        self.total_power
    }

    fn get_by_address(&self, address: &ConsensusKey) -> Option<&EngineValidator> {
        self.positions.get(address).map(|at| &self.voters[*at])
    }

    fn get_by_index(&self, index: usize) -> Option<&EngineValidator> {
        self.voters.get(index)
    }
}

impl core::Vote<EngineContext> for EngineVote {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> core::Round {
        self.round
    }

    fn value(&self) -> &core::NilOrVal<BlockHash> {
        &self.block
    }

    fn take_value(self) -> core::NilOrVal<BlockHash> {
        self.block
    }

    fn vote_type(&self) -> core::VoteType {
        self.kind
    }

    fn validator_address(&self) -> &ConsensusKey {
        &self.voter
    }

    fn extension(&self) -> Option<&core::SignedExtension<EngineContext>> {
        None
    }

    fn take_extension(&mut self) -> Option<core::SignedExtension<EngineContext>> {
        None
    }

    fn extend(self, extension: core::SignedExtension<EngineContext>) -> Self {
        match extension.message {}
    }
}

impl core::Proposal<EngineContext> for EngineProposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> core::Round {
        self.round
    }

    fn value(&self) -> &BlockHash {
        &self.block
    }

    fn take_value(self) -> BlockHash {
        self.block
    }

    fn pol_round(&self) -> core::Round {
        self.polka_round
    }

    fn validator_address(&self) -> &ConsensusKey {
        &self.proposer
    }
}

impl core::ProposalPart<EngineContext> for Never {
    fn is_first(&self) -> bool {
        match *self {}
    }

    fn is_last(&self) -> bool {
        match *self {}
    }
}

impl core::Extension for Never {
    fn size_bytes(&self) -> usize {
        match *self {}
    }
}

impl core::SigningScheme for Ed25519 {
    type DecodingError = String;
    type Signature = Signature;
    type PublicKey = ConsensusKey;
    type PrivateKey = Never;

    fn decode_signature(bytes: &[u8]) -> Result<Signature, String> {
        bytes
            .try_into()
            .map(Signature)
            .map_err(|_| format!("a signature of {} bytes", bytes.len()))
    }

    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.0.to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<ConsensusKey, String> {
        bytes
            .try_into()
            .map(ConsensusKey)
            .map_err(|_| format!("a key of {} bytes", bytes.len()))
    }

    fn encode_public_key(key: &ConsensusKey) -> Vec<u8> {
        key.0.to_vec()
    }
}

pub(super) fn to_round(round: Round) -> core::Round {
    core::Round::new(round.0)
}

/// `None` for the engine's "no round".
pub(super) fn from_round(round: core::Round) -> Option<Round> {
    round.as_u32().map(Round)
}

fn to_polka_round(round: Option<Round>) -> core::Round {
    round.map_or(core::Round::Nil, to_round)
}

fn to_kind(kind: VoteKind) -> core::VoteType {
    match kind {
        VoteKind::Prevote => core::VoteType::Prevote,
        VoteKind::Precommit => core::VoteType::Precommit,
    }
}

pub(super) fn from_kind(kind: core::VoteType) -> VoteKind {
    match kind {
        core::VoteType::Prevote => VoteKind::Prevote,
        core::VoteType::Precommit => VoteKind::Precommit,
    }
}

fn to_block(block: Option<BlockHash>) -> core::NilOrVal<BlockHash> {
    block.map_or(core::NilOrVal::Nil, core::NilOrVal::Val)
}

pub(super) fn from_block(block: &core::NilOrVal<BlockHash>) -> Option<BlockHash> {
    match block {
        core::NilOrVal::Nil => None,
        core::NilOrVal::Val(block) => Some(*block),
    }
}

pub(super) fn to_vote(vote: &Vote) -> core::SignedVote<EngineContext> {
    let message = EngineVote {
        kind: to_kind(vote.kind),
        height: vote.height,
        round: to_round(vote.round),
        block: to_block(vote.block),
        voter: vote.voter,
    };
    core::SignedMessage::new(message, vote.signature)
}

pub(super) fn from_vote(signed: &core::SignedVote<EngineContext>) -> Vote {
    let vote = &signed.message;
    Vote {
        kind: from_kind(vote.kind),
        height: vote.height,
        round: from_round(vote.round).expect("a vote names a round"),
        block: from_block(&vote.block),
        voter: vote.voter,
        signature: signed.signature,
    }
}

pub(super) fn to_proposal(proposal: &Proposal) -> core::SignedProposal<EngineContext> {
    let message = EngineProposal {
        height: proposal.height,
        round: to_round(proposal.round),
        block: proposal.block,
        polka_round: to_polka_round(proposal.polka_round),
        proposer: proposal.proposer,
    };
    core::SignedMessage::new(message, proposal.signature)
}

pub(super) fn from_proposal(signed: &core::SignedProposal<EngineContext>) -> Proposal {
    let proposal = &signed.message;
    Proposal {
        height: proposal.height,
        round: from_round(proposal.round).expect("a proposal names a round"),
        block: proposal.block,
        polka_round: from_round(proposal.polka_round),
        proposer: proposal.proposer,
        signature: signed.signature,
    }
}

pub(super) fn to_polka(certificate: &PolkaCertificate) -> core::PolkaCertificate<EngineContext> {
    core::PolkaCertificate {
        height: certificate.height,
        round: to_round(certificate.round),
        value_id: certificate.block,
        polka_signatures: certificate
            .signatures
            .iter()
            .map(|(key, signature)| core::PolkaSignature::new(*key, *signature))
            .collect(),
    }
}

pub(super) fn from_polka(certificate: &core::PolkaCertificate<EngineContext>) -> PolkaCertificate {
    let signatures = certificate.polka_signatures.iter();
    PolkaCertificate {
        height: certificate.height,
        round: from_round(certificate.round).expect("a polka is of a round"),
        block: certificate.value_id,
        signatures: ordered(signatures.map(|one| (one.address, one.signature))),
    }
}

pub(super) fn from_commit(
    certificate: &core::CommitCertificate<EngineContext>,
) -> CommitCertificate {
    let signatures = certificate.commit_signatures.iter();
    CommitCertificate {
        height: certificate.height,
        round: from_round(certificate.round).expect("a decision is of a round"),
        block: certificate.value_id,
        signatures: ordered(signatures.map(|one| (one.address, one.signature))),
    }
}

pub(super) fn to_round_certificate(
    certificate: &RoundCertificate,
) -> core::RoundCertificate<EngineContext> {
    core::RoundCertificate {
        height: certificate.height,
        round: to_round(certificate.round),
        cert_type: if certificate.precommit {
            core::RoundCertificateType::Precommit
        } else {
            core::RoundCertificateType::Skip
        },
        round_signatures: certificate
            .votes
            .iter()
            .map(|vote| {
                core::RoundSignature::new(
                    to_kind(vote.kind),
                    to_block(vote.block),
                    vote.voter,
                    vote.signature,
                )
            })
            .collect(),
    }
}

pub(super) fn from_round_certificate(
    certificate: &core::RoundCertificate<EngineContext>,
) -> RoundCertificate {
    let votes = certificate.round_signatures.iter().map(|one| {
        let vote = RoundVote {
            kind: from_kind(one.vote_type),
            block: from_block(&one.value_id),
            voter: one.address,
            signature: one.signature,
        };
        (one.address, vote)
    });
    RoundCertificate {
        height: certificate.height,
        round: from_round(certificate.round).expect("a round certificate is of a round"),
        precommit: certificate.cert_type == core::RoundCertificateType::Precommit,
        votes: ordered(votes).into_iter().map(|(_, vote)| vote).collect(),
    }
}

/// Ascending by key, one entry a key: the only form that certificates have on the wire.
fn ordered<T>(entries: impl Iterator<Item = (ConsensusKey, T)>) -> Vec<(ConsensusKey, T)> {
    entries.collect::<BTreeMap<_, _>>().into_iter().collect()
}
