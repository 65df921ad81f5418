//! Executing blocks.
//!
//! Transactions apply in order, each over the changes of those before it, so one may spend what an
//! earlier one of the same block made. The reward's outputs come last and are spendable from the
//! next block on.

use std::collections::BTreeMap;

use super::reward::reward_outputs;
use super::{
    LtHash, Rules, StateView, TransactionError, check_form, check_spending, check_transaction,
};
use crate::types::block::{BLOCK_VERSION, reward_txid, transactions_root};
use crate::types::{
    Amount, Block, BlockHash, BlockHeader, ConsensusKey, Genesis, Height, OutPoint,
    StateCommitment, Transaction, TransactionsRoot, TxId, TxOutput, ValidatorSet, ValidatorSetHash,
};

/// What an encoded block has besides its transactions, in bytes: the header and the count.
pub const BLOCK_OVERHEAD_BYTES: usize = (2 + 8 + 8 + 5 * 32) + 8;

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

impl Parent {
    /// What the first block builds on.
    pub fn genesis(genesis: &Genesis) -> Self {
        Self {
            height: Height::GENESIS,
            hash: genesis.as_parent(),
            time_ms: genesis.time_ms,
            set: LtHash::of(genesis.outputs()),
        }
    }
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Outputs that existed before the block and are spent by it, ascending.
    pub spent: Vec<(OutPoint, TxOutput)>,
    /// Outputs that exist after the block and did not before, ascending.
    pub created: Vec<(OutPoint, TxOutput)>,
    /// The set hash after it.
    pub set: LtHash,
    /// The fees of all transactions.
    pub fees: Amount,
}

/// Why a block is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A version that this software does not know.
    #[error("block version {got} is unknown; this software makes and accepts {BLOCK_VERSION}")]
    Version {
        /// The version found.
        got: u16,
    },
    /// The height is not the parent's plus one.
    #[error("block height {got} does not follow its parent: expected {expected}")]
    Height {
        /// The height found.
        got: Height,
        /// The parent's plus one.
        expected: Height,
    },
    /// The block names another parent.
    #[error("block {height} names parent {got}, but builds on {expected}")]
    Parent {
        /// The block's height.
        height: Height,
        /// The parent named.
        got: BlockHash,
        /// The parent given.
        expected: BlockHash,
    },
    /// The time does not advance.
    #[error("block {height} has time {time_ms}, which is not after its parent's {parent_time_ms}")]
    Time {
        /// The block's height.
        height: Height,
        /// The block's time.
        time_ms: u64,
        /// The parent's time.
        parent_time_ms: u64,
    },
    /// The proposer does not vote.
    #[error("block {height} names proposer {proposer}, who is not a validator")]
    Proposer {
        /// The block's height.
        height: Height,
        /// The proposer named.
        proposer: ConsensusKey,
    },
    /// The header commits to another validator set.
    #[error("block {height} names validator set {got}, but this chain's is {expected}")]
    Validators {
        /// The block's height.
        height: Height,
        /// The hash found.
        got: ValidatorSetHash,
        /// This chain's.
        expected: ValidatorSetHash,
    },
    /// The block is too large.
    #[error("block {height} has {bytes} bytes of at most {limit}")]
    TooLarge {
        /// The block's height.
        height: Height,
        /// Its encoded size.
        bytes: usize,
        /// The limit of genesis.
        limit: usize,
    },
    /// The header commits to other transactions.
    #[error("block {height} commits to transactions {got}, but carries {expected}")]
    TransactionsRoot {
        /// The block's height.
        height: Height,
        /// The root in the header.
        got: TransactionsRoot,
        /// The root of the transactions.
        expected: TransactionsRoot,
    },
    /// A transaction breaks a rule.
    #[error("block {height}, transaction {index} ({txid}): {source}")]
    Transaction {
        /// The block's height.
        height: Height,
        /// The transaction's position, from 0.
        index: usize,
        /// The transaction.
        txid: TxId,
        /// The rule.
        source: Box<TransactionError>,
    },
    /// The fees or the reward are more than an amount can hold.
    #[error("block {height}: reward and fees are more than an amount can hold")]
    RewardOverflow {
        /// The block's height.
        height: Height,
    },
    /// The header commits to another state.
    #[error("block {height} commits to state {got}, but leads to {expected}")]
    State {
        /// The block's height.
        height: Height,
        /// The commitment in the header.
        got: StateCommitment,
        /// The commitment after execution.
        expected: StateCommitment,
    },
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
    apply(genesis, validators, parent, block, view, check_transaction)
}

/// As [`apply_block`], for a block whose every transaction has passed
/// [`check_signatures`](super::check_signatures) already: that part is not repeated.
pub fn apply_signed_block(
    genesis: &Genesis,
    validators: &ValidatorSet,
    parent: &Parent,
    block: &Block,
    view: &dyn StateView,
) -> Result<Applied, BlockError> {
    let check: CheckTransaction = |transaction, view, rules| {
        check_form(transaction, rules)?;
        check_spending(transaction, view, rules)
    };
    apply(genesis, validators, parent, block, view, check)
}

fn apply(
    genesis: &Genesis,
    validators: &ValidatorSet,
    parent: &Parent,
    block: &Block,
    view: &dyn StateView,
    check: CheckTransaction,
) -> Result<Applied, BlockError> {
    let header = &block.header;
    let height = header.height;
    check_header(validators, parent, header)?;
    let bytes = BLOCK_OVERHEAD_BYTES + transactions_bytes(&block.transactions);
    let limit = genesis.max_block_bytes as usize;
    if bytes > limit {
        return Err(BlockError::TooLarge {
            height,
            bytes,
            limit,
        });
    }
    let root = transactions_root(&block.transactions);
    if header.transactions_root != root {
        return Err(BlockError::TransactionsRoot {
            height,
            got: header.transactions_root,
            expected: root,
        });
    }
    let mut execution = Execution::new(Rules::of(genesis), view, check);
    for (index, transaction) in block.transactions.iter().enumerate() {
        execution
            .execute(transaction)
            .map_err(|source| BlockError::Transaction {
                height,
                index,
                txid: transaction.id(),
                source: Box::new(source),
            })?;
    }
    let applied = execution.finish(
        genesis,
        validators,
        parent,
        &header.proposer,
        header.time_ms,
    )?;
    let expected = applied.set.commitment();
    if header.state != expected {
        return Err(BlockError::State {
            height,
            got: header.state,
            expected,
        });
    }
    Ok(applied)
}

/// Builds a valid block from a draft; candidates that do not apply or do not fit are left out.
pub fn assemble_block(
    genesis: &Genesis,
    validators: &ValidatorSet,
    parent: &Parent,
    draft: Draft,
    view: &dyn StateView,
) -> Result<(Block, Applied), BlockError> {
    let mut header = BlockHeader {
        version: BLOCK_VERSION,
        height: parent.height.next(),
        time_ms: draft.time_ms,
        parent: parent.hash,
        proposer: draft.proposer,
        transactions_root: transactions_root(&[]),
        state: parent.set.commitment(),
        validators: validators.hash(),
    };
    // The draft decides the proposer and the time: refuse what no block could have.
    check_header(validators, parent, &header)?;
    let mut room = draft
        .max_bytes
        .min(genesis.max_block_bytes as usize)
        .saturating_sub(BLOCK_OVERHEAD_BYTES);
    let mut execution = Execution::new(Rules::of(genesis), view, check_transaction);
    let mut transactions = Vec::new();
    for candidate in draft.candidates {
        let bytes = candidate.encoded_bytes();
        if bytes <= room && execution.execute(&candidate).is_ok() {
            room -= bytes;
            transactions.push(candidate);
        }
    }
    let applied = execution.finish(genesis, validators, parent, &draft.proposer, draft.time_ms)?;
    header.transactions_root = transactions_root(&transactions);
    header.state = applied.set.commitment();
    let block = Block {
        header,
        transactions,
    };
    Ok((block, applied))
}

/// The rules of a header that need no execution.
fn check_header(
    validators: &ValidatorSet,
    parent: &Parent,
    header: &BlockHeader,
) -> Result<(), BlockError> {
    let height = header.height;
    if header.version != BLOCK_VERSION {
        return Err(BlockError::Version {
            got: header.version,
        });
    }
    // Not `next()`: at the last height it would give the parent's own.
    if height.0.checked_sub(1) != Some(parent.height.0) {
        return Err(BlockError::Height {
            got: height,
            expected: parent.height.next(),
        });
    }
    if header.parent != parent.hash {
        return Err(BlockError::Parent {
            height,
            got: header.parent,
            expected: parent.hash,
        });
    }
    if header.time_ms <= parent.time_ms {
        return Err(BlockError::Time {
            height,
            time_ms: header.time_ms,
            parent_time_ms: parent.time_ms,
        });
    }
    if validators.get(&header.proposer).is_none() {
        return Err(BlockError::Proposer {
            height,
            proposer: header.proposer,
        });
    }
    if header.validators != validators.hash() {
        return Err(BlockError::Validators {
            height,
            got: header.validators,
            expected: validators.hash(),
        });
    }
    Ok(())
}

fn transactions_bytes(transactions: &[Transaction]) -> usize {
    transactions.iter().map(Transaction::encoded_bytes).sum()
}

/// Decides whether a transaction may be applied, and returns its fee.
type CheckTransaction =
    fn(&Transaction, &dyn StateView, &Rules) -> Result<Amount, TransactionError>;

/// The changes of a block so far, over the state that it builds on.
struct Execution<'a> {
    rules: Rules,
    check: CheckTransaction,
    view: &'a dyn StateView,
    /// Outputs of the view that are spent.
    spent: BTreeMap<OutPoint, TxOutput>,
    /// Outputs made and not spent again.
    created: BTreeMap<OutPoint, TxOutput>,
    fees: Amount,
}

impl StateView for Execution<'_> {
    fn output(&self, outpoint: &OutPoint) -> Option<TxOutput> {
        // An output made and spent here is in neither map; the view does not know it either,
        // because an id commits to its inputs and these can be spent only once.
        match self.created.get(outpoint) {
            Some(output) => Some(*output),
            None if self.spent.contains_key(outpoint) => None,
            None => self.view.output(outpoint),
        }
    }
}

impl<'a> Execution<'a> {
    fn new(rules: Rules, view: &'a dyn StateView, check: CheckTransaction) -> Self {
        Self {
            rules,
            check,
            view,
            spent: BTreeMap::new(),
            created: BTreeMap::new(),
            fees: Amount::ZERO,
        }
    }

    /// Applies a transaction, or changes nothing.
    fn execute(&mut self, transaction: &Transaction) -> Result<(), TransactionError> {
        let fee = (self.check)(transaction, self, &self.rules)?;
        let fees = self.fees.checked_add(fee);
        self.fees = fees.ok_or(TransactionError::AmountOverflow {
            side: "fees of the block",
        })?;
        for input in &transaction.inputs {
            let outpoint = input.outpoint;
            if self.created.remove(&outpoint).is_none() {
                let output = self.view.output(&outpoint);
                let output =
                    output.expect("the check found this output, and it is not of this block");
                self.spent.insert(outpoint, output);
            }
        }
        self.created.extend(transaction.created());
        Ok(())
    }

    /// Adds the reward and sums up.
    fn finish(
        mut self,
        genesis: &Genesis,
        validators: &ValidatorSet,
        parent: &Parent,
        proposer: &ConsensusKey,
        time_ms: u64,
    ) -> Result<Applied, BlockError> {
        let height = parent.height.next();
        let rewards = reward_outputs(
            genesis,
            validators,
            proposer,
            parent.time_ms,
            time_ms,
            self.fees,
        )
        .ok_or(BlockError::RewardOverflow { height })?;
        let txid = reward_txid(&parent.hash, height);
        for (output, index) in rewards.into_iter().zip(0u32..) {
            if let Some(output) = output {
                self.created.insert(OutPoint { txid, index }, output);
            }
        }
        let mut set = parent.set.clone();
        for (outpoint, output) in &self.spent {
            set.remove(outpoint, output);
        }
        for (outpoint, output) in &self.created {
            set.insert(outpoint, output);
        }
        Ok(Applied {
            spent: self.spent.into_iter().collect(),
            created: self.created.into_iter().collect(),
            set,
            fees: self.fees,
        })
    }
}

#[cfg(test)]
mod tests;
