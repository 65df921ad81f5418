//! The validator set: who votes, with which power, and whose turn it is to propose.

use super::codec;
use super::hash::{self, context};
use super::{Address, ConsensusKey, Genesis, Height, Round, ValidatorSetHash};

/// The longest proposer cycle, in entries.
pub const MAX_PROPOSER_CYCLE: u64 = 10_000;

/// One voter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    /// The masternode's name.
    pub name: String,
    /// The key that signs its votes.
    pub key: ConsensusKey,
    /// Its voting power.
    pub power: u64,
    /// Where its rewards go.
    pub payout: Address,
}

/// The fixed set of voters, in the order of genesis, with its proposer cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSet {
    validators: Vec<Validator>,
    total_power: u64,
    hash: ValidatorSetHash,
    /// Indices into `validators`.
    cycle: Vec<u16>,
}

impl ValidatorSet {
    /// The set that a checked genesis names.
    pub fn from_genesis(genesis: &Genesis) -> Self {
        let validators: Vec<Validator> = genesis
            .masternodes
            .iter()
            .map(|masternode| Validator {
                name: masternode.name.clone(),
                key: masternode.consensus_key,
                power: masternode.power,
                payout: masternode.payout,
            })
            .collect();
        let hashed: Vec<(ConsensusKey, u64, Address)> = validators
            .iter()
            .map(|validator| (validator.key, validator.power, validator.payout))
            .collect();
        Self {
            total_power: validators.iter().map(|validator| validator.power).sum(),
            hash: ValidatorSetHash(hash::hash(context::VALIDATORS, &[&codec::encode(&hashed)])),
            cycle: proposer_cycle(&reduced_powers(genesis)),
            validators,
        }
    }

    /// The voters, in the order of genesis.
    pub fn validators(&self) -> &[Validator] {
        &self.validators
    }

    /// The power of all together.
    pub fn total_power(&self) -> u64 {
        self.total_power
    }

    /// What headers commit to.
    pub fn hash(&self) -> ValidatorSetHash {
        self.hash
    }

    /// A voter and its position, by key.
    pub fn get(&self, key: &ConsensusKey) -> Option<(usize, &Validator)> {
        self.validators
            .iter()
            .enumerate()
            .find(|(_, validator)| validator.key == *key)
    }

    /// Whether a power is a quorum: more than two thirds of the whole.
    pub fn is_quorum(&self, power: u64) -> bool {
        u128::from(power) * 3 > u128::from(self.total_power) * 2
    }

    /// Whether a power must include an honest voter: more than one third of the whole.
    pub fn is_more_than_third(&self, power: u64) -> bool {
        u128::from(power) * 3 > u128::from(self.total_power)
    }

    /// Whose turn it is: entry `(height + round) mod length` of the cycle.
    pub fn proposer(&self, height: Height, round: Round) -> &Validator {
        let length = self.cycle.len() as u64;
        let at = (height.0 % length + u64::from(round.0) % length) % length;
        &self.validators[usize::from(self.cycle[at as usize])]
    }
}

/// The powers divided by their greatest common divisor.
pub(super) fn reduced_powers(genesis: &Genesis) -> Vec<u64> {
    let powers = genesis
        .masternodes
        .iter()
        .map(|masternode| masternode.power);
    let divisor = powers.clone().fold(0, greatest_common_divisor).max(1);
    powers.map(|power| power / divisor).collect()
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// Smooth weighted round-robin (as in nginx): every turn each entry gains its weight, the largest
/// (the first of equals) is chosen and pays the total. Over one cycle each is chosen exactly as
/// often as its weight, spread as evenly as the weights allow.
fn proposer_cycle(weights: &[u64]) -> Vec<u16> {
    let total: u64 = weights.iter().sum();
    let mut current = vec![0i64; weights.len()];
    (0..total)
        .map(|_| {
            for (value, weight) in current.iter_mut().zip(weights) {
                *value += *weight as i64;
            }
            let mut chosen = 0;
            for at in 1..current.len() {
                if current[at] > current[chosen] {
                    chosen = at;
                }
            }
            current[chosen] -= total as i64;
            chosen as u16
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cycle_follows_the_weights_and_spreads_them() {
        assert_eq!(proposer_cycle(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(proposer_cycle(&[1, 1]), [0, 1]);
        let cycle = proposer_cycle(&[1, 2, 3, 4]);
        for (index, weight) in [1, 2, 3, 4].into_iter().enumerate() {
            let count = cycle.iter().filter(|at| usize::from(**at) == index).count();
            assert_eq!(count, weight);
        }
    }
}
