//! The two public files, `genesis.toml` and `<name>.masternode.toml`: the values of [`crate::types`]
//! with addresses in their text form.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{line_of, one_line};
use crate::types::{
    Address, Allocation, Amount, ConsensusKey, Genesis, GenesisError, GenesisMasternode,
    MasternodeRecord, Network, NodeId, PeerIp, RecordError, Signature, Timeouts,
};

/// What a record's file is called after the masternode's name.
pub const RECORD_SUFFIX: &str = ".masternode.toml";

/// Why a public file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The file's text is not what it should be.
    #[error("{file}{}: {detail}", .line.map(|line| format!(" line {line}")).unwrap_or_default())]
    Syntax {
        /// The file.
        file: String,
        /// The line, from 1, when it is known.
        line: Option<usize>,
        /// What is wrong.
        detail: String,
    },
    /// The genesis breaks a rule.
    #[error("{file}: {source}")]
    Genesis {
        /// The file.
        file: String,
        /// The rule.
        source: GenesisError,
    },
    /// The record breaks a rule.
    #[error("{file}: {source}")]
    Record {
        /// The file.
        file: String,
        /// The rule.
        source: RecordError,
    },
    /// The record is for another network.
    #[error("{file}: the record is for the {got} network, but this chain is on {expected}")]
    Network {
        /// The file.
        file: String,
        /// The record's network.
        got: Network,
        /// The chain's network.
        expected: Network,
    },
}

/// `genesis.toml`, field by field.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisFile {
    chain_id: String,
    network: Network,
    time_ms: u64,
    slot_ms: u64,
    min_block_interval_ms: u64,
    max_block_bytes: u32,
    min_fee_per_kb: Amount,
    uplink_mbit: u32,
    timeouts: Timeouts,
    masternodes: Vec<MasternodeEntry>,
    #[serde(default)]
    allocations: Vec<AllocationEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MasternodeEntry {
    name: String,
    consensus_key: ConsensusKey,
    power: u64,
    payout: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllocationEntry {
    address: String,
    amount: Amount,
}

/// `<name>.masternode.toml`, field by field.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    network: Network,
    name: String,
    serial: u64,
    ip: PeerIp,
    port: u16,
    pins: Vec<NodeId>,
    consensus_key: ConsensusKey,
    payout: String,
    signature: Signature,
}

/// The text of `genesis.toml`.
pub fn genesis_to_text(genesis: &Genesis) -> String {
    let network = genesis.network;
    let file = GenesisFile {
        chain_id: genesis.chain_id.clone(),
        network,
        time_ms: genesis.time_ms,
        slot_ms: genesis.slot_ms,
        min_block_interval_ms: genesis.min_block_interval_ms,
        max_block_bytes: genesis.max_block_bytes,
        min_fee_per_kb: genesis.min_fee_per_kb,
        uplink_mbit: genesis.uplink_mbit,
        timeouts: genesis.timeouts,
        masternodes: genesis
            .masternodes
            .iter()
            .map(|one| MasternodeEntry {
                name: one.name.clone(),
                consensus_key: one.consensus_key,
                power: one.power,
                payout: one.payout.to_text(network),
            })
            .collect(),
        allocations: genesis
            .allocations
            .iter()
            .map(|one| AllocationEntry {
                address: one.address.to_text(network),
                amount: one.amount,
            })
            .collect(),
    };
    format!(
        "# Every node of the chain needs this file, unchanged: its content names the chain.\n\
         # genesis hash: {}\n\n{}",
        genesis.hash(),
        toml::to_string(&file).expect("the file's fields are plain values and tables")
    )
}

/// Reads and checks a genesis; `path` is for messages.
pub fn genesis_from_text(text: &str, path: &Path) -> Result<Genesis, FormatError> {
    let file: GenesisFile = parse(text, path)?;
    let network = file.network;
    let address = |text: &str| parse_address(text, network, path);
    let genesis = Genesis {
        chain_id: file.chain_id,
        network,
        time_ms: file.time_ms,
        slot_ms: file.slot_ms,
        min_block_interval_ms: file.min_block_interval_ms,
        max_block_bytes: file.max_block_bytes,
        min_fee_per_kb: file.min_fee_per_kb,
        uplink_mbit: file.uplink_mbit,
        timeouts: file.timeouts,
        masternodes: file
            .masternodes
            .into_iter()
            .map(|one| {
                Ok(GenesisMasternode {
                    payout: address(&one.payout)?,
                    name: one.name,
                    consensus_key: one.consensus_key,
                    power: one.power,
                })
            })
            .collect::<Result<_, _>>()?,
        allocations: file
            .allocations
            .iter()
            .map(|one| {
                Ok(Allocation {
                    address: address(&one.address)?,
                    amount: one.amount,
                })
            })
            .collect::<Result<_, _>>()?,
    };
    genesis.check().map_err(|source| FormatError::Genesis {
        file: path.display().to_string(),
        source,
    })?;
    Ok(genesis)
}

/// The text of a record's file.
pub fn record_to_text(record: &MasternodeRecord, network: Network) -> String {
    let file = RecordFile {
        network,
        name: record.name.clone(),
        serial: record.serial,
        ip: record.ip,
        port: record.port,
        pins: record.pins.clone(),
        consensus_key: record.consensus_key,
        payout: record.payout.to_text(network),
        signature: record.signature,
    };
    format!(
        "# Where masternode {} is reached. Public; signed by its consensus key, so an edit breaks it.\n\n{}",
        record.name,
        toml::to_string(&file).expect("the file's fields are plain values")
    )
}

/// Reads a record and checks its fields and signature; `path` is for messages.
pub fn record_from_text(
    text: &str,
    network: Network,
    path: &Path,
) -> Result<MasternodeRecord, FormatError> {
    let file: RecordFile = parse(text, path)?;
    if file.network != network {
        return Err(FormatError::Network {
            file: path.display().to_string(),
            got: file.network,
            expected: network,
        });
    }
    let record = MasternodeRecord {
        payout: parse_address(&file.payout, network, path)?,
        name: file.name,
        serial: file.serial,
        ip: file.ip,
        port: file.port,
        pins: file.pins,
        consensus_key: file.consensus_key,
        signature: file.signature,
    };
    record
        .verify(network)
        .map_err(|source| FormatError::Record {
            file: path.display().to_string(),
            source,
        })?;
    Ok(record)
}

fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, FormatError> {
    toml::from_str(text).map_err(|error| FormatError::Syntax {
        file: path.display().to_string(),
        line: line_of(text, &error),
        detail: one_line(error.message()),
    })
}

fn parse_address(text: &str, network: Network, path: &Path) -> Result<Address, FormatError> {
    Address::parse(text, network).map_err(|error| FormatError::Syntax {
        file: path.display().to_string(),
        line: None,
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    fn genesis() -> Genesis {
        Genesis {
            chain_id: "sample".into(),
            network: Network::Dev,
            time_ms: 1_800_000_000_000,
            slot_ms: 5_000,
            min_block_interval_ms: 250,
            max_block_bytes: 1_000_000,
            min_fee_per_kb: Amount(1_000),
            uplink_mbit: 20,
            timeouts: Timeouts::default(),
            masternodes: vec![GenesisMasternode {
                name: "alpha".into(),
                consensus_key: ConsensusKey([1; 32]),
                power: 3,
                payout: Address([2; 32]),
            }],
            allocations: vec![Allocation {
                address: Address([3; 32]),
                amount: Amount(5),
            }],
        }
    }

    fn record() -> MasternodeRecord {
        let key = SigningKey::from_bytes(&[7; 32]);
        MasternodeRecord {
            name: "alpha".into(),
            serial: 1,
            ip: "127.0.0.1".parse().unwrap(),
            port: 24_200,
            pins: vec![NodeId([4; 32])],
            consensus_key: ConsensusKey([0; 32]),
            payout: Address([2; 32]),
            signature: Signature([0; 64]),
        }
        .signed(&key, Network::Dev)
    }

    #[test]
    fn genesis_and_record_read_back() {
        let path = Path::new("genesis.toml");
        let text = genesis_to_text(&genesis());
        assert!(text.contains("payout = \"dtime1"));
        assert_eq!(genesis_from_text(&text, path).unwrap(), genesis());
        let text = record_to_text(&record(), Network::Dev);
        let path = Path::new("alpha.masternode.toml");
        assert_eq!(
            record_from_text(&text, Network::Dev, path).unwrap(),
            record()
        );
    }

    #[test]
    fn a_changed_record_is_refused() {
        let text = record_to_text(&record(), Network::Dev).replace("24200", "24201");
        let path = Path::new("certs/alpha.masternode.toml");
        let error = record_from_text(&text, Network::Dev, path).unwrap_err();
        assert!(matches!(
            &error,
            FormatError::Record {
                source: RecordError::Signature { .. },
                ..
            }
        ));
        assert!(
            error
                .to_string()
                .starts_with("certs/alpha.masternode.toml: ")
        );
    }

    #[test]
    fn a_record_of_another_network_and_a_genesis_out_of_range_are_refused() {
        let text = record_to_text(&record(), Network::Dev);
        let path = Path::new("x");
        assert!(matches!(
            record_from_text(&text, Network::Main, path),
            Err(FormatError::Network { .. })
        ));
        let text = genesis_to_text(&genesis()).replace("slot_ms = 5000", "slot_ms = 1");
        assert!(matches!(
            genesis_from_text(&text, path),
            Err(FormatError::Genesis { .. })
        ));
        let text = genesis_to_text(&genesis()) + "\n[extra]\n";
        assert!(matches!(
            genesis_from_text(&text, path),
            Err(FormatError::Syntax { .. })
        ));
    }
}
