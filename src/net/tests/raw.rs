//! A peer that speaks the protocol by hand, so that it can also break it.

use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, SendStream, ServerConfig, TransportConfig,
};

use super::*;
use crate::net::connection_id::reset_key;
use crate::net::frames::{FrameReader, read_kind};
use crate::net::meter::Meter;
use crate::wire::messages::PROTOCOL_VERSIONS;
use crate::wire::{Hello, KeepaliveMessage, StreamKind, encode_frame};

pub(super) struct Raw {
    pub quic: Connection,
    pub keepalive: SendStream,
    pub from_keepalive: FrameReader,
    /// Kept alive: QUIC's connections end with it.
    _endpoint: Endpoint,
}

/// The peer's socket, at the planned address.
pub(super) fn endpoint(plan: &Plan, seed: u8) -> Endpoint {
    let socket = bind_udp(plan.address(seed), &TokioRuntime as &dyn Runtime).unwrap();
    endpoint_on(plan, seed, socket)
}

/// The same on another socket.
pub(super) fn endpoint_on(plan: &Plan, seed: u8, socket: Arc<dyn AsyncUdpSocket>) -> Endpoint {
    let own = identity(seed, plan.ip(seed));
    let server = ServerConfig::with_crypto(tls::server_crypto(&own).unwrap());
    let mut config = EndpointConfig::new(reset_key(&own));
    // Else a run on virtual time would not repeat itself.
    config.rng_seed(Some([seed; 32]));
    Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(TokioRuntime))
        .unwrap()
}

pub(super) fn hello(plan: &Plan, seed: u8, to: PeerIp) -> Hello {
    let config = plan.config(seed);
    Hello {
        magic: config.network.magic(),
        versions: PROTOCOL_VERSIONS,
        genesis: config.genesis,
        role: config.role,
        listen_port: config.listen_port,
        tip_height: Height(0),
        tip_hash: BlockHash([0; 32]),
        observed: to,
        agent: "raw".into(),
        clock_ms: 0,
        instance: 99,
    }
}

impl Raw {
    /// Dials a node and gets its Welcome.
    pub(super) async fn dial(plan: &Plan, seed: u8, to: u8) -> Self {
        let quic = Self::connect(plan, seed, to).await;
        Self::welcomed(quic, plan, seed, to).await
    }

    /// The same from another socket.
    pub(super) async fn dial_from(from: Endpoint, plan: &Plan, seed: u8, to: u8) -> Self {
        let quic = Self::connect_from(from, plan, seed, to, TransportConfig::default()).await;
        Self::welcomed(quic, plan, seed, to).await
    }

    /// Says Hello and gets its Welcome.
    pub(super) async fn welcomed(
        quic: (Endpoint, Connection),
        plan: &Plan,
        seed: u8,
        to: u8,
    ) -> Self {
        let mut raw = Self::greet(quic, hello(plan, seed, plan.ip(to))).await;
        assert!(matches!(raw.read().await, KeepaliveMessage::Hello(_)));
        assert!(matches!(raw.read().await, KeepaliveMessage::Welcome(_)));
        raw
    }

    /// Dials a node, no further than TLS.
    pub(super) async fn connect(plan: &Plan, seed: u8, to: u8) -> (Endpoint, Connection) {
        Self::connect_from(
            endpoint(plan, seed),
            plan,
            seed,
            to,
            TransportConfig::default(),
        )
        .await
    }

    /// Dials from an endpoint, granting what `transport` says.
    pub(super) async fn connect_from(
        endpoint: Endpoint,
        plan: &Plan,
        seed: u8,
        to: u8,
        transport: TransportConfig,
    ) -> (Endpoint, Connection) {
        let own = identity(seed, plan.ip(seed));
        let mut client = ClientConfig::new(tls::client_crypto(&own).unwrap());
        client.transport_config(Arc::new(transport));
        let connecting = endpoint.connect_with(client, plan.address(to), "timed");
        let quic = connecting.unwrap().await.unwrap();
        (endpoint, quic)
    }

    /// Sends a Hello and takes the other's keepalive stream.
    pub(super) async fn greet(quic: (Endpoint, Connection), hello: Hello) -> Self {
        let mut raw = Self::meet(quic).await;
        raw.say(&KeepaliveMessage::Hello(hello)).await;
        raw
    }

    /// Opens its keepalive stream and takes the other's, on which the other says Hello once it has
    /// taken the key. Says nothing yet.
    pub(super) async fn meet((endpoint, quic): (Endpoint, Connection)) -> Self {
        let keepalive = open(&quic, StreamKind::Keepalive).await;
        let mut recv = quic.accept_uni().await.unwrap();
        assert_eq!(
            read_kind(&mut recv).await.unwrap(),
            Some(StreamKind::Keepalive.byte())
        );
        let meter = Arc::new(Meter::new());
        Self {
            quic,
            keepalive,
            from_keepalive: FrameReader::new(recv, StreamKind::Keepalive, meter),
            _endpoint: endpoint,
        }
    }

    pub(super) async fn say(&mut self, message: &KeepaliveMessage) {
        let frame = encode_frame(StreamKind::Keepalive, message).unwrap();
        self.keepalive.write_all(&frame).await.unwrap();
    }

    pub(super) async fn read(&mut self) -> KeepaliveMessage {
        self.from_keepalive.next().await.unwrap().unwrap()
    }

    /// Answers pings until the connection ends; gives the reason.
    pub(super) async fn answer_pings(&mut self) -> CloseReason {
        while let Ok(Some(message)) = self.from_keepalive.next().await {
            if let KeepaliveMessage::Ping(ping) = message {
                let pong = KeepaliveMessage::Pong { nonce: ping.nonce };
                let frame = encode_frame(StreamKind::Keepalive, &pong).unwrap();
                if self.keepalive.write_all(&frame).await.is_err() {
                    break;
                }
            }
        }
        tls::explain(&self.quic.closed().await)
    }

    pub(super) async fn closed(&self) -> CloseReason {
        let closed = tokio::time::timeout(PATIENCE, self.quic.closed()).await;
        tls::explain(&closed.expect("the connection should have been closed"))
    }
}

/// Opens a stream with its kind byte.
pub(super) async fn open(quic: &Connection, kind: StreamKind) -> SendStream {
    let mut send = quic.open_uni().await.unwrap();
    send.write_all(&[kind.byte()]).await.unwrap();
    send
}

/// Takes the node's stream of a kind.
pub(super) async fn accept_kind(quic: &Connection, kind: StreamKind) -> FrameReader {
    loop {
        let mut recv = quic.accept_uni().await.unwrap();
        if read_kind(&mut recv).await.unwrap() == Some(kind.byte()) {
            return FrameReader::new(recv, kind, Arc::new(Meter::new()));
        }
        // Kept open and unread; its node only fills the window.
        std::mem::forget(recv);
    }
}
