//! The file under the database, and its size.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

use super::Backend;

/// The size of the database, which decides how it is opened and committed to.
#[derive(Clone, Debug)]
pub(super) struct FileSize {
    pub(super) bytes: Arc<AtomicU64>,
    pub(super) checked_bytes: u64,
}

impl FileSize {
    pub(super) fn is_large(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.checked_bytes
    }
}

/// A backend that keeps its size known. It is also what redb can take by value: redb implements its
/// trait for no box.
#[derive(Debug)]
pub(super) struct Measured {
    inner: Box<dyn StorageBackend>,
    size: FileSize,
}

impl Measured {
    pub(super) fn open(backend: Backend, size: FileSize) -> Result<Self, DatabaseError> {
        let inner = match backend {
            Backend::Custom(inner) => inner,
            Backend::File(path) => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).truncate(false);
                Box::new(FileBackend::new(options.open(path)?)?)
            }
        };
        size.bytes.store(inner.len()?, Ordering::Relaxed);
        Ok(Self { inner, size })
    }
}

impl StorageBackend for Measured {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)?;
        self.size.bytes.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
