//! Executing blocks.

use super::{LtHash, StateView};
use crate::types::{
    Amount, Block, BlockHash, ConsensusKey, Genesis, Height, OutPoint, Transaction, TxOutput,
    ValidatorSet,
};

/// The state that a block builds on.
#[derive(Clone)]
pub struct Parent {
    /// The parent's height.
    pub height: Height,
    /// The parent's hash; the genesis hash's bytes at height 0.
    pub hash: BlockHash,
    /// The parent's time.
    pub time_ms: u64,
    /// The set hash over the unspent outputs after the parent.
    pub set: LtHash,
}

/// The part of a block that its proposer chooses.
pub struct Draft {
    /// Who proposes.
    pub proposer: ConsensusKey,
    /// The block's time, Unix milliseconds.
    pub time_ms: u64,
    /// Transactions that may go in, in the order in which they are tried.
    pub candidates: Vec<Transaction>,
    /// The most bytes of encoded block; genesis' limit applies too.
    pub max_bytes: usize,
}

/// What a block changes.
#[derive(Clone)]
pub struct Applied {
    /// Outputs that existed before the block and are spent by it.
    pub spent: Vec<(OutPoint, TxOutput)>,
    /// Outputs that exist after the block and did not before.
    pub created: Vec<(OutPoint, TxOutput)>,
    /// The set hash after it.
    pub set: LtHash,
    /// The fees of all transactions.
    pub fees: Amount,
}

/// Why a block is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Placeholder.
    #[error("{0}")]
    Other(String),
}

/// Checks a block completely against its parent's state, except for the clock's upper bound, and
/// returns what it changes.
pub fn apply_block(
    genesis: &Genesis,
    validators: &ValidatorSet,
    parent: &Parent,
    block: &Block,
    view: &dyn StateView,
) -> Result<Applied, BlockError> {
    let _ = (genesis, validators, parent, block, view);
    todo!()
}

/// Builds a valid block from a draft; candidates that do not apply or do not fit are left out.
pub fn assemble_block(
    genesis: &Genesis,
    validators: &ValidatorSet,
    parent: &Parent,
    draft: Draft,
    view: &dyn StateView,
) -> Result<(Block, Applied), BlockError> {
    let _ = (genesis, validators, parent, draft.candidates, view);
    todo!()
}
