//! A node's network identity: an Ed25519 key, the self-signed certificate made with it, the pin.
//!
//! The pin ([`NodeId`]) is BLAKE3-256 of the certificate's SubjectPublicKeyInfo, so a renewed
//! certificate with the same key keeps the pin. The secret lives in one place, is wiped when the
//! last user of it is dropped, and no `Debug`, log or error shows it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use der::pem::LineEnding;
use ed25519::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use ed25519_dalek::Signer;
use rustls::pki_types::{CertificateDer, DnsName};
use zeroize::{Zeroize, Zeroizing};

use super::certificate::{self, Certificate};
use crate::types::{NodeId, PeerIp};

/// The label of a PEM certificate.
const CERTIFICATE_LABEL: &str = "CERTIFICATE";

/// How long a new certificate says that it is valid: ten years of 365.25 days.
const VALIDITY: Duration = Duration::from_secs(315_576_000);

/// The last start of validity that can be written: the end must stay below the year 10000.
const LAST_START_MS: u64 = 253_402_300_799_000 - VALIDITY.as_millis() as u64;

/// A node's key and certificate. The key is wiped from memory when this is dropped, and never shown.
pub struct Identity {
    key: NodeKey,
    certificate: CertificateDer<'static>,
}

/// Why an identity cannot be made or read, or a certificate not accepted.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The private key cannot be read. The decoder's words name no key material.
    #[error("the private key is not an Ed25519 key in PKCS#8 PEM: {0}")]
    Key(ed25519::pkcs8::Error),
    /// The certificate's PEM armour cannot be read.
    #[error("the certificate is not PEM: {0}")]
    Pem(String),
    /// The certificate's content cannot be read.
    #[error("the certificate is malformed: {0}")]
    Malformed(String),
    /// The certificate's key or signature is of another algorithm.
    #[error("the certificate is not Ed25519; make one with `timed init` or `timed cert rotate`")]
    NotEd25519,
    /// The certificate's signature does not verify with its own key.
    #[error("the certificate is not signed by its own key")]
    NotSelfSigned,
    /// Key and certificate are of two identities.
    #[error(
        "the private key (pin {key}) does not belong to the certificate (pin {certificate}); \
         both files must come from the same `timed init` or `timed cert rotate`"
    )]
    Mismatch {
        /// The pin that the key has.
        key: NodeId,
        /// The pin that the certificate has.
        certificate: NodeId,
    },
    /// The name cannot stand in a certificate.
    #[error("{0:?} cannot be a certificate's name: it must be a DNS name")]
    Name(String),
    /// The clock's time cannot stand in a certificate.
    #[error("the time {0} ms cannot be a certificate's start; check the machine's clock")]
    Time(u64),
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Generate(#[from] rcgen::Error),
    /// TLS could not be configured.
    #[error("TLS could not be configured: {0}")]
    Tls(String),
    /// The peer presented no certificate, or a chain.
    #[error("the peer presented {0} certificates instead of one")]
    CertificateCount(usize),
}

impl From<der::Error> for IdentityError {
    fn from(error: der::Error) -> Self {
        IdentityError::Malformed(error.to_string())
    }
}

impl Identity {
    /// A new certificate, valid from `now_ms` for ten years, for a 32-byte Ed25519 secret.
    ///
    /// The certificate names `name` and `ip`; an unspecified address, of a node that does not know
    /// its own, is left out. Same arguments, same certificate.
    pub fn create(
        secret: &[u8; 32],
        ip: PeerIp,
        name: &str,
        now_ms: u64,
    ) -> Result<Self, IdentityError> {
        let bad_name = || IdentityError::Name(name.chars().take(80).collect());
        DnsName::try_from(name).map_err(|_| bad_name())?;
        let dns_name = name.try_into().map_err(|_| bad_name())?;
        if now_ms > LAST_START_MS {
            return Err(IdentityError::Time(now_ms));
        }
        let key = NodeKey::new(ed25519_dalek::SigningKey::from_bytes(secret));

        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now_ms / 1000);
        params.not_after = params.not_before + VALIDITY;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.subject_alt_names = vec![rcgen::SanType::DnsName(dns_name)];
        if ip.is_usable() {
            let ip = rcgen::SanType::IpAddress(ip.ip());
            params.subject_alt_names.push(ip);
        }
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { key, certificate })
    }

    /// Reads `node.key` (PKCS#8 PEM) and `node.pem`; they must belong together.
    pub fn from_pem(key_pem: &str, certificate_pem: &str) -> Result<Self, IdentityError> {
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(key_pem).map_err(IdentityError::Key)?;
        let key = NodeKey::new(key);
        let der = certificate_from_pem(certificate_pem)?;
        let certificate = Certificate::verify(&der)?;
        if certificate.pin != key.pin {
            return Err(IdentityError::Mismatch {
                key: key.pin,
                certificate: certificate.pin,
            });
        }
        Ok(Self {
            key,
            certificate: der.into(),
        })
    }

    /// The key as PKCS#8 PEM.
    pub fn key_pem(&self) -> Zeroizing<String> {
        // PKCS#8 version 1: other tools do not all read version 2, which adds the public key.
        KeypairBytes {
            secret_key: self.key.signing.to_bytes(),
            public_key: None,
        }
        .to_pkcs8_pem(LineEnding::LF)
        .expect("a key of fixed length always encodes")
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        der::Document::try_from(self.certificate.as_ref())
            .and_then(|document| document.to_pem(CERTIFICATE_LABEL, LineEnding::LF))
            .expect("the certificate was made or parsed as DER")
    }

    /// The pin.
    pub fn node_id(&self) -> NodeId {
        self.key.pin
    }

    /// A key for one use, derived from the node's secret: the same after every restart, and telling
    /// nothing about the secret or about the key of another context.
    pub fn derive_key(&self, context: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(self.key.signing.as_bytes());
        let mut output = hasher.finalize();
        let key = *output.as_bytes();
        hasher.zeroize();
        output.zeroize();
        key
    }

    /// The certificate and the key behind it, in the form that TLS takes.
    pub(super) fn for_tls(&self) -> rustls::sign::CertifiedKey {
        rustls::sign::CertifiedKey::new(vec![self.certificate.clone()], Arc::new(self.key.clone()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("pin", &self.key.pin)
            .finish_non_exhaustive()
    }
}

/// What a certificate says, for `timed cert show` and `timed genesis build`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CertificateInfo {
    /// The pin: BLAKE3-256 of the SubjectPublicKeyInfo.
    pub pin: NodeId,
    /// Addresses among its subject alternative names.
    pub ips: Vec<PeerIp>,
    /// DNS names among its subject alternative names.
    pub names: Vec<String>,
    /// Start of validity, Unix seconds. Shown only; the pin decides.
    pub not_before: i64,
    /// End of validity, Unix seconds. Shown only; the pin decides.
    pub not_after: i64,
}

/// Reads a PEM certificate: it must be Ed25519 and signed by its own key.
pub fn inspect_certificate(pem: &str) -> Result<CertificateInfo, IdentityError> {
    let certificate = Certificate::verify(&certificate_from_pem(pem)?)?;
    Ok(CertificateInfo {
        pin: certificate.pin,
        ips: certificate.ips,
        names: certificate.names,
        not_before: certificate.not_before,
        not_after: certificate.not_after,
    })
}

fn certificate_from_pem(pem: &str) -> Result<Vec<u8>, IdentityError> {
    let (label, document) =
        der::Document::from_pem(pem).map_err(|error| IdentityError::Pem(error.to_string()))?;
    if label != CERTIFICATE_LABEL {
        let label: String = label.chars().take(40).collect();
        return Err(IdentityError::Pem(format!(
            "it holds a {label:?} instead of a {CERTIFICATE_LABEL:?}"
        )));
    }
    Ok(document.into_vec())
}

/// The node's signing key, with its pin. Wiped when the last clone is dropped; shows only the pin.
#[derive(Clone)]
struct NodeKey {
    signing: Arc<ed25519_dalek::SigningKey>,
    public: [u8; 32],
    pin: NodeId,
}

impl NodeKey {
    fn new(signing: ed25519_dalek::SigningKey) -> Self {
        let verifying = signing.verifying_key();
        Self {
            public: verifying.to_bytes(),
            pin: certificate::pin_of(&verifying),
            signing: Arc::new(signing),
        }
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey(pin {})", self.pin.short())
    }
}

impl rcgen::PublicKeyData for NodeKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for NodeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.signing.sign(message).to_vec())
    }
}

impl rustls::sign::SigningKey for NodeKey {
    fn choose_scheme(
        &self,
        offered: &[rustls::SignatureScheme],
    ) -> Option<Box<dyn rustls::sign::Signer>> {
        offered
            .contains(&rustls::SignatureScheme::ED25519)
            .then(|| Box::new(self.clone()) as Box<dyn rustls::sign::Signer>)
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        rustls::SignatureAlgorithm::ED25519
    }
}

impl rustls::sign::Signer for NodeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.signing.sign(message).to_vec())
    }

    fn scheme(&self) -> rustls::SignatureScheme {
        rustls::SignatureScheme::ED25519
    }
}

#[cfg(test)]
mod tests;
