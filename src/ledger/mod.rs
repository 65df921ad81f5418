//! The rules of transactions and blocks, as pure functions over a view of the unspent outputs.

pub mod apply;
pub mod lthash;
pub mod reward;
pub mod rules;

pub use apply::{Applied, BlockError, Draft, Parent, apply_block, assemble_block};
pub use lthash::LtHash;
pub use rules::{Rules, StateView, TransactionError, check_transaction};
