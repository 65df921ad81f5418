//! Reads the one kind of certificate that the network accepts: X.509, an Ed25519 key, signed by
//! that same key.
//!
//! The reader is strict DER and the only one: what it extracts is what the pin is made of, what the
//! handshake signature is checked with, and what people are shown. It takes nothing from names,
//! usages or dates as a decision; those parts are parsed for display.

use std::net::IpAddr;

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, ObjectIdentifier, OctetStringRef, UtcTime};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use ed25519_dalek::VerifyingKey;

use super::identity::IdentityError;
use crate::types::{NodeId, PeerIp};

/// The largest certificate that is looked at. Ours has about 400 bytes.
const MAX_CERTIFICATE_BYTES: usize = 4096;

/// `AlgorithmIdentifier { id-Ed25519 }` without parameters (RFC 8410), the only DER form.
const ED25519_ALGORITHM: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

/// What precedes the 32 key bytes in an Ed25519 SubjectPublicKeyInfo: the sequence, the algorithm,
/// and a bit string without unused bits.
const ED25519_SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// A certificate whose own signature has been verified.
#[derive(Debug)]
pub(super) struct Certificate {
    /// The only key that it certifies, and that signed it.
    pub(super) key: VerifyingKey,
    /// Its pin.
    pub(super) pin: NodeId,
    /// Addresses among its subject alternative names.
    pub(super) ips: Vec<PeerIp>,
    /// DNS names among its subject alternative names.
    pub(super) names: Vec<String>,
    /// Start of validity, Unix seconds.
    pub(super) not_before: i64,
    /// End of validity, Unix seconds.
    pub(super) not_after: i64,
}

impl Certificate {
    /// Parses and verifies: Ed25519 throughout, and the signature verifies with the certificate's
    /// own key by the strict rules (no small-order key).
    pub(super) fn verify(der: &[u8]) -> Result<Self, IdentityError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(IdentityError::Malformed(format!(
                "it has {} bytes; at most {MAX_CERTIFICATE_BYTES} are read",
                der.len()
            )));
        }
        let outer = Outer::read(der)?;
        if outer.algorithm != ED25519_ALGORITHM {
            return Err(IdentityError::NotEd25519);
        }
        let certificate = read_inner(outer.inner)?;
        let signature = ed25519_dalek::Signature::from_slice(outer.signature)
            .map_err(|_| IdentityError::NotSelfSigned)?;
        certificate
            .key
            .verify_strict(outer.inner, &signature)
            .map_err(|_| IdentityError::NotSelfSigned)?;
        Ok(certificate)
    }
}

/// The pin of an Ed25519 key: BLAKE3-256 of its SubjectPublicKeyInfo.
pub(super) fn pin_of(key: &VerifyingKey) -> NodeId {
    let mut spki = [0; ED25519_SPKI_PREFIX.len() + 32];
    spki[..ED25519_SPKI_PREFIX.len()].copy_from_slice(&ED25519_SPKI_PREFIX);
    spki[ED25519_SPKI_PREFIX.len()..].copy_from_slice(key.as_bytes());
    NodeId(*blake3::hash(&spki).as_bytes())
}

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue }` (RFC 5280).
struct Outer<'a> {
    inner: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Outer<'a> {
    fn read(der: &'a [u8]) -> Result<Self, der::Error> {
        let mut reader = SliceReader::new(der)?;
        let outer = reader.sequence(|r| {
            Ok::<_, der::Error>(Self {
                inner: r.tlv_bytes()?,
                algorithm: r.tlv_bytes()?,
                signature: bits(BitStringRef::decode(r)?)?,
            })
        })?;
        reader.finish()?;
        Ok(outer)
    }
}

fn bits(string: BitStringRef<'_>) -> Result<&[u8], der::Error> {
    string
        .as_bytes()
        .ok_or_else(|| Tag::BitString.value_error().into())
}

/// `TBSCertificate`: everything that the signature covers.
fn read_inner(inner: &[u8]) -> Result<Certificate, IdentityError> {
    let mut reader = SliceReader::new(inner)?;
    reader.sequence(|r| {
        r.context_specific::<u8>(TagNumber(0), der::TagMode::Explicit)?; // version
        r.tlv_bytes()?; // serial number
        if r.tlv_bytes()? != ED25519_ALGORITHM {
            return Err(IdentityError::NotEd25519);
        }
        r.tlv_bytes()?; // issuer
        let (not_before, not_after) =
            r.sequence(|r| Ok::<_, der::Error>((read_time(r)?, read_time(r)?)))?;
        r.tlv_bytes()?; // subject
        let key = read_key(r.tlv_bytes()?)?;
        let (mut ips, mut names) = (Vec::new(), Vec::new());
        while !r.is_finished() {
            let part = AnyRef::decode(r)?;
            if part.tag() == context_tag(3, true) {
                read_extensions(part.value(), &mut ips, &mut names)?;
            }
        }
        Ok(Certificate {
            key,
            pin: pin_of(&key),
            ips,
            names,
            not_before,
            not_after,
        })
    })
}

fn read_time<'a>(reader: &mut impl Reader<'a>) -> Result<i64, der::Error> {
    let time = match Tag::peek(reader)? {
        Tag::UtcTime => UtcTime::decode(reader)?.to_unix_duration(),
        _ => GeneralizedTime::decode(reader)?.to_unix_duration(),
    };
    Ok(i64::try_from(time.as_secs()).expect("a year has four digits"))
}

fn read_key(spki: &[u8]) -> Result<VerifyingKey, IdentityError> {
    let bytes = spki
        .strip_prefix(&ED25519_SPKI_PREFIX)
        .and_then(|bytes| <&[u8; 32]>::try_from(bytes).ok())
        .ok_or(IdentityError::NotEd25519)?;
    VerifyingKey::from_bytes(bytes)
        .map_err(|_| IdentityError::Malformed("its key is no point of the Ed25519 curve".into()))
}

/// `[3] EXPLICIT SEQUENCE OF Extension`; only the subject alternative names are looked into.
fn read_extensions(
    explicit: &[u8],
    ips: &mut Vec<PeerIp>,
    names: &mut Vec<String>,
) -> Result<(), der::Error> {
    let mut reader = SliceReader::new(explicit)?;
    reader.sequence(|r| {
        while !r.is_finished() {
            let (id, value) = r.sequence(|r| {
                let id = ObjectIdentifier::decode(r)?;
                Option::<bool>::decode(r)?; // critical
                Ok::<_, der::Error>((id, <&OctetStringRef>::decode(r)?))
            })?;
            if id == SUBJECT_ALT_NAME {
                read_alternative_names(value.as_bytes(), ips, names)?;
            }
        }
        Ok::<_, der::Error>(())
    })?;
    reader.finish()
}

fn read_alternative_names(
    value: &[u8],
    ips: &mut Vec<PeerIp>,
    names: &mut Vec<String>,
) -> Result<(), der::Error> {
    let mut reader = SliceReader::new(value)?;
    reader.sequence(|r| {
        while !r.is_finished() {
            let name = AnyRef::decode(r)?;
            if name.tag() == context_tag(2, false) {
                names.push(String::from_utf8_lossy(name.value()).into_owned());
            } else if name.tag() == context_tag(7, false) {
                ips.push(read_ip(name.value())?);
            }
        }
        Ok::<_, der::Error>(())
    })?;
    reader.finish()
}

fn read_ip(octets: &[u8]) -> Result<PeerIp, der::Error> {
    let ip: IpAddr = if let Ok(four) = <[u8; 4]>::try_from(octets) {
        four.into()
    } else if let Ok(sixteen) = <[u8; 16]>::try_from(octets) {
        sixteen.into()
    } else {
        return Err(Tag::OctetString.length_error().into());
    };
    Ok(ip.into())
}

fn context_tag(number: u32, constructed: bool) -> Tag {
    Tag::ContextSpecific {
        constructed,
        number: TagNumber(number),
    }
}
