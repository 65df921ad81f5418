//! The rules of transactions and blocks, as pure functions over a view of the unspent outputs.
//!
//! [`check_transaction`] decides whether one transaction may spend what it names; [`apply_block`]
//! decides whether a block follows its parent and says what it changes; [`assemble_block`] makes a
//! block that `apply_block` accepts. The header commits to the unspent outputs after the block by a
//! set hash, [`LtHash`], that costs the same to update however many outputs there are.
//!
//! **Invariant:** no clock, no storage, no randomness: the same inputs give the same answer on every
//! node. The upper bound of a block's time depends on a clock and is therefore not checked here.

pub mod apply;
pub mod lthash;
pub mod reward;
pub mod rules;

#[cfg(any(test, fuzzing))]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the fuzz targets use a part of it")
)]
pub(crate) mod fixture;

pub use apply::{
    Applied, BLOCK_OVERHEAD_BYTES, BlockError, Draft, Parent, apply_block, apply_signed_block,
    assemble_block,
};
pub use lthash::LtHash;
pub use rules::{
    MAX_TRANSACTION_BYTES, Rules, StateView, TransactionError, check_form, check_signatures,
    check_spending, check_transaction,
};
