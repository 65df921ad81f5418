//! Two other ways to use QUIC: with separate streams, the node's windows and a priority for the
//! liveness stream; and with everything left as it is, and 16 bulk streams.

use std::sync::Arc;

use anyhow::Context;
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use timed::net::TokioRuntime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::place::{End, Link};
use crate::session::{Plan, Received, Session, Shown, ask, echo, hear, pump};
use crate::stats::Probe;

/// Of a rival that streams side by side.
pub const BULK_STREAMS: usize = 4;
const BULK_STREAMS_DEFAULTS: usize = 16;
const LIVENESS_PRIORITY: i32 = 10;
const MIB: u32 = 1024 * 1024;
/// What rivals call themselves.
const NAME: &str = "link";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quic {
    /// The node's transport settings, a liveness stream of higher priority, 4 bulk streams.
    Priority,
    /// All defaults, 16 bulk streams.
    Defaults,
}

/// Connects the two ends.
pub async fn open(link: &Link, plan: Plan, quic: Quic) -> anyhow::Result<Session> {
    let tls = Tls::new()?;
    let transport = Arc::new(quic.transport());
    let [asking, answering] = &link.ends;
    let accepting = endpoint(answering, Some(tls.quic_server(&transport)?))?;
    let dialing = endpoint(asking, None)?;
    let client = tls.quic_client(&transport)?;
    let connecting = dialing.connect_with(client, asking.peer, NAME)?;
    let (dialed, accepted) = tokio::join!(connecting, async {
        accepting
            .accept()
            .await
            .context("an arrival")?
            .await
            .context("the handshake")
    });
    let connections = [dialed?, accepted?];
    let go = watch::Sender::new(false);
    let (received, ping) = (Received::default(), Arc::new(Probe::default()));
    let mut tasks = JoinSet::new();
    tasks.spawn(liveness(connections[0].clone(), quic, plan, ping.clone()));
    tasks.spawn(answer(connections[1].clone(), quic));
    for (index, connection) in connections.into_iter().enumerate() {
        if plan.load.sends(index) {
            tasks.spawn(send_bulk(connection.clone(), quic, go.subscribe()));
        }
        tasks.spawn(take_bulk(connection, index, received.clone()));
    }
    // Endpoints drive their connections for as long as they live.
    tasks.spawn(async move {
        let _endpoints = (dialing, accepting);
        std::future::pending().await
    });
    let shown = Shown {
        ping,
        vote: None,
        received: received.reader(),
        go,
    };
    Ok(Session { shown, tasks })
}

impl Quic {
    fn bulk_streams(self) -> usize {
        match self {
            Quic::Priority => BULK_STREAMS,
            Quic::Defaults => BULK_STREAMS_DEFAULTS,
        }
    }

    fn transport(self) -> TransportConfig {
        let mut config = TransportConfig::default();
        if self == Quic::Priority {
            // The values of a connection between recorded masternodes.
            config
                .stream_receive_window(VarInt::from_u32(MIB))
                .max_concurrent_uni_streams(VarInt::from_u32(8))
                .max_concurrent_bidi_streams(VarInt::from_u32(16))
                .receive_window(VarInt::from_u32(32 * MIB))
                .send_window(u64::from(40 * MIB))
                .datagram_receive_buffer_size(None);
        }
        config
    }

    fn prefer(self, stream: &quinn::SendStream) -> anyhow::Result<()> {
        if self == Quic::Priority {
            stream.set_priority(LIVENESS_PRIORITY)?;
        }
        Ok(())
    }
}

fn endpoint(end: &End, server: Option<ServerConfig>) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        server,
        end.udp()?,
        Arc::new(TokioRuntime),
    )?;
    Ok(endpoint)
}

async fn liveness(
    connection: Connection,
    quic: Quic,
    plan: Plan,
    ping: Arc<Probe>,
) -> anyhow::Result<()> {
    let (send, recv) = connection.open_bi().await?;
    quic.prefer(&send)?;
    tokio::try_join!(ask(send, plan.ask_every, ping.clone()), hear(recv, ping))?;
    Ok(())
}

async fn answer(connection: Connection, quic: Quic) -> anyhow::Result<()> {
    let (send, recv) = connection.accept_bi().await?;
    quic.prefer(&send)?;
    echo(recv, send).await
}

async fn send_bulk(
    connection: Connection,
    quic: Quic,
    go: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut pumps = JoinSet::new();
    for _ in 0..quic.bulk_streams() {
        let stream = connection.open_uni().await?;
        pumps.spawn(pump(stream, go.clone()));
    }
    pumps.join_next().await.context("a pump")??
}

async fn take_bulk(connection: Connection, end: usize, received: Received) -> anyhow::Result<()> {
    let mut drains = JoinSet::new();
    loop {
        let stream = connection.accept_uni().await?;
        drains.spawn(received.clone().drain(end, stream));
    }
}

/// A throw-away certificate, and TLS 1.3 with it.
pub struct Tls {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Tls {
    /// A new key.
    pub fn new() -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Ok(Self {
            certificate: made.cert.der().clone(),
            key: key.into(),
        })
    }

    /// For the end that accepts.
    pub fn server(&self) -> anyhow::Result<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        Ok(config)
    }

    /// For the end that dials.
    pub fn client(&self) -> anyhow::Result<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(config)
    }

    /// The name that the certificate is for.
    pub fn name() -> anyhow::Result<rustls::pki_types::ServerName<'static>> {
        Ok(NAME.try_into()?)
    }

    fn quic_server(&self, transport: &Arc<TransportConfig>) -> anyhow::Result<ServerConfig> {
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(self.server()?)?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(transport.clone());
        Ok(config)
    }

    fn quic_client(&self, transport: &Arc<TransportConfig>) -> anyhow::Result<ClientConfig> {
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(self.client()?)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport.clone());
        Ok(config)
    }
}
