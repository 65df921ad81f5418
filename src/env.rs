//! What a node takes from the outside, so that the same node runs on a real machine and in a
//! deterministic simulation: the wall clock, randomness, small durable files, and where blocking
//! work runs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

/// Tells the time of day.
pub trait WallClock: Send + Sync + 'static {
    /// Unix milliseconds.
    fn now_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one reader of the machine's clock"
    )]
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }
}

/// The source of all randomness of one process start. Each user derives a generator of its own by
/// context, so that one more draw in one place changes nothing in another.
#[derive(Clone)]
pub struct Entropy([u8; 32]);

impl Entropy {
    /// Fresh from the operating system.
    pub fn from_os() -> io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        Ok(Self(seed))
    }

    /// Reproducible, for simulations and tests.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// A seed for one use.
    pub fn derive(&self, context: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, context.as_bytes()).as_bytes()
    }

    /// A generator for one use.
    pub fn rng(&self, context: &str) -> ChaCha20Rng {
        ChaCha20Rng::from_seed(self.derive(context))
    }
}

/// A small file that is always replaced as a whole and durable when `replace` returns.
pub trait DurableFile: Send + Sync + 'static {
    /// The content; `None` when the file does not exist.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the content: written beside, synced, renamed, directory synced.
    fn replace(&self, content: &[u8]) -> io::Result<()>;

    /// How messages name it.
    fn name(&self) -> String;
}

/// A durable file on disk, readable by its owner only.
#[derive(Debug, Clone)]
pub struct FileOnDisk(pub PathBuf);

impl DurableFile for FileOnDisk {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(&self.0) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        use std::io::Write;
        let folder = match self.0.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => std::path::Path::new("."),
        };
        // tempfile creates with mode 0600, which the rename keeps.
        let mut beside = tempfile::NamedTempFile::new_in(folder)?;
        beside.write_all(content)?;
        beside.as_file().sync_all()?;
        beside.persist(&self.0).map_err(|error| error.error)?;
        std::fs::File::open(folder)?.sync_all()
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}

/// Where work runs that computes long, touches the disk or is for peers without a record: never on
/// the runtime's workers, except in a simulation, where a foreign thread would stop virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// On other threads.
    Threads,
    /// In place.
    Inline,
}

impl Offload {
    /// Runs the work and waits for its result. A panic in it continues in the caller.
    #[expect(clippy::disallowed_methods, reason = "the one user of foreign threads")]
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Offload::Inline => work(),
            Offload::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // Cancelled: the runtime is shutting down and will not poll this task again.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// A durable file in memory, for tests and simulations.
#[derive(Debug, Clone, Default)]
pub struct FileInMemory {
    content: Arc<std::sync::Mutex<Option<Vec<u8>>>>,
}

impl DurableFile for FileInMemory {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.content.lock().expect("no holder panics").clone())
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        *self.content.lock().expect("no holder panics") = Some(content.to_vec());
        Ok(())
    }

    fn name(&self) -> String {
        "a file in memory".into()
    }
}
