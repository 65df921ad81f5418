//! Peers without a record that speak the protocol by hand, so that they can also break it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Result, bail};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use rand::RngExt;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde::Serialize;
use timed::net::Identity;
use timed::types::{BlockHash, GenesisHash, Height, Network, PeerIp};
use timed::wire::frame::FRAME_HEADER_BYTES;
use timed::wire::messages::PROTOCOL_VERSIONS;
use timed::wire::{
    Hello, KeepaliveMessage, Role, StreamKind, decode_frame, encode_frame, frame_length,
};

use crate::victim::now_ms;

/// Whom strangers dial.
#[derive(Clone, Copy)]
pub struct Target {
    pub address: SocketAddr,
    pub genesis: GenesisHash,
}

/// An established connection of a stranger's.
pub struct Stranger {
    pub quic: Connection,
    pub keepalive: SendStream,
    pub from_keepalive: RecvStream,
    /// What it said to be welcome.
    pub hello: Hello,
    /// QUIC's connections end with it.
    pub endpoint: Endpoint,
}

impl Target {
    /// Dials from an address with a key that nobody has seen, as far as TLS.
    pub async fn handshake(&self, from: Ipv4Addr) -> Result<(Endpoint, Connection)> {
        let endpoint = Endpoint::client(SocketAddr::new(from.into(), 0))?;
        let connecting = endpoint.connect_with(client_config(from)?, self.address, "timed")?;
        let quic = connecting.await?;
        Ok((endpoint, quic))
    }

    /// Dials and gets the Welcome.
    pub async fn connect(&self, from: Ipv4Addr) -> Result<Stranger> {
        let (endpoint, quic) = self.handshake(from).await?;
        let (keepalive, from_keepalive, hello) = self.greet(quic.clone()).await?;
        Ok(Stranger {
            quic,
            keepalive,
            from_keepalive,
            hello,
            endpoint,
        })
    }

    /// Says Hello and gets the Welcome: the keepalive stream both ways, and what was said.
    pub async fn greet(&self, quic: Connection) -> Result<(SendStream, RecvStream, Hello)> {
        let mut keepalive = open(&quic, StreamKind::Keepalive.byte()).await?;
        let hello = self.hello();
        let greeting = KeepaliveMessage::Hello(hello.clone());
        keepalive
            .write_all(&frame(StreamKind::Keepalive, &greeting))
            .await?;
        let mut from_keepalive = quic.accept_uni().await?;
        from_keepalive.read_exact(&mut [0]).await?;
        for _ in 0..2 {
            if let KeepaliveMessage::Welcome(_) = read(&mut from_keepalive).await? {
                return Ok((keepalive, from_keepalive, hello));
            }
        }
        bail!("there was no Welcome after the Hello")
    }

    fn hello(&self) -> Hello {
        Hello {
            magic: Network::Dev.magic(),
            versions: PROTOCOL_VERSIONS,
            genesis: self.genesis,
            role: Role::Full,
            listen_port: 0,
            tip_height: Height(0),
            tip_hash: BlockHash([0; 32]),
            observed: PeerIp::from(self.address),
            agent: "flood".into(),
            clock_ms: now_ms(),
            instance: rand::rng().random(),
        }
    }
}

/// Opens a stream with a kind's byte, known or not.
pub async fn open(quic: &Connection, kind: u8) -> Result<SendStream> {
    let mut send = quic.open_uni().await?;
    send.write_all(&[kind]).await?;
    Ok(send)
}

/// A message's frame.
pub fn frame<T: Serialize>(kind: StreamKind, message: &T) -> Vec<u8> {
    encode_frame(kind, message).expect("the messages of this program are within their limits")
}

async fn read(stream: &mut RecvStream) -> Result<KeepaliveMessage> {
    let kind = StreamKind::Keepalive;
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let mut payload = vec![0; frame_length(kind, header)?];
    stream.read_exact(&mut payload).await?;
    Ok(decode_frame(kind, &payload)?)
}

/// QUIC's side of a stranger with a key of its own.
pub fn client_config(from: Ipv4Addr) -> Result<ClientConfig> {
    let secret: [u8; 32] = rand::rng().random();
    let identity = Identity::create(&secret, IpAddr::V4(from).into(), "stranger", now_ms())?;
    let certificate = CertificateDer::from_pem_slice(identity.certificate_pem().as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_auth_cert(vec![certificate], key)?;
    tls.alpn_protocols = vec![b"timed/1".to_vec()];
    let crypto = QuicClientConfig::try_from(tls)?;
    Ok(ClientConfig::new(Arc::new(crypto)))
}

/// A flood does not mind whom it meets.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
