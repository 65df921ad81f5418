//! The one byte encoding of hashed, signed, stored and sent values: bincode 2 with fixed-width
//! little-endian integers.
//!
//! Decoding is canonical: every byte must be consumed and encoding the value again must give the
//! same bytes, so no two byte strings mean the same value.

use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest value that can be encoded or decoded, in bytes. Above every frame and row limit;
/// callers apply their own tighter limit to the input's length first.
pub const MAX_ENCODED_BYTES: usize = 8 * 1024 * 1024;

/// Why bytes are not the canonical encoding of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not decode as the expected type.
    #[error("malformed {what}: {detail}")]
    Malformed {
        /// The type that was expected.
        what: &'static str,
        /// What it stumbled over.
        detail: String,
    },
    /// Bytes were left over after a complete value.
    #[error("{extra} trailing bytes after {what}")]
    TrailingBytes {
        /// The type that was expected.
        what: &'static str,
        /// How many bytes were left.
        extra: usize,
    },
    /// The value encodes to other bytes than it was decoded from.
    #[error("non-canonical encoding of {what}")]
    NonCanonical {
        /// The type that was expected.
        what: &'static str,
    },
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<MAX_ENCODED_BYTES>()
}

/// Encodes a value.
///
/// # Panics
/// When the value exceeds [`MAX_ENCODED_BYTES`]; every constructor of an unbounded value enforces a
/// smaller limit of its own.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_onto(value, &mut bytes);
    bytes
}

/// Appends a value's encoding. Panics as [`encode`] does.
pub fn encode_onto<T: Serialize + ?Sized>(value: &T, to: &mut Vec<u8>) {
    bincode::serde::encode_into_writer(value, Appending(to), config())
        .expect("values of this crate have derived encodings and stay under the size limit");
}

/// Decodes a value from exactly its canonical bytes.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let what = short_type_name::<T>();
    let (value, used): (T, usize) =
        bincode::serde::decode_from_slice(bytes, config()).map_err(|error| {
            CodecError::Malformed {
                what,
                detail: in_words(&error),
            }
        })?;
    if used != bytes.len() {
        return Err(CodecError::TrailingBytes {
            what,
            extra: bytes.len() - used,
        });
    }
    if !encodes_to(&value, bytes) {
        return Err(CodecError::NonCanonical { what });
    }
    Ok(value)
}

/// The decoder's own text is the value of its error as a programmer writes it.
fn in_words(error: &DecodeError) -> String {
    match error {
        DecodeError::UnexpectedEnd { additional: 1 } => "at least 1 more byte is missing".into(),
        DecodeError::UnexpectedEnd { additional } => {
            format!("at least {additional} more bytes are missing")
        }
        DecodeError::LimitExceeded => format!("a length in it is over {MAX_ENCODED_BYTES} bytes"),
        DecodeError::UnexpectedVariant { found, .. } => format!("there is no variant {found}"),
        DecodeError::InvalidBooleanValue(found) => format!("{found} is neither true nor false"),
        DecodeError::OtherString(text) => text.clone(),
        DecodeError::Other(text) => (*text).to_owned(),
        _ => "a value in it is not possible".into(),
    }
}

/// Compares while it encodes: nothing is allocated, and the first difference ends it.
fn encodes_to<T: Serialize>(value: &T, bytes: &[u8]) -> bool {
    let mut expected = Expecting(bytes);
    let encoded = bincode::serde::encode_into_writer(value, &mut expected, config());
    encoded.is_ok() && expected.0.is_empty()
}

struct Appending<'a>(&'a mut Vec<u8>);

impl Writer for Appending<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// What the rest of an encoding must be.
struct Expecting<'a>(&'a [u8]);

impl Writer for Expecting<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        match self.0.strip_prefix(bytes) {
            Some(rest) => {
                self.0 = rest;
                Ok(())
            }
            None => Err(EncodeError::Other("other bytes")),
        }
    }
}

/// The type's name without its path, for error messages.
fn short_type_name<T>() -> &'static str {
    let full = std::any::type_name::<T>();
    let end = full.find('<').unwrap_or(full.len());
    let start = full[..end].rfind("::").map_or(0, |at| at + 2);
    &full[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_and_its_bytes_are_little_endian_fixed_width() {
        let bytes = encode(&(1u64, vec![2u16]));
        assert_eq!(hex::encode(&bytes), "010000000000000001000000000000000200");
        assert_eq!(decode::<(u64, Vec<u16>)>(&bytes).unwrap(), (1, vec![2]));
    }

    #[test]
    fn trailing_truncated_and_non_canonical_bytes_are_refused() {
        assert!(matches!(
            decode::<u32>(&[1, 0, 0, 0, 9]),
            Err(CodecError::TrailingBytes { extra: 1, .. })
        ));
        assert!(matches!(
            decode::<u32>(&[1, 0]),
            Err(CodecError::Malformed { .. })
        ));
        // A map with its keys out of order decodes, but does not encode back.
        let mut bytes = 2u64.to_le_bytes().to_vec();
        bytes.extend([2, 0, 1, 0]);
        assert_eq!(
            decode::<std::collections::BTreeMap<u8, u8>>(&bytes),
            Err(CodecError::NonCanonical {
                what: "BTreeMap<u8, u8>"
            })
        );
    }

    #[test]
    fn what_is_malformed_is_a_sentence() {
        fn said<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> String {
            decode::<T>(bytes).err().unwrap().to_string()
        }
        for (sentence, expected) in [
            (said::<u8>(&[]), "u8: at least 1 more byte is missing"),
            (said::<u32>(&[1]), "u32: at least 3 more bytes are missing"),
            (said::<bool>(&[2]), "bool: 2 is neither true nor false"),
            (
                said::<String>(&u64::MAX.to_le_bytes()),
                "String: a length in it is over 8388608 bytes",
            ),
            (said::<char>(&[0xff]), "char: a value in it is not possible"),
        ] {
            assert_eq!(sentence, format!("malformed {expected}"));
        }
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        let bytes = u64::MAX.to_le_bytes();
        assert!(decode::<Vec<u8>>(&bytes).is_err());
    }
}
