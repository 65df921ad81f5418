//! `timed init`: a node's keys, certificate, configuration and public files.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;

use super::{SetupError, failed};
use crate::config::Config;
use crate::env::{SystemClock, WallClock};
use crate::net::Identity;
use crate::node::files::DataDir;
use crate::node::formats::record_to_text;
use crate::node::keys;
use crate::types::{
    Address, ConsensusKey, MasternodeRecord, Network, NodeId, PeerIp, PublicKey, Signature, record,
};

/// What a new node is to be.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Where its files go; made when it does not exist.
    pub data_dir: PathBuf,
    /// Its name: of a masternode, the name in genesis.
    pub name: String,
    /// Which network it belongs to.
    pub network: Network,
    /// Whether it votes; otherwise it is a full node.
    pub masternode: bool,
    /// The address at which peers reach it.
    pub ip: PeerIp,
    /// The address to listen on, when it is another (behind a router).
    pub listen_ip: Option<IpAddr>,
    /// The P2P port; the network's without one.
    pub port: Option<u16>,
    /// The RPC port; one above the P2P port without one.
    pub rpc_port: Option<u16>,
    /// Where a masternode's rewards go; without one, a wallet key is made for them.
    pub payout: Option<Address>,
    /// Peers to dial besides recorded masternodes.
    pub peers: Vec<SocketAddr>,
}

impl Default for InitOptions {
    /// A masternode at 127.0.0.1 on a developer's network, in `.timed`.
    fn default() -> Self {
        Self {
            data_dir: ".timed".into(),
            name: "masternode".into(),
            network: Network::Dev,
            masternode: true,
            ip: PeerIp::from(IpAddr::from([127, 0, 0, 1])),
            listen_ip: None,
            port: None,
            rpc_port: None,
            payout: None,
            peers: Vec::new(),
        }
    }
}

/// What was made.
#[derive(Clone, Debug, serde::Serialize)]
pub struct InitReport {
    /// The node's name.
    pub name: String,
    /// Its network.
    pub network: Network,
    /// Whether it votes.
    pub masternode: bool,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its address and P2P port.
    pub address: SocketAddr,
    /// The pin of its certificate.
    pub pin: NodeId,
    /// A masternode's consensus key: the public part.
    pub consensus_key: Option<ConsensusKey>,
    /// A masternode's payout address, in text form.
    pub payout: Option<String>,
    /// All files written.
    pub files: Vec<PathBuf>,
    /// A masternode's two public files, for its peers and for genesis.
    pub public_files: Vec<PathBuf>,
}

/// Makes a node's files. Refuses, before anything is written, when one of them exists.
pub fn init(options: &InitOptions) -> Result<InitReport, SetupError> {
    record::check_name(&options.name)?;
    if !options.ip.is_usable() {
        return Err(SetupError::Ip { ip: options.ip });
    }
    let dir = DataDir::new(&options.data_dir);
    refuse_existing(&dir, options)?;
    make_folder(dir.root())?;

    let port = options.port.unwrap_or(options.network.p2p_port());
    let secret = keys::new_secret().map_err(SetupError::Randomness)?;
    let identity = Identity::create(&secret, options.ip, &options.name, SystemClock.now_ms())?;
    keys::write_secret(&dir.node_key(), &identity.key_pem())?;
    write_public(&dir.node_certificate(), &identity.certificate_pem())?;
    let mut files = vec![dir.node_key(), dir.node_certificate()];

    let mut report = InitReport {
        name: options.name.clone(),
        network: options.network,
        masternode: options.masternode,
        data_dir: options.data_dir.clone(),
        address: options.ip.with_port(port),
        pin: identity.node_id(),
        consensus_key: None,
        payout: None,
        files: Vec::new(),
        public_files: Vec::new(),
    };
    make_folder(&dir.certs())?;
    if options.masternode {
        let payout = match options.payout {
            Some(payout) => payout,
            None => {
                files.push(dir.wallet_key());
                make_wallet_key(&dir)?
            }
        };
        let key = new_signing_key()?;
        keys::write_key(&dir.consensus_key(), &key)?;
        files.push(dir.consensus_key());
        let record = MasternodeRecord {
            name: options.name.clone(),
            serial: 1,
            ip: options.ip,
            port,
            pins: vec![identity.node_id()],
            consensus_key: (&key).into(),
            payout,
            signature: Signature([0; 64]),
        }
        .signed(&key, options.network);
        let record_file = dir.record(&options.name);
        let certificate_file = dir.certificate(&options.name);
        write_public(&record_file, &record_to_text(&record))?;
        write_public(&certificate_file, &identity.certificate_pem())?;
        files.extend([record_file.clone(), certificate_file.clone()]);
        report.public_files = vec![record_file, certificate_file];
        report.consensus_key = Some(record.consensus_key);
        report.payout = Some(payout.to_text(options.network));
    }
    write_public(&dir.config(), &config(options, port).to_text())?;
    files.push(dir.config());
    report.files = files;
    Ok(report)
}

fn refuse_existing(dir: &DataDir, options: &InitOptions) -> Result<(), SetupError> {
    let mut paths = vec![dir.config(), dir.node_key(), dir.node_certificate()];
    if options.masternode {
        paths.extend([
            dir.consensus_key(),
            dir.record(&options.name),
            dir.certificate(&options.name),
        ]);
        if options.payout.is_none() {
            paths.push(dir.wallet_key());
        }
    }
    // A dangling link counts too: writing would go through it.
    paths.retain(|path| path.symlink_metadata().is_ok());
    if paths.is_empty() {
        return Ok(());
    }
    Err(SetupError::Exists(paths))
}

fn config(options: &InitOptions, port: u16) -> Config {
    let listen_ip = options.listen_ip.unwrap_or(options.ip.ip());
    let mut config = Config::new(options.network, listen_ip);
    config.listen_port = port;
    config.rpc_port = options.rpc_port.unwrap_or(port.wrapping_add(1).max(1));
    config.advertised_ip = (PeerIp::from(listen_ip) != options.ip).then_some(options.ip);
    config.peers = options.peers.clone();
    config
}

fn make_wallet_key(dir: &DataDir) -> Result<Address, SetupError> {
    let key = new_signing_key()?;
    keys::write_key(&dir.wallet_key(), &key)?;
    Ok(Address::of(&PublicKey::from(&key)))
}

fn new_signing_key() -> Result<SigningKey, SetupError> {
    let secret = keys::new_secret().map_err(SetupError::Randomness)?;
    Ok(SigningKey::from_bytes(&secret))
}

/// A folder that only its owner may enter; one that exists is left as it is.
fn make_folder(path: &Path) -> Result<(), SetupError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed(path))
}

fn write_public(path: &Path, content: &str) -> Result<(), SetupError> {
    keys::write_new(path, content, 0o644).map_err(failed(path))
}
