//! Blocks and headers.

use serde::{Deserialize, Serialize};

use super::codec;
use super::hash::{self, context};
use super::{
    BlockHash, ConsensusKey, Height, StateCommitment, Transaction, TransactionsRoot, TxId,
    ValidatorSetHash,
};

/// The block version that this software makes and accepts.
pub const BLOCK_VERSION: u16 = 1;

/// A block's header; its hash names the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockHeader {
    /// [`BLOCK_VERSION`].
    pub version: u16,
    /// One more than the parent's.
    pub height: Height,
    /// When the proposer made it, Unix milliseconds; later than the parent's.
    pub time_ms: u64,
    /// The parent's hash; the genesis hash's bytes for height 1.
    pub parent: BlockHash,
    /// Who made it; receives the fees and the reward's remainder.
    pub proposer: ConsensusKey,
    /// Commits to the transactions and their order.
    pub transactions_root: TransactionsRoot,
    /// Commits to the unspent outputs after this block.
    pub state: StateCommitment,
    /// Commits to who votes on this block.
    pub validators: ValidatorSetHash,
}

impl BlockHeader {
    /// The block's name.
    pub fn hash(&self) -> BlockHash {
        BlockHash(hash::hash(context::BLOCK, &[&codec::encode(self)]))
    }
}

/// A header and the transactions that it commits to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The header.
    pub header: BlockHeader,
    /// The transactions, in the order in which they apply.
    pub transactions: Vec<Transaction>,
}

impl Block {
    /// The block's name: the header's hash.
    pub fn hash(&self) -> BlockHash {
        self.header.hash()
    }
}

/// The Merkle root over whole transactions, signatures included. An odd node moves up unchanged;
/// leaves and nodes have separate contexts, so neither can stand for the other. The root of nothing
/// is the hash of no input under the node context.
pub fn transactions_root(transactions: &[Transaction]) -> TransactionsRoot {
    let mut level: Vec<[u8; 32]> = transactions
        .iter()
        .map(|transaction| hash::hash(context::TX_LEAF, &[&codec::encode(transaction)]))
        .collect();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => hash::hash(context::TX_NODE, &[left, right]),
                [single] => *single,
                _ => unreachable!("chunks of two hold one or two"),
            })
            .collect();
    }
    TransactionsRoot(
        level
            .first()
            .copied()
            .unwrap_or_else(|| hash::hash(context::TX_NODE, &[])),
    )
}

/// The id under which a block's reward outputs are spendable. It follows from the parent and the
/// height, which no other block of the chain shares; output `i` pays masternode `i` of genesis.
pub fn reward_txid(parent: &BlockHash, height: Height) -> TxId {
    TxId(hash::hash(
        context::REWARD,
        &[parent.as_bytes(), &height.0.to_le_bytes()],
    ))
}

/// The newest final block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// Its height; 0 when no block is final yet.
    pub height: Height,
    /// Its hash; the genesis hash's bytes at height 0.
    pub hash: BlockHash,
    /// Its time, Unix milliseconds; the genesis time at height 0.
    pub time_ms: u64,
    /// The state commitment after it.
    pub state: StateCommitment,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::transaction::TRANSACTION_VERSION;

    fn transactions(count: u16) -> Vec<Transaction> {
        (0..count)
            .map(|number| Transaction {
                version: TRANSACTION_VERSION + number,
                inputs: vec![],
                outputs: vec![],
            })
            .collect()
    }

    #[test]
    fn the_root_depends_on_every_transaction_and_their_order() {
        let mut roots = std::collections::BTreeSet::new();
        for count in 0..20 {
            assert!(roots.insert(transactions_root(&transactions(count))));
        }
        let mut swapped = transactions(5);
        swapped.swap(3, 4);
        assert!(roots.insert(transactions_root(&swapped)));
        // The weakness of duplicating an odd node: [a, b, c] and [a, b, c, c] share a root there.
        let mut doubled = transactions(3);
        doubled.push(doubled[2].clone());
        assert!(roots.insert(transactions_root(&doubled)));
    }
}
