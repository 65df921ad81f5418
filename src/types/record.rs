//! Masternode records: where a masternode is reached and with which pins.

use std::net::IpAddr;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use super::codec;
use super::hash::{self, context};
use super::signing;
use super::{Address, ConsensusKey, Network, NodeId, PeerIp, Signature};

/// What a masternode's name may be.
pub const NAME_RULE: &str = "1 to 32 of a-z, 0-9 and -, starting with a letter or digit";

/// Where a masternode is reached, signed by its consensus key. The highest serial wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasternodeRecord {
    /// The masternode's name in genesis.
    pub name: String,
    /// Raised with every change.
    pub serial: u64,
    /// Its address: its identity as a peer.
    pub ip: PeerIp,
    /// Where to dial it; a hint, never identity.
    pub port: u16,
    /// One or two pins; two while a certificate is being rotated.
    pub pins: Vec<NodeId>,
    /// The key that signed this record.
    pub consensus_key: ConsensusKey,
    /// Where its rewards go; read by `timed genesis build` only.
    pub payout: Address,
    /// The consensus key's signature over all other fields and the network's magic.
    pub signature: Signature,
}

/// Why a record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The name breaks [`NAME_RULE`].
    #[error("masternode name {0:?} is not allowed: use {NAME_RULE}")]
    Name(String),
    /// No pin, or more than two, or the same twice.
    #[error(
        "the record of {name} has {count} distinct pins; it needs one, or two while a certificate is rotated"
    )]
    Pins {
        /// Whose record.
        name: String,
        /// How many distinct pins it has.
        count: usize,
    },
    /// The address can belong to no peer.
    #[error("the record of {name} has the address {ip}, which no peer can have")]
    Ip {
        /// Whose record.
        name: String,
        /// The address.
        ip: IpAddr,
    },
    /// The signature does not verify.
    #[error("the record of {name} (serial {serial}) is not signed by its consensus key {key}")]
    Signature {
        /// Whose record.
        name: String,
        /// Which version of it.
        serial: u64,
        /// The key that should have signed.
        key: ConsensusKey,
    },
}

/// Checks a masternode's name against [`NAME_RULE`].
pub fn check_name(name: &str) -> Result<(), RecordError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good =
        (1..=32).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('-');
    if good {
        Ok(())
    } else {
        Err(RecordError::Name(name.chars().take(40).collect()))
    }
}

impl MasternodeRecord {
    /// What the signature covers.
    fn digest(&self, network: Network) -> [u8; 32] {
        let bytes = codec::encode(&(
            &self.name,
            self.serial,
            self.ip,
            self.port,
            &self.pins,
            self.consensus_key,
            self.payout,
        ));
        hash::hash(context::RECORD_SIGN, &[&network.magic(), &bytes])
    }

    /// Signs the record with the consensus key, replacing its key and signature.
    pub fn signed(mut self, key: &SigningKey, network: Network) -> Self {
        self.consensus_key = key.into();
        self.signature = signing::sign(key, &self.digest(network));
        self
    }

    /// Checks the fields and the signature for a network.
    pub fn verify(&self, network: Network) -> Result<(), RecordError> {
        check_name(&self.name)?;
        let distinct: std::collections::BTreeSet<_> = self.pins.iter().collect();
        if distinct.len() != self.pins.len() || !(1..=2).contains(&distinct.len()) {
            return Err(RecordError::Pins {
                name: self.name.clone(),
                count: distinct.len(),
            });
        }
        if !self.ip.is_usable() {
            return Err(RecordError::Ip {
                name: self.name.clone(),
                ip: self.ip.ip(),
            });
        }
        if !signing::verify(
            &self.consensus_key.0,
            &self.digest(network),
            &self.signature,
        ) {
            return Err(RecordError::Signature {
                name: self.name.clone(),
                serial: self.serial,
                key: self.consensus_key,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> MasternodeRecord {
        MasternodeRecord {
            name: "alpha".into(),
            serial: 1,
            ip: "127.0.0.1".parse().unwrap(),
            port: 24200,
            pins: vec![NodeId([1; 32])],
            consensus_key: ConsensusKey([0; 32]),
            payout: Address([2; 32]),
            signature: Signature([0; 64]),
        }
    }

    fn signed() -> MasternodeRecord {
        record().signed(&SigningKey::from_bytes(&[3; 32]), Network::Dev)
    }

    #[test]
    fn every_field_and_the_network_are_under_the_signature() {
        assert_eq!(signed().verify(Network::Dev), Ok(()));
        assert!(signed().verify(Network::Main).is_err());
        let changes: [fn(&mut MasternodeRecord); 6] = [
            |record| record.name = "beta".into(),
            |record| record.serial = 2,
            |record| record.ip = "127.0.0.2".parse().unwrap(),
            |record| record.port = 1,
            |record| record.pins = vec![NodeId([9; 32])],
            |record| record.payout = Address([9; 32]),
        ];
        for change in changes {
            let mut changed = signed();
            change(&mut changed);
            assert!(matches!(
                changed.verify(Network::Dev),
                Err(RecordError::Signature { .. })
            ));
        }
    }

    #[test]
    fn names_pins_and_addresses_have_rules() {
        let key = SigningKey::from_bytes(&[3; 32]);
        for name in ["", "Alpha", "-a", "a b", &"a".repeat(33)] {
            let mut bad = record();
            bad.name = name.into();
            let bad = bad.signed(&key, Network::Dev);
            assert!(matches!(
                bad.verify(Network::Dev),
                Err(RecordError::Name(_))
            ));
        }
        for pins in [vec![], vec![NodeId([1; 32]); 2]] {
            let mut bad = record();
            bad.pins = pins;
            let bad = bad.signed(&key, Network::Dev);
            assert!(matches!(
                bad.verify(Network::Dev),
                Err(RecordError::Pins { .. })
            ));
        }
        let mut bad = record();
        bad.ip = "0.0.0.0".parse().unwrap();
        let bad = bad.signed(&key, Network::Dev);
        assert!(matches!(
            bad.verify(Network::Dev),
            Err(RecordError::Ip { .. })
        ));
    }

    #[test]
    fn the_file_form_round_trips() {
        let text = toml::to_string(&signed()).unwrap();
        assert_eq!(toml::from_str::<MasternodeRecord>(&text).unwrap(), signed());
    }
}
