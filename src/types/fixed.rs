//! Bytes of a fixed length in the binary encoding: the bytes themselves, without a length. They pass
//! through serde as little-endian words of 16 bytes, which are the same bytes: serde's price is by
//! the element, and byte by byte it was most of what a block cost to encode and decode.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserializer, Serializer};

/// For formats that are not human-readable.
pub(super) fn serialize<S: Serializer, const N: usize>(
    bytes: &[u8; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    const { assert!(N.is_multiple_of(16)) };
    let (words, _) = bytes.as_chunks();
    let mut tuple = serializer.serialize_tuple(words.len())?;
    for word in words {
        tuple.serialize_element(&u128::from_le_bytes(*word))?;
    }
    tuple.end()
}

/// The reverse.
pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    const { assert!(N.is_multiple_of(16)) };
    deserializer.deserialize_tuple(N / 16, Words)
}

struct Words<const N: usize>;

impl<'de, const N: usize> Visitor<'de> for Words<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<[u8; N], A::Error> {
        let mut bytes = [0; N];
        let (words, _) = bytes.as_chunks_mut();
        for (at, word) in words.iter_mut().enumerate() {
            let next: Option<u128> = seq.next_element()?;
            *word = next
                .ok_or_else(|| Error::invalid_length(16 * at, &self))?
                .to_le_bytes();
        }
        Ok(bytes)
    }
}
