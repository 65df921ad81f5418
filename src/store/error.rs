//! Why storage failed, as sentences that name the file and what to do.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::types::{BlockHash, GenesisHash, Height};

/// Where the database lives, as messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(pub(super) Arc<str>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why storage failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the database.
    #[error(
        "{place} is in use by another process: stop that node, or give this one another data directory"
    )]
    InUse {
        /// The database.
        place: Place,
    },
    /// The database belongs to another chain.
    #[error(
        "{place} holds the chain of genesis {stored}, but this node's genesis is {expected}: \
         use the genesis file of that chain, or another data directory"
    )]
    WrongGenesis {
        /// The database.
        place: Place,
        /// The genesis that it was made for.
        stored: GenesisHash,
        /// The genesis of this node.
        expected: GenesisHash,
    },
    /// The database was written by a version with other tables.
    #[error(
        "{place} has schema version {found}, but this version of timed reads {supported}: \
         use the version that wrote it, or move the file away and sync again"
    )]
    Schema {
        /// The database.
        place: Place,
        /// The version found.
        found: u32,
        /// The version that this software reads and writes.
        supported: u32,
    },
    /// The content is not what was written.
    #[error(
        "{place} is damaged ({detail}): start once with \"timed run --reindex\", which keeps the blocks \
         that prove themselves; the rest is fetched from peers"
    )]
    Damaged {
        /// The database.
        place: Place,
        /// What was found.
        detail: String,
    },
    /// An entry of the consensus log is not what was written.
    #[error(
        "the consensus log of height {height} is damaged at entry {index}: \
         what this masternode has signed at that height is not known"
    )]
    CorruptWal {
        /// The height that was being decided.
        height: Height,
        /// The position of the first bad entry.
        index: u64,
    },
    /// A body of the consensus log is not what was written.
    #[error("the consensus log of height {height} is damaged: the body of block {block}")]
    CorruptWalBody {
        /// The height that was being decided.
        height: Height,
        /// The block whose body it was.
        block: BlockHash,
    },
    /// The file may not be read or written.
    #[error("{place} cannot be read and written by this user: check its owner and mode ({source})")]
    Permission {
        /// The database.
        place: Place,
        /// The system's own words.
        source: io::Error,
    },
    /// The disk has no room.
    #[error("the disk of {place} is full: free space and start again ({source})")]
    DiskFull {
        /// The database.
        place: Place,
        /// The system's own words.
        source: io::Error,
    },
    /// Any other failure of the disk.
    #[error("{place} cannot be read or written: {source}; check the disk and start again")]
    Io {
        /// The database.
        place: Place,
        /// The system's own words.
        source: io::Error,
    },
    /// The database has been closed; the node is shutting down.
    #[error("{place} is closed")]
    Closed {
        /// The database.
        place: Place,
    },
}

impl StoreError {
    /// Whether the consensus log is damaged while the rest of the database may be sound.
    pub fn is_damaged_wal(&self) -> bool {
        matches!(
            self,
            StoreError::CorruptWal { .. } | StoreError::CorruptWalBody { .. }
        )
    }
}

/// A failure inside a transaction, before the database's name is put to it.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Boxed: redb's error is large.
    Redb(Box<redb::Error>),
    /// Rows that contradict what was written, or redb itself gave up on its file.
    Damaged(String),
    WrongGenesis(GenesisHash),
    Schema(u32),
    WalEntry(Height, u64),
    WalBody(Height, BlockHash),
}

impl Fault {
    /// A row whose bytes are not what this software writes.
    pub(super) fn row(table: &str, key: impl fmt::Display, detail: impl fmt::Display) -> Self {
        Fault::Damaged(format!("table {table}, row {key}: {detail}"))
    }

    /// A row that another row promises.
    pub(super) fn missing(table: &str, key: impl fmt::Display) -> Self {
        Self::row(table, key, "missing")
    }

    pub(super) fn at(self, place: &Place, expected: GenesisHash) -> StoreError {
        let place = place.clone();
        match self {
            Fault::Redb(error) => from_redb(*error, place),
            Fault::Damaged(detail) => StoreError::Damaged { place, detail },
            Fault::WrongGenesis(stored) => StoreError::WrongGenesis {
                place,
                stored,
                expected,
            },
            Fault::Schema(found) => StoreError::Schema {
                place,
                found,
                supported: super::tables::SCHEMA_VERSION,
            },
            Fault::WalEntry(height, index) => StoreError::CorruptWal { height, index },
            Fault::WalBody(height, block) => StoreError::CorruptWalBody { height, block },
        }
    }
}

fn from_redb(error: redb::Error, place: Place) -> StoreError {
    use redb::Error;
    match error {
        Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch => StoreError::InUse { place },
        Error::DatabaseClosed => StoreError::Closed { place },
        Error::Io(source) => from_io(source, place),
        Error::PreviousIo => StoreError::Io {
            place,
            source: io::Error::other("an earlier write failed"),
        },
        other => StoreError::Damaged {
            place,
            detail: other.to_string(),
        },
    }
}

fn from_io(source: io::Error, place: Place) -> StoreError {
    use io::ErrorKind;
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            StoreError::DiskFull { place, source }
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            StoreError::Permission { place, source }
        }
        // What redb reports for a file that is none of its own or ends too early.
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => StoreError::Damaged {
            place,
            detail: source.to_string(),
        },
        _ => StoreError::Io { place, source },
    }
}

macro_rules! from_redb_errors {
    ($($error:ty),+) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Fault::Redb(Box::new(error.into()))
            }
        })+
    };
}

from_redb_errors!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);
