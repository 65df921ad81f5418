//! The chain: the one writer of blocks. Verifies, commits, publishes the tip.

use std::sync::Arc;

use tokio::sync::watch;

use crate::env::Offload;
use crate::store::{Store, StoreError};
use crate::types::{
    Address, Block, BlockHash, BlockHeader, CommitCertificate, ConsensusKey, Genesis, GenesisHash,
    Height, OutPoint, Tip, Transaction, TxId, TxOutput, ValidatorSet,
};

/// A cheap handle to the chain.
#[derive(Clone)]
pub struct Chain {
    _stub: (),
}

/// Why the chain refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The block is not the tip's child.
    #[error("block {height} does not follow the tip {tip}")]
    NotNext {
        /// The block's height.
        height: Height,
        /// The tip's height.
        tip: Height,
    },
    /// The block breaks a rule.
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
    /// Storage failed: the node must stop.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Headers whose last one is covered by a verified certificate, each the child of the one before.
#[derive(Clone, Debug)]
pub struct VerifiedSegment {
    headers: Vec<BlockHeader>,
    certificate: CommitCertificate,
}

impl VerifiedSegment {
    /// Checks the hash chain, the heights, the validator set hash and the certificate.
    pub fn verify(
        headers: Vec<BlockHeader>,
        certificate: CommitCertificate,
        validators: &ValidatorSet,
        genesis: &GenesisHash,
    ) -> Result<Self, ChainError> {
        let _ = (&headers, &certificate, validators, genesis);
        todo!()
    }

    /// The headers, ascending.
    pub fn headers(&self) -> &[BlockHeader] {
        &self.headers
    }

    /// The certificate of the last header.
    pub fn certificate(&self) -> &CommitCertificate {
        &self.certificate
    }
}

impl Chain {
    /// Opens the chain where it stopped; writes the genesis state when the store is new.
    pub async fn open(
        genesis: Arc<Genesis>,
        store: Store,
        offload: Offload,
    ) -> Result<Self, ChainError> {
        let _ = (genesis, store, offload);
        todo!()
    }

    /// The genesis.
    pub fn genesis(&self) -> &Arc<Genesis> {
        todo!()
    }

    /// Its hash.
    pub fn genesis_hash(&self) -> GenesisHash {
        todo!()
    }

    /// Who votes.
    pub fn validators(&self) -> &Arc<ValidatorSet> {
        todo!()
    }

    /// The newest final block.
    pub fn tip(&self) -> Tip {
        todo!()
    }

    /// Changes when a block is final and durable.
    pub fn watch_tip(&self) -> watch::Receiver<Tip> {
        todo!()
    }

    /// Builds a block on the tip from candidates in order; those that do not apply are left out.
    pub async fn build_block(
        &self,
        proposer: ConsensusKey,
        time_ms: u64,
        candidates: Vec<Transaction>,
        max_bytes: usize,
    ) -> Result<Block, ChainError> {
        let _ = (proposer, time_ms, candidates, max_bytes);
        todo!()
    }

    /// Executes a block on the tip without committing it. The result is kept for `commit`.
    pub async fn check_block(&self, block: Arc<Block>) -> Result<(), ChainError> {
        let _ = block;
        todo!()
    }

    /// Commits the tip's child under its certificate, durably, and prunes the consensus log of its
    /// height. A block that is already committed is `Ok`.
    pub async fn commit(
        &self,
        block: Arc<Block>,
        certificate: CommitCertificate,
    ) -> Result<Tip, ChainError> {
        let _ = (block, certificate);
        todo!()
    }

    /// Commits consecutive blocks of a verified segment that follow the tip, in one durable
    /// transaction. Blocks at or below the tip are skipped. Bodies must match their headers.
    pub async fn commit_segment(
        &self,
        segment: Arc<VerifiedSegment>,
        bodies: Vec<(Height, Vec<Transaction>)>,
    ) -> Result<Tip, ChainError> {
        let _ = (segment, bodies);
        todo!()
    }

    /// The block at a height.
    pub async fn block(&self, height: Height) -> Result<Option<Block>, ChainError> {
        let _ = height;
        todo!()
    }

    /// The height of a block.
    pub async fn height_of(&self, block: BlockHash) -> Result<Option<Height>, ChainError> {
        let _ = block;
        todo!()
    }

    /// Headers of a range, up to the tip.
    pub async fn headers(
        &self,
        first: Height,
        last: Height,
    ) -> Result<Vec<BlockHeader>, ChainError> {
        let _ = (first, last);
        todo!()
    }

    /// The stored certificate of a height.
    pub async fn certificate(
        &self,
        height: Height,
    ) -> Result<Option<CommitCertificate>, ChainError> {
        let _ = height;
        todo!()
    }

    /// The highest stored certificate with `first <= height <= last`.
    pub async fn last_certificate(
        &self,
        first: Height,
        last: Height,
    ) -> Result<Option<CommitCertificate>, ChainError> {
        let _ = (first, last);
        todo!()
    }

    /// Where a transaction is final: height and position.
    pub async fn find_transaction(&self, txid: TxId) -> Result<Option<(Height, u32)>, ChainError> {
        let _ = txid;
        todo!()
    }

    /// The unspent outputs among these, in the same order.
    pub async fn outputs(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> Result<Vec<Option<TxOutput>>, ChainError> {
        let _ = outpoints;
        todo!()
    }

    /// All unspent outputs of an address.
    pub async fn outputs_of(
        &self,
        address: Address,
    ) -> Result<Vec<(OutPoint, TxOutput)>, ChainError> {
        let _ = address;
        todo!()
    }
}
