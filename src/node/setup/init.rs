//! `timed init`: a node's keys, certificate, configuration and public files.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ed25519_dalek::SigningKey;

use super::SetupError;
use super::created::Created;
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

/// Makes a node's files, all or none. Refuses, before anything is written, when one of them exists or
/// the node would not start with its settings.
pub fn init(options: &InitOptions) -> Result<InitReport, SetupError> {
    record::check_name(&options.name)?;
    if !options.ip.is_usable() {
        return Err(SetupError::Ip { ip: options.ip });
    }
    let dir = DataDir::new(&options.data_dir);
    let config = config(options, &dir)?;
    refuse_existing(&dir, options)?;
    let mut created = Created::default();
    created.folder(dir.root())?;
    created.folder(&dir.certs())?;

    let secret = keys::new_secret().map_err(SetupError::Randomness)?;
    let identity = Identity::create(&secret, options.ip, &options.name, SystemClock.now_ms())?;
    created.secret(dir.node_key(), &identity.key_pem())?;
    created.public(dir.node_certificate(), &identity.certificate_pem())?;
    let mut report = InitReport {
        name: options.name.clone(),
        network: options.network,
        masternode: options.masternode,
        data_dir: options.data_dir.clone(),
        address: options.ip.with_port(config.listen_port),
        pin: identity.node_id(),
        consensus_key: None,
        payout: None,
        files: Vec::new(),
        public_files: Vec::new(),
    };
    if options.masternode {
        let record = make_masternode(&dir, options, &config, &identity, &mut created)?;
        report.consensus_key = Some(record.consensus_key);
        report.payout = Some(record.payout.to_text(options.network));
        report.public_files = vec![dir.record(&options.name), dir.certificate(&options.name)];
    }
    created.public(dir.config(), &config.to_text())?;
    report.files = created.keep();
    Ok(report)
}

/// A masternode's further keys and its two public files; gives its record.
fn make_masternode(
    dir: &DataDir,
    options: &InitOptions,
    config: &Config,
    identity: &Identity,
    created: &mut Created,
) -> Result<MasternodeRecord, SetupError> {
    let payout = match options.payout {
        Some(payout) => payout,
        None => {
            let key = new_signing_key()?;
            created.secret(dir.wallet_key(), &keys::key_to_pem(&key))?;
            Address::of(&PublicKey::from(&key))
        }
    };
    let key = new_signing_key()?;
    created.secret(dir.consensus_key(), &keys::key_to_pem(&key))?;
    let record = MasternodeRecord {
        name: options.name.clone(),
        serial: 1,
        ip: options.ip,
        port: config.listen_port,
        pins: vec![identity.node_id()],
        consensus_key: (&key).into(),
        payout,
        signature: Signature([0; 64]),
    }
    .signed(&key, options.network);
    created.public(dir.record(&options.name), &record_to_text(&record))?;
    created.public(dir.certificate(&options.name), &identity.certificate_pem())?;
    Ok(record)
}

fn refuse_existing(dir: &DataDir, options: &InitOptions) -> Result<(), SetupError> {
    let mut paths = vec![dir.config(), dir.node_key(), dir.node_certificate()];
    if !dir.certs().is_dir() {
        paths.push(dir.certs());
    }
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

/// The settings that were asked for, which a start would take.
fn config(options: &InitOptions, dir: &DataDir) -> Result<Config, SetupError> {
    let listen_ip = options.listen_ip.unwrap_or(options.ip.ip());
    let port = options.port.unwrap_or(options.network.p2p_port());
    let rpc_port = options.rpc_port.or(port.checked_add(1));
    let mut config = Config::new(options.network, listen_ip);
    config.listen_port = port;
    config.rpc_port = rpc_port.ok_or(SetupError::RpcPort { port })?;
    config.advertised_ip = (PeerIp::from(listen_ip) != options.ip).then_some(options.ip);
    config.peers = options.peers.clone();
    config.check(&dir.config())?;
    Ok(config)
}

fn new_signing_key() -> Result<SigningKey, SetupError> {
    let secret = keys::new_secret().map_err(SetupError::Randomness)?;
    Ok(SigningKey::from_bytes(&secret))
}
