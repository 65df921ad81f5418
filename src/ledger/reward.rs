//! The reward of a block.

use crate::types::{Amount, ConsensusKey, Genesis, TxOutput, ValidatorSet};

/// 100 TIME for each slot since the parent, shared by voting power; the remainder and the fees go to
/// the proposer. Output `i` pays masternode `i` of genesis; positions with nothing to pay are `None`.
pub fn reward_outputs(
    genesis: &Genesis,
    validators: &ValidatorSet,
    proposer: &ConsensusKey,
    parent_time_ms: u64,
    time_ms: u64,
    fees: Amount,
) -> Option<Vec<Option<TxOutput>>> {
    let _ = (genesis, validators, proposer, parent_time_ms, time_ms, fees);
    todo!()
}
