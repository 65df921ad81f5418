//! A disk in memory that loses what was not synced, for tests.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::Backend;

/// How much of an unsynced write reaches the disk when it is torn, in bytes.
const SECTOR_BYTES: usize = 512;

/// What became of an unsynced write in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It reached the disk.
    Kept,
    /// Its first sector did.
    Torn,
    /// It did not.
    Lost,
}

/// Ways in which a crash may treat the unsynced writes, by their position.
pub(crate) fn fates() -> [fn(usize) -> Fate; 5] {
    [
        |_| Fate::Kept,
        |_| Fate::Lost,
        |_| Fate::Torn,
        |at| [Fate::Kept, Fate::Lost][at % 2],
        |at| [Fate::Lost, Fate::Torn, Fate::Kept][at % 3],
    ]
}

/// A disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What a reader sees.
    current: Vec<u8>,
    /// What is safe from a crash.
    synced: Vec<u8>,
    /// Changes since the last sync, in order.
    unsynced: Vec<Change>,
    /// How many changes and syncs still succeed, and how the others fail; `None` for all.
    left: Option<(usize, io::ErrorKind)>,
}

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Disk {
    /// A disk with this content.
    pub(crate) fn with(content: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State {
            current: content.clone(),
            synced: content,
            ..State::default()
        })))
    }

    /// The disk as a store's backend.
    pub(crate) fn backend(&self) -> Backend {
        Backend::Custom(Box::new(self.clone()))
    }

    /// What a reader sees now.
    pub(crate) fn content(&self) -> Vec<u8> {
        self.state().current.clone()
    }

    /// Lets this many further changes and syncs succeed; then all fail in this way.
    pub(crate) fn fail_after(&self, operations: usize, kind: io::ErrorKind) {
        self.state().left = Some((operations, kind));
    }

    /// The disk that a machine finds after a crash now: what was synced, and what `fate` lets
    /// through of each later change, by its position.
    pub(crate) fn after_crash(&self, mut fate: impl FnMut(usize) -> Fate) -> Disk {
        let state = self.state();
        let mut content = state.synced.clone();
        for (at, change) in state.unsynced.iter().enumerate() {
            match (fate(at), change) {
                (Fate::Kept, change) => change.apply(&mut content, usize::MAX),
                (Fate::Torn, Change::Write(..)) => change.apply(&mut content, SECTOR_BYTES),
                (Fate::Torn, Change::Length(_)) | (Fate::Lost, _) => {}
            }
        }
        Disk::with(content)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn change(&mut self, change: Change) -> io::Result<()> {
        self.spend()?;
        change.apply(&mut self.current, usize::MAX);
        self.unsynced.push(change);
        Ok(())
    }

    fn spend(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some((0, kind)) => return Err((*kind).into()),
            Some((left, _)) => *left -= 1,
            None => {}
        }
        Ok(())
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>, limit: usize) {
        match self {
            Change::Length(length) => content.resize(*length, 0),
            Change::Write(at, data) => {
                let data = &data[..data.len().min(limit)];
                // The change of length before it may have been lost.
                content.resize(content.len().max(at + data.len()), 0);
                content[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let at = offset as usize;
        let bytes = state.current.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state().change(Change::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        for change in std::mem::take(&mut state.unsynced) {
            change.apply(&mut state.synced, usize::MAX);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state()
            .change(Change::Write(offset as usize, data.to_vec()))
    }
}
