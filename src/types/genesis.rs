//! Genesis: the one file that all nodes of a chain share, and the hash that names the chain.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::codec;
use super::hash::{self, context};
use super::validators::MAX_PROPOSER_CYCLE;
use super::{
    Address, Amount, BlockHash, ConsensusKey, GenesisHash, Network, OutPoint, TxId, TxOutput,
};

/// The largest block that genesis may allow, and what the wire carries.
pub const MAX_BLOCK_BYTES: u32 = 4_000_000;

/// The most masternodes that genesis may name.
pub const MAX_MASTERNODES: usize = 1_000;

/// Everything that all nodes of a chain must agree on before its first block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// A name for people; part of the hash.
    pub chain_id: String,
    /// Which network's magic, prefix and ports apply.
    pub network: Network,
    /// When the chain starts, Unix milliseconds.
    pub time_ms: u64,
    /// How often a block is made when nothing waits, in milliseconds.
    pub slot_ms: u64,
    /// The shortest time between two blocks, in milliseconds.
    pub min_block_interval_ms: u64,
    /// The largest encoded block, in bytes.
    pub max_block_bytes: u32,
    /// The lowest fee for 1,000 bytes of transaction.
    pub min_fee_per_kb: Amount,
    /// The uplink that a proposer is assumed to have, in Mbit/s: bounds how long a body in progress
    /// may hold the propose timeout back.
    pub uplink_mbit: u32,
    /// The consensus timeouts.
    pub timeouts: Timeouts,
    /// Who votes.
    pub masternodes: Vec<GenesisMasternode>,
    /// The outputs that exist before the first block.
    pub allocations: Vec<Allocation>,
}

/// Consensus timeouts, equal on all nodes, in milliseconds. Round `r` waits `base + r * step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// The propose timeout of round 0.
    pub propose_ms: u64,
    /// The prevote and precommit timeouts of round 0.
    pub vote_ms: u64,
    /// What each further round adds.
    pub step_ms: u64,
    /// The longest prevote and precommit timeout.
    pub max_vote_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            propose_ms: 3_000,
            vote_ms: 1_000,
            step_ms: 500,
            max_vote_ms: 10_000,
        }
    }
}

/// A masternode that votes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisMasternode {
    /// Its name, unique; the name of its record file.
    pub name: String,
    /// The key that signs its votes, proposals and records.
    pub consensus_key: ConsensusKey,
    /// Its voting power, at least 1.
    pub power: u64,
    /// Where its rewards and fees go.
    pub payout: Address,
}

/// An output that exists before the first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// Whose it is.
    pub address: Address,
    /// How much.
    pub amount: Amount,
}

/// Why a genesis cannot start a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// A single value is out of its range.
    #[error("genesis: {field} is {value}, but must be {expected}")]
    OutOfRange {
        /// The field's name in the file.
        field: &'static str,
        /// The value found.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// Two masternodes share what must be unique.
    #[error("genesis: two masternodes share the {what} {value}")]
    Duplicate {
        /// Name or consensus key.
        what: &'static str,
        /// The shared value.
        value: String,
    },
    /// The sum of all allocations is not an amount.
    #[error("genesis: the allocations add up to more than an amount can hold")]
    AllocationOverflow,
    /// The proposer cycle would be too long.
    #[error(
        "genesis: the powers divided by their greatest common divisor add up to {total}, \
         but at most {MAX_PROPOSER_CYCLE} are allowed; use rounder powers"
    )]
    ProposerCycle {
        /// The sum after division.
        total: u64,
    },
}

fn range<T: PartialOrd + std::fmt::Display>(
    field: &'static str,
    value: T,
    low: T,
    high: T,
) -> Result<(), GenesisError> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(GenesisError::OutOfRange {
        field,
        value: value.to_string(),
        expected: format!("between {low} and {high}"),
    })
}

impl Genesis {
    /// The chain's identity: a hash over every field.
    pub fn hash(&self) -> GenesisHash {
        GenesisHash(hash::hash(context::GENESIS, &[&codec::encode(self)]))
    }

    /// What the first block names as its parent.
    pub fn as_parent(&self) -> BlockHash {
        BlockHash(self.hash().0)
    }

    /// The unspent outputs at height 0, in the order of the allocations.
    pub fn outputs(&self) -> Vec<(OutPoint, TxOutput)> {
        let txid = TxId(hash::hash(context::ALLOCATION, &[self.hash().as_bytes()]));
        self.allocations
            .iter()
            .zip(0u32..)
            .map(|(allocation, index)| {
                let output = TxOutput {
                    amount: allocation.amount,
                    address: allocation.address,
                };
                (OutPoint { txid, index }, output)
            })
            .collect()
    }

    /// The slot that a time lies in; the genesis time starts slot 0, and earlier times count as it.
    pub fn slot_at(&self, time_ms: u64) -> u64 {
        time_ms.saturating_sub(self.time_ms) / self.slot_ms
    }

    /// When a slot starts, Unix milliseconds.
    pub fn slot_start_ms(&self, slot: u64) -> u64 {
        self.time_ms
            .saturating_add(slot.saturating_mul(self.slot_ms))
    }

    /// Checks every rule that does not need another file.
    pub fn check(&self) -> Result<(), GenesisError> {
        range("chain_id length", self.chain_id.len(), 1, 64)?;
        range("time_ms", self.time_ms, 1, 1 << 52)?;
        range("slot_ms", self.slot_ms, 100, 86_400_000)?;
        range(
            "min_block_interval_ms",
            self.min_block_interval_ms,
            1,
            self.slot_ms,
        )?;
        range(
            "max_block_bytes",
            self.max_block_bytes,
            10_000,
            MAX_BLOCK_BYTES,
        )?;
        range("min_fee_per_kb", self.min_fee_per_kb.0, 0, 10_000_000_000)?;
        range("uplink_mbit", self.uplink_mbit, 1, 1_000_000)?;
        range("timeouts.propose_ms", self.timeouts.propose_ms, 10, 600_000)?;
        range("timeouts.vote_ms", self.timeouts.vote_ms, 10, 600_000)?;
        range("timeouts.step_ms", self.timeouts.step_ms, 1, 600_000)?;
        range(
            "timeouts.max_vote_ms",
            self.timeouts.max_vote_ms,
            self.timeouts.vote_ms,
            600_000,
        )?;
        range(
            "number of masternodes",
            self.masternodes.len(),
            1,
            MAX_MASTERNODES,
        )?;
        range("number of allocations", self.allocations.len(), 0, 10_000)?;
        let mut names = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for masternode in &self.masternodes {
            super::record::check_name(&masternode.name).map_err(|_| GenesisError::OutOfRange {
                field: "masternode name",
                value: format!("{:?}", masternode.name),
                expected: super::record::NAME_RULE.into(),
            })?;
            range("masternode power", masternode.power, 1, 1_000_000_000)?;
            if !names.insert(&masternode.name) {
                return Err(GenesisError::Duplicate {
                    what: "name",
                    value: masternode.name.clone(),
                });
            }
            if !keys.insert(masternode.consensus_key) {
                return Err(GenesisError::Duplicate {
                    what: "consensus key",
                    value: masternode.consensus_key.to_string(),
                });
            }
        }
        Amount::checked_sum(self.allocations.iter().map(|one| one.amount))
            .ok_or(GenesisError::AllocationOverflow)?;
        let total = super::validators::reduced_powers(self).iter().sum();
        if total > MAX_PROPOSER_CYCLE {
            return Err(GenesisError::ProposerCycle { total });
        }
        Ok(())
    }
}

/// Two masternodes, `alpha` and `beta`, with the consensus secrets `[1; 32]` and `[2; 32]`.
#[cfg(any(test, fuzzing))]
pub(crate) fn sample_genesis() -> Genesis {
    let masternode = |name: &str, seed: u8| GenesisMasternode {
        name: name.into(),
        consensus_key: (&ed25519_dalek::SigningKey::from_bytes(&[seed; 32])).into(),
        power: 1,
        payout: Address([seed; 32]),
    };
    Genesis {
        chain_id: "sample".into(),
        network: Network::Dev,
        time_ms: 1_000_000,
        slot_ms: 5_000,
        min_block_interval_ms: 250,
        max_block_bytes: MAX_BLOCK_BYTES,
        min_fee_per_kb: Amount(1_000),
        uplink_mbit: 20,
        timeouts: Timeouts::default(),
        masternodes: vec![masternode("alpha", 1), masternode("beta", 2)],
        allocations: vec![Allocation {
            address: Address([7; 32]),
            amount: Amount::from_time(1_000).expect("it is small"),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_form_round_trips_and_keeps_the_hash() {
        let genesis = sample_genesis();
        assert_eq!(genesis.check(), Ok(()));
        let text = toml::to_string(&genesis).unwrap();
        let read: Genesis = toml::from_str(&text).unwrap();
        assert_eq!(read.hash(), genesis.hash());
    }

    #[test]
    fn every_field_is_under_the_hash() {
        let changes: [fn(&mut Genesis); 8] = [
            |genesis| genesis.chain_id.push('x'),
            |genesis| genesis.network = Network::Test,
            |genesis| genesis.time_ms += 1,
            |genesis| genesis.slot_ms += 1,
            |genesis| genesis.max_block_bytes -= 1,
            |genesis| genesis.timeouts.step_ms += 1,
            |genesis| genesis.masternodes[0].power += 1,
            |genesis| genesis.allocations[0].amount.0 += 1,
        ];
        for change in changes {
            let mut changed = sample_genesis();
            change(&mut changed);
            assert_ne!(changed.hash(), sample_genesis().hash());
        }
    }

    #[test]
    fn slots_start_at_the_genesis_time() {
        let genesis = sample_genesis();
        assert_eq!(genesis.slot_at(0), 0);
        assert_eq!(genesis.slot_at(1_000_000), 0);
        assert_eq!(genesis.slot_at(1_004_999), 0);
        assert_eq!(genesis.slot_at(1_005_000), 1);
        assert_eq!(genesis.slot_start_ms(1), 1_005_000);
    }

    #[test]
    fn what_cannot_start_a_chain_is_named() {
        type Change = fn(&mut Genesis);
        let changes: [(Change, &str); 6] = [
            (
                |genesis| genesis.masternodes.clear(),
                "number of masternodes",
            ),
            (
                |genesis| genesis.masternodes[1].name = "alpha".into(),
                "name alpha",
            ),
            (
                |genesis| {
                    genesis.masternodes[1].consensus_key = genesis.masternodes[0].consensus_key;
                },
                "consensus key",
            ),
            (|genesis| genesis.masternodes[0].power = 0, "power is 0"),
            (|genesis| genesis.masternodes[0].power = 10_007, "10008"),
            (
                |genesis| genesis.allocations[0].amount = Amount(u64::MAX),
                "",
            ),
        ];
        for (change, word) in changes {
            let mut genesis = sample_genesis();
            change(&mut genesis);
            genesis.allocations.push(genesis.allocations[0]);
            let error = genesis.check().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
