//! The rules of a single transaction.

use crate::types::{Amount, Genesis, GenesisHash, OutPoint, Transaction, TxOutput};

/// A view of unspent outputs.
pub trait StateView {
    /// The unspent output, or `None` when it never existed or is spent.
    fn output(&self, outpoint: &OutPoint) -> Option<TxOutput>;
}

/// What the rules need from genesis.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The chain that signatures commit to.
    pub genesis: GenesisHash,
    /// The lowest fee for 1,000 bytes.
    pub min_fee_per_kb: Amount,
}

impl Rules {
    /// The rules of a chain.
    pub fn of(genesis: &Genesis) -> Self {
        Self {
            genesis: genesis.hash(),
            min_fee_per_kb: genesis.min_fee_per_kb,
        }
    }

    /// The lowest fee of a transaction of this size, rounded up.
    pub fn min_fee(&self, encoded_bytes: usize) -> Amount {
        let _ = encoded_bytes;
        todo!()
    }
}

/// Why a transaction is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Placeholder.
    #[error("{0}")]
    Other(String),
}

/// Checks a transaction against a view: form, size, inputs present, keys match addresses, strict
/// signatures, amounts without overflow, fee. Returns the fee.
pub fn check_transaction(
    transaction: &Transaction,
    view: &dyn StateView,
    rules: &Rules,
) -> Result<Amount, TransactionError> {
    let _ = (transaction, view, rules);
    todo!()
}
