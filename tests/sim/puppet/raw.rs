//! A puppet that speaks the protocol by hand: QUIC with the masternode's certificate, and whatever
//! bytes its attack writes.

mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream, TransportConfig,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use timed::env::WallClock;
use timed::node::{NodeEnvironment, NodeFiles};
use timed::types::{BlockHash, Genesis, Height};
use timed::wire::messages::PROTOCOL_VERSIONS;
use timed::wire::{
    Hello, KeepaliveMessage, Role, StreamKind, decode_frame, encode_frame, frame_length,
};
use tokio::time::{sleep, timeout};

use crate::world::address;

/// Between the end of one attack on a masternode and the next.
const PAUSE: Duration = Duration::from_secs(2);

/// From the first packet to the Welcome.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What is done with a connection that has its Welcome. The connection is closed afterwards, and
/// then it all begins anew.
pub trait Attack: Send + Sync + 'static {
    fn attack(&self, session: Session) -> impl Future<Output = ()> + Send;

    /// What the puppet says of itself.
    fn hello(&self, hello: Hello) -> Hello {
        hello
    }
}

/// One connection of a raw puppet.
pub struct Session {
    pub quic: Connection,
    pub keepalive: SendStream,
    /// The victim's keepalive stream.
    pub from_keepalive: RecvStream,
    pub genesis: Arc<Genesis>,
    /// The masternode's consensus key.
    pub key: SigningKey,
    /// What the puppet said of itself.
    pub hello: Hello,
    /// Which session of this puppet it is, from 0.
    pub number: u64,
    pub acts: Arc<AtomicU64>,
}

/// Makes connections from the masternode's address, with its certificate.
pub(super) struct Dialer {
    endpoint: Endpoint,
    client: ClientConfig,
    genesis: Arc<Genesis>,
    key: SigningKey,
    own: SocketAddr,
    clock: Arc<dyn WallClock>,
    sessions: AtomicU64,
    acts: Arc<AtomicU64>,
}

impl Dialer {
    pub(super) fn new(
        own: usize,
        files: &NodeFiles,
        environment: NodeEnvironment,
        acts: Arc<AtomicU64>,
    ) -> Self {
        let mut config = EndpointConfig::default();
        config.rng_seed(Some(environment.entropy.derive("raw")));
        let (socket, runtime) = (environment.socket, environment.runtime);
        let endpoint = Endpoint::new_with_abstract_socket(config, None, socket, runtime);
        let mut client = ClientConfig::new(tls::client(&files.identity));
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_secs(5)));
        client.transport_config(Arc::new(transport));
        Self {
            endpoint: endpoint.unwrap(),
            client,
            genesis: files.genesis.clone(),
            key: files.consensus_key.clone().unwrap(),
            own: address(own),
            clock: environment.clock,
            sessions: AtomicU64::new(0),
            acts,
        }
    }

    async fn dial(&self, victim: usize, attack: &impl Attack) -> Option<Session> {
        let to = address(victim);
        let connecting = self.endpoint.connect_with(self.client.clone(), to, "timed");
        let quic = connecting.unwrap().await.ok()?;
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let hello = attack.hello(Hello {
            magic: self.genesis.network.magic(),
            versions: PROTOCOL_VERSIONS,
            genesis: self.genesis.hash(),
            role: Role::Masternode,
            listen_port: self.own.port(),
            tip_height: Height(0),
            tip_hash: BlockHash([0; 32]),
            observed: to.into(),
            agent: "raw".into(),
            clock_ms: self.clock.now_ms(),
            instance: number,
        });
        let mut keepalive = open(&quic, StreamKind::Keepalive).await?;
        write(
            &mut keepalive,
            StreamKind::Keepalive,
            &KeepaliveMessage::Hello(hello.clone()),
        )
        .await?;
        let mut from_keepalive = quic.accept_uni().await.ok()?;
        from_keepalive.read_exact(&mut [0]).await.ok()?;
        for _ in ["Hello", "Welcome"] {
            read::<KeepaliveMessage>(&mut from_keepalive, StreamKind::Keepalive).await?;
        }
        Some(Session {
            quic,
            keepalive,
            from_keepalive,
            genesis: self.genesis.clone(),
            key: self.key.clone(),
            hello,
            number,
            acts: self.acts.clone(),
        })
    }
}

/// Attacks one masternode for ever.
pub(super) async fn run(dialer: Arc<Dialer>, victim: usize, attack: Arc<impl Attack>) {
    loop {
        let dialed = timeout(HANDSHAKE, dialer.dial(victim, &*attack)).await;
        if let Ok(Some(session)) = dialed {
            let quic = session.quic.clone();
            attack.attack(session).await;
            quic.close(0u32.into(), b"");
        }
        sleep(PAUSE).await;
    }
}

impl Session {
    /// Counts what the story wants to have happened.
    pub fn act(&self) {
        self.acts.fetch_add(1, Ordering::Relaxed);
    }

    pub async fn open(&self, kind: StreamKind) -> Option<SendStream> {
        open(&self.quic, kind).await
    }

    /// Behaves on the keepalive stream until the connection ends or for so long.
    pub async fn answer_pings(&mut self, at_most: Duration) {
        let answering = async {
            let kind = StreamKind::Keepalive;
            while let Some(message) = read(&mut self.from_keepalive, kind).await {
                let KeepaliveMessage::Ping(ping) = message else {
                    continue;
                };
                let pong = KeepaliveMessage::Pong { nonce: ping.nonce };
                if write(&mut self.keepalive, kind, &pong).await.is_none() {
                    return;
                }
            }
        };
        timeout(at_most, answering).await.ok();
    }
}

/// Opens a stream with its kind byte.
pub async fn open(quic: &Connection, kind: StreamKind) -> Option<SendStream> {
    let mut send = quic.open_uni().await.ok()?;
    send.write_all(&[kind.byte()]).await.ok()?;
    Some(send)
}

/// Writes one frame; `None` when the stream is over.
pub async fn write(
    send: &mut SendStream,
    kind: StreamKind,
    message: &impl Serialize,
) -> Option<()> {
    let frame = encode_frame(kind, message).unwrap();
    send.write_all(&frame).await.ok()
}

/// Reads one frame; `None` when the stream is over.
pub async fn read<T: Serialize + DeserializeOwned>(
    recv: &mut RecvStream,
    kind: StreamKind,
) -> Option<T> {
    let mut header = [0; 4];
    recv.read_exact(&mut header).await.ok()?;
    let mut payload = vec![0; frame_length(kind, header).unwrap()];
    recv.read_exact(&mut payload).await.ok()?;
    Some(decode_frame(kind, &payload).unwrap())
}
