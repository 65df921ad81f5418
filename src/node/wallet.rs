//! A wallet of one key: builds and signs transfers. Pure: which outputs are unspent comes from the
//! caller, and sending is the caller's. [`mod@file`] keeps the key.
//!
//! ```
//! use ed25519_dalek::SigningKey;
//! use timed::ledger::Rules;
//! use timed::node::wallet::{Fee, Transfer, Wallet};
//! use timed::types::{Address, Amount, GenesisHash, OutPoint, TxId, TxOutput};
//!
//! let wallet = Wallet::new(SigningKey::from_bytes(&[7; 32]));
//! let outpoint = OutPoint { txid: TxId([1; 32]), index: 0 };
//! let held = TxOutput { amount: "20".parse()?, address: wallet.address() };
//! let rules = Rules {
//!     genesis: GenesisHash([2; 32]),
//!     min_fee_per_kb: Amount(1_000),
//!     max_transaction_bytes: 100_000,
//! };
//! let transfer = Transfer {
//!     to: Address([3; 32]),
//!     amount: "12.5".parse()?,
//!     fee: Fee::Exact("0.5".parse()?),
//! };
//! let transaction = wallet.transfer(&rules, &[(outpoint, held)], &transfer)?;
//! assert_eq!(transaction.outputs[0].amount, transfer.amount);
//! assert_eq!(transaction.outputs[1].amount, "7".parse()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod file;

use ed25519_dalek::SigningKey;

use crate::ledger::Rules;
use crate::types::transaction::TRANSACTION_VERSION;
use crate::types::{
    Address, Amount, OutPoint, PublicKey, Signature, Transaction, TxInput, TxOutput, signing,
};

/// The most inputs of one transfer.
pub const MAX_INPUTS: usize = 500;

/// One key and the address that it spends from. The key is wiped from memory when this is dropped.
pub struct Wallet {
    key: SigningKey,
}

/// A transfer to build.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Who is paid.
    pub to: Address,
    /// How much.
    pub amount: Amount,
    /// What the block's proposer gets.
    pub fee: Fee,
}

/// How much a transfer pays to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fee {
    /// The lowest that the chain takes.
    Lowest,
    /// This much for each 1,000 bytes, and never less than the lowest.
    PerKb(Amount),
    /// This much.
    Exact(Amount),
}

/// Why a transfer cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalletError {
    /// The outputs do not suffice.
    #[error("not enough: {needed} TIME are needed with the fee, {available} TIME can be spent now")]
    NotEnough {
        /// Amount and fee.
        needed: Amount,
        /// The sum of the outputs that can be spent.
        available: Amount,
    },
    /// Too many small outputs would be needed.
    #[error(
        "more than {MAX_INPUTS} outputs would be needed: send a smaller amount to yourself first"
    )]
    TooManyInputs,
    /// The amount is nothing, or more than an amount can hold with the fee.
    #[error("{0} TIME cannot be sent")]
    Amount(Amount),
}

impl Wallet {
    /// A wallet of a key.
    pub fn new(key: SigningKey) -> Self {
        Self { key }
    }

    /// Where it is paid.
    pub fn address(&self) -> Address {
        Address::of(&PublicKey::from(&self.key))
    }

    /// Builds and signs a transfer from outputs that pay to this wallet, the largest first. What is
    /// left over comes back to the wallet as the last output.
    pub fn transfer(
        &self,
        rules: &Rules,
        unspent: &[(OutPoint, TxOutput)],
        transfer: &Transfer,
    ) -> Result<Transaction, WalletError> {
        if transfer.amount == Amount::ZERO {
            return Err(WalletError::Amount(transfer.amount));
        }
        let mut largest_first = unspent.to_vec();
        largest_first
            .sort_by_key(|(outpoint, output)| (std::cmp::Reverse(output.amount), *outpoint));
        let mut spent = Vec::new();
        let mut sum = Amount::ZERO;
        let mut needed = self.needed(rules, transfer, spent.len().max(1))?;
        for (outpoint, output) in largest_first {
            if sum >= needed {
                break;
            }
            if spent.len() == MAX_INPUTS {
                return Err(WalletError::TooManyInputs);
            }
            spent.push(outpoint);
            sum = sum
                .checked_add(output.amount)
                .ok_or(WalletError::Amount(output.amount))?;
            needed = self.needed(rules, transfer, spent.len())?;
        }
        let change = sum.checked_sub(needed).ok_or(WalletError::NotEnough {
            needed,
            available: sum,
        })?;
        Ok(self.sign(rules, &spent, transfer, change))
    }

    /// Amount and fee of a transfer with this many inputs and with change.
    fn needed(
        &self,
        rules: &Rules,
        transfer: &Transfer,
        inputs: usize,
    ) -> Result<Amount, WalletError> {
        let per_kb = match transfer.fee {
            Fee::Exact(fee) => return amount_and(transfer, fee),
            Fee::Lowest => Amount::ZERO,
            Fee::PerKb(rate) => rate,
        };
        let outpoint = OutPoint {
            txid: crate::types::TxId([0; 32]),
            index: 0,
        };
        let unsigned = unsigned(self, &vec![outpoint; inputs], transfer, Amount(1));
        let rules = Rules {
            min_fee_per_kb: rules.min_fee_per_kb.max(per_kb),
            ..*rules
        };
        amount_and(transfer, rules.min_fee(unsigned.encoded_bytes()))
    }

    fn sign(
        &self,
        rules: &Rules,
        spent: &[OutPoint],
        transfer: &Transfer,
        change: Amount,
    ) -> Transaction {
        let mut transaction = unsigned(self, spent, transfer, change);
        let digest = transaction.signing_digest(&rules.genesis);
        let signature = signing::sign(&self.key, &digest);
        for input in &mut transaction.inputs {
            input.signature = signature;
        }
        transaction
    }
}

fn amount_and(transfer: &Transfer, fee: Amount) -> Result<Amount, WalletError> {
    let sum = transfer.amount.checked_add(fee);
    sum.ok_or(WalletError::Amount(transfer.amount))
}

fn unsigned(
    wallet: &Wallet,
    spent: &[OutPoint],
    transfer: &Transfer,
    change: Amount,
) -> Transaction {
    let inputs = spent.iter().map(|outpoint| TxInput {
        outpoint: *outpoint,
        public_key: (&wallet.key).into(),
        signature: Signature([0; 64]),
    });
    let payment = TxOutput {
        amount: transfer.amount,
        address: transfer.to,
    };
    let change = (change > Amount::ZERO).then(|| TxOutput {
        amount: change,
        address: wallet.address(),
    });
    Transaction {
        version: TRANSACTION_VERSION,
        inputs: inputs.collect(),
        outputs: std::iter::once(payment).chain(change).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{GenesisHash, TxId};

    const RULES: Rules = Rules {
        genesis: GenesisHash([1; 32]),
        min_fee_per_kb: Amount(1_000),
        max_transaction_bytes: 100_000,
    };

    fn wallet() -> Wallet {
        Wallet::new(SigningKey::from_bytes(&[3; 32]))
    }

    fn outputs(amounts: &[u64]) -> Vec<(OutPoint, TxOutput)> {
        let address = wallet().address();
        let output = |(index, amount): (u32, &u64)| {
            let txid = TxId([9; 32]);
            let amount = Amount(*amount);
            (OutPoint { txid, index }, TxOutput { amount, address })
        };
        (0..).zip(amounts).map(output).collect()
    }

    fn transfer(amount: u64, fee: u64) -> Transfer {
        Transfer {
            to: Address([7; 32]),
            amount: Amount(amount),
            fee: Fee::Exact(Amount(fee)),
        }
    }

    #[test]
    fn inputs_cover_amount_and_fee_and_the_rest_comes_back() {
        let built = wallet()
            .transfer(&RULES, &outputs(&[10, 500, 300]), &transfer(600, 50))
            .unwrap();
        let indices: Vec<u32> = built
            .inputs
            .iter()
            .map(|input| input.outpoint.index)
            .collect();
        assert_eq!(indices, [1, 2]);
        assert_eq!(built.outputs[0].amount, Amount(600));
        assert_eq!(built.outputs[1].amount, Amount(150));
        assert_eq!(built.outputs[1].address, wallet().address());
        let digest = built.signing_digest(&RULES.genesis);
        for input in &built.inputs {
            assert!(signing::verify(
                &input.public_key.0,
                &digest,
                &input.signature
            ));
        }
    }

    #[test]
    fn an_exact_amount_has_no_change() {
        let built = wallet().transfer(&RULES, &outputs(&[100]), &transfer(90, 10));
        assert_eq!(built.unwrap().outputs.len(), 1);
    }

    #[test]
    fn a_rate_pays_for_the_whole_size_and_never_less_than_the_chain_takes() {
        let paid = |fee| {
            let transfer = Transfer {
                fee,
                ..transfer(100_000, 0)
            };
            let built = wallet()
                .transfer(&RULES, &outputs(&[900_000, 50_000]), &transfer)
                .unwrap();
            let kept = built.outputs.iter().map(|output| output.amount.0);
            (900_000 - kept.sum::<u64>(), built.encoded_bytes() as u64)
        };
        let (lowest, bytes) = paid(Fee::Lowest);
        assert_eq!(lowest, bytes);
        assert_eq!(paid(Fee::PerKb(Amount(999))).0, bytes);
        assert_eq!(paid(Fee::PerKb(Amount(3_000))).0, 3 * bytes);
    }

    #[test]
    fn too_little_nothing_and_too_many_are_refused() {
        let refused = |amounts: &[u64], amount, fee| {
            wallet()
                .transfer(&RULES, &outputs(amounts), &transfer(amount, fee))
                .unwrap_err()
        };
        assert_eq!(
            refused(&[100], 90, 11),
            WalletError::NotEnough {
                needed: Amount(101),
                available: Amount(100)
            }
        );
        assert_eq!(refused(&[100], 0, 1), WalletError::Amount(Amount(0)));
        assert_eq!(refused(&[1; 600], 550, 1), WalletError::TooManyInputs);
        assert!(matches!(
            refused(&[100], u64::MAX, 1),
            WalletError::Amount(_)
        ));
    }
}
