//! Storage: the only user of redb. One durable transaction per block.
//!
//! Flow: a caller hands a closure over a transaction to a lane (`threads.rs`) and waits for its
//! result; the runtime's workers never touch the disk. Writes go through one thread, in order, each
//! as one transaction that is durable when its caller hears of it. Reads go through two threads and
//! see the newest durable state. Both queues are bounded; when one is full its callers wait. A write
//! whose caller has gone is still made, whole or not at all.
//!
//! What is stored, in bytes: `tables.rs`. The database carries its genesis hash and schema version;
//! one of another chain or of an unknown version is refused and left as it is.
//!
//! # After a crash
//! redb finds its last commit by itself, at the price of a walk over the whole file, unless the last
//! commit saved the allocator's state (redb calls it quick repair, and makes each commit in two
//! synced phases: measured at half to nine tenths of the rate, about 1 ms more a commit). Neither
//! fits every size, so the file's size decides, with one bound, [`CHECKED_FILE_BYTES`]:
//! - Up to it, every open walks the file (measured: 1.3 s for 442 MiB in the page cache) and verifies
//!   each page's checksum, also after a clean shutdown: a file that something else altered is refused
//!   with a sentence before anything is built on it. Commits skip quick repair and are fast.
//! - Above it, commits use quick repair: a masternode with a large chain must be back within
//!   seconds of a power cut, which may have hit a third of the voters at once, and a second disk sync
//!   per commit is small beside the shortest block interval. Opens then trust the file; damage shows
//!   as an error when a row is read that cannot be what was written, or when the rows of the tip
//!   contradict each other.
//!
//! What the consensus log has promised is never taken back: its transactions are synced in two phases
//! whatever the file's size. After a crash redb would otherwise answer damage in the newest pages by
//! going back one transaction, and a masternode would forget what it has signed. For blocks that does
//! no harm: the one that is lost is fetched again.
//!
//! redb may panic on a file that was altered behind its back; every job catches that and reports
//! [`StoreError::Damaged`].

mod backend;
mod bans;
mod blocks;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod peers;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod threads;
mod wal;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend,
    WriteTransaction,
};

pub(crate) use blocks::{BlockCommit, ChainState};
pub(crate) use error::Fault;
pub use error::{Place, StoreError};
pub use wal::{MAX_EVIDENCE, Wal, WalContent};

use crate::types::{Genesis, GenesisHash};
use backend::{FileSize, Measured};
use tables::{META, META_GENESIS, META_SCHEMA, SCHEMA_VERSION};
use threads::{Executor, Lane};

/// What redb may keep of the file in memory.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// The largest file that is checked as a whole at every open, see the module's documentation.
pub const CHECKED_FILE_BYTES: u64 = 256 * 1024 * 1024;

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
    /// In place, and each write's caller hears of it only this much later, one write after the
    /// other: a slow disk in a simulation, where only the runtime's clock passes.
    InlineSlow(Duration),
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
    size: FileSize,
}

impl Store {
    /// Opens a database whatever its checksums say, to read what can be read.
    pub(crate) fn open_unchecked(
        backend: Backend,
        genesis: Arc<Genesis>,
    ) -> Result<Self, StoreError> {
        Self::open_with(backend, genesis, StoreThreads::Inline, 0)
    }

    /// Opens or creates the database of a chain. Refuses one of another genesis, both hashes named.
    /// Blocks while it reads the file.
    pub fn open(
        backend: Backend,
        genesis: Arc<Genesis>,
        threads: StoreThreads,
    ) -> Result<Self, StoreError> {
        Self::open_with(backend, genesis, threads, CHECKED_FILE_BYTES)
    }

    /// As [`Store::open`], with another bound than [`CHECKED_FILE_BYTES`].
    pub(crate) fn open_with(
        backend: Backend,
        genesis: Arc<Genesis>,
        threads: StoreThreads,
        checked_bytes: u64,
    ) -> Result<Self, StoreError> {
        let genesis_hash = genesis.hash();
        let place = Place(match &backend {
            Backend::File(path) => path.display().to_string().into(),
            Backend::Custom(_) => "the database".into(),
        });
        let size = FileSize {
            bytes: Arc::default(),
            checked_bytes,
        };
        let database = guarded(|| {
            let backend = Measured::open(backend, size.clone())?;
            let database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(!size.is_large())
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
                size,
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

    /// The size of the database, in bytes.
    pub fn bytes(&self) -> u64 {
        self.inner
            .size
            .bytes
            .load(std::sync::atomic::Ordering::Relaxed)
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
        self.transact(Phases::One, work, then).await
    }

    /// As [`Store::write`], so that no damage can take the file back to the state before.
    pub(crate) async fn write_for_good<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(Phases::Two, work, |value| value).await
    }

    async fn transact<T, U: Send + 'static>(
        &self,
        phases: Phases,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Fault> + Send + 'static,
        then: impl FnOnce(T) -> U + Send + 'static,
    ) -> Result<U, StoreError> {
        let size = self.inner.size.clone();
        self.run(Lane::Write, move |database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.set_two_phase_commit(phases == Phases::Two);
            transaction.set_quick_repair(size.is_large());
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

/// How a transaction is made durable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phases {
    /// Its pages and the header that names them in one sync. When the pages turn out not to be what
    /// the header says, redb cannot know whether that sync was cut short or the disk has altered
    /// them since, and goes back to the transaction before.
    One,
    /// The header in a second sync: then pages that differ are damage, and the file is refused.
    Two,
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
