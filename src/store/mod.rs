//! Storage: the only user of redb. One durable transaction per block.
//!
//! Flow: a caller hands a closure over a transaction to a lane ([`threads`]) and waits for its
//! result; the runtime's workers never touch the disk. Writes go through one thread, in order, each
//! as one transaction that is durable when its caller hears of it. Reads go through two threads and
//! see the newest durable state. Both queues are bounded; when one is full its callers wait. A write
//! whose caller has gone is still made, whole or not at all.
//!
//! What is stored, in bytes: [`tables`]. The database carries its genesis hash and schema version;
//! one of another chain or of an unknown version is refused and left as it is.
//!
//! # After a crash
//! redb finds its last commit by itself, at the price of a walk over the whole file, unless the last
//! commit saved the allocator's state (redb calls it quick repair, and makes each commit in two
//! synced phases: measured at about half the rate). Neither fits every size, so the file's size
//! decides, with one bound, [`CHECKED_FILE_BYTES`]:
//! - Up to it, every open walks the file, about a second at most, and verifies each page's checksum,
//!   also after a clean shutdown: a file that something else altered is refused with a sentence
//!   before anything is built on it. Commits skip quick repair and are fast.
//! - Above it, commits use quick repair: a masternode with a large chain must be back within
//!   seconds of a power cut, which may have hit a third of the voters at once, and an extra disk sync
//!   per commit is small beside the shortest block interval. Opens then trust the file; damage
//!   shows when a row is read, as an error.
//!
//! redb may panic on a file that was altered behind its back; every job catches that and reports
//! [`StoreError::Damaged`].

mod blocks;
mod error;
mod peers;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod threads;
mod wal;

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{
    BackendError, Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageBackend, WriteTransaction,
};

pub(crate) use blocks::{BlockCommit, ChainState};
pub(crate) use error::Fault;
pub use error::{Place, StoreError};
pub use peers::MAX_EARLIER_PEERS;
pub use wal::{MAX_EVIDENCE, Wal, WalContent};

use crate::types::{Genesis, GenesisHash};
use tables::{META, META_GENESIS, META_SCHEMA, SCHEMA_VERSION};
use threads::{Executor, Lane};

/// What redb may keep of the file in memory.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// The largest file that is checked as a whole at every open, see the module's documentation.
pub const CHECKED_FILE_BYTES: u64 = 512 * 1024 * 1024;

/// Where the database lives.
pub enum Backend {
    /// A file.
    File(PathBuf),
    /// Any storage: memory, or a disk that loses writes in a simulation.
    Custom(Box<dyn StorageBackend>),
}

/// Where storage work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreThreads {
    /// One thread for writes, two for reads, each with a bounded queue.
    Own,
    /// In place, for simulations.
    Inline,
}

/// The database; a cheap handle. The last one to be dropped waits for queued work, so a node calls
/// [`Store::close`] first.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    executor: Executor,
    genesis: Arc<Genesis>,
    genesis_hash: GenesisHash,
    place: Place,
    /// The file, whose size decides how commits are made; `None` for a custom backend.
    file: Option<PathBuf>,
}

impl Store {
    /// Opens or creates the database of a chain. Refuses one of another genesis, both hashes named.
    /// Blocks while it reads the file.
    pub fn open(
        backend: Backend,
        genesis: Arc<Genesis>,
        threads: StoreThreads,
    ) -> Result<Self, StoreError> {
        let genesis_hash = genesis.hash();
        let (backend, place, file) = match backend {
            Backend::Custom(backend) => (AnyBackend(backend), Place("the database".into()), None),
            Backend::File(path) => {
                let place = Place(path.display().to_string().into());
                let backend = open_file(&path)
                    .map_err(|error| Fault::from(error).at(&place, genesis_hash))?;
                (AnyBackend(backend), place, Some(path))
            }
        };
        let check = !file.as_deref().is_some_and(is_large);
        let database = guarded(|| {
            let database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(check)
                .create_with_backend(backend)?;
            identify(&database, genesis_hash)?;
            Ok(database)
        })
        .map_err(|fault| fault.at(&place, genesis_hash))?;
        let executor = Executor::start(database, threads).map_err(|source| StoreError::Io {
            place: place.clone(),
            source,
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                executor,
                genesis,
                genesis_hash,
                place,
                file,
            }),
        })
    }

    /// The genesis of the chain that is stored.
    pub fn genesis(&self) -> &Arc<Genesis> {
        &self.inner.genesis
    }

    /// Where the database lives.
    pub fn place(&self) -> &Place {
        &self.inner.place
    }

    /// The consensus log.
    pub fn wal(&self) -> Wal {
        Wal {
            store: self.clone(),
        }
    }

    /// Finishes queued work, closes the file and waits for the threads. Later calls on any handle
    /// fail with [`StoreError::Closed`].
    pub async fn close(&self) {
        self.inner.executor.close().await;
    }

    /// Runs `work` over a snapshot of the newest durable state.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(Lane::Read, move |database| work(&database.begin_read()?))
            .await
    }

    /// Runs `work` as one durable transaction; an error leaves the database as it was.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_then(work, |value| value).await
    }

    /// As [`Store::write`]; `then` runs once the transaction is durable, whether or not the caller
    /// still waits.
    pub(crate) async fn write_then<T, U: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Fault> + Send + 'static,
        then: impl FnOnce(T) -> U + Send + 'static,
    ) -> Result<U, StoreError> {
        let file = self.inner.file.clone();
        self.run(Lane::Write, move |database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.set_quick_repair(file.as_deref().is_some_and(is_large));
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(then(value))
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        job: impl FnOnce(&Database) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = &self.inner;
        let result = inner
            .executor
            .run(lane, move |database| guarded(|| job(database)))
            .await
            .map_err(|_| StoreError::Closed {
                place: inner.place.clone(),
            })?;
        result.map_err(|fault| fault.at(&inner.place, inner.genesis_hash))
    }
}

/// Creates the tables of a new database; of an existing one, checks whose it is and writes nothing.
fn identify(database: &Database, genesis: GenesisHash) -> Result<(), Fault> {
    let transaction = database.begin_write()?;
    let is_new = transaction.list_tables()?.next().is_none();
    if is_new {
        create_tables(&transaction, genesis)?;
        return Ok(transaction.commit()?);
    }
    let meta = transaction.open_table(META)?;
    let found = fixed(&meta, META_SCHEMA).map(u32::from_le_bytes)?;
    if found != SCHEMA_VERSION {
        return Err(Fault::Schema(found));
    }
    let found = fixed(&meta, META_GENESIS).map(GenesisHash)?;
    if found != genesis {
        return Err(Fault::WrongGenesis(found));
    }
    Ok(())
}

fn create_tables(transaction: &WriteTransaction, genesis: GenesisHash) -> Result<(), Fault> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(META_SCHEMA, SCHEMA_VERSION.to_le_bytes().as_slice())?;
    meta.insert(META_GENESIS, genesis.as_bytes().as_slice())?;
    // Opening a table in a write transaction creates it, so that reads find every table.
    transaction.open_table(tables::STATE)?;
    transaction.open_table(tables::HEADERS)?;
    transaction.open_table(tables::BODIES)?;
    transaction.open_table(tables::HEIGHTS)?;
    transaction.open_table(tables::CERTIFICATES)?;
    transaction.open_table(tables::TRANSACTIONS)?;
    transaction.open_table(tables::OUTPUTS)?;
    transaction.open_table(tables::OUTPUTS_BY_ADDRESS)?;
    transaction.open_table(tables::WAL)?;
    transaction.open_table(tables::WAL_BODIES)?;
    transaction.open_table(tables::EVIDENCE)?;
    transaction.open_table(tables::PEERS)?;
    Ok(())
}

/// A row of `meta` with a fixed length.
fn fixed<const N: usize>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    row: &str,
) -> Result<[u8; N], Fault> {
    let value = meta.get(row)?.ok_or_else(|| Fault::missing("meta", row))?;
    let bytes = value.value();
    bytes
        .try_into()
        .map_err(|_| Fault::row("meta", row, format!("{} bytes instead of {N}", bytes.len())))
}

fn open_file(path: &Path) -> Result<Box<dyn StorageBackend>, redb::DatabaseError> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    Ok(Box::new(FileBackend::new(file)?))
}

fn is_large(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > CHECKED_FILE_BYTES)
}

/// Runs database code; a panic in it means that the file is not what redb wrote.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Fault::Damaged(text(&*panic))))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the database code panicked").to_owned()
}

/// redb takes a backend by value and implements its trait for no box.
struct AnyBackend(Box<dyn StorageBackend>);

impl fmt::Debug for AnyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StorageBackend for AnyBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
