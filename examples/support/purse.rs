//! Signed transfers for the examples.

use std::collections::{BTreeMap, VecDeque};

use ed25519_dalek::SigningKey;
use timed::types::transaction::TRANSACTION_VERSION;
use timed::types::{
    Address, Amount, Genesis, GenesisHash, OutPoint, PublicKey, Signature, Transaction, TxInput,
    TxOutput, signing,
};

/// A key and the outputs that it can spend, each used again when its transfer is final.
pub struct Purse {
    key: SigningKey,
    genesis: GenesisHash,
    fee: Amount,
    spendable: VecDeque<(OutPoint, Amount)>,
    in_flight: BTreeMap<OutPoint, Amount>,
}

impl Purse {
    /// The key's outputs among the allocations of genesis.
    pub fn new(key: SigningKey, genesis: &Genesis) -> Self {
        let address = Address::of(&PublicKey::from(&key));
        let own = genesis.outputs().into_iter();
        let spendable = own
            .filter(|(_, output)| output.address == address)
            .map(|(outpoint, output)| (outpoint, output.amount))
            .collect();
        Self {
            key,
            genesis: genesis.hash(),
            fee: genesis.min_fee_per_kb,
            spendable,
            in_flight: BTreeMap::new(),
        }
    }

    /// A signed transfer of one output back to the same key, less the fee; `None` while all are
    /// under way.
    pub fn transfer(&mut self) -> Option<Transaction> {
        let (outpoint, amount) = self.spendable.pop_front()?;
        let public_key = PublicKey::from(&self.key);
        let amount = amount.checked_sub(self.fee)?;
        let mut transaction = Transaction {
            version: TRANSACTION_VERSION,
            inputs: vec![TxInput {
                outpoint,
                public_key,
                signature: Signature([0; 64]),
            }],
            outputs: vec![TxOutput {
                amount,
                address: Address::of(&public_key),
            }],
        };
        let digest = transaction.signing_digest(&self.genesis);
        transaction.inputs[0].signature = signing::sign(&self.key, &digest);
        let (created, _) = transaction.created().next()?;
        self.in_flight.insert(created, amount);
        Some(transaction)
    }

    /// A transfer is final: its output can be spent.
    pub fn confirm(&mut self, transaction: &Transaction) {
        for (outpoint, _) in transaction.created() {
            if let Some(amount) = self.in_flight.remove(&outpoint) {
                self.spendable.push_back((outpoint, amount));
            }
        }
    }
}
