//! From the first packet to the Welcome. Both ends run the same steps; only the Welcome differs.
//!
//! ```text
//! TLS (mutual) -> pin of (IP, node id) -> Hello both ways, each checked -> acceptor: slot, Welcome
//! ```
//!
//! The pin of a configured address at its first contact is stored between the peer's Hello and the
//! Welcome.
//!
//! Whoever refuses closes with a code and a sentence. The acceptor's Welcome makes the connection
//! established; a dialer that has none is not connected, whatever QUIC says. Everything together
//! is bounded by the handshake timeout.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connecting, Connection, ConnectionError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::admission::Ticket;
use super::connection::close;
use super::faults::Fault;
use super::frames::{FrameReader, FrameWriter, ReadFailure, read_kind};
use super::manager::{Ask, PinOrder};
use super::meter::Meter;
use super::pins::{Admission, Decision};
use super::{Direction, tls};
use crate::env::WallClock;
use crate::types::{GenesisHash, Network, NodeId, PeerIp, Tip};
use crate::wire::messages::{MAX_AGENT_BYTES, PROTOCOL_VERSIONS};
use crate::wire::{CloseCode, CloseReason, Hello, KeepaliveMessage, Role, StreamKind, Welcome};

/// How long a refusing dialer waits for the acceptor's first word. Before it, the acceptor may not
/// have finished TLS, and would be told of the close without its reason (RFC 9000 section 10.2.3).
const FIRST_WORD_LIMIT: Duration = Duration::from_secs(1);

/// How long a close may take to follow the end of a stream.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// What every handshake of this node needs.
pub(super) struct HandshakeContext {
    /// The chain's network.
    pub network: Network,
    /// The chain.
    pub genesis: GenesisHash,
    /// What this node is.
    pub role: Role,
    /// Where this node is dialed.
    pub listen_port: u16,
    /// This software.
    pub agent: String,
    /// Random, of this process start.
    pub instance: u64,
    /// The time of day.
    pub clock: Arc<dyn WallClock>,
    /// This node's tip.
    pub tip: watch::Receiver<Tip>,
    /// From the first packet to the Welcome.
    pub timeout: Duration,
    /// To the manager, which holds the pins.
    pub mailbox: mpsc::Sender<Ask>,
}

/// A connection whose peer is known and agrees. On the accepting side the Welcome is still to be
/// sent; on the dialing side it has come.
pub(super) struct Authenticated {
    /// The peer.
    pub ip: PeerIp,
    /// Its pin.
    pub node_id: NodeId,
    /// Its position in genesis, when a record pinned it as the handshake looked.
    pub masternode: Option<usize>,
    /// Whether QUIC's windows are those of a recorded address.
    pub recorded: bool,
    /// Who dialed.
    pub direction: Direction,
    /// Its Hello.
    pub hello: Hello,
    /// The acceptor's Welcome, on the dialing side.
    pub welcome: Option<Welcome>,
    /// The protocol version to speak.
    pub version: u16,
    /// Its wall clock less ours, in milliseconds.
    pub clock_offset_ms: i64,
    /// QUIC's connection.
    pub quic: Connection,
    /// This node's keepalive stream.
    pub writer: FrameWriter,
    /// The peer's keepalive stream.
    pub reader: FrameReader,
    /// Counters.
    pub meter: Arc<Meter>,
}

/// Why a handshake did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The reason.
    pub reason: CloseReason,
    /// Whether this node refused.
    pub by_us: bool,
    /// Whether the peer answered at all.
    pub answered: bool,
    /// Whether what ended it shows that the peer is at its address: an arrival's first packets may
    /// have a forged source.
    pub proved: bool,
    /// What the peer did that no honest one does; it has completed TLS, so its address is proved.
    pub fault: Option<Fault>,
}

/// What is known of a handshake from its first packet on.
#[derive(Clone, Copy)]
pub(super) struct Attempt {
    /// With whom.
    pub ip: PeerIp,
    /// Who dialed.
    pub direction: Direction,
    /// Whether a masternode record named the address, by which QUIC's windows were chosen.
    pub recorded: bool,
}

/// The end of one handshake.
pub(super) struct Outcome {
    /// With whom.
    pub ip: PeerIp,
    /// Who dialed.
    pub direction: Direction,
    /// How it went.
    pub result: Result<Box<Authenticated>, Refusal>,
}

impl HandshakeContext {
    /// Runs one handshake; an accepted one holds its ticket meanwhile, and says whether its address
    /// is proved already.
    pub(super) async fn run(
        self: Arc<Self>,
        connecting: Connecting,
        attempt: Attempt,
        arrival: Option<(Ticket, bool)>,
    ) -> Outcome {
        let mut result = self.shake(connecting, attempt).await;
        if let (Err(refusal), Some((_, true)) | None) = (&mut result, &arrival) {
            refusal.proved = true;
        }
        drop(arrival);
        Outcome {
            ip: attempt.ip,
            direction: attempt.direction,
            result: result.map(Box::new),
        }
    }

    async fn shake(
        &self,
        connecting: Connecting,
        attempt: Attempt,
    ) -> Result<Authenticated, Refusal> {
        let deadline = Instant::now() + self.timeout;
        let quic = match timeout_at(deadline, connecting).await {
            Ok(Ok(quic)) => quic,
            Ok(Err(error)) => {
                return Err(Refusal {
                    proved: tls::proves_address(&error),
                    ..lost(&error)
                });
            }
            Err(_) => {
                return Err(Refusal {
                    answered: false,
                    ..refused(self.timed_out("no answer"))
                });
            }
        };
        let greeted = timeout_at(deadline, self.greet(&quic, attempt)).await;
        let refusal = match greeted {
            Ok(Ok(authenticated)) => return Ok(authenticated),
            Ok(Err(refusal)) => refusal,
            Err(_) => refused(self.timed_out("no Hello or Welcome")),
        };
        if refusal.by_us {
            if attempt.direction == Direction::Outbound && quic.stats().frame_rx.stream == 0 {
                // Whatever comes first will do, and so will nothing.
                timeout(FIRST_WORD_LIMIT, quic.accept_uni()).await.ok();
            }
            close(&quic, &refusal.reason);
        }
        Err(refusal)
    }

    fn timed_out(&self, what: &str) -> CloseReason {
        let detail = format!("{what} within {:?}", self.timeout);
        CloseReason::new(CloseCode::HandshakeTimeout, detail)
    }

    async fn greet(&self, quic: &Connection, attempt: Attempt) -> Result<Authenticated, Refusal> {
        let Attempt {
            ip,
            direction,
            recorded,
        } = attempt;
        let node_id = tls::peer_node_id(quic)
            .map_err(|error| refused(CloseReason::new(CloseCode::TlsRefused, error.to_string())))?;
        let decision = self.check_pin(ip, node_id).await?;
        let meter = Arc::new(Meter::new());
        let stream = quic.open_uni().await.map_err(|error| lost(&error))?;
        let mut writer = FrameWriter::new(stream, StreamKind::Keepalive, meter.clone());
        let hello = KeepaliveMessage::Hello(self.own_hello(ip));
        let said = async {
            writer.open().await?;
            writer.message(&hello).await
        };
        if let Err::<(), quinn::WriteError>(error) = said.await {
            return Err(broken_off(quic, &error.to_string()).await);
        }

        let mut reader = first_stream(quic, meter.clone()).await?;
        let hello = match read(quic, &mut reader).await? {
            KeepaliveMessage::Hello(hello) => hello,
            _ => return Err(faulty(Fault::Message, "the first message is no Hello")),
        };
        let clock_offset_ms = (hello.clock_ms as i64).saturating_sub(self.clock.now_ms() as i64);
        let version = self.check(&hello, ip).map_err(refused)?;
        let masternode = match decision {
            Decision::Admit(Admission::Masternode { index }) => Some(index),
            Decision::Admit(Admission::Unpinned) => None,
            Decision::FirstContact => {
                // Not before the Hello: a wrong port may lead to a node of another chain.
                self.trust(ip, node_id).await?;
                None
            }
        };
        let welcome = match direction {
            Direction::Inbound => None,
            Direction::Outbound => match read(quic, &mut reader).await? {
                KeepaliveMessage::Welcome(welcome) if welcome.version == version => Some(welcome),
                KeepaliveMessage::Welcome(welcome) => {
                    return Err(violation(&format!(
                        "the Welcome is for version {}, but {version} is the highest in common",
                        welcome.version
                    )));
                }
                _ => {
                    let detail = "the message after the Hello is no Welcome";
                    return Err(faulty(Fault::Message, detail));
                }
            },
        };
        Ok(Authenticated {
            ip,
            node_id,
            masternode,
            recorded,
            direction,
            hello,
            welcome,
            version,
            clock_offset_ms,
            quic: quic.clone(),
            writer,
            reader,
            meter,
        })
    }

    async fn check_pin(&self, ip: PeerIp, node_id: NodeId) -> Result<Decision, Refusal> {
        self.ask(|reply| Ask::Check { ip, node_id, reply }).await
    }

    async fn trust(&self, ip: PeerIp, node_id: NodeId) -> Result<(), Refusal> {
        self.ask(|reply| Ask::Pins(PinOrder::Trust { ip, node_id, reply }))
            .await
    }

    /// Asks the manager, which is gone only when the node stops.
    async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, CloseReason>>) -> Ask,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let asked = self.mailbox.send(ask(reply)).await;
        asked.map_err(|_| refused(shutting_down()))?;
        let answer = answer.await.map_err(|_| refused(shutting_down()))?;
        answer.map_err(refused)
    }

    fn own_hello(&self, peer: PeerIp) -> Hello {
        let tip = *self.tip.borrow();
        Hello {
            magic: self.network.magic(),
            versions: PROTOCOL_VERSIONS,
            genesis: self.genesis,
            role: self.role,
            listen_port: self.listen_port,
            tip_height: tip.height,
            tip_hash: tip.hash,
            observed: peer,
            agent: self.agent.clone(),
            clock_ms: self.clock.now_ms(),
            instance: self.instance,
        }
    }

    /// Checks a Hello in the order of the protocol; gives the version to speak.
    fn check(&self, hello: &Hello, ip: PeerIp) -> Result<u16, CloseReason> {
        let own = hello.observed;
        if hello.magic != self.network.magic() {
            return Err(CloseReason::new(
                CloseCode::WrongNetwork,
                format!(
                    "{own} is on network {} (magic {}), {ip} has magic {}",
                    self.network,
                    hex::encode(self.network.magic()),
                    hex::encode(hello.magic)
                ),
            ));
        }
        if hello.genesis != self.genesis {
            return Err(CloseReason::new(
                CloseCode::WrongGenesis,
                format!(
                    "{own} has genesis {}, {ip} has genesis {}",
                    self.genesis, hello.genesis
                ),
            ));
        }
        let (low, high) = (
            PROTOCOL_VERSIONS.0.max(hello.versions.0),
            PROTOCOL_VERSIONS.1.min(hello.versions.1),
        );
        if low > high {
            return Err(CloseReason::new(
                CloseCode::WrongVersion,
                format!(
                    "{own} speaks protocol {} to {}, {ip} speaks {} to {}",
                    PROTOCOL_VERSIONS.0, PROTOCOL_VERSIONS.1, hello.versions.0, hello.versions.1
                ),
            ));
        }
        if hello.agent.len() > MAX_AGENT_BYTES || hello.agent.contains(char::is_control) {
            let detail = "the agent text of the Hello is too long or not printable";
            return Err(CloseReason::new(CloseCode::ProtocolViolation, detail));
        }
        Ok(high)
    }
}

/// What peers are told while this node stops.
pub(super) fn shutting_down() -> CloseReason {
    CloseReason::new(CloseCode::ShuttingDown, "the node is shutting down")
}

/// The peer's keepalive stream, which it opens before any other.
async fn first_stream(quic: &Connection, meter: Arc<Meter>) -> Result<FrameReader, Refusal> {
    let mut recv = quic.accept_uni().await.map_err(|error| lost(&error))?;
    match read_kind(&mut recv).await {
        Ok(Some(byte)) if byte == StreamKind::Keepalive.byte() => {
            Ok(FrameReader::new(recv, StreamKind::Keepalive, meter))
        }
        Ok(Some(_)) => {
            let detail = "the first stream is no keepalive stream";
            Err(faulty(Fault::Message, detail))
        }
        Ok(None) => Err(broken_off(quic, "it ended").await),
        Err(error) => Err(broken_off(quic, &error.to_string()).await),
    }
}

async fn read(quic: &Connection, reader: &mut FrameReader) -> Result<KeepaliveMessage, Refusal> {
    match reader.next().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(broken_off(quic, "it ended").await),
        Err(ReadFailure::Broken(error)) => Err(broken_off(quic, &error.to_string()).await),
        Err(failure) => Err(Refusal {
            fault: Fault::of(&failure),
            ..violation(&failure.to_string())
        }),
    }
}

fn refused(reason: CloseReason) -> Refusal {
    Refusal {
        reason,
        by_us: true,
        answered: true,
        proved: true,
        fault: None,
    }
}

fn violation(detail: &str) -> Refusal {
    refused(CloseReason::new(CloseCode::ProtocolViolation, detail))
}

fn faulty(fault: Fault, detail: &str) -> Refusal {
    Refusal {
        fault: Some(fault),
        ..violation(detail)
    }
}

fn lost(error: &ConnectionError) -> Refusal {
    Refusal {
        reason: tls::explain(error),
        by_us: false,
        answered: true,
        proved: true,
        fault: None,
    }
}

/// The keepalive stream broke off. The peer's close, which tells why, is most likely on its way.
async fn broken_off(quic: &Connection, how: &str) -> Refusal {
    match timeout(CLOSE_LIMIT, quic.closed()).await {
        Ok(error) => lost(&error),
        Err(_) => violation(&format!(
            "the keepalive stream broke off in the handshake: {how}"
        )),
    }
}
