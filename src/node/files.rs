//! The data directory: where each file is, the lock that keeps a second process out, and reading
//! everything that a node needs to start.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::SigningKey;

use super::formats::{self, FormatError, RECORD_SUFFIX};
use super::keys::{self, KeyError};
use crate::config::{CONFIG_FILE, Config, ConfigError};
use crate::net::{Identity, IdentityError};
use crate::types::{
    ConsensusKey, DirectoryError, Genesis, MasternodeDirectory, MasternodeRecord, NodeId,
};

/// The names of the files in a data directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The directory itself is not looked at.
    pub fn new(root: &Path) -> Self {
        Self(root.into())
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The operator's settings.
    pub fn config(&self) -> PathBuf {
        self.0.join(CONFIG_FILE)
    }

    /// The chain's genesis.
    pub fn genesis(&self) -> PathBuf {
        self.0.join("genesis.toml")
    }

    /// The node key (secret).
    pub fn node_key(&self) -> PathBuf {
        self.0.join("node.key")
    }

    /// The node's certificate.
    pub fn node_certificate(&self) -> PathBuf {
        self.0.join("node.pem")
    }

    /// The next node key while a certificate is rotated (secret).
    pub fn next_key(&self) -> PathBuf {
        self.0.join("node.next.key")
    }

    /// The next certificate while one is rotated.
    pub fn next_certificate(&self) -> PathBuf {
        self.0.join("node.next.pem")
    }

    /// The node key before a rotation, until it is finished (secret).
    pub fn old_key(&self) -> PathBuf {
        self.0.join("node.old.key")
    }

    /// A masternode's consensus key (secret).
    pub fn consensus_key(&self) -> PathBuf {
        self.0.join("consensus.key")
    }

    /// The highest height that the consensus key may have signed.
    pub fn consensus_state(&self) -> PathBuf {
        self.0.join("consensus.state")
    }

    /// The wallet's key (secret).
    pub fn wallet_key(&self) -> PathBuf {
        self.0.join("wallet.key")
    }

    /// Records and certificates of the masternodes.
    pub fn certs(&self) -> PathBuf {
        self.0.join("certs")
    }

    /// A masternode's record.
    pub fn record(&self, name: &str) -> PathBuf {
        self.certs().join(format!("{name}{RECORD_SUFFIX}"))
    }

    /// A masternode's certificate.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.certs().join(format!("{name}.pem"))
    }

    /// Highest serials and first-use pins.
    pub fn pins(&self) -> PathBuf {
        self.0.join("pins.toml")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.0.join("chain.redb")
    }

    /// The secret of the running node's RPC.
    pub fn rpc_cookie(&self) -> PathBuf {
        self.0.join("rpc.cookie")
    }

    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
}

/// Keeps the data directory for this process until it is dropped.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Whether another process has it now. It is not taken, and no file is made.
    pub fn is_held(dir: &DataDir) -> bool {
        let shared = File::open(dir.lock()).map(|file| file.try_lock_shared());
        matches!(shared, Ok(Err(TryLockError::WouldBlock)))
    }

    /// Takes the lock, or says that another process has it.
    pub fn take(dir: &DataDir) -> Result<Self, FilesError> {
        let path = dir.lock();
        let failed = |source| FilesError::Io {
            path: path.clone(),
            source,
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(FilesError::InUse {
                dir: dir.root().into(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// Everything that a node reads before it starts.
pub struct NodeFiles {
    /// Where the files are.
    pub dir: DataDir,
    /// The operator's settings.
    pub config: Config,
    /// The chain's genesis.
    pub genesis: Arc<Genesis>,
    /// The records in `certs/`.
    pub directory: MasternodeDirectory,
    /// The node key and certificate.
    pub identity: Identity,
    /// The consensus key: with it the node is a masternode, without it a full node.
    pub consensus_key: Option<SigningKey>,
    /// Held until the node has stopped; `None` for a node that lives in memory only.
    pub lock: Option<DataDirLock>,
}

/// Why a data directory cannot be used. Each is one sentence that names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no node.
    #[error("{path} is missing: make a node there with \"timed init --data-dir {dir}\"", dir = .dir.display())]
    NoNode {
        /// The directory.
        dir: PathBuf,
        /// The file looked for.
        path: PathBuf,
    },
    /// There is no genesis.
    #[error(
        "{path} is missing: get the chain's file from those who run it, or make one with \"timed genesis build\""
    )]
    NoGenesis {
        /// The file looked for.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process holds the directory.
    #[error("the data directory {dir} is in use by another timed process: stop it first, with \"timed stop --data-dir {dir}\"", dir = .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The genesis or a record cannot be used.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Node key and certificate cannot be used.
    #[error("{key} and {certificate}: {source}", key = .key.display(), certificate = .certificate.display())]
    Identity {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// The records cannot be used together.
    #[error("{folder}: {source}")]
    Directory {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        source: DirectoryError,
    },
    /// The consensus key does not vote on this chain.
    #[error(
        "{path} holds the key {key}, which genesis does not name: put the right key or genesis in place, or remove the file to run a full node"
    )]
    NotInGenesis {
        /// The key's file.
        path: PathBuf,
        /// The public key in it.
        key: ConsensusKey,
    },
    /// A masternode needs its own record.
    #[error(
        "{path} is missing: masternode {name} needs its own record there; \"timed init\" wrote it"
    )]
    NoOwnRecord {
        /// The record's file.
        path: PathBuf,
        /// The masternode's name in genesis.
        name: String,
    },
    /// The own record names another certificate.
    #[error("the record of {name} in {folder} does not name the pin {pin} of {certificate}: restore the node.key that belongs to the record, or sign a record with a higher serial", folder = .folder.display(), certificate = .certificate.display())]
    OtherPin {
        /// The masternode's name.
        name: String,
        /// The folder with the record.
        folder: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
        /// Its pin.
        pin: NodeId,
    },
    /// A recorded masternode has lost its consensus key.
    #[error(
        "{path} is missing, but node.key is the one of masternode {name}: restore the consensus key from your backup"
    )]
    NoConsensusKey {
        /// The key's file.
        path: PathBuf,
        /// The masternode's name.
        name: String,
    },
}

impl NodeFiles {
    /// Locks and reads a data directory.
    pub fn load(data_dir: &Path) -> Result<Self, FilesError> {
        let dir = DataDir::new(data_dir);
        let config = load_config(&dir)?;
        let lock = DataDirLock::take(&dir)?;
        let genesis = load_genesis(&dir)?;
        let identity = load_identity(&dir)?;
        let directory = load_directory(&dir, &genesis)?;
        let consensus_key = match dir.consensus_key() {
            path if path.exists() => Some(keys::read_key(&path)?),
            _ => None,
        };
        let files = Self {
            dir,
            config,
            genesis: Arc::new(genesis),
            directory,
            identity,
            consensus_key,
            lock: Some(lock),
        };
        files.check_own_record()?;
        Ok(files)
    }

    /// This node's position in genesis, when its consensus key votes.
    pub fn own_masternode(&self) -> Option<usize> {
        let key = ConsensusKey::from(self.consensus_key.as_ref()?);
        let mut masternodes = self.genesis.masternodes.iter();
        masternodes.position(|masternode| masternode.consensus_key == key)
    }

    /// This node's own record, when it is a masternode.
    pub fn own_record(&self) -> Option<&MasternodeRecord> {
        self.directory.record(self.own_masternode()?)
    }

    fn check_own_record(&self) -> Result<(), FilesError> {
        let pin = self.identity.node_id();
        let Some(key) = &self.consensus_key else {
            return match self.directory.by_pin(&pin) {
                Some((_, record)) => Err(FilesError::NoConsensusKey {
                    path: self.dir.consensus_key(),
                    name: record.name.clone(),
                }),
                None => Ok(()),
            };
        };
        let index = self
            .own_masternode()
            .ok_or_else(|| FilesError::NotInGenesis {
                path: self.dir.consensus_key(),
                key: key.into(),
            })?;
        let name = &self.genesis.masternodes[index].name;
        let record = self
            .directory
            .record(index)
            .ok_or_else(|| FilesError::NoOwnRecord {
                path: self.dir.record(name),
                name: name.clone(),
            })?;
        if record.pins.contains(&pin) {
            return Ok(());
        }
        Err(FilesError::OtherPin {
            name: name.clone(),
            folder: self.dir.certs(),
            certificate: self.dir.node_certificate(),
            pin,
        })
    }
}

/// Reads `timed.toml`, for a node or a client of one.
pub fn load_config(dir: &DataDir) -> Result<Config, FilesError> {
    let path = dir.config();
    let text = read(&path)?.ok_or_else(|| FilesError::NoNode {
        dir: dir.root().into(),
        path: path.clone(),
    })?;
    Ok(Config::parse(&text, &path)?)
}

/// Reads and checks `genesis.toml`.
pub fn load_genesis(dir: &DataDir) -> Result<Genesis, FilesError> {
    let path = dir.genesis();
    let text = read(&path)?.ok_or_else(|| FilesError::NoGenesis { path: path.clone() })?;
    Ok(formats::genesis_from_text(&text, &path)?)
}

/// Reads every record in `certs/`; a missing folder holds none.
pub fn load_directory(dir: &DataDir, genesis: &Genesis) -> Result<MasternodeDirectory, FilesError> {
    let folder = dir.certs();
    let failed = |source| FilesError::Io {
        path: folder.clone(),
        source,
    };
    let mut paths = match std::fs::read_dir(&folder) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    paths.retain(|path| path.to_string_lossy().ends_with(RECORD_SUFFIX));
    paths.sort();
    let mut records = Vec::with_capacity(paths.len());
    for path in paths {
        let text = read(&path)?.unwrap_or_default();
        records.push(formats::record_from_text(&text, genesis.network, &path)?);
    }
    MasternodeDirectory::new(genesis, records)
        .map_err(|source| FilesError::Directory { folder, source })
}

/// Reads the node key and its certificate.
pub(super) fn load_identity(dir: &DataDir) -> Result<Identity, FilesError> {
    let key = keys::read_secret(&dir.node_key())?;
    let path = dir.node_certificate();
    let certificate = read(&path)?.ok_or_else(|| {
        FilesError::Key(KeyError::Missing {
            path: path.clone(),
            advice: "restore it from your backup, or from certs/".into(),
        })
    })?;
    Identity::from_pem(&key, &certificate).map_err(|source| FilesError::Identity {
        key: dir.node_key(),
        certificate: path,
        source,
    })
}

fn read(path: &Path) -> Result<Option<String>, FilesError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FilesError::Io {
            path: path.into(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_is_refused_and_free_again_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path());
        assert!(!DataDirLock::is_held(&dir));
        assert!(!dir.lock().exists());
        let held = DataDirLock::take(&dir).unwrap();
        assert!(matches!(
            DataDirLock::take(&dir),
            Err(FilesError::InUse { .. })
        ));
        assert!(DataDirLock::is_held(&dir));
        drop(held);
        assert!(!DataDirLock::is_held(&dir));
        assert!(DataDirLock::take(&dir).is_ok());
    }

    #[test]
    fn a_folder_without_a_node_says_how_to_make_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = NodeFiles::load(folder.path()).err().unwrap().to_string();
        assert!(error.contains("timed.toml is missing"), "{error}");
        assert!(error.contains("timed init --data-dir"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
