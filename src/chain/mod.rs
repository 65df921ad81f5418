//! The chain: the one writer of blocks. Verifies, commits, publishes the tip.
//!
//! Flow: a block comes from consensus ([`Chain::commit`]) or from sync ([`Chain::execute_segment`],
//! [`Chain::commit_executed`]), its certificate is verified, [`ledger`](crate::ledger) executes it
//! completely over the outputs that it spends, [`store`](crate::store) makes it durable in one
//! transaction, and only then is the tip published through a `watch`. Execution and signature checks
//! run through [`Offload`], disk work on the store's threads.
//!
//! # One writer
//! What a commit builds on (tip, set hash, checked blocks) is owned by whoever holds the writer lock,
//! a fair asynchronous mutex: checking, building and committing go one at a time, in the order in
//! which they were asked for. The lock is handed into the storage job, which advances the state and
//! publishes the tip on the storage thread. So dropping the future of a commit never leaves memory
//! and disk apart: the commit has either not been queued, or happens with all its consequences.
//! Nothing waits in a queue of this module; callers wait for the lock. Reads take no lock, and
//! neither does executing blocks of a segment ahead of their commit (`synced.rs`).
//!
//! # Certificates
//! Consensus' commits store a certificate each. A segment stores one, with the batch that reaches
//! its last height; so after a partial segment the tip has none yet, although it was verified. Such
//! blocks are read like all others; what may be served to peers ends at [`Chain::last_certificate`],
//! which knows only stored ones.

#[cfg(test)]
pub(crate) mod generator;
mod segment;
mod synced;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use tokio::sync::watch;

use crate::env::Offload;
use crate::store::{Store, StoreError};
use crate::types::{
    Address, Block, BlockHash, BlockHeader, CommitCertificate, ConsensusKey, EncodedBody, Genesis,
    GenesisHash, Height, OutPoint, Tip, Transaction, TransactionsRoot, TxId, TxOutput,
    ValidatorSet,
};

pub use crate::ledger::Rules;
pub use segment::{CheckedBody, MAX_SEGMENT_HEADERS, VerifiedSegment};
pub use synced::{Ahead, Executed};
use writer::{SharedWriter, Writer};

/// The most headers that one call of [`Chain::headers`] returns.
pub const MAX_HEADERS: u64 = 1_024;

/// A cheap handle to the chain.
#[derive(Clone)]
pub struct Chain {
    inner: Arc<Inner>,
}

struct Inner {
    genesis: Arc<Genesis>,
    genesis_hash: GenesisHash,
    validators: Arc<ValidatorSet>,
    store: Store,
    offload: Offload,
    tip: watch::Sender<Tip>,
    writer: SharedWriter,
}

/// Why the chain refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The block's height is not the one above the tip; it may become so.
    #[error("block {height} does not follow the tip {tip}")]
    NotNext {
        /// The block's height.
        height: Height,
        /// The tip's height.
        tip: Height,
    },
    /// The block breaks a rule and can never be valid here; also one whose parent is not the tip
    /// although its height is right.
    #[error(transparent)]
    Invalid(#[from] crate::ledger::BlockError),
    /// The certificate does not prove the block.
    #[error("certificate of block {height}: {detail}")]
    Certificate {
        /// The height.
        height: Height,
        /// What is wrong.
        detail: String,
    },
    /// Two blocks of one height are both certified, which takes more than a third of the voting
    /// power signing twice, or this node's chain is not the network's: a person must decide.
    #[error(
        "fork at height {height}: this node holds block {ours}, but a verified certificate proves \
         {theirs}; compare with other operators before you go on"
    )]
    Fork {
        /// The height at which the two chains differ, or at which that is seen.
        height: Height,
        /// The block of this node's chain.
        ours: BlockHash,
        /// The other block.
        theirs: BlockHash,
    },
    /// Headers do not form a segment that its certificate proves; whoever sent them is wrong.
    #[error("headers: {detail}")]
    Segment {
        /// What is wrong.
        detail: String,
    },
    /// Transactions are not those that a verified header commits to; whoever sent them is wrong.
    #[error("body of block {height}: its root is {got}, but the header commits to {expected}")]
    Body {
        /// The height.
        height: Height,
        /// The root in the verified header.
        expected: TransactionsRoot,
        /// The root of the transactions.
        got: TransactionsRoot,
    },
    /// Storage failed: the node must stop.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Chain {
    /// Opens the chain where it stopped; writes the genesis state when the store is new. Checks that
    /// the stored tip, header and set hash agree.
    pub async fn open(
        genesis: Arc<Genesis>,
        store: Store,
        offload: Offload,
    ) -> Result<Self, ChainError> {
        let genesis_hash = genesis.hash();
        let state = writer::open_state(&genesis, genesis_hash, &store, offload).await?;
        let validators = Arc::new(ValidatorSet::from_genesis(&genesis));
        let tip = watch::Sender::new(state.tip);
        Ok(Self {
            inner: Arc::new(Inner {
                genesis,
                genesis_hash,
                validators,
                store,
                offload,
                tip,
                writer: Writer::shared(state),
            }),
        })
    }

    /// The genesis.
    pub fn genesis(&self) -> &Arc<Genesis> {
        &self.inner.genesis
    }

    /// Its hash.
    pub fn genesis_hash(&self) -> GenesisHash {
        self.inner.genesis_hash
    }

    /// Who votes.
    pub fn validators(&self) -> &Arc<ValidatorSet> {
        &self.inner.validators
    }

    /// The size of the database, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        self.inner.store.bytes()
    }

    /// The newest final block.
    pub fn tip(&self) -> Tip {
        *self.inner.tip.borrow()
    }

    /// Changes when a block is final and durable.
    pub fn watch_tip(&self) -> watch::Receiver<Tip> {
        self.inner.tip.subscribe()
    }

    /// Builds a block on the tip from candidates in order; those that do not apply are left out. The
    /// result counts as checked.
    pub async fn build_block(
        &self,
        proposer: ConsensusKey,
        time_ms: u64,
        candidates: Vec<Transaction>,
        max_bytes: usize,
    ) -> Result<Block, ChainError> {
        let draft = crate::ledger::Draft {
            proposer,
            time_ms,
            candidates,
            max_bytes,
        };
        self.inner.build_block(draft).await
    }

    /// Executes a block on the tip without committing it. The result is kept for `commit`, for the
    /// last few blocks of the current height.
    pub async fn check_block(&self, block: Arc<Block>) -> Result<(), ChainError> {
        self.inner.check_block(block).await
    }

    /// Commits the tip's child under its certificate, durably, and prunes the consensus log of its
    /// height. A block that is already committed is `Ok`; another one at a committed height, with a
    /// certificate that verifies, is [`ChainError::Fork`].
    pub async fn commit(
        &self,
        block: Arc<Block>,
        certificate: CommitCertificate,
    ) -> Result<Tip, ChainError> {
        self.inner.commit(block, certificate).await
    }

    /// The rules of its transactions.
    pub fn rules(&self) -> Rules {
        Rules::of(&self.inner.genesis)
    }

    /// Executes consecutive blocks of a verified segment without committing them: on the tip, or on
    /// the batch right before them, `after`, whose own batch before must be durable. Blocks at or
    /// below that are skipped. The caller bounds a batch; all of it is in memory at once.
    pub async fn execute_segment(
        &self,
        segment: Arc<VerifiedSegment>,
        bodies: Vec<CheckedBody>,
        after: Option<Ahead>,
    ) -> Result<Executed, ChainError> {
        self.inner.execute_segment(segment, bodies, after).await
    }

    /// Commits executed blocks, in one durable transaction: all of them, or none. Blocks that are
    /// already committed are skipped.
    pub async fn commit_executed(&self, executed: Executed) -> Result<Tip, ChainError> {
        self.inner.commit_executed(executed).await
    }

    /// The block at a height.
    pub async fn block(&self, height: Height) -> Result<Option<Block>, ChainError> {
        Ok(self.inner.store.block(height).await?)
    }

    /// The transactions of the block at a height, as they are stored.
    pub async fn encoded_body(&self, height: Height) -> Result<Option<EncodedBody>, ChainError> {
        Ok(self.inner.store.encoded_body(height).await?)
    }

    /// The height of a block.
    pub async fn height_of(&self, block: BlockHash) -> Result<Option<Height>, ChainError> {
        Ok(self.inner.store.height_of(block).await?)
    }

    /// The header at a height.
    pub async fn header(&self, height: Height) -> Result<Option<BlockHeader>, ChainError> {
        Ok(self.inner.store.header(height).await?)
    }

    /// Headers of a range, ascending, up to the tip; at most the first [`MAX_HEADERS`].
    pub async fn headers(
        &self,
        first: Height,
        last: Height,
    ) -> Result<Vec<BlockHeader>, ChainError> {
        let last = last.0.min(first.0.saturating_add(MAX_HEADERS - 1));
        if first.0 > last {
            return Ok(Vec::new());
        }
        Ok(self.inner.store.headers(first.0..=last).await?)
    }

    /// The stored certificate of a height. Heights inside a synced segment have none.
    pub async fn certificate(
        &self,
        height: Height,
    ) -> Result<Option<CommitCertificate>, ChainError> {
        self.last_certificate(height, height).await
    }

    /// The highest stored certificate with `first <= height <= last`. The tip's may be missing right
    /// after a part of a segment has been committed.
    pub async fn last_certificate(
        &self,
        first: Height,
        last: Height,
    ) -> Result<Option<CommitCertificate>, ChainError> {
        if first > last {
            return Ok(None);
        }
        Ok(self.inner.store.last_certificate(first.0..=last.0).await?)
    }

    /// Where a transaction is final: height and position.
    pub async fn find_transaction(&self, txid: TxId) -> Result<Option<(Height, u32)>, ChainError> {
        Ok(self.inner.store.find_transaction(txid).await?)
    }

    /// The unspent outputs among these, in the same order.
    pub async fn outputs(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> Result<Vec<Option<TxOutput>>, ChainError> {
        Ok(self.inner.store.outputs(outpoints).await?)
    }

    /// All unspent outputs of an address, about 80 bytes of memory each.
    pub async fn outputs_of(
        &self,
        address: Address,
    ) -> Result<Vec<(OutPoint, TxOutput)>, ChainError> {
        Ok(self.inner.store.outputs_of(address).await?)
    }
}
