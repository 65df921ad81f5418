//! QUIC's endpoint: one socket for dialing and accepting, and the windows of each connection, chosen
//! by the address.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::{
    AsyncUdpSocket, ClientConfig, Connecting, Connection, ConnectionError, ConnectionId,
    EndpointConfig, IdleTimeout, Incoming, ServerConfig, TimeSource, TransportConfig, VarInt,
};
use rand::Rng;

use super::connection_id::{ConnectionIds, reset_key};
use super::strangers::Runtimes;
use super::windows::Windows;
use super::{Identity, IdentityError, NetEnvironment, NetError, NetTiming, tls};
use crate::env::WallClock;

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

/// What the operating system is asked to buffer in each direction: a burst of about 20 ms at
/// 1 Gbit/s and more. Linux grants at most `net.core.rmem_max` and `net.core.wmem_max`.
pub const SOCKET_BUFFER_BYTES: usize = 4 * MIB as usize;

/// First packets that wait for the manager; beyond, QUIC refuses.
const MAX_INCOMING: usize = 128;
/// Bytes that one waiting handshake, and all together, may have sent beyond their first packet.
const INCOMING_BUFFER_BYTES: u64 = 16 * KIB as u64;
const INCOMING_BUFFER_TOTAL_BYTES: u64 = MIB as u64;

/// The name given to TLS, which neither sends nor checks it: the pin decides.
const SERVER_NAME: &str = "timed";

/// Binds the node's UDP socket with large buffers. An IPv6 socket also takes IPv4.
pub fn bind_udp(
    address: SocketAddr,
    runtime: &dyn quinn::Runtime,
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    use socket2::{Domain, Protocol, Socket, Type};
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    for (name, set) in [
        ("receive", socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)),
        ("send", socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)),
    ] {
        if let Err(error) = set {
            tracing::warn!(%error, "the socket's {name} buffer keeps its default size");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    runtime.wrap_udp_socket(socket.into())
}

/// The endpoint and the configurations of its connections.
pub(super) struct Endpoint {
    quinn: quinn::Endpoint,
    /// For recorded addresses, and for all others.
    server: [Arc<ServerConfig>; 2],
    client: [ClientConfig; 2],
    recipe: Recipe,
    /// Where the connections run.
    pub(super) runtimes: Runtimes,
}

/// What the configurations are made of, besides the certificate.
struct Recipe {
    /// For recorded addresses, and for all others.
    transports: [Arc<TransportConfig>; 2],
    clock: Arc<dyn WallClock>,
    initial_ids: Arc<dyn Fn() -> ConnectionId + Send + Sync>,
}

impl Recipe {
    fn server(&self, identity: &Identity) -> Result<[Arc<ServerConfig>; 2], IdentityError> {
        let crypto = tls::server_crypto(identity)?;
        Ok(self.transports.each_ref().map(|transport| {
            let mut server = ServerConfig::with_crypto(crypto.clone());
            server.transport_config(transport.clone());
            server.migration(false);
            server.max_incoming(MAX_INCOMING);
            server.incoming_buffer_size(INCOMING_BUFFER_BYTES);
            server.incoming_buffer_size_total(INCOMING_BUFFER_TOTAL_BYTES);
            server.time_source(Arc::new(TimeOfDay(self.clock.clone())));
            server.validation_token.sent(0);
            Arc::new(server)
        }))
    }

    fn client(&self, identity: &Identity) -> Result<[ClientConfig; 2], IdentityError> {
        let crypto = tls::client_crypto(identity)?;
        Ok(self.transports.each_ref().map(|transport| {
            let mut client = ClientConfig::new(crypto.clone());
            client.transport_config(transport.clone());
            client.initial_dst_cid_provider(self.initial_ids.clone());
            client
        }))
    }
}

impl Endpoint {
    /// Starts QUIC on the environment's socket.
    pub(super) fn start(
        identity: &Identity,
        environment: &NetEnvironment,
        timing: &NetTiming,
    ) -> Result<Self, NetError> {
        let mut config = EndpointConfig::new(reset_key(identity));
        let ids = ConnectionIdSource::new(identity, environment);
        config.cid_generator(move || ids.take());
        config.rng_seed(Some(environment.entropy.derive("QUIC endpoint")));

        let runtimes = Runtimes::start(environment.offload).map_err(NetError::Thread)?;
        let recipe = Recipe {
            transports: [&Windows::RECORDED, &Windows::STRANGER]
                .map(|windows| transport(windows, timing)),
            clock: environment.clock.clone(),
            initial_ids: initial_ids(environment),
        };
        let server = recipe.server(identity)?;
        let client = recipe.client(identity)?;
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            config,
            Some((*server[1]).clone()),
            environment.socket.clone(),
            environment.runtime.clone(),
        )
        .map_err(NetError::Socket)?;
        Ok(Self {
            quinn,
            server,
            client,
            recipe,
            runtimes,
        })
    }

    /// Presents another certificate in every handshake that begins from now on. Connections and
    /// handshakes that there are go on. The keys of connection ids and of stateless resets stay
    /// those of the certificate at the start, so that peers' packets are recognised as before.
    pub(super) fn present(&mut self, identity: &Identity) -> Result<(), IdentityError> {
        let (server, client) = (self.recipe.server(identity)?, self.recipe.client(identity)?);
        self.quinn.set_server_config(Some((*server[1]).clone()));
        (self.server, self.client) = (server, client);
        Ok(())
    }

    /// The next arrival; `None` when the endpoint has failed.
    pub(super) async fn accept(&self) -> Option<Incoming> {
        self.quinn.accept().await
    }

    /// Takes an arrival.
    pub(super) fn take(
        &self,
        incoming: Incoming,
        recorded: bool,
    ) -> Result<Connecting, ConnectionError> {
        let _quic_runs_there = self.runtimes.enter(recorded);
        incoming.accept_with(self.server[usize::from(!recorded)].clone())
    }

    /// Dials.
    pub(super) fn dial(
        &self,
        address: SocketAddr,
        recorded: bool,
    ) -> Result<Connecting, quinn::ConnectError> {
        let config = self.client[usize::from(!recorded)].clone();
        let _quic_runs_there = self.runtimes.enter(recorded);
        self.quinn.connect_with(config, address, SERVER_NAME)
    }

    /// Closes what is left and waits, at most `limit`, until peers have been told.
    pub(super) async fn shut_down(&self, code: u32, detail: &str, limit: Duration) {
        self.quinn.close(VarInt::from_u32(code), detail.as_bytes());
        if tokio::time::timeout(limit, self.quinn.wait_idle())
            .await
            .is_err()
        {
            tracing::debug!("some connections were still closing at the end");
        }
    }
}

/// Gives a welcome peer without a record its final windows.
pub(super) fn widen(quic: &Connection) {
    quic.set_max_concurrent_uni_streams(VarInt::from_u32(Windows::WELCOME.uni_streams));
    quic.set_max_concurrent_bi_streams(VarInt::from_u32(Windows::WELCOME.bi_streams));
    quic.set_receive_window(VarInt::from_u32(Windows::WELCOME.receive));
    quic.set_send_window(u64::from(Windows::WELCOME.send));
}

fn transport(windows: &Windows, timing: &NetTiming) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let idle_ms = u32::try_from(timing.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    config
        .stream_receive_window(VarInt::from_u32(windows.stream))
        .max_concurrent_uni_streams(VarInt::from_u32(windows.uni_streams))
        .max_concurrent_bidi_streams(VarInt::from_u32(windows.bi_streams))
        .receive_window(VarInt::from_u32(windows.receive))
        .send_window(u64::from(windows.send))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(timing.quic_keepalive))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))));
    Arc::new(config)
}

/// Makes the connection id generators that QUIC asks for: one per endpoint.
struct ConnectionIdSource(std::sync::Mutex<Option<ConnectionIds>>);

impl ConnectionIdSource {
    fn new(identity: &Identity, environment: &NetEnvironment) -> Self {
        let ids = ConnectionIds::new(identity, &environment.entropy);
        Self(std::sync::Mutex::new(Some(ids)))
    }

    fn take(&self) -> Box<dyn quinn::ConnectionIdGenerator> {
        let mut ids = self.0.lock().expect("no holder panics");
        Box::new(ids.take().expect("QUIC makes one generator per endpoint"))
    }
}

/// Unpredictable first destination ids (RFC 9000 section 7.2) from the injected source.
fn initial_ids(environment: &NetEnvironment) -> Arc<dyn Fn() -> ConnectionId + Send + Sync> {
    let random = std::sync::Mutex::new(environment.entropy.rng("QUIC initial ids"));
    Arc::new(move || {
        let mut id = [0; 20];
        random.lock().expect("no holder panics").fill_bytes(&mut id);
        ConnectionId::new(&id)
    })
}

/// The time of day for Retry tokens, which must not outlive their few seconds.
struct TimeOfDay(Arc<dyn WallClock>);

impl TimeSource for TimeOfDay {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.now_ms())
    }
}
