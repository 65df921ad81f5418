//! The two public files, `genesis.toml` and `<name>.masternode.toml`: values of [`crate::types`] as
//! TOML, checked when they are read.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::config::{line_of, one_line};
use crate::types::{Genesis, GenesisError, MasternodeRecord, Network, RecordError};

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

/// The text of `genesis.toml`.
pub fn genesis_to_text(genesis: &Genesis) -> String {
    format!(
        "# Every node of the chain needs this file, unchanged: its content names the chain.\n\
         # genesis hash: {}\n\n{}",
        genesis.hash(),
        toml::to_string(genesis).expect("a genesis holds plain values and tables")
    )
}

/// Reads and checks a genesis; `path` is for messages.
pub fn genesis_from_text(text: &str, path: &Path) -> Result<Genesis, FormatError> {
    let genesis: Genesis = parse(text, path)?;
    genesis.check().map_err(|source| FormatError::Genesis {
        file: path.display().to_string(),
        source,
    })?;
    Ok(genesis)
}

/// The text of a record's file.
pub fn record_to_text(record: &MasternodeRecord) -> String {
    format!(
        "# Where masternode {} is reached. Public; signed by its consensus key, so an edit breaks it.\n\n{}",
        record.name,
        toml::to_string(record).expect("a record holds plain values")
    )
}

/// Reads a record and checks its fields and signature; `path` is for messages.
pub fn record_from_text(
    text: &str,
    network: Network,
    path: &Path,
) -> Result<MasternodeRecord, FormatError> {
    let record: MasternodeRecord = parse(text, path)?;
    let file = path.display().to_string();
    match record.verify(network) {
        Ok(()) => Ok(record),
        Err(source) => Err(match signed_for(&record) {
            Some(got) => FormatError::Network {
                file,
                got,
                expected: network,
            },
            None => FormatError::Record { file, source },
        }),
    }
}

/// The network that a record was signed for.
fn signed_for(record: &MasternodeRecord) -> Option<Network> {
    let all = [Network::Main, Network::Test, Network::Dev];
    all.into_iter()
        .find(|network| record.verify(*network).is_ok())
}

fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, FormatError> {
    toml::from_str(text).map_err(|error| FormatError::Syntax {
        file: path.display().to_string(),
        line: line_of(text, &error),
        detail: one_line(error.message()),
    })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::types::genesis::sample_genesis;
    use crate::types::{Address, ConsensusKey, NodeId, Signature};

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
        let text = genesis_to_text(&sample_genesis());
        assert_eq!(genesis_from_text(&text, path).unwrap(), sample_genesis());
        let text = record_to_text(&record());
        let path = Path::new("alpha.masternode.toml");
        assert_eq!(
            record_from_text(&text, Network::Dev, path).unwrap(),
            record()
        );
    }

    #[test]
    fn a_changed_record_is_refused() {
        let text = record_to_text(&record()).replace("24200", "24201");
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
        let text = record_to_text(&record());
        let path = Path::new("x");
        assert!(matches!(
            record_from_text(&text, Network::Main, path),
            Err(FormatError::Network { .. })
        ));
        let text = genesis_to_text(&sample_genesis()).replace("slot_ms = 5000", "slot_ms = 1");
        assert!(matches!(
            genesis_from_text(&text, path),
            Err(FormatError::Genesis { .. })
        ));
        let text = genesis_to_text(&sample_genesis()) + "\n[extra]\n";
        assert!(matches!(
            genesis_from_text(&text, path),
            Err(FormatError::Syntax { .. })
        ));
    }
}
