//! TLS 1.3 between nodes: mutual, one self-signed Ed25519 certificate on each side, no authority.
//!
//! TLS proves one thing: that the peer holds the private key of the certificate that it shows.
//! Whether that key may speak for its address is decided afterwards by the pin
//! ([`super::pins::PinPolicy`]). So names, usages, issuers and validity dates decide nothing here:
//! a pin is as good on the day after its certificate's last one, and a node with a wrong clock
//! still reaches its peers.
//!
//! **Invariant**: every connection runs the whole handshake. Early data, tickets and resumption
//! are off on both sides, because a resumed session would skip the peer's signature.
//!
//! The side that refuses a certificate sends its sentence along with the TLS alert, so both sides
//! can log it; [`explain`] finds it again.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible,
    SignatureScheme,
};

use super::certificate::Certificate;
pub(super) use super::explain::{explain, proves_address};
use super::identity::{Identity, IdentityError};
use crate::types::NodeId;

/// The application protocol; a peer without it is refused in the handshake.
pub(super) const ALPN: &[u8] = b"timed/1";

/// The accepting side's TLS.
pub(super) fn server_crypto(identity: &Identity) -> Result<Arc<QuicServerConfig>, IdentityError> {
    server_crypto_with(identity.for_tls())
}

/// The dialing side's TLS. The server name given to QUIC is neither sent nor checked.
pub(super) fn client_crypto(identity: &Identity) -> Result<Arc<QuicClientConfig>, IdentityError> {
    client_crypto_with(identity.for_tls())
}

fn server_crypto_with(own: CertifiedKey) -> Result<Arc<QuicServerConfig>, IdentityError> {
    let mut config = rustls::ServerConfig::builder_with_details(provider(), Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .with_client_cert_verifier(Arc::new(PeerVerifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config.try_into().map_err(tls_error)?))
}

pub(super) fn client_crypto_with(
    own: CertifiedKey,
) -> Result<Arc<QuicClientConfig>, IdentityError> {
    let mut config = rustls::ClientConfig::builder_with_details(provider(), Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(Arc::new(config.try_into().map_err(tls_error)?))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn tls_error(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Tls(error.to_string())
}

/// The pin of a connected peer.
pub(super) fn peer_node_id(connection: &quinn::Connection) -> Result<NodeId, IdentityError> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    match chain.as_deref().map(Vec::as_slice) {
        Some([one]) => Ok(Certificate::verify(one)?.pin),
        other => Err(IdentityError::CertificateCount(other.map_or(0, <[_]>::len))),
    }
}

/// Answers TLS when it asks for the time, which it passes to the verifier: no date decides
/// anything, so the node's behaviour must not depend on a clock here.
#[derive(Debug)]
struct NoClock;

impl rustls::time_provider::TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::ZERO))
    }
}

/// Checks the peer's certificate and that the peer holds its key; the same on both sides.
#[derive(Debug)]
struct PeerVerifier;

impl PeerVerifier {
    fn check_certificate(
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        if !intermediates.is_empty() {
            let count = 1 + intermediates.len();
            return Err(refused(IdentityError::CertificateCount(count)));
        }
        Certificate::verify(end_entity).map_err(refused)?;
        Ok(())
    }

    /// The proof of possession: the peer's signature over this handshake, with the key of the
    /// certificate that was checked.
    fn check_handshake_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let bad_signature = || rustls::Error::from(CertificateError::BadSignature);
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(bad_signature());
        }
        let signature = ed25519_dalek::Signature::from_slice(signed.signature())
            .map_err(|_| bad_signature())?;
        Certificate::verify(certificate)
            .map_err(refused)?
            .key
            .verify_strict(message, &signature)
            .map_err(|_| bad_signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

/// A refusal of the certificate with its sentence: the alert is `certificate_unknown`.
fn refused(error: IdentityError) -> rustls::Error {
    let sentence = OtherError(Arc::new(Sentence(error.to_string())));
    CertificateError::Other(sentence).into()
}

/// An error whose debug form is its sentence too, because that form is what TLS puts on the wire.
#[derive(thiserror::Error)]
#[error("{0}")]
struct Sentence(String);

impl std::fmt::Debug for Sentence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn only_tls13() -> rustls::Error {
    PeerIncompatible::Tls13RequiredForQuic.into()
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::check_certificate(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_handshake_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::check_certificate(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_handshake_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
pub(super) mod tests;
