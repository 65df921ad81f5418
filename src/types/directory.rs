//! The directory of masternode records, aligned with genesis.

use super::{ConsensusKey, Genesis, MasternodeRecord, NodeId, PeerIp, RecordError};

/// The verified records of a chain's masternodes, at most one each, in the order of genesis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasternodeDirectory {
    names: Vec<String>,
    records: Vec<Option<MasternodeRecord>>,
}

/// Why a set of records cannot be used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// A record does not stand by itself.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Genesis does not name this masternode with this key.
    #[error("the record of {name} is signed by {key}, but genesis {expected}")]
    NotInGenesis {
        /// The record's name.
        name: String,
        /// The key that signed it.
        key: ConsensusKey,
        /// What genesis says about that name.
        expected: String,
    },
    /// Two records share what must be unique.
    #[error("the records of {first} and {second} share the {what} {value}")]
    Shared {
        /// The first record's name.
        first: String,
        /// The second record's name.
        second: String,
        /// Address, pin or name.
        what: &'static str,
        /// The shared value.
        value: String,
    },
}

impl MasternodeDirectory {
    /// A directory of verified records.
    pub fn new(
        genesis: &Genesis,
        records: impl IntoIterator<Item = MasternodeRecord>,
    ) -> Result<Self, DirectoryError> {
        let mut directory = Self {
            names: genesis
                .masternodes
                .iter()
                .map(|one| one.name.clone())
                .collect(),
            records: vec![None; genesis.masternodes.len()],
        };
        for record in records {
            record.verify(genesis.network)?;
            let index = directory.index_in_genesis(genesis, &record)?;
            directory.refuse_shared(&record)?;
            directory.records[index] = Some(record);
        }
        Ok(directory)
    }

    fn index_in_genesis(
        &self,
        genesis: &Genesis,
        record: &MasternodeRecord,
    ) -> Result<usize, DirectoryError> {
        let found = self.names.iter().position(|name| *name == record.name);
        match found {
            Some(index) if genesis.masternodes[index].consensus_key == record.consensus_key => {
                Ok(index)
            }
            found => Err(DirectoryError::NotInGenesis {
                name: record.name.clone(),
                key: record.consensus_key,
                expected: match found {
                    Some(index) => format!("names {}", genesis.masternodes[index].consensus_key),
                    None => "names no such masternode".into(),
                },
            }),
        }
    }

    fn refuse_shared(&self, record: &MasternodeRecord) -> Result<(), DirectoryError> {
        for other in self.records.iter().flatten() {
            let shared = if other.name == record.name {
                Some(("name", record.name.clone()))
            } else if other.ip == record.ip {
                Some(("address", record.ip.to_string()))
            } else {
                let pin = record.pins.iter().find(|pin| other.pins.contains(pin));
                pin.map(|pin| ("pin", pin.to_string()))
            };
            if let Some((what, value)) = shared {
                return Err(DirectoryError::Shared {
                    first: other.name.clone(),
                    second: record.name.clone(),
                    what,
                    value,
                });
            }
        }
        Ok(())
    }

    /// The number of masternodes in genesis.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether genesis names no masternode; a checked genesis never does.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The name of the masternode at a genesis position.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.names.get(index).map(String::as_str)
    }

    /// The record of the masternode at a genesis position.
    pub fn record(&self, index: usize) -> Option<&MasternodeRecord> {
        self.records.get(index)?.as_ref()
    }

    /// All records with their genesis positions.
    pub fn records(&self) -> impl Iterator<Item = (usize, &MasternodeRecord)> {
        self.records
            .iter()
            .enumerate()
            .filter_map(|(index, record)| Some((index, record.as_ref()?)))
    }

    /// The masternode recorded at an address.
    pub fn by_ip(&self, ip: PeerIp) -> Option<(usize, &MasternodeRecord)> {
        self.records().find(|(_, record)| record.ip == ip)
    }

    /// The masternode that a pin belongs to.
    pub fn by_pin(&self, pin: &NodeId) -> Option<(usize, &MasternodeRecord)> {
        self.records().find(|(_, record)| record.pins.contains(pin))
    }
}
