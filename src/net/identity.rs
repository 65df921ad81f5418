//! A node's network identity: an Ed25519 key, the self-signed certificate made with it, the pin.

use crate::types::{NodeId, PeerIp};

/// A node's key and certificate. The key is wiped from memory when this is dropped, and never shown.
pub struct Identity {
    _stub: (),
}

/// Why an identity cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Placeholder.
    #[error("{0}")]
    Other(String),
}

impl Identity {
    /// A new certificate, valid from `now_ms` for ten years, for a 32-byte Ed25519 secret.
    pub fn create(
        secret: &[u8; 32],
        ip: PeerIp,
        name: &str,
        now_ms: u64,
    ) -> Result<Self, IdentityError> {
        let _ = (secret, ip, name, now_ms);
        todo!()
    }

    /// Reads `node.key` (PKCS#8 PEM) and `node.pem`; they must belong together.
    pub fn from_pem(key_pem: &str, certificate_pem: &str) -> Result<Self, IdentityError> {
        let _ = (key_pem, certificate_pem);
        todo!()
    }

    /// The key as PKCS#8 PEM.
    pub fn key_pem(&self) -> zeroize::Zeroizing<String> {
        todo!()
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        todo!()
    }

    /// The pin.
    pub fn node_id(&self) -> NodeId {
        todo!()
    }
}

/// What a certificate says, for `timed cert show` and `timed genesis build`.
#[derive(Clone, Debug, serde::Serialize)]
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
    let _ = pem;
    todo!()
}
