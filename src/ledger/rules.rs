//! The rules of a single transaction.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::BLOCK_OVERHEAD_BYTES;
use crate::types::transaction::TRANSACTION_VERSION;
use crate::types::{
    Address, Amount, Genesis, GenesisHash, OutPoint, PublicKey, Transaction, TxOutput, signing,
};

/// The largest encoded transaction, in bytes. It bounds the counts too: at most 757 inputs or 2,496
/// outputs.
pub const MAX_TRANSACTION_BYTES: usize = 100_000;

/// A view of unspent outputs.
pub trait StateView {
    /// The unspent output, or `None` when it never existed or is spent.
    fn output(&self, outpoint: &OutPoint) -> Option<TxOutput>;
}

impl StateView for BTreeMap<OutPoint, TxOutput> {
    fn output(&self, outpoint: &OutPoint) -> Option<TxOutput> {
        self.get(outpoint).copied()
    }
}

/// What the rules need from genesis.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The chain that signatures commit to.
    pub genesis: GenesisHash,
    /// The lowest fee for 1,000 bytes.
    pub min_fee_per_kb: Amount,
    /// The largest encoded transaction: [`MAX_TRANSACTION_BYTES`], or what fits into a block of this
    /// chain when that is less.
    pub max_transaction_bytes: usize,
}

impl Rules {
    /// The rules of a chain.
    pub fn of(genesis: &Genesis) -> Self {
        let room = (genesis.max_block_bytes as usize).saturating_sub(BLOCK_OVERHEAD_BYTES);
        Self {
            genesis: genesis.hash(),
            min_fee_per_kb: genesis.min_fee_per_kb,
            max_transaction_bytes: MAX_TRANSACTION_BYTES.min(room),
        }
    }

    /// The lowest fee of a transaction of this size, rounded up.
    pub fn min_fee(&self, encoded_bytes: usize) -> Amount {
        let fee = (u128::from(self.min_fee_per_kb.0) * encoded_bytes as u128).div_ceil(1_000);
        Amount(u64::try_from(fee).unwrap_or(u64::MAX))
    }
}

/// Why a transaction is refused. Positions count from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// A version that this software does not know.
    #[error("transaction version {got} is unknown: make it with version {TRANSACTION_VERSION}")]
    Version {
        /// The version found.
        got: u16,
    },
    /// It spends nothing.
    #[error("the transaction has no inputs: name at least one unspent output")]
    NoInputs,
    /// It makes nothing.
    #[error("the transaction has no outputs: name at least one address and amount")]
    NoOutputs,
    /// It is too large.
    #[error("the transaction has {bytes} bytes of at most {limit}: split it into several")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Two inputs name the same output.
    #[error("input {index} names output {}:{} again: name it once", .outpoint.txid, .outpoint.index)]
    DuplicateInput {
        /// The second input's position.
        index: usize,
        /// The output.
        outpoint: OutPoint,
    },
    /// An output without value.
    #[error("output {index} pays nothing: give it an amount or leave it out")]
    ZeroOutput {
        /// Its position.
        index: usize,
    },
    /// An input names no unspent output.
    #[error(
        "input {index}: output {}:{} is spent or was never made; look up what is unspent, or wait \
         until the transaction that makes it has arrived",
        .outpoint.txid, .outpoint.index
    )]
    MissingInput {
        /// The input's position.
        index: usize,
        /// The output.
        outpoint: OutPoint,
    },
    /// The key is not the owner's.
    #[error(
        "input {index}: public key {public_key} does not own output {}:{}; sign with the key of \
         the address that it pays to",
        .outpoint.txid, .outpoint.index
    )]
    WrongKey {
        /// The input's position.
        index: usize,
        /// The output.
        outpoint: OutPoint,
        /// The key found.
        public_key: PublicKey,
    },
    /// The signature does not hold.
    #[error(
        "input {index}: the signature for output {}:{} does not verify with key {public_key}; sign \
         this very transaction for this chain (genesis {genesis})",
        .outpoint.txid, .outpoint.index
    )]
    BadSignature {
        /// The input's position.
        index: usize,
        /// The output.
        outpoint: OutPoint,
        /// The key that it was checked with.
        public_key: PublicKey,
        /// The chain that it was checked for.
        genesis: GenesisHash,
    },
    /// The inputs' or outputs' sum is no amount.
    #[error("the {side} add up to more than an amount can hold: split the transaction")]
    AmountOverflow {
        /// Inputs or outputs.
        side: &'static str,
    },
    /// It pays out more than it spends.
    #[error(
        "the outputs need {outputs} TIME but the inputs hold {inputs} TIME: add inputs or pay less"
    )]
    Overspent {
        /// The sum of the inputs.
        inputs: Amount,
        /// The sum of the outputs.
        outputs: Amount,
    },
    /// The difference between inputs and outputs is too small.
    #[error(
        "the fee is {fee} TIME, but {bytes} bytes need at least {required} TIME: lower an output \
         by the difference"
    )]
    FeeTooLow {
        /// The fee offered.
        fee: Amount,
        /// The lowest fee.
        required: Amount,
        /// The transaction's encoded size.
        bytes: usize,
    },
}

impl TransactionError {
    /// Whether the same transaction id with other keys or signatures might be valid, so that the id
    /// says nothing about the next copy of it.
    pub fn is_about_witness(&self) -> bool {
        matches!(
            self,
            TransactionError::WrongKey { .. } | TransactionError::BadSignature { .. }
        )
    }
}

/// Checks a transaction against a view: form, size, inputs present, keys match addresses, amounts
/// without overflow, fee, strict signatures. Returns the fee.
pub fn check_transaction(
    transaction: &Transaction,
    view: &dyn StateView,
    rules: &Rules,
) -> Result<Amount, TransactionError> {
    check_form(transaction, rules)?;
    let fee = check_spending(transaction, view, rules)?;
    // Last, because it costs a thousand times what the others do.
    check_signatures(transaction, rules)?;
    Ok(fee)
}

/// The part that needs nothing but the transaction: version, counts, size, no output twice, no
/// output without value.
pub fn check_form(transaction: &Transaction, rules: &Rules) -> Result<(), TransactionError> {
    if transaction.version != TRANSACTION_VERSION {
        return Err(TransactionError::Version {
            got: transaction.version,
        });
    }
    if transaction.inputs.is_empty() {
        return Err(TransactionError::NoInputs);
    }
    if transaction.outputs.is_empty() {
        return Err(TransactionError::NoOutputs);
    }
    let (bytes, limit) = (transaction.encoded_bytes(), rules.max_transaction_bytes);
    if bytes > limit {
        return Err(TransactionError::TooLarge { bytes, limit });
    }
    let mut seen = BTreeSet::new();
    for (index, input) in transaction.inputs.iter().enumerate() {
        let outpoint = input.outpoint;
        if !seen.insert(outpoint) {
            return Err(TransactionError::DuplicateInput { index, outpoint });
        }
    }
    let zero = |output: &TxOutput| output.amount == Amount::ZERO;
    match transaction.outputs.iter().position(zero) {
        Some(index) => Err(TransactionError::ZeroOutput { index }),
        None => Ok(()),
    }
}

/// The part that needs the outputs that are spent: they exist, the keys own them, the amounts and
/// the fee are right. Returns the fee.
pub fn check_spending(
    transaction: &Transaction,
    view: &dyn StateView,
    rules: &Rules,
) -> Result<Amount, TransactionError> {
    let overflow = |side| TransactionError::AmountOverflow { side };
    let mut inputs = Amount::ZERO;
    for (index, input) in transaction.inputs.iter().enumerate() {
        let outpoint = input.outpoint;
        let output = view
            .output(&outpoint)
            .ok_or(TransactionError::MissingInput { index, outpoint })?;
        if Address::of(&input.public_key) != output.address {
            return Err(TransactionError::WrongKey {
                index,
                outpoint,
                public_key: input.public_key,
            });
        }
        inputs = inputs
            .checked_add(output.amount)
            .ok_or_else(|| overflow("inputs"))?;
    }
    let outputs = Amount::checked_sum(transaction.outputs.iter().map(|output| output.amount))
        .ok_or_else(|| overflow("outputs"))?;
    let fee = inputs
        .checked_sub(outputs)
        .ok_or(TransactionError::Overspent { inputs, outputs })?;
    let bytes = transaction.encoded_bytes();
    let required = rules.min_fee(bytes);
    if fee < required {
        return Err(TransactionError::FeeTooLow {
            fee,
            required,
            bytes,
        });
    }
    Ok(fee)
}

/// The expensive part: every input's signature, by the strict rules.
pub fn check_signatures(transaction: &Transaction, rules: &Rules) -> Result<(), TransactionError> {
    let digest = transaction.signing_digest(&rules.genesis);
    for (index, input) in transaction.inputs.iter().enumerate() {
        if !signing::verify(&input.public_key.0, &digest, &input.signature) {
            return Err(TransactionError::BadSignature {
                index,
                outpoint: input.outpoint,
                public_key: input.public_key,
                genesis: rules.genesis,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
