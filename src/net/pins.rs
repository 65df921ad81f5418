//! Who may speak from which address: masternode records, first-use pins, and what is remembered of
//! both.
//!
//! TLS has proved that the peer holds a key; this decides what the key is worth, in this order:
//!
//! 1. this node's own key: the node has dialed itself;
//! 2. an address with a masternode record answers only with a pin of that record;
//! 3. a pin of a record comes only from that record's address;
//! 4. an address that the operator configured is trusted on first use: its first key is stored once
//!    its Hello is of this chain, and another key is refused until `timed peers forget IP`;
//! 5. everyone else is refused unless the node takes unpinned peers. Their address is bound to
//!    their key by the registry, only while they are connected.
//!
//! Whoever has no record (4 and 5) is unpinned and never gets a consensus or proposal stream.
//!
//! `pins.toml` keeps the first-use pins and, per consensus key, the newest record seen: an older
//! one, or another one with the same serial, is refused. It is not in the database, so that a lost
//! or rebuilt chain does not make the node forget whom it trusted. A file that cannot be read as a
//! whole is never replaced.
//!
//! The file has at most one entry per masternode and per configured address. It is written, and
//! synced, only when one of them changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::error;

use crate::env::DurableFile;
use crate::types::{ConsensusKey, MasternodeDirectory, MasternodeRecord, NodeId, PeerIp};
use crate::types::{codec, hash};
use crate::wire::{CloseCode, CloseReason};

/// The version of `pins.toml` that is read and written.
const FILE_VERSION: u32 = 1;

const FILE_HEADER: &str = "\
# Kept by timed. [[record]]: the newest record seen of each masternode; [[first_use]]: the key that
# a configured address had at its first contact. To drop a first-use pin: timed peers forget IP
";

/// The context of the hash that tells two contents of a record apart.
const RECORD_CONTENT: &str = "timed 2026-11 masternode record content v1";

/// What a peer is allowed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A masternode, at its recorded address and with a pin of its record.
    Masternode {
        /// Its position in genesis.
        index: usize,
    },
    /// A peer without a record: no consensus and no proposal stream.
    Unpinned,
}

/// The rules of admission and their memory.
pub struct PinPolicy {
    file: Arc<dyn DurableFile>,
    directory: MasternodeDirectory,
    configured: BTreeSet<PeerIp>,
    accept_unpinned: bool,
    own: NodeId,
    memory: Memory,
}

/// Why the pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file cannot be read.
    #[error("{file} cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written; it has its old content.
    #[error("{file} cannot be written: {source}")]
    Write {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file's content is not what this node writes.
    #[error(
        "{file} is damaged and was left as it is: {detail}; restore it, or move it away to start \
         without first-use pins and seen serials"
    )]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong, with its place.
        detail: String,
    },
    /// A record has a lower serial than one that was seen before.
    #[error(
        "the record of {} has {found}, but {held} was seen before ({file}); \
         use the newer record, or sign one with a higher serial", .found.name
    )]
    OlderRecord {
        /// Where the newer one is remembered.
        file: String,
        /// What was seen before.
        held: Box<SeenRecord>,
        /// What is presented now.
        found: Box<SeenRecord>,
    },
    /// A record has the serial of one that was seen before, and says something else.
    #[error(
        "two records of {} have the same serial: {found}, but {held} was seen before ({file}); \
         every change needs a higher serial", .found.name
    )]
    ChangedRecord {
        /// Where the first one is remembered.
        file: String,
        /// What was seen before.
        held: Box<SeenRecord>,
        /// What is presented now.
        found: Box<SeenRecord>,
    },
}

impl PinPolicy {
    /// Reads the file and holds the directory's records against it. Records newer than those that
    /// the file knows are stored before this returns.
    ///
    /// `configured` are the addresses that the operator configured, `own` is this node's pin.
    pub fn open(
        file: Arc<dyn DurableFile>,
        directory: MasternodeDirectory,
        configured: BTreeSet<PeerIp>,
        accept_unpinned: bool,
        own: NodeId,
    ) -> Result<Self, PinError> {
        let memory = Memory::load(&*file)?;
        let mut policy = Self {
            file,
            directory: directory.clone(),
            configured,
            accept_unpinned,
            own,
            memory,
        };
        let change = policy.replacing(directory, own)?;
        change.store()?;
        policy.adopt(change);
        Ok(policy)
    }

    /// Holds records against those that the file remembers, and changes nothing.
    pub fn check_records(
        file: &dyn DurableFile,
        records: &[MasternodeRecord],
    ) -> Result<(), PinError> {
        let mut memory = Memory::load(file)?;
        records
            .iter()
            .try_for_each(|record| memory.see(record, file))
    }

    /// The change to another set of records and, with it, another key of this node's; refused when
    /// a record is older than one that was seen.
    pub fn replacing(
        &self,
        directory: MasternodeDirectory,
        own: NodeId,
    ) -> Result<Change, PinError> {
        let mut memory = self.memory.clone();
        for (_, record) in directory.records() {
            memory.see(record, &*self.file)?;
        }
        Ok(Change {
            own,
            ..self.change(memory, Some(directory))
        })
    }

    /// The change that trusts an address's key from its first contact on.
    pub fn trusting(&self, ip: PeerIp, node: NodeId) -> Change {
        let mut memory = self.memory.clone();
        memory.first_use.insert(ip, node);
        self.change(memory, None)
    }

    /// The change that drops the first-use pin of an address; `None` when there is none.
    pub fn forgetting(&self, ip: PeerIp) -> Option<Change> {
        let mut memory = self.memory.clone();
        memory.first_use.remove(&ip)?;
        Some(self.change(memory, None))
    }

    /// Puts a stored change in force. It must have been made from this policy as it is.
    pub fn adopt(&mut self, change: Change) {
        self.memory = change.memory;
        self.own = change.own;
        if let Some(directory) = change.directory {
            self.directory = directory;
        }
    }

    /// The records in force.
    pub fn directory(&self) -> &MasternodeDirectory {
        &self.directory
    }

    /// Decides about a peer that has proved to hold the key behind `node`. Reads memory only. The
    /// refusal is for both sides to log.
    pub fn decide(&self, ip: PeerIp, node: NodeId) -> Result<Decision, CloseReason> {
        if node == self.own {
            return Err(CloseReason::new(
                CloseCode::SelfConnection,
                format!("{ip} has the receiver's own key: it is the same node, or a copy of it"),
            ));
        }
        if let Some((index, record)) = self.directory.by_ip(ip) {
            return if record.pins.contains(&node) {
                Ok(Decision::Admit(Admission::Masternode { index }))
            } else {
                Err(wrong_pin(record, node))
            };
        }
        if let Some((_, record)) = self.directory.by_pin(&node) {
            return Err(wrong_address(record, ip, node));
        }
        if self.configured.contains(&ip) {
            return self.first_use(ip, node);
        }
        if !self.accept_unpinned {
            return Err(CloseReason::new(
                CloseCode::UnpinnedRefused,
                format!(
                    "{ip} (pin {node}) has no masternode record and is no configured peer, and \
                     only those are taken"
                ),
            ));
        }
        Ok(Decision::Admit(Admission::Unpinned))
    }

    fn first_use(&self, ip: PeerIp, node: NodeId) -> Result<Decision, CloseReason> {
        match self.memory.first_use.get(&ip) {
            Some(pin) if *pin == node => Ok(Decision::Admit(Admission::Unpinned)),
            Some(pin) => Err(CloseReason::new(
                CloseCode::PinMismatch,
                format!(
                    "{ip} first had pin {pin}, now {node}; if its key was changed on purpose, run \
                     `timed peers forget {ip}`"
                ),
            )),
            None => Ok(Decision::FirstContact),
        }
    }

    fn change(&self, memory: Memory, directory: Option<MasternodeDirectory>) -> Change {
        Change {
            file: self.file.clone(),
            news: memory != self.memory,
            memory,
            directory,
            own: self.own,
        }
    }
}

/// What may become of a peer whose key is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take it.
    Admit(Admission),
    /// A configured address at its first contact: take it once its pin is stored, with
    /// [`PinPolicy::trusting`].
    FirstContact,
}

/// A change of what is remembered. It is stored first, off the actor that owns the policy, and then
/// adopted; so nothing is in force that a crash could undo.
pub struct Change {
    file: Arc<dyn DurableFile>,
    memory: Memory,
    news: bool,
    directory: Option<MasternodeDirectory>,
    own: NodeId,
}

impl Change {
    /// Makes the change durable; writes only what is new. Blocks while it writes.
    pub fn store(&self) -> Result<(), PinError> {
        match self.news {
            true => self.memory.store(&*self.file),
            false => Ok(()),
        }
    }
}

/// What a configured address is told whose pin could not be stored.
pub(super) fn not_stored(ip: PeerIp, error: &PinError) -> CloseReason {
    error!(peer.ip = %ip, reason = %error, "first contact refused: its pin is not stored");
    CloseReason::new(
        CloseCode::Internal,
        format!("the pin of {ip} could not be stored; see the log of the node that refused"),
    )
}

fn wrong_pin(record: &MasternodeRecord, got: NodeId) -> CloseReason {
    let pins: Vec<_> = record.pins.iter().map(NodeId::to_string).collect();
    let (ip, name, pins) = (record.ip, &record.name, pins.join(" or "));
    CloseReason::new(
        CloseCode::PinMismatch,
        format!("{ip} is {name}, pinned to {pins}, but got {got}; a new key needs a new record"),
    )
}

fn wrong_address(record: &MasternodeRecord, from: PeerIp, pin: NodeId) -> CloseReason {
    let (ip, name) = (record.ip, &record.name);
    CloseReason::new(
        CloseCode::PinMismatch,
        format!(
            "pin {pin} belongs to {name} at {ip}, but came from {from}; a new address needs a \
             new record"
        ),
    )
}

/// What `pins.toml` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Memory {
    records: BTreeMap<ConsensusKey, SeenRecord>,
    first_use: BTreeMap<PeerIp, NodeId>,
}

/// The file's form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinsFile {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    record: Vec<SeenRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    first_use: Vec<FirstUse>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstUse {
    ip: PeerIp,
    pin: NodeId,
}

/// The newest record seen of a masternode: enough to recognise it and to show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenRecord {
    /// The masternode's name.
    pub name: String,
    /// The key that signed the record.
    pub consensus_key: ConsensusKey,
    /// The record's serial.
    pub serial: u64,
    /// The recorded address.
    pub ip: PeerIp,
    /// The recorded port.
    pub port: u16,
    /// The recorded pins.
    pub pins: Vec<NodeId>,
    /// A hash over all fields but the signature, in hex.
    pub content: String,
}

impl SeenRecord {
    fn of(record: &MasternodeRecord) -> Self {
        let fields = codec::encode(&(
            &record.name,
            record.serial,
            record.ip,
            record.port,
            &record.pins,
            record.consensus_key,
            record.payout,
        ));
        Self {
            name: record.name.clone(),
            consensus_key: record.consensus_key,
            serial: record.serial,
            ip: record.ip,
            port: record.port,
            pins: record.pins.clone(),
            content: hex::encode(hash::hash(RECORD_CONTENT, &[&fields])),
        }
    }
}

impl fmt::Display for SeenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = SocketAddr::new(self.ip.ip(), self.port);
        let pins: Vec<_> = self.pins.iter().map(NodeId::short).collect();
        let content: String = self.content.chars().take(8).collect();
        write!(
            f,
            "serial {} ({address}, pin {}, content {content})",
            self.serial,
            pins.join(" or ")
        )
    }
}

impl Memory {
    fn load(file: &dyn DurableFile) -> Result<Self, PinError> {
        let content = file.load().map_err(|source| PinError::Read {
            file: file.name(),
            source,
        })?;
        let Some(content) = content else {
            return Ok(Self::default());
        };
        Self::parse(&content).map_err(|detail| PinError::Damaged {
            file: file.name(),
            detail,
        })
    }

    fn parse(content: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
        let parsed: PinsFile = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..start]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            format!("line {line}: {}", error.message().replace('\n', " "))
        })?;
        if parsed.version != FILE_VERSION {
            let version = parsed.version;
            return Err(format!(
                "it has version {version}, this program reads {FILE_VERSION}"
            ));
        }
        let mut memory = Self::default();
        for record in parsed.record {
            if let Some(twice) = memory.records.insert(record.consensus_key, record) {
                return Err(format!("two records of the key {}", twice.consensus_key));
            }
        }
        for FirstUse { ip, pin } in parsed.first_use {
            if memory.first_use.insert(ip, pin).is_some() {
                return Err(format!("two first-use pins for {ip}"));
            }
        }
        Ok(memory)
    }

    fn store(&self, file: &dyn DurableFile) -> Result<(), PinError> {
        let first_use = self.first_use.iter();
        let form = PinsFile {
            version: FILE_VERSION,
            record: self.records.values().cloned().collect(),
            first_use: first_use.map(|(&ip, &pin)| FirstUse { ip, pin }).collect(),
        };
        toml::to_string(&form)
            .map_err(io::Error::other)
            .and_then(|text| file.replace(format!("{FILE_HEADER}\n{text}").as_bytes()))
            .map_err(|source| PinError::Write {
                file: file.name(),
                source,
            })
    }

    /// Holds a record against the newest seen of its masternode, and becomes it when it is newer.
    fn see(&mut self, record: &MasternodeRecord, file: &dyn DurableFile) -> Result<(), PinError> {
        let found = SeenRecord::of(record);
        match self.records.get(&record.consensus_key) {
            Some(held) if found.serial < held.serial => Err(PinError::OlderRecord {
                file: file.name(),
                held: Box::new(held.clone()),
                found: Box::new(found),
            }),
            Some(held) if found.serial == held.serial && found.content != held.content => {
                Err(PinError::ChangedRecord {
                    file: file.name(),
                    held: Box::new(held.clone()),
                    found: Box::new(found),
                })
            }
            _ => {
                self.records.insert(record.consensus_key, found);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
