//! Fixed-length identifiers, keys and signatures. Text form is lower-case hex, byte form is the
//! bytes themselves without a length.

use std::fmt;
use std::str::FromStr;

/// Why a text is not the hex form of an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}: expected {expected} hex digits")]
pub struct ParseIdError {
    kind: &'static str,
    text: String,
    expected: usize,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $length:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// The first eight hex digits, for tables and logs where the whole would not fit.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $length];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError {
                    kind: $kind,
                    text: text.chars().take(2 * $length + 8).collect(),
                    expected: 2 * $length,
                })?;
                Ok(Self(bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return serializer.collect_str(self);
                }
                super::fixed::serialize(&self.0, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($kind)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                if d.is_human_readable() {
                    d.deserialize_str(Visitor)
                } else {
                    super::fixed::deserialize(d).map($name)
                }
            }
        }
    };
}

byte_id!(
    /// The hash of a block's header.
    BlockHash, 32, "a block hash"
);
byte_id!(
    /// The hash of a transaction without its keys and signatures, so that nobody but the signers
    /// can change it.
    TxId, 32, "a transaction id"
);
byte_id!(
    /// The hash of the genesis file's content: the identity of a chain.
    GenesisHash, 32, "a genesis hash"
);
byte_id!(
    /// A peer's pin: BLAKE3-256 of its certificate's SubjectPublicKeyInfo.
    NodeId, 32, "a node id (pin)"
);
byte_id!(
    /// The commitment to the set of unspent outputs after a block.
    StateCommitment, 32, "a state commitment"
);
byte_id!(
    /// The Merkle root over a block's transactions.
    TransactionsRoot, 32, "a transactions root"
);
byte_id!(
    /// The hash of the validator set.
    ValidatorSetHash, 32, "a validator set hash"
);
byte_id!(
    /// A masternode's Ed25519 consensus key; it also identifies the validator.
    ConsensusKey, 32, "a consensus key"
);
byte_id!(
    /// The Ed25519 key that spends an output.
    PublicKey, 32, "a public key"
);
byte_id!(
    /// An Ed25519 signature.
    Signature, 64, "a signature"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::codec;

    #[test]
    fn bytes_have_no_length_prefix_and_text_is_hex() {
        let id = TxId([7; 32]);
        assert_eq!(codec::encode(&id), [7; 32]);
        assert_eq!(codec::decode::<TxId>(&[7; 32]).unwrap(), id);
        assert_eq!(id.to_string().parse::<TxId>().unwrap(), id);
        let error = "xyz".parse::<TxId>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"xyz\" is not a transaction id: expected 64 hex digits"
        );
    }
}
