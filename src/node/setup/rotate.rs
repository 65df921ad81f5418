//! `timed cert rotate` and `timed cert move`: the files of a masternode that changes its certificate
//! or its address, in steps between which the other operators install its new record.
//!
//! A rotation has three steps, each begun by the same command and safe to repeat after a crash:
//!
//! 1. *announce*: a new key in `node.next.key`; a record with a higher serial that names both pins;
//! 2. *swap*, once everyone holds that record: the new key and certificate become `node.key` and
//!    `node.pem`; the old key stays in `node.old.key`;
//! 3. *finish*: a record with a higher serial that names the new pin only; the old key is removed.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;

use super::{SetupError, failed};
use crate::env::{DurableFile, FileOnDisk, SystemClock, WallClock};
use crate::net::Identity;
use crate::net::identity::inspect_certificate;
use crate::node::files::{self, DataDir, FilesError};
use crate::node::formats::record_to_text;
use crate::node::keys;
use crate::types::{ConsensusKey, Genesis, MasternodeDirectory, MasternodeRecord, NodeId, PeerIp};

/// Where a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RotationStep {
    /// The next step makes the new key and announces it.
    Announce,
    /// The next step swaps the certificate; every peer must hold the announcing record first.
    Swap,
    /// The next step removes the old pin.
    Finish,
}

/// What a step did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RotationReport {
    /// The step that was done.
    pub done: RotationStep,
    /// The masternode.
    pub name: String,
    /// The serial of its record.
    pub serial: u64,
    /// The pins in its record.
    pub pins: Vec<NodeId>,
    /// Public files that changed: for all other masternodes.
    pub public_files: Vec<PathBuf>,
}

/// A masternode's own files, as a rotation needs them.
struct Own {
    dir: DataDir,
    genesis: Genesis,
    record: MasternodeRecord,
    /// The records of all others.
    others: Vec<MasternodeRecord>,
    consensus_key: SigningKey,
}

/// Which step comes next.
pub fn rotation_step(data_dir: &Path) -> Result<RotationStep, SetupError> {
    let dir = DataDir::new(data_dir);
    Ok(if dir.next_key().exists() {
        // Until both files of the new certificate are in place.
        RotationStep::Swap
    } else if Own::read(&dir)?.record.pins.len() == 2 {
        RotationStep::Finish
    } else {
        RotationStep::Announce
    })
}

/// Does the next step of a rotation.
pub fn rotate(data_dir: &Path) -> Result<RotationReport, SetupError> {
    let step = rotation_step(data_dir)?;
    let mut own = Own::read(&DataDir::new(data_dir))?;
    let public_files = match step {
        RotationStep::Announce => own.announce()?,
        RotationStep::Swap => own.swap()?,
        RotationStep::Finish => own.finish()?,
    };
    Ok(RotationReport {
        done: step,
        name: own.record.name,
        serial: own.record.serial,
        pins: own.record.pins,
        public_files,
    })
}

/// Signs a record for another address, and makes the certificate that names it, with the same key.
pub fn move_to(
    data_dir: &Path,
    ip: PeerIp,
    port: Option<u16>,
) -> Result<RotationReport, SetupError> {
    if !ip.is_usable() {
        return Err(SetupError::Ip { ip });
    }
    let dir = DataDir::new(data_dir);
    let mut own = Own::read(&dir)?;
    let key = keys::read_key(&dir.node_key())?;
    let name = own.record.name.clone();
    let identity = Identity::create(key.as_bytes(), ip, &name, SystemClock.now_ms())?;
    own.record.ip = ip;
    own.record.port = port.unwrap_or(own.record.port);
    own.sign()?;
    let pem = identity.certificate_pem();
    replace(&dir.node_certificate(), &pem)?;
    let certificate = dir.certificate(&name);
    replace_public(&certificate, &pem)?;
    let record = own.write()?;
    Ok(RotationReport {
        done: RotationStep::Finish,
        name,
        serial: own.record.serial,
        pins: own.record.pins,
        public_files: vec![record, certificate],
    })
}

impl Own {
    fn read(dir: &DataDir) -> Result<Self, SetupError> {
        let genesis = files::load_genesis(dir)?;
        let consensus_key = keys::read_key(&dir.consensus_key())?;
        let key = ConsensusKey::from(&consensus_key);
        let directory = files::load_directory(dir, &genesis)?;
        let records = directory.records().map(|(_, record)| record.clone());
        let (own, others): (Vec<_>, Vec<_>) =
            records.partition(|record| record.consensus_key == key);
        let record = own.into_iter().next().ok_or_else(|| {
            SetupError::Files(Box::new(FilesError::NotInGenesis {
                path: dir.consensus_key(),
                key,
            }))
        })?;
        Ok(Self {
            dir: dir.clone(),
            genesis,
            record,
            others,
            consensus_key,
        })
    }

    fn announce(&mut self) -> Result<Vec<PathBuf>, SetupError> {
        let dir = &self.dir;
        let secret = keys::new_secret().map_err(SetupError::Randomness)?;
        let (ip, name) = (self.record.ip, &self.record.name);
        let next = Identity::create(&secret, ip, name, SystemClock.now_ms())?;
        // The key last: its presence says that the step is done but for the record.
        replace(&dir.next_certificate(), &next.certificate_pem())?;
        self.record.pins.push(next.node_id());
        keys::write_secret(&dir.next_key(), &next.key_pem())?;
        self.sign()?;
        Ok(vec![self.write()?])
    }

    fn swap(&mut self) -> Result<Vec<PathBuf>, SetupError> {
        let dir = self.dir.clone();
        let key = keys::read_secret(&dir.next_key())?;
        let path = dir.next_certificate();
        let pem = std::fs::read_to_string(&path).map_err(failed(&path))?;
        let next = Identity::from_pem(&key, &pem)?;
        if !self.record.pins.contains(&next.node_id()) {
            // The announcing step was interrupted before its record was signed.
            self.record.pins.truncate(1);
            self.record.pins.push(next.node_id());
            self.sign()?;
            return Err(SetupError::NotAnnounced {
                record: self.write()?,
            });
        }
        if !dir.old_key().exists() {
            let old = keys::read_secret(&dir.node_key())?;
            keys::write_secret(&dir.old_key(), &old)?;
        }
        replace(&dir.node_key(), &key)?;
        replace(&dir.node_certificate(), &pem)?;
        let certificate = dir.certificate(&self.record.name);
        replace_public(&certificate, &pem)?;
        remove(&dir.next_certificate())?;
        remove(&dir.next_key())?;
        Ok(vec![certificate])
    }

    fn finish(&mut self) -> Result<Vec<PathBuf>, SetupError> {
        let path = self.dir.node_certificate();
        let pem = std::fs::read_to_string(&path).map_err(failed(&path))?;
        let certificate =
            inspect_certificate(&pem).map_err(|source| SetupError::Certificate { path, source })?;
        self.record.pins = vec![certificate.pin];
        self.sign()?;
        let record = self.write()?;
        if self.dir.old_key().exists() {
            remove(&self.dir.old_key())?;
        }
        Ok(vec![record, self.dir.certificate(&self.record.name)])
    }

    /// Signs the record with the next serial. Refused when it cannot stand beside the others: then
    /// the next start would fail, and every command that could undo it.
    fn sign(&mut self) -> Result<(), SetupError> {
        let mut record = self.record.clone();
        record.serial += 1;
        self.record = record.signed(&self.consensus_key, self.genesis.network);
        let all = self.others.iter().chain([&self.record]).cloned();
        MasternodeDirectory::new(&self.genesis, all)?;
        Ok(())
    }

    /// Writes the record to `certs/`.
    fn write(&self) -> Result<PathBuf, SetupError> {
        let path = self.dir.record(&self.record.name);
        replace_public(&path, &record_to_text(&self.record))?;
        Ok(path)
    }
}

/// Replaces a file as a whole, durably, with mode 0600.
fn replace(path: &Path, content: &str) -> Result<(), SetupError> {
    let file = FileOnDisk(path.into());
    file.replace(content.as_bytes()).map_err(failed(path))
}

/// The same for a file that everyone may read.
pub(super) fn replace_public(path: &Path, content: &str) -> Result<(), SetupError> {
    use std::os::unix::fs::PermissionsExt;
    replace(path, content)?;
    let everyone = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path, everyone).map_err(failed(path))
}

fn remove(path: &Path) -> Result<(), SetupError> {
    std::fs::remove_file(path).map_err(failed(path))
}
