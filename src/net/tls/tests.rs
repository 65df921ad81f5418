use std::net::SocketAddr;

use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};

use super::*;
use crate::wire::{CloseCode, CloseReason};

fn identity(seed: u8) -> Identity {
    let ip = format!("127.0.0.{seed}").parse().unwrap();
    Identity::create(&[seed; 32], ip, "node", 1_795_000_000_000).unwrap()
}

/// How a connection attempt ended for one side: the other's pin, or why not.
type End = Result<NodeId, CloseReason>;

/// Dials 127.0.0.1 from 127.0.0.2 and waits until both sides know how it ended.
async fn meet(dialer: Arc<QuicClientConfig>, acceptor: Arc<QuicServerConfig>) -> (End, End) {
    let config = ServerConfig::with_crypto(acceptor);
    let listening = Endpoint::server(config, address("127.0.0.1")).unwrap();
    let dialing = Endpoint::client(address("127.0.0.2")).unwrap();
    let target = listening.local_addr().unwrap();
    let ends = tokio::join!(dial(&dialing, dialer, target), accept(&listening));
    dialing.wait_idle().await;
    listening.wait_idle().await;
    ends
}

fn address(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 0)
}

async fn dial(endpoint: &Endpoint, crypto: Arc<QuicClientConfig>, target: SocketAddr) -> End {
    let connecting = endpoint
        .connect_with(ClientConfig::new(crypto), target, "timed")
        .unwrap();
    let connection = connecting.await.map_err(|error| explain(&error))?;
    // The acceptor speaks first: only then is the dialer accepted.
    connection
        .accept_uni()
        .await
        .map_err(|error| explain(&error))?;
    let pin = peer_node_id(&connection).unwrap();
    connection.close(1u32.into(), b"met");
    Ok(pin)
}

async fn accept(endpoint: &Endpoint) -> End {
    let incoming = endpoint.accept().await.unwrap();
    let connection = incoming.await.map_err(|error| explain(&error))?;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(b"welcome").await.unwrap();
    connection.closed().await;
    Ok(peer_node_id(&connection).unwrap())
}

/// Both ends refused by TLS, with a sentence that has these words.
fn assert_refused((dialer, acceptor): &(End, End), dialer_says: &str, acceptor_says: &str) {
    for (end, words) in [(dialer, dialer_says), (acceptor, acceptor_says)] {
        let reason = end.as_ref().unwrap_err();
        assert_eq!(reason.code, CloseCode::TlsRefused, "{reason}");
        assert!(reason.detail.contains(words), "{words:?} in {reason}");
    }
}

/// A key of another kind, as an ordinary TLS library would use it.
fn for_tls(key: &rcgen::KeyPair) -> CertifiedKey {
    let params = rcgen::CertificateParams::new(vec!["node".into()]).unwrap();
    let certificate = params.self_signed(key).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    CertifiedKey::from_der(vec![certificate.der().clone()], key.into(), &provider()).unwrap()
}

pub(in crate::net) fn p256_for_tls() -> CertifiedKey {
    for_tls(&rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap())
}

/// The key is written down: the library that makes certificates makes no RSA keys.
pub(in crate::net) fn rsa_for_tls() -> CertifiedKey {
    let pem = include_str!("rsa_for_tests.pem");
    let key = rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(pem, &rcgen::PKCS_RSA_SHA256);
    for_tls(&key.unwrap())
}

fn server_of(own: CertifiedKey) -> Arc<QuicServerConfig> {
    server_crypto_with(own).unwrap()
}

fn client_of(own: CertifiedKey) -> Arc<QuicClientConfig> {
    client_crypto_with(own).unwrap()
}

/// A dialer's TLS with one thing about it changed.
pub(in crate::net) fn strange_client(
    change: impl FnOnce(&mut rustls::ClientConfig),
) -> Arc<QuicClientConfig> {
    let own = Arc::new(SingleCertAndKey::from(identity(2).for_tls()));
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier))
        .with_client_cert_resolver(own);
    config.alpn_protocols = vec![ALPN.to_vec()];
    change(&mut config);
    Arc::new(config.try_into().unwrap())
}

#[tokio::test]
async fn two_nodes_meet_and_know_each_others_pins() {
    let (alpha, beta) = (identity(1), identity(2));
    let (dialer, acceptor) = meet(
        client_crypto(&beta).unwrap(),
        server_crypto(&alpha).unwrap(),
    )
    .await;
    assert_eq!(dialer, Ok(alpha.node_id()));
    assert_eq!(acceptor, Ok(beta.node_id()));
}

#[tokio::test]
async fn certificates_that_have_ended_or_not_begun_are_accepted() {
    let at = |seed, now_ms| {
        let ip = "10.9.8.7".parse().unwrap();
        Identity::create(&[seed; 32], ip, "elsewhere", now_ms).unwrap()
    };
    let (old, future) = (at(1, 0), at(2, 100_000_000_000_000));
    let (dialer, acceptor) = meet(
        client_crypto(&future).unwrap(),
        server_crypto(&old).unwrap(),
    )
    .await;
    assert_eq!(dialer, Ok(old.node_id()));
    assert_eq!(acceptor, Ok(future.node_id()));
}

#[tokio::test]
async fn a_dialer_without_a_certificate_is_refused() {
    let nobody = strange_client(|config| {
        config.client_auth_cert_resolver = Arc::new(NoCertificate);
    });
    let ends = meet(nobody, server_crypto(&identity(1)).unwrap()).await;
    assert_refused(
        &ends,
        "the peer refused the other because it showed no Ed25519 certificate",
        "this node refused the other because it showed no Ed25519 certificate",
    );
}

/// Has no certificate to show.
#[derive(Debug)]
pub(in crate::net) struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_key_of_another_kind_finds_nothing_in_common() {
    let node = identity(1).for_tls();
    for other in [p256_for_tls(), rsa_for_tls()] {
        let dialing = meet(client_of(other.clone()), server_of(node.clone())).await;
        assert_refused(
            &dialing,
            "showed no Ed25519 certificate",
            "showed no Ed25519 certificate",
        );
        let accepting = meet(client_of(node.clone()), server_of(other)).await;
        assert_refused(
            &accepting,
            "the peer found no TLS parameters in common",
            "this node found no TLS parameters in common",
        );
    }
}

#[tokio::test]
async fn a_bad_certificate_is_refused_in_either_direction_and_both_sides_know_why() {
    let good = identity(1).for_tls();
    let mut broken = identity(2).for_tls();
    let mut der = broken.cert[0].to_vec();
    *der.last_mut().unwrap() ^= 1;
    broken.cert = vec![der.into()];
    // A key that claims Ed25519 over a certificate that is not.
    let mut foreign = identity(2).for_tls();
    foreign.cert = p256_for_tls().cert;
    let mut chain = identity(2).for_tls();
    chain.cert.push(identity(3).for_tls().cert.remove(0));

    let cases = [
        (broken, "the certificate is not signed by its own key"),
        (foreign, "the certificate is not Ed25519"),
        (chain, "the peer presented 2 certificates instead of one"),
    ];
    for (bad, sentence) in cases {
        let by_this = format!("this node refused the other's certificate: {sentence}");
        let by_peer = format!("the peer refused the other's certificate: {sentence}");
        let dialing = meet(client_of(bad.clone()), server_of(good.clone())).await;
        assert_refused(&dialing, &by_peer, &by_this);
        let accepting = meet(client_of(good.clone()), server_of(bad)).await;
        assert_refused(&accepting, &by_this, &by_peer);
    }
}

#[tokio::test]
async fn somebody_elses_certificate_without_its_key_is_refused_in_either_direction() {
    let good = identity(1).for_tls();
    let stolen = CertifiedKey::new(identity(2).for_tls().cert, identity(3).for_tls().key);
    let dialing = meet(client_of(stolen.clone()), server_of(good.clone())).await;
    assert_refused(
        &dialing,
        "the peer refused the other's signature",
        "this node refused the other's signature",
    );
    let accepting = meet(client_of(good), server_of(stolen)).await;
    assert_refused(
        &accepting,
        "this node refused the other's signature",
        "the peer refused the other's signature",
    );
}

#[tokio::test]
async fn another_application_protocol_is_refused() {
    for protocols in [vec![b"timed/2".to_vec()], vec![b"h3".to_vec()]] {
        let other = strange_client(|config| config.alpn_protocols = protocols);
        let ends = meet(other, server_crypto(&identity(1)).unwrap()).await;
        assert_refused(
            &ends,
            "the peer refused the other because it does not speak timed/1",
            "this node refused the other because it does not speak timed/1",
        );
    }
}

#[tokio::test]
async fn a_dialer_without_any_application_protocol_is_refused() {
    let none = strange_client(|config| config.alpn_protocols.clear());
    let (dialer, acceptor) = meet(none, server_crypto(&identity(1)).unwrap()).await;
    assert_eq!(dialer.unwrap_err().code, CloseCode::TlsRefused);
    assert_eq!(acceptor.unwrap_err().code, CloseCode::TlsRefused);
}

#[tokio::test]
async fn no_session_is_resumed_even_by_a_dialer_that_wants_to() {
    let wants = strange_client(|config| {
        config.resumption = Resumption::in_memory_sessions(8);
        config.enable_early_data = true;
    });
    let config = ServerConfig::with_crypto(server_crypto(&identity(1)).unwrap());
    let listening = Endpoint::server(config, address("127.0.0.1")).unwrap();
    let target = listening.local_addr().unwrap();
    let dialing = Endpoint::client(address("127.0.0.2")).unwrap();
    let (dialer, acceptor) =
        tokio::join!(dial(&dialing, wants.clone(), target), accept(&listening),);
    assert_eq!(dialer, Ok(identity(1).node_id()));
    assert_eq!(acceptor, Ok(identity(2).node_id()));
    let again = dialing
        .connect_with(ClientConfig::new(wants), target, "timed")
        .unwrap();
    assert!(again.into_0rtt().is_err(), "a ticket was issued");
}

#[tokio::test]
async fn an_application_close_keeps_its_code_and_sentence() {
    let config = ServerConfig::with_crypto(server_crypto(&identity(1)).unwrap());
    let listening = Endpoint::server(config, address("127.0.0.1")).unwrap();
    let dialing = Endpoint::client(address("127.0.0.2")).unwrap();
    let (dialer, acceptor) = connect(&dialing, &identity(2), &listening).await;
    let reason = CloseReason::new(CloseCode::WrongGenesis, "ours is aa, yours is bb");
    acceptor.close((reason.code as u32).into(), reason.detail.as_bytes());
    assert_eq!(explain(&dialer.closed().await), reason);
    assert_eq!(
        explain(&acceptor.closed().await).code,
        CloseCode::ClosedHere
    );
}

#[tokio::test]
async fn a_refused_packet_is_explained() {
    let config = ServerConfig::with_crypto(server_crypto(&identity(1)).unwrap());
    let listening = Endpoint::server(config, address("127.0.0.1")).unwrap();
    let dialing = Endpoint::client(address("127.0.0.2")).unwrap();
    let target = listening.local_addr().unwrap();
    let (dialer, ()) = tokio::join!(
        dial(&dialing, client_crypto(&identity(2)).unwrap(), target),
        async { listening.accept().await.unwrap().refuse() },
    );
    let reason = dialer.unwrap_err();
    assert_eq!(reason.code, CloseCode::TransportFailed);
    assert_eq!(reason.detail, "the peer takes no connection now");
}

async fn connect(
    dialing: &Endpoint,
    identity: &Identity,
    listening: &Endpoint,
) -> (Connection, Connection) {
    let target = listening.local_addr().unwrap();
    let config = ClientConfig::new(client_crypto(identity).unwrap());
    let connecting = dialing.connect_with(config, target, "timed").unwrap();
    let (dialer, acceptor) = tokio::join!(connecting, async {
        listening.accept().await.unwrap().await
    });
    (dialer.unwrap(), acceptor.unwrap())
}
