//! What the tests of several modules build on: keys, a genesis, signed transactions.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;

use super::{Draft, Parent, Rules, assemble_block};
use crate::types::transaction::TRANSACTION_VERSION;
use crate::types::{
    Address, Allocation, Amount, Block, ConsensusKey, Genesis, GenesisHash, GenesisMasternode,
    Network, OutPoint, PublicKey, Signature, Timeouts, Transaction, TxInput, TxOutput,
    ValidatorSet, signing,
};

/// What each allocation of [`genesis_with_powers`] holds.
pub(crate) const ALLOCATED: Amount = Amount(1_000_000_000);

/// How many allocations there are: wallets 0 to 9.
pub(crate) const WALLETS: u8 = 10;

/// The key of a wallet.
pub(crate) fn wallet(index: u8) -> SigningKey {
    SigningKey::from_bytes(&[index.wrapping_add(100); 32])
}

/// The address of a wallet.
pub(crate) fn address(index: u8) -> Address {
    Address::of(&PublicKey::from(&wallet(index)))
}

/// The consensus key of a masternode.
pub(crate) fn consensus_key(index: u8) -> ConsensusKey {
    ConsensusKey::from(&SigningKey::from_bytes(&[index.wrapping_add(1); 32]))
}

/// A chain with 5 s slots, these masternodes and ten wallets with one output each.
pub(crate) fn genesis_with_powers(powers: &[u64]) -> Genesis {
    let masternodes = powers
        .iter()
        .zip(0u8..)
        .map(|(power, index)| GenesisMasternode {
            name: format!("mn{index}"),
            consensus_key: consensus_key(index),
            power: *power,
            payout: address(200 + index % 50),
        });
    let allocations = (0..WALLETS).map(|index| Allocation {
        address: address(index),
        amount: ALLOCATED,
    });
    Genesis {
        chain_id: "fixture".into(),
        network: Network::Dev,
        time_ms: 1_800_000_000_000,
        slot_ms: 5_000,
        min_block_interval_ms: 250,
        max_block_bytes: 1_000_000,
        min_fee_per_kb: Amount(1_000),
        uplink_mbit: 20,
        timeouts: Timeouts::default(),
        masternodes: masternodes.collect(),
        allocations: allocations.collect(),
    }
}

/// A signed transaction that spends these outputs, each with its wallet.
pub(crate) fn spend(
    genesis: &GenesisHash,
    inputs: &[(OutPoint, u8)],
    outputs: &[(u8, u64)],
) -> Transaction {
    let mut transaction = Transaction {
        version: TRANSACTION_VERSION,
        inputs: inputs
            .iter()
            .map(|(outpoint, owner)| TxInput {
                outpoint: *outpoint,
                public_key: PublicKey::from(&wallet(*owner)),
                signature: Signature([0; 64]),
            })
            .collect(),
        outputs: outputs
            .iter()
            .map(|(payee, units)| TxOutput {
                amount: Amount(*units),
                address: address(*payee),
            })
            .collect(),
    };
    sign(
        &mut transaction,
        genesis,
        inputs.iter().map(|(_, owner)| *owner),
    );
    transaction
}

/// Signs every input again, by these wallets in order.
pub(crate) fn sign(
    transaction: &mut Transaction,
    genesis: &GenesisHash,
    owners: impl IntoIterator<Item = u8>,
) {
    let digest = transaction.signing_digest(genesis);
    for (input, owner) in transaction.inputs.iter_mut().zip(owners) {
        input.signature = signing::sign(&wallet(owner), &digest);
    }
}

/// A chain of one's own: genesis, set, tip and unspent outputs.
pub(crate) struct Ledger {
    pub(crate) genesis: Genesis,
    pub(crate) validators: ValidatorSet,
    pub(crate) rules: Rules,
    pub(crate) parent: Parent,
    pub(crate) outputs: BTreeMap<OutPoint, TxOutput>,
}

impl Ledger {
    pub(crate) fn new(genesis: Genesis) -> Self {
        Self {
            validators: ValidatorSet::from_genesis(&genesis),
            rules: Rules::of(&genesis),
            parent: Parent::genesis(&genesis),
            outputs: genesis.outputs().into_iter().collect(),
            genesis,
        }
    }

    /// The genesis output of a wallet.
    pub(crate) fn allocation(&self, index: u8) -> OutPoint {
        self.genesis.outputs()[usize::from(index)].0
    }

    /// A signed transaction of this chain.
    pub(crate) fn spend(&self, inputs: &[(OutPoint, u8)], outputs: &[(u8, u64)]) -> Transaction {
        spend(&self.rules.genesis, inputs, outputs)
    }

    /// A draft of masternode 0 at the parent's next millisecond.
    pub(crate) fn draft(&self, candidates: Vec<Transaction>) -> Draft {
        Draft {
            proposer: consensus_key(0),
            time_ms: self.parent.time_ms + 1,
            candidates,
            max_bytes: usize::MAX,
        }
    }

    /// Builds a block from candidates and moves on to it.
    pub(crate) fn advance(&mut self, candidates: Vec<Transaction>) -> Block {
        let draft = self.draft(candidates);
        let (block, applied) = assemble_block(
            &self.genesis,
            &self.validators,
            &self.parent,
            draft,
            &self.outputs,
        )
        .expect("the draft is valid");
        for (outpoint, _) in &applied.spent {
            self.outputs.remove(outpoint);
        }
        self.outputs.extend(applied.created);
        self.parent = Parent {
            height: block.header.height,
            hash: block.hash(),
            time_ms: block.header.time_ms,
            set: applied.set,
        };
        block
    }
}
