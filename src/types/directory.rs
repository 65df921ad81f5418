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

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::types::genesis::sample_genesis;
    use crate::types::{Address, Signature};

    fn record(seed: u8, name: &str, ip: &str, pin: u8) -> MasternodeRecord {
        let record = MasternodeRecord {
            name: name.into(),
            serial: 1,
            ip: ip.parse().unwrap(),
            port: 24200,
            pins: vec![NodeId([pin; 32])],
            consensus_key: ConsensusKey([0; 32]),
            payout: Address([2; 32]),
            signature: Signature([0; 64]),
        };
        record.signed(
            &SigningKey::from_bytes(&[seed; 32]),
            sample_genesis().network,
        )
    }

    #[test]
    fn records_are_found_by_address_and_pin() {
        let records = [
            record(2, "beta", "127.0.0.2", 2),
            record(1, "alpha", "127.0.0.1", 1),
        ];
        let directory = MasternodeDirectory::new(&sample_genesis(), records).unwrap();
        assert_eq!(directory.by_ip("127.0.0.2".parse().unwrap()).unwrap().0, 1);
        assert_eq!(directory.by_pin(&NodeId([1; 32])).unwrap().0, 0);
        assert!(directory.by_pin(&NodeId([9; 32])).is_none());
    }

    #[test]
    fn what_must_be_unique_is() {
        let alpha = record(1, "alpha", "127.0.0.1", 1);
        for (other, what) in [
            (record(2, "beta", "127.0.0.1", 2), "address"),
            (record(2, "beta", "127.0.0.2", 1), "pin"),
            (record(1, "alpha", "127.0.0.2", 2), "name"),
        ] {
            let error = MasternodeDirectory::new(&sample_genesis(), [alpha.clone(), other]);
            let Err(DirectoryError::Shared { what: shared, .. }) = error else {
                panic!("{error:?}");
            };
            assert_eq!(shared, what);
        }
    }

    #[test]
    fn only_genesis_says_who_is_a_masternode() {
        for stranger in [
            record(9, "alpha", "127.0.0.1", 1),
            record(1, "gamma", "127.0.0.1", 1),
        ] {
            assert!(matches!(
                MasternodeDirectory::new(&sample_genesis(), [stranger]),
                Err(DirectoryError::NotInGenesis { .. })
            ));
        }
    }
}
