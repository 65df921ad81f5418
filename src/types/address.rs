//! Addresses: what an output pays to.

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hash::{self, context};
use super::{Network, PublicKey};

/// The hash of the public key that can spend an output. Its text form is bech32m (BIP 350) with the
/// network's prefix, so it takes a [`Network`] to write or read one; files that name the network
/// once hold the 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 32]);

/// Why a text is not an address of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is not bech32m, or its checksum does not hold.
    #[error("{text:?} is not an address: {detail}")]
    Malformed {
        /// The text, shortened.
        text: String,
        /// The decoder's own words.
        detail: String,
    },
    /// The address belongs to another network.
    #[error("{text:?} is an address for prefix {got:?}; this network uses {expected:?}")]
    WrongNetwork {
        /// The text, shortened.
        text: String,
        /// The prefix that it has.
        got: String,
        /// The prefix that this network has.
        expected: &'static str,
    },
}

impl Address {
    /// The address of a public key.
    pub fn of(key: &PublicKey) -> Self {
        Self(hash::hash(context::ADDRESS, &[key.as_bytes()]))
    }

    /// The text form on a network.
    pub fn to_text(self, network: Network) -> String {
        let prefix = Hrp::parse_unchecked(network.address_prefix());
        bech32::encode::<Bech32m>(prefix, &self.0)
            .expect("32 bytes with a short prefix are within bech32m's length")
    }

    /// Reads the text form; it must belong to `network`.
    pub fn parse(text: &str, network: Network) -> Result<Self, AddressError> {
        let shown = || text.chars().take(100).collect::<String>();
        let malformed = |detail: String| AddressError::Malformed {
            text: shown(),
            detail,
        };
        let parsed =
            CheckedHrpstring::new::<Bech32m>(text).map_err(|error| malformed(error.to_string()))?;
        let expected = network.address_prefix();
        let got = parsed.hrp().to_lowercase();
        if got != expected {
            return Err(AddressError::WrongNetwork {
                text: shown(),
                got,
                expected,
            });
        }
        let bytes: Vec<u8> = parsed.byte_iter().collect();
        let length = bytes.len();
        bytes
            .try_into()
            .map(Address)
            .map_err(|_| malformed(format!("it holds {length} bytes instead of 32")))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&hex::encode(self.0))
        } else {
            super::fixed::serialize(&self.0, serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return super::fixed::deserialize(deserializer).map(Address);
        }
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(|_| {
            serde::de::Error::custom(format!("{text:?} is not an address of 64 hex digits"))
        })?;
        Ok(Address(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_on_its_own_network_only() {
        let address = Address([9; 32]);
        let text = address.to_text(Network::Test);
        assert!(text.starts_with("ttime1"));
        assert_eq!(Address::parse(&text, Network::Test).unwrap(), address);
        assert!(matches!(
            Address::parse(&text, Network::Main),
            Err(AddressError::WrongNetwork { .. })
        ));
    }

    #[test]
    fn a_mistyped_address_is_refused() {
        let mut text = Address([9; 32]).to_text(Network::Dev);
        let last = if text.pop() == Some('q') { 'p' } else { 'q' };
        text.push(last);
        assert!(matches!(
            Address::parse(&text, Network::Dev),
            Err(AddressError::Malformed { .. })
        ));
    }
}
