//! Certificates of votes that were signed rightly and wrongly, against what they must be worth.

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;

use super::{Choices, round_trip};
use crate::ledger::fixture::genesis_with_powers;
use crate::types::vote::RoundVote;
use crate::types::{
    BlockHash, CommitCertificate, Genesis, GenesisHash, Height, PolkaCertificate, Round,
    RoundCertificate, ValidatorSet, Vote, VoteKind,
};

const HEIGHT: Height = Height(7);
const ROUND: Round = Round(2);
const BLOCK: BlockHash = BlockHash([0xbb; 32]);
const POWERS: [u64; 5] = [1, 1, 2, 3, 5];

/// The validators' keys as in the fixture, and the key of a stranger.
static KEYS: LazyLock<Vec<SigningKey>> = LazyLock::new(|| {
    let seeds = 1..=POWERS.len() as u8 + 1;
    seeds
        .map(|seed| SigningKey::from_bytes(&[seed; 32]))
        .collect()
});

static CHAIN: LazyLock<(Genesis, ValidatorSet)> = LazyLock::new(|| {
    let genesis = genesis_with_powers(&POWERS);
    let validators = ValidatorSet::from_genesis(&genesis);
    (genesis, validators)
});

/// A vote in a certificate, and whether the certificate may count it.
struct Entry {
    vote: Vote,
    /// Signed for this chain, height, round, kind and block, by a validator, and not altered.
    good: bool,
    power: u64,
}

/// Commit, polka and round certificates: accepted exactly when every vote in them is right, in
/// order, and their power is enough. The first byte chooses the certificate's kind.
pub fn certificates(input: &[u8]) {
    let mut choices = Choices::new(input);
    let certificate = choices.below(4);
    let sorted = choices.flag();
    let mut entries = Vec::new();
    while !choices.is_empty() && entries.len() < 2 * POWERS.len() {
        entries.push(entry(&mut choices, certificate));
    }
    if sorted {
        entries.sort_by_key(|entry| entry.vote.voter);
    }
    let ordered = entries.is_sorted_by(|one, next| one.vote.voter < next.vote.voter);
    let power: u64 = entries.iter().map(|entry| entry.power).sum();
    let total: u64 = POWERS.iter().sum();
    let enough = match certificate {
        3 => power * 3 > total,
        _ => power * 3 > total * 2,
    };
    let valid = ordered && enough && entries.iter().all(|entry| entry.good);
    assert_eq!(accepts(certificate, &entries), valid, "{input:?}");
}

/// One vote: who signs, and then what is wrong with it, usually nothing.
fn entry(choices: &mut Choices<'_>, certificate: usize) -> Entry {
    let signer = choices.below(KEYS.len());
    let wrong = choices.byte();
    let (precommit, any_vote) = (certificate != 1, certificate == 3);
    // A skip counts votes of both kinds, for any block and for none.
    let prevote = !precommit || any_vote && wrong & 0x80 != 0;
    let mut kind = match prevote {
        true => VoteKind::Prevote,
        false => VoteKind::Precommit,
    };
    let (mut height, mut round) = (HEIGHT, ROUND);
    let mut genesis = CHAIN.0.hash();
    let mut block = match certificate {
        2 | 3 if wrong & 0x40 != 0 => None,
        _ => Some(BLOCK),
    };
    let said = (kind, block);
    match wrong & 0x3f {
        1 => height = Height(8),
        2 => round = Round(1),
        3 => genesis = GenesisHash([0; 32]),
        4 => block = Some(BlockHash([1; 32])),
        5 if kind == VoteKind::Prevote => kind = VoteKind::Precommit,
        5 => kind = VoteKind::Prevote,
        _ => {}
    }
    let mut vote = Vote::sign(&KEYS[signer], &genesis, kind, height, round, block);
    let mut good = (kind, block) == said && height == HEIGHT && round == ROUND;
    good &= genesis == CHAIN.0.hash() && signer < POWERS.len();
    (vote.kind, vote.block) = said;
    if wrong & 0x3f == 6 {
        let bit = choices.below(256) + 256 * choices.below(2);
        vote.signature.0[bit / 8] ^= 1 << (bit % 8);
        good = false;
    }
    Entry {
        vote,
        good,
        power: POWERS.get(signer).copied().unwrap_or(0),
    }
}

/// What the verifier says about a certificate of these votes, before and after it has travelled.
fn accepts(certificate: usize, entries: &[Entry]) -> bool {
    let (genesis, validators) = (&CHAIN.0.hash(), &CHAIN.1);
    let signatures = entries
        .iter()
        .map(|entry| (entry.vote.voter, entry.vote.signature))
        .collect();
    let (height, round, block) = (HEIGHT, ROUND, BLOCK);
    match certificate {
        0 => {
            let commit = CommitCertificate {
                height,
                round,
                block,
                signatures,
            };
            round_trip(&commit);
            commit.verify(validators, genesis).is_ok()
        }
        1 => {
            let polka = PolkaCertificate {
                height,
                round,
                block,
                signatures,
            };
            round_trip(&polka);
            polka.verify(validators, genesis).is_ok()
        }
        _ => {
            let votes = entries.iter().map(|entry| RoundVote {
                kind: entry.vote.kind,
                block: entry.vote.block,
                voter: entry.vote.voter,
                signature: entry.vote.signature,
            });
            let round_certificate = RoundCertificate {
                height,
                round,
                precommit: certificate == 2,
                votes: votes.collect(),
            };
            round_trip(&round_certificate);
            round_certificate.verify(validators, genesis).is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ConsensusKey;

    #[test]
    fn the_keys_are_the_validators_and_one_more() {
        for (key, validator) in KEYS.iter().zip(CHAIN.1.validators()) {
            assert_eq!(ConsensusKey::from(key), validator.key);
        }
        assert_eq!(KEYS.len(), CHAIN.1.validators().len() + 1);
    }
}
