//! `timed genesis build`: from a folder of public files to the one file that names a chain.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{SetupError, failed};
use crate::env::{SystemClock, WallClock};
use crate::net::identity::inspect_certificate;
use crate::node::formats::{RECORD_SUFFIX, genesis_to_text, record_from_text};
use crate::node::keys;
use crate::types::genesis::MAX_BLOCK_BYTES;
use crate::types::{
    Address, Allocation, Amount, ConsensusKey, Genesis, GenesisHash, GenesisMasternode,
    MasternodeDirectory, MasternodeRecord, Network, Timeouts,
};

/// The power of a masternode for which none is given.
const DEFAULT_POWER: u64 = 1;

/// What the chain is to be.
#[derive(Clone, Debug)]
pub struct GenesisOptions {
    /// The folder with `<name>.masternode.toml` and `<name>.pem` of every masternode.
    pub folder: PathBuf,
    /// The file to write.
    pub output: PathBuf,
    /// The chain's name.
    pub chain_id: String,
    /// The network.
    pub network: Network,
    /// Voting power by masternode name; 1 for those not named.
    pub powers: BTreeMap<String, u64>,
    /// The outputs that exist before the first block.
    pub allocations: Vec<(Address, Amount)>,
    /// When the chain starts, Unix milliseconds; now without one.
    pub time_ms: Option<u64>,
    /// How often a block is made when nothing waits, in milliseconds.
    pub slot_ms: u64,
    /// The shortest time between two blocks, in milliseconds.
    pub min_block_interval_ms: u64,
    /// The largest encoded block, in bytes.
    pub max_block_bytes: u32,
    /// The lowest fee for 1,000 bytes.
    pub min_fee_per_kb: Amount,
    /// The uplink that a proposer is assumed to have, in Mbit/s.
    pub uplink_mbit: u32,
    /// The consensus timeouts.
    pub timeouts: Timeouts,
}

impl GenesisOptions {
    /// The defaults of a network: its slot, no allocations, equal powers.
    pub fn of(network: Network) -> Self {
        Self {
            folder: "certs".into(),
            output: "genesis.toml".into(),
            chain_id: format!("timed-{network}"),
            network,
            powers: BTreeMap::new(),
            allocations: Vec::new(),
            time_ms: None,
            slot_ms: network.slot_ms(),
            min_block_interval_ms: 250,
            max_block_bytes: MAX_BLOCK_BYTES,
            min_fee_per_kb: Amount(1_000),
            uplink_mbit: 20,
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for GenesisOptions {
    /// A developer's network.
    fn default() -> Self {
        Self::of(Network::Dev)
    }
}

/// What was built.
#[derive(Clone, Debug, serde::Serialize)]
pub struct GenesisReport {
    /// The file.
    pub path: PathBuf,
    /// The hash that names the chain.
    pub hash: GenesisHash,
    /// The chain's name.
    pub chain_id: String,
    /// Its network.
    pub network: Network,
    /// When it starts, Unix milliseconds.
    pub time_ms: u64,
    /// Masternodes by name with their powers.
    pub powers: BTreeMap<String, u64>,
    /// The sum of the powers.
    pub total_power: u64,
    /// The sum of the allocations.
    pub allocated: Amount,
}

/// Checks every pair of files and writes the genesis. An existing output is never replaced.
pub fn build_genesis(options: &GenesisOptions) -> Result<GenesisReport, SetupError> {
    if options.output.symlink_metadata().is_ok() {
        return Err(SetupError::Exists(vec![options.output.clone()]));
    }
    let records = read_records(&options.folder, options.network)?;
    refuse_shared_keys(&records)?;
    refuse_two_families(&records)?;
    if let Some(name) = options
        .powers
        .keys()
        .find(|name| !records.iter().any(|record| record.name == **name))
    {
        return Err(SetupError::UnknownPower { name: name.clone() });
    }
    let genesis = genesis_of(options, &records);
    genesis.check()?;
    MasternodeDirectory::new(&genesis, records)?;
    keys::write_new(&options.output, &genesis_to_text(&genesis), 0o644)
        .map_err(failed(&options.output))?;
    Ok(report(options, &genesis))
}

fn genesis_of(options: &GenesisOptions, records: &[MasternodeRecord]) -> Genesis {
    Genesis {
        chain_id: options.chain_id.clone(),
        network: options.network,
        time_ms: options.time_ms.unwrap_or_else(|| SystemClock.now_ms()),
        slot_ms: options.slot_ms,
        min_block_interval_ms: options.min_block_interval_ms,
        max_block_bytes: options.max_block_bytes,
        min_fee_per_kb: options.min_fee_per_kb,
        uplink_mbit: options.uplink_mbit,
        timeouts: options.timeouts,
        masternodes: records
            .iter()
            .map(|record| GenesisMasternode {
                name: record.name.clone(),
                consensus_key: record.consensus_key,
                power: *options.powers.get(&record.name).unwrap_or(&DEFAULT_POWER),
                payout: record.payout,
            })
            .collect(),
        allocations: options
            .allocations
            .iter()
            .map(|(address, amount)| Allocation {
                address: *address,
                amount: *amount,
            })
            .collect(),
    }
}

fn report(options: &GenesisOptions, genesis: &Genesis) -> GenesisReport {
    let powers = genesis.masternodes.iter();
    let powers: BTreeMap<String, u64> = powers.map(|one| (one.name.clone(), one.power)).collect();
    GenesisReport {
        path: options.output.clone(),
        hash: genesis.hash(),
        chain_id: genesis.chain_id.clone(),
        network: genesis.network,
        time_ms: genesis.time_ms,
        total_power: powers.values().sum(),
        powers,
        allocated: Amount::checked_sum(genesis.allocations.iter().map(|one| one.amount))
            .expect("a checked genesis' allocations add up"),
    }
}

/// All records of a folder, by name, each checked against its certificate.
fn read_records(folder: &Path, network: Network) -> Result<Vec<MasternodeRecord>, SetupError> {
    let mut names = BTreeMap::<String, (bool, bool)>::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let file_name = entry.map_err(failed(folder))?.file_name();
        let file_name = file_name.to_string_lossy();
        if let Some(name) = file_name.strip_suffix(RECORD_SUFFIX) {
            names.entry(name.into()).or_default().0 = true;
        } else if let Some(name) = file_name.strip_suffix(".pem") {
            names.entry(name.into()).or_default().1 = true;
        }
    }
    if names.is_empty() {
        return Err(SetupError::NoRecords {
            folder: folder.into(),
        });
    }
    names
        .into_iter()
        .map(|(name, (record, certificate))| {
            let record_path = folder.join(format!("{name}{RECORD_SUFFIX}"));
            let certificate_path = folder.join(format!("{name}.pem"));
            match (record, certificate) {
                (true, true) => read_pair(&name, &record_path, &certificate_path, network),
                (true, false) => Err(half_pair(record_path, certificate_path)),
                _ => Err(half_pair(certificate_path, record_path)),
            }
        })
        .collect()
}

fn half_pair(present: PathBuf, missing: PathBuf) -> SetupError {
    SetupError::HalfPair { present, missing }
}

fn read_pair(
    name: &str,
    record_path: &Path,
    certificate_path: &Path,
    network: Network,
) -> Result<MasternodeRecord, SetupError> {
    let text = std::fs::read_to_string(record_path).map_err(failed(record_path))?;
    let record = record_from_text(&text, network, record_path)?;
    if record.name != name {
        return Err(SetupError::FileName {
            path: record_path.into(),
            name: record.name,
        });
    }
    let pem = std::fs::read_to_string(certificate_path).map_err(failed(certificate_path))?;
    let info = inspect_certificate(&pem).map_err(|source| SetupError::Certificate {
        path: certificate_path.into(),
        source,
    })?;
    if !record.pins.contains(&info.pin) {
        return Err(SetupError::Pin {
            path: certificate_path.into(),
            name: record.name,
            got: info.pin,
            expected: record.pins,
        });
    }
    if !info.ips.contains(&record.ip) {
        return Err(SetupError::CertificateIp {
            path: certificate_path.into(),
            name: record.name,
            got: info.ips,
            expected: record.ip,
        });
    }
    Ok(record)
}

fn refuse_shared_keys(records: &[MasternodeRecord]) -> Result<(), SetupError> {
    let mut seen = BTreeMap::<ConsensusKey, &str>::new();
    for record in records {
        if let Some(first) = seen.insert(record.consensus_key, &record.name) {
            return Err(SetupError::SharedKey {
                key: record.consensus_key,
                first: first.into(),
                second: record.name.clone(),
            });
        }
    }
    Ok(())
}

/// A dialer is seen at its address of the family that it dials, which is never the one in its record
/// when that is of the other family.
fn refuse_two_families(records: &[MasternodeRecord]) -> Result<(), SetupError> {
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = (records.iter()).partition(|one| one.ip.ip().is_ipv4());
    match (ipv4.first(), ipv6.first()) {
        (Some(ipv4), Some(ipv6)) => Err(SetupError::TwoFamilies {
            ipv4: ipv4.name.clone(),
            ipv4_at: ipv4.ip,
            ipv6: ipv6.name.clone(),
            ipv6_at: ipv6.ip,
        }),
        _ => Ok(()),
    }
}
