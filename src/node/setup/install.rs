//! `timed genesis install` and `timed cert install`: files of others, put into the data directory once
//! it is certain that the node starts with them.

use std::io;
use std::path::{Path, PathBuf};

use super::created::Created;
use super::rotate::replace_public;
use super::{SetupError, failed};
use crate::env::FileOnDisk;
use crate::net::PinPolicy;
use crate::node::files::{self, DataDir};
use crate::node::formats::{RECORD_SUFFIX, genesis_from_text, record_from_text, record_to_text};
use crate::types::{MasternodeDirectory, MasternodeRecord};

/// A file that is to be copied into the data directory.
struct PublicFile {
    from: PathBuf,
    to: PathBuf,
    content: String,
}

/// Puts a chain's public files into a node's data directory: the genesis file, and every record
/// and certificate of a folder. A file that is there already with the same content stays; with
/// other content the step is refused, and so is a chain with which the node would not start. Then
/// nothing is written.
pub fn install_chain(data_dir: &Path, genesis: &Path, certs: &Path) -> Result<(), SetupError> {
    let dir = DataDir::new(data_dir);
    // A mistyped folder is no node's.
    files::load_config(&dir)?;
    let (genesis, others) = (
        PublicFile::read(genesis.into(), dir.genesis())?,
        public_files(&dir, certs)?,
    );
    refuse_different([&genesis].into_iter().chain(&others))?;
    check_chain(&dir, &genesis, &others)?;
    let mut created = Created::default();
    created.folder(&dir.certs())?;
    for PublicFile { to, content, .. } in [genesis].into_iter().chain(others) {
        if !to.exists() {
            created.public(to, &content)?;
        }
    }
    created.keep();
    Ok(())
}

impl PublicFile {
    fn read(from: PathBuf, to: PathBuf) -> Result<Self, SetupError> {
        let content = std::fs::read_to_string(&from).map_err(failed(&from))?;
        Ok(Self { from, to, content })
    }
}

/// The records and certificates of a folder.
fn public_files(dir: &DataDir, certs: &Path) -> Result<Vec<PublicFile>, SetupError> {
    let mut others = Vec::new();
    for entry in std::fs::read_dir(certs).map_err(failed(certs))? {
        let entry = entry.map_err(failed(certs))?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text.ends_with(RECORD_SUFFIX) || text.ends_with(".pem") {
            others.push(PublicFile::read(entry.path(), dir.certs().join(name))?);
        }
    }
    Ok(others)
}

fn refuse_different<'a>(files: impl Iterator<Item = &'a PublicFile>) -> Result<(), SetupError> {
    let mut different = Vec::new();
    for PublicFile { to, content, .. } in files {
        match std::fs::read_to_string(to) {
            Ok(present) if present == *content => {}
            Ok(_) => different.push(to.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(to)(error)),
        }
    }
    match different.is_empty() {
        true => Ok(()),
        false => Err(SetupError::Exists(different)),
    }
}

/// Reads the genesis, its new records and those that are there as the next start will.
fn check_chain(
    dir: &DataDir,
    genesis: &PublicFile,
    others: &[PublicFile],
) -> Result<(), SetupError> {
    let genesis = genesis_from_text(&genesis.content, &genesis.from)?;
    let mut records = Vec::new();
    for PublicFile { from, to, content } in others {
        if from.to_string_lossy().ends_with(RECORD_SUFFIX) && !to.exists() {
            records.push(record_from_text(content, genesis.network, from)?);
        }
    }
    PinPolicy::check_records(&FileOnDisk(dir.pins()), &records)?;
    let present = files::load_directory(dir, &genesis)?;
    let present = present.records().map(|(_, record)| record.clone());
    MasternodeDirectory::new(&genesis, present.chain(records))?;
    Ok(())
}

/// Reads other masternodes' new records: all of them can be written with [`write_record`], or none.
pub fn check_records(
    data_dir: &Path,
    files: &[PathBuf],
) -> Result<Vec<MasternodeRecord>, SetupError> {
    let dir = DataDir::new(data_dir);
    let genesis = files::load_genesis(&dir)?;
    let present = files::load_directory(&dir, &genesis)?;
    let present = present.records().map(|(_, record)| record.clone());
    let mut all: Vec<MasternodeRecord> = present.collect();
    let mut new = Vec::with_capacity(files.len());
    for file in files {
        let text = std::fs::read_to_string(file).map_err(failed(file))?;
        let record = record_from_text(&text, genesis.network, file)?;
        if let Some(held) = all.iter().find(|held| held.name == record.name)
            && held.serial >= record.serial
            && *held != record
        {
            return Err(SetupError::OlderRecord {
                file: file.into(),
                name: record.name,
                found: record.serial,
                held: held.serial,
            });
        }
        all.retain(|held| held.name != record.name);
        all.push(record.clone());
        new.push(record);
    }
    // All together must be usable, or the next start would fail; and none may be older than one
    // that was seen before, whether its file is still there or not.
    MasternodeDirectory::new(&genesis, all)?;
    PinPolicy::check_records(&FileOnDisk(dir.pins()), &new)?;
    Ok(new)
}

/// Puts a record into `certs/`, in place of the masternode's older one.
pub fn write_record(data_dir: &Path, record: &MasternodeRecord) -> Result<(), SetupError> {
    let path = DataDir::new(data_dir).record(&record.name);
    replace_public(&path, &record_to_text(record))
}
