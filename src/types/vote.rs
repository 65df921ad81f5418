//! Votes, proposals and the certificates made of them, as they are sent and stored.
//!
//! Every signature covers the genesis hash, so nothing signed for one chain counts on another.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use super::codec;
use super::hash::{self, context};
use super::signing;
use super::{BlockHash, ConsensusKey, GenesisHash, Height, Round, Signature, ValidatorSet};

/// The two kinds of vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum VoteKind {
    /// The first vote of a round.
    Prevote,
    /// The second vote of a round.
    Precommit,
}

/// A signed vote. `block` is `None` for a vote against all proposals of the round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// Prevote or precommit.
    pub kind: VoteKind,
    /// The height voted on.
    pub height: Height,
    /// The round voted in.
    pub round: Round,
    /// The block voted for.
    pub block: Option<BlockHash>,
    /// Who votes.
    pub voter: ConsensusKey,
    /// The voter's signature over [`vote_digest`].
    pub signature: Signature,
}

/// What a vote's signature covers.
pub fn vote_digest(
    genesis: &GenesisHash,
    kind: VoteKind,
    height: Height,
    round: Round,
    block: Option<BlockHash>,
) -> [u8; 32] {
    let bytes = codec::encode(&(kind, height, round, block));
    hash::hash(context::VOTE_SIGN, &[genesis.as_bytes(), &bytes])
}

impl Vote {
    /// Makes and signs a vote.
    pub fn sign(
        key: &SigningKey,
        genesis: &GenesisHash,
        kind: VoteKind,
        height: Height,
        round: Round,
        block: Option<BlockHash>,
    ) -> Self {
        let digest = vote_digest(genesis, kind, height, round, block);
        Self {
            kind,
            height,
            round,
            block,
            voter: key.into(),
            signature: signing::sign(key, &digest),
        }
    }

    /// Whether the voter signed it for this chain. Says nothing about membership.
    pub fn verify(&self, genesis: &GenesisHash) -> bool {
        let digest = vote_digest(genesis, self.kind, self.height, self.round, self.block);
        signing::verify(&self.voter.0, &digest, &self.signature)
    }
}

/// A signed proposal: names a block by hash; the body travels on a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Proposal {
    /// The height proposed for.
    pub height: Height,
    /// The round proposed in.
    pub round: Round,
    /// The proposed block.
    pub block: BlockHash,
    /// The round of the polka that justifies proposing it again.
    pub polka_round: Option<Round>,
    /// Who proposes.
    pub proposer: ConsensusKey,
    /// The proposer's signature over [`proposal_digest`].
    pub signature: Signature,
}

/// What a proposal's signature covers.
pub fn proposal_digest(
    genesis: &GenesisHash,
    height: Height,
    round: Round,
    block: BlockHash,
    polka_round: Option<Round>,
) -> [u8; 32] {
    let bytes = codec::encode(&(height, round, block, polka_round));
    hash::hash(context::PROPOSAL_SIGN, &[genesis.as_bytes(), &bytes])
}

impl Proposal {
    /// Makes and signs a proposal.
    pub fn sign(
        key: &SigningKey,
        genesis: &GenesisHash,
        height: Height,
        round: Round,
        block: BlockHash,
        polka_round: Option<Round>,
    ) -> Self {
        let digest = proposal_digest(genesis, height, round, block, polka_round);
        Self {
            height,
            round,
            block,
            polka_round,
            proposer: key.into(),
            signature: signing::sign(key, &digest),
        }
    }

    /// Whether the proposer signed it for this chain. Says nothing about whose turn it is.
    pub fn verify(&self, genesis: &GenesisHash) -> bool {
        let digest = proposal_digest(
            genesis,
            self.height,
            self.round,
            self.block,
            self.polka_round,
        );
        signing::verify(&self.proposer.0, &digest, &self.signature)
    }
}

/// Precommits of more than two thirds of the power for one block: the block is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitCertificate {
    /// The final block's height.
    pub height: Height,
    /// The round that decided.
    pub round: Round,
    /// The final block.
    pub block: BlockHash,
    /// Precommit signatures, in ascending order of the key, each key at most once.
    pub signatures: Vec<(ConsensusKey, Signature)>,
}

/// Prevotes of more than two thirds of the power for one block in one round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolkaCertificate {
    /// The height voted on.
    pub height: Height,
    /// The round voted in.
    pub round: Round,
    /// The block voted for.
    pub block: BlockHash,
    /// Prevote signatures, in ascending order of the key, each key at most once.
    pub signatures: Vec<(ConsensusKey, Signature)>,
}

/// Votes that let a node enter or skip to a round: precommits of more than two thirds, or any votes
/// of the round of more than one third.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundCertificate {
    /// The height voted on.
    pub height: Height,
    /// The round voted in.
    pub round: Round,
    /// True for precommits of more than two thirds; false for a skip by more than one third.
    pub precommit: bool,
    /// The votes, in ascending order of the voter, each voter at most once.
    pub votes: Vec<RoundVote>,
}

/// One vote of a [`RoundCertificate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundVote {
    /// Prevote or precommit.
    pub kind: VoteKind,
    /// The block voted for.
    pub block: Option<BlockHash>,
    /// Who voted.
    pub voter: ConsensusKey,
    /// The voter's signature.
    pub signature: Signature,
}

/// Why a certificate proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A signer is not in the validator set.
    #[error("signer {0} is not a validator")]
    UnknownSigner(ConsensusKey),
    /// Signers are not in ascending order, or one stands twice.
    #[error("signers are not in strictly ascending order at {0}")]
    Unordered(ConsensusKey),
    /// A signature does not verify.
    #[error("the signature of {0} does not verify")]
    BadSignature(ConsensusKey),
    /// A round certificate holds a vote of the wrong kind.
    #[error("the vote of {0} is not of the certificate's kind")]
    WrongKind(ConsensusKey),
    /// The signers' power is too small.
    #[error("power {power} of {total} is not enough")]
    NotEnoughPower {
        /// The signers' power.
        power: u64,
        /// The power of all validators.
        total: u64,
    },
}

/// One signature of a certificate, with what it must cover.
struct Signed {
    key: ConsensusKey,
    signature: Signature,
    digest: [u8; 32],
}

/// Checks order, membership and signatures; returns the signers' power.
fn verified_power(
    validators: &ValidatorSet,
    signatures: impl IntoIterator<Item = Signed>,
) -> Result<u64, CertificateError> {
    let mut seen = BTreeSet::new();
    let mut power = 0u64;
    for signed in signatures {
        if seen.last().is_some_and(|last| *last >= signed.key) {
            return Err(CertificateError::Unordered(signed.key));
        }
        let (_, validator) = validators
            .get(&signed.key)
            .ok_or(CertificateError::UnknownSigner(signed.key))?;
        if !signing::verify(&signed.key.0, &signed.digest, &signed.signature) {
            return Err(CertificateError::BadSignature(signed.key));
        }
        seen.insert(signed.key);
        power += validator.power;
    }
    Ok(power)
}

fn require(enough: bool, power: u64, validators: &ValidatorSet) -> Result<(), CertificateError> {
    if enough {
        return Ok(());
    }
    Err(CertificateError::NotEnoughPower {
        power,
        total: validators.total_power(),
    })
}

impl CommitCertificate {
    /// Checks that validators of more than two thirds of the power precommitted this block.
    pub fn verify(
        &self,
        validators: &ValidatorSet,
        genesis: &GenesisHash,
    ) -> Result<(), CertificateError> {
        let kind = VoteKind::Precommit;
        let digest = vote_digest(genesis, kind, self.height, self.round, Some(self.block));
        let power = verified_power(validators, sign_all(&self.signatures, digest))?;
        require(validators.is_quorum(power), power, validators)
    }

    /// The votes that it is made of.
    pub fn votes(&self) -> impl Iterator<Item = Vote> + '_ {
        let (kind, height, round) = (VoteKind::Precommit, self.height, self.round);
        votes_of(&self.signatures, kind, height, round, self.block)
    }
}

impl PolkaCertificate {
    /// Checks that validators of more than two thirds of the power prevoted this block.
    pub fn verify(
        &self,
        validators: &ValidatorSet,
        genesis: &GenesisHash,
    ) -> Result<(), CertificateError> {
        let kind = VoteKind::Prevote;
        let digest = vote_digest(genesis, kind, self.height, self.round, Some(self.block));
        let power = verified_power(validators, sign_all(&self.signatures, digest))?;
        require(validators.is_quorum(power), power, validators)
    }

    /// The votes that it is made of.
    pub fn votes(&self) -> impl Iterator<Item = Vote> + '_ {
        let (kind, height, round) = (VoteKind::Prevote, self.height, self.round);
        votes_of(&self.signatures, kind, height, round, self.block)
    }
}

fn votes_of(
    signatures: &[(ConsensusKey, Signature)],
    kind: VoteKind,
    height: Height,
    round: Round,
    block: BlockHash,
) -> impl Iterator<Item = Vote> + '_ {
    signatures.iter().map(move |(voter, signature)| Vote {
        kind,
        height,
        round,
        block: Some(block),
        voter: *voter,
        signature: *signature,
    })
}

fn sign_all(
    signatures: &[(ConsensusKey, Signature)],
    digest: [u8; 32],
) -> impl Iterator<Item = Signed> + '_ {
    signatures.iter().map(move |(key, signature)| Signed {
        key: *key,
        signature: *signature,
        digest,
    })
}

impl RoundCertificate {
    /// Checks that the votes are of the round and carry the power that the kind needs.
    pub fn verify(
        &self,
        validators: &ValidatorSet,
        genesis: &GenesisHash,
    ) -> Result<(), CertificateError> {
        if let Some(vote) = self
            .votes
            .iter()
            .find(|vote| self.precommit && vote.kind != VoteKind::Precommit)
        {
            return Err(CertificateError::WrongKind(vote.voter));
        }
        let signed = self.votes.iter().map(|vote| Signed {
            key: vote.voter,
            signature: vote.signature,
            digest: vote_digest(genesis, vote.kind, self.height, self.round, vote.block),
        });
        let power = verified_power(validators, signed)?;
        let enough = if self.precommit {
            validators.is_quorum(power)
        } else {
            validators.is_more_than_third(power)
        };
        require(enough, power, validators)
    }

    /// The votes that it is made of.
    pub fn votes(&self) -> impl Iterator<Item = Vote> + '_ {
        self.votes.iter().map(|vote| Vote {
            kind: vote.kind,
            height: self.height,
            round: self.round,
            block: vote.block,
            voter: vote.voter,
            signature: vote.signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::genesis::sample_genesis;

    const HEIGHT: Height = Height(7);
    const ROUND: Round = Round(0);
    const BLOCK: BlockHash = BlockHash([5; 32]);

    fn keys() -> Vec<SigningKey> {
        let mut keys: Vec<SigningKey> = [1, 2]
            .map(|seed| SigningKey::from_bytes(&[seed; 32]))
            .into();
        keys.sort_by_key(|key| ConsensusKey::from(key));
        keys
    }

    fn certificate() -> CommitCertificate {
        let genesis = sample_genesis().hash();
        let kind = VoteKind::Precommit;
        let signatures = keys()
            .iter()
            .map(|key| Vote::sign(key, &genesis, kind, HEIGHT, ROUND, Some(BLOCK)))
            .map(|vote| (vote.voter, vote.signature))
            .collect();
        CommitCertificate {
            height: HEIGHT,
            round: ROUND,
            block: BLOCK,
            signatures,
        }
    }

    fn verify(certificate: &CommitCertificate) -> Result<(), CertificateError> {
        let genesis = sample_genesis();
        certificate.verify(&ValidatorSet::from_genesis(&genesis), &genesis.hash())
    }

    #[test]
    fn a_certificate_proves_only_what_a_quorum_signed() {
        assert_eq!(verify(&certificate()), Ok(()));
        let genesis = sample_genesis().hash();
        assert!(certificate().votes().all(|vote| vote.verify(&genesis)));

        let mut below = certificate();
        below.signatures.pop();
        let expected = CertificateError::NotEnoughPower { power: 1, total: 2 };
        assert_eq!(verify(&below), Err(expected));

        let mut twice = certificate();
        twice.signatures[1] = twice.signatures[0];
        assert!(matches!(
            verify(&twice),
            Err(CertificateError::Unordered(_))
        ));

        let mut other = certificate();
        other.block = BlockHash([6; 32]);
        assert!(matches!(
            verify(&other),
            Err(CertificateError::BadSignature(_))
        ));

        let mut stranger = certificate();
        stranger
            .signatures
            .push((ConsensusKey([255; 32]), Signature([0; 64])));
        assert!(matches!(
            verify(&stranger),
            Err(CertificateError::UnknownSigner(_))
        ));
    }

    #[test]
    fn a_vote_is_for_one_chain_kind_height_round_and_block() {
        let genesis = sample_genesis().hash();
        let vote = Vote::sign(&keys()[0], &genesis, VoteKind::Prevote, HEIGHT, ROUND, None);
        assert!(vote.verify(&genesis));
        assert!(!vote.verify(&GenesisHash([0; 32])));
        let changes: [fn(&mut Vote); 4] = [
            |vote| vote.kind = VoteKind::Precommit,
            |vote| vote.height = Height(8),
            |vote| vote.round = Round(1),
            |vote| vote.block = Some(BLOCK),
        ];
        for change in changes {
            let mut changed = vote;
            change(&mut changed);
            assert!(!changed.verify(&genesis));
        }
    }

    #[test]
    fn a_round_certificate_needs_the_power_of_its_kind() {
        let genesis = sample_genesis();
        let validators = ValidatorSet::from_genesis(&genesis);
        let kind = VoteKind::Prevote;
        let vote = Vote::sign(&keys()[0], &genesis.hash(), kind, HEIGHT, ROUND, None);
        let mut certificate = RoundCertificate {
            height: HEIGHT,
            round: ROUND,
            precommit: false,
            votes: vec![RoundVote {
                kind,
                block: None,
                voter: vote.voter,
                signature: vote.signature,
            }],
        };
        assert_eq!(certificate.verify(&validators, &genesis.hash()), Ok(()));
        assert!(certificate.votes().eq([vote]));
        certificate.precommit = true;
        assert!(matches!(
            certificate.verify(&validators, &genesis.hash()),
            Err(CertificateError::WrongKind(_))
        ));
    }
}
