//! Storage: the only user of redb. One durable transaction per block.

use std::path::PathBuf;
use std::sync::Arc;

use crate::types::{BlockHash, Genesis, Height, PeerIp};

/// Where the database lives.
pub enum Backend {
    /// A file.
    File(PathBuf),
    /// Any storage: memory, or a disk that loses writes in a simulation.
    Custom(Box<dyn redb::StorageBackend>),
}

/// Where storage work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreThreads {
    /// One thread for writes, two for reads, each with a bounded queue.
    Own,
    /// In place, for simulations.
    Inline,
}

/// The database.
#[derive(Clone)]
pub struct Store {
    _stub: (),
}

/// Why storage failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Placeholder.
    #[error("{0}")]
    Other(String),
}

/// The consensus log of one height, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalContent {
    /// Entries in the order in which they were appended.
    pub entries: Vec<Vec<u8>>,
    /// Encoded blocks by hash.
    pub bodies: Vec<(BlockHash, Vec<u8>)>,
}

impl Store {
    /// Opens or creates the database of a chain. Refuses one of another genesis, both hashes named.
    pub fn open(
        backend: Backend,
        genesis: Arc<Genesis>,
        threads: StoreThreads,
    ) -> Result<Self, StoreError> {
        let _ = (backend, genesis, threads);
        todo!()
    }

    /// The consensus log.
    pub fn wal(&self) -> Wal {
        todo!()
    }

    /// Peers that were connected in the last run, with their ports.
    pub async fn earlier_peers(&self) -> Result<Vec<(PeerIp, u16)>, StoreError> {
        todo!()
    }

    /// Replaces the list of peers for the next run.
    pub async fn save_peers(&self, peers: Vec<(PeerIp, u16)>) -> Result<(), StoreError> {
        let _ = peers;
        todo!()
    }
}

/// The consensus write-ahead log: entries of the height being decided, pruned in the transaction
/// that commits that height.
#[derive(Clone)]
pub struct Wal {
    _stub: (),
}

impl Wal {
    /// Appends entries, and the bodies that they name, in one durable transaction.
    pub async fn append(
        &self,
        height: Height,
        entries: Vec<Vec<u8>>,
        bodies: Vec<(BlockHash, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let _ = (height, entries, bodies);
        todo!()
    }

    /// Everything logged for a height. A damaged entry is an error, not an omission.
    pub async fn load(&self, height: Height) -> Result<WalContent, StoreError> {
        let _ = height;
        todo!()
    }

    /// Stores evidence of a voter's equivocation (two conflicting signed messages, encoded).
    pub async fn add_evidence(&self, evidence: Vec<u8>) -> Result<(), StoreError> {
        let _ = evidence;
        todo!()
    }

    /// All stored evidence, oldest first, at most 1,000.
    pub async fn evidence(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        todo!()
    }
}
