//! What is done to a node's files while it need not run: its keys and settings, the genesis of a
//! chain, and later other certificates and records.
//!
//! New files never overwrite one, and a step that fails leaves none. What takes the place of an older
//! file, a certificate or a record with a higher serial, replaces it as a whole.

mod created;
mod genesis;
mod init;
mod install;
mod rotate;

use std::io;
use std::path::{Path, PathBuf};

use super::formats::FormatError;
use super::keys::KeyError;
use crate::config::ConfigError;
use crate::net::{IdentityError, PinError};
use crate::types::{ConsensusKey, DirectoryError, GenesisError, NodeId, PeerIp, RecordError};

pub use genesis::{GenesisOptions, GenesisReport, build_genesis};
pub use init::{InitOptions, InitReport, init};
pub use install::{check_records, install_chain, write_record};
pub use rotate::{RotationReport, RotationStep, move_to, rotate, rotation_step};

/// Why a set-up step was refused. Each is one sentence that names the file or value.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Files are already there.
    #[error("nothing was written, because this would overwrite {}; choose another place or move them away", list(.0))]
    Exists(Vec<PathBuf>),
    /// A name is not allowed, or a record does not stand by itself.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An address can belong to no peer.
    #[error("{ip} cannot be a node's address: use the address at which its peers reach it")]
    Ip {
        /// The address.
        ip: PeerIp,
    },
    /// A file or folder cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The settings that were asked for cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The P2P port is the highest one, and no other port was named for the RPC.
    #[error("port {port} leaves no port above it for the RPC: name one with --rpc-port")]
    RpcPort {
        /// The P2P port.
        port: u16,
    },
    /// The operating system gives no randomness.
    #[error("the operating system gives no random bytes: {0}")]
    Randomness(io::Error),
    /// A key file cannot be written.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate cannot be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A certificate file is no certificate.
    #[error("{path}: {source}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// A record's file is not usable.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The folder holds no record.
    #[error(
        "{folder} holds no *.masternode.toml: collect there the two public files that \"timed init\" wrote into certs/ on each masternode"
    )]
    NoRecords {
        /// The folder.
        folder: PathBuf,
    },
    /// One of the two public files of a masternode is missing.
    #[error("{missing} is missing, but {present} is there: each masternode needs both")]
    HalfPair {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// A record's file has the name of another masternode.
    #[error("{path} holds the record of {name}: call it {name}.masternode.toml")]
    FileName {
        /// The file.
        path: PathBuf,
        /// The name in it.
        name: String,
    },
    /// The certificate's key is not the record's.
    #[error("{path} has the pin {got}, but the record of {name} names {}", pins(.expected))]
    Pin {
        /// The certificate's file.
        path: PathBuf,
        /// Whose record.
        name: String,
        /// The certificate's pin.
        got: NodeId,
        /// The record's pins.
        expected: Vec<NodeId>,
    },
    /// The certificate is for another address.
    #[error("{path} is for {}, but the record of {name} names the address {expected}", ips(.got))]
    CertificateIp {
        /// The certificate's file.
        path: PathBuf,
        /// Whose record.
        name: String,
        /// The certificate's addresses.
        got: Vec<PeerIp>,
        /// The record's address.
        expected: PeerIp,
    },
    /// A power was given for a name that no record has.
    #[error("a power is given for {name}, but there is no {name}.masternode.toml")]
    UnknownPower {
        /// The name.
        name: String,
    },
    /// Two records share what must be unique.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The values make no genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The node's own files cannot be used.
    #[error(transparent)]
    Files(Box<super::files::FilesError>),
    /// A record is older than one that this node has seen.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// A record is not newer than the one that is there.
    #[error(
        "{file} is the record of {name} with serial {found}, but certs/ holds serial {held}: every change needs a higher serial"
    )]
    OlderRecord {
        /// The file.
        file: PathBuf,
        /// Whose record.
        name: String,
        /// Its serial.
        found: u64,
        /// The serial of the one in `certs/`.
        held: u64,
    },
    /// A rotation's first step had been interrupted.
    #[error(
        "{record} did not name the new certificate and does now: hand it to all other masternodes, and run this again when they have installed it"
    )]
    NotAnnounced {
        /// The record.
        record: PathBuf,
    },
    /// A key is used twice.
    #[error(
        "the consensus key {key} is in the records of {first} and {second}: one key on two machines signs twice"
    )]
    SharedKey {
        /// The key.
        key: ConsensusKey,
        /// The first record's name.
        first: String,
        /// The second record's name.
        second: String,
    },
    /// Records name addresses of both families.
    #[error(
        "{ipv4} is recorded at {ipv4_at} (IPv4) and {ipv6} at {ipv6_at} (IPv6), and these two could never connect: \
         make the records of all masternodes with addresses of one family (\"timed init --ip\")"
    )]
    TwoFamilies {
        /// The name of one at an IPv4 address.
        ipv4: String,
        /// That address.
        ipv4_at: PeerIp,
        /// The name of one at an IPv6 address.
        ipv6: String,
        /// That address.
        ipv6_at: PeerIp,
    },
}

impl From<super::files::FilesError> for SetupError {
    fn from(error: super::files::FilesError) -> Self {
        SetupError::Files(Box::new(error))
    }
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(", ")
}

fn pins(pins: &[NodeId]) -> String {
    let shown: Vec<String> = pins.iter().map(NodeId::to_string).collect();
    shown.join(" and ")
}

fn ips(ips: &[PeerIp]) -> String {
    if ips.is_empty() {
        return "no address".into();
    }
    let shown: Vec<String> = ips.iter().map(PeerIp::to_string).collect();
    shown.join(", ")
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SetupError {
    let path = path.to_path_buf();
    move |source| SetupError::Io { path, source }
}

#[cfg(test)]
mod tests;
