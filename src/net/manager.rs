//! The one owner of peers: which connections are registered, whom to dial and when, what is known
//! of everyone.
//!
//! One actor. Its only awaits are in its `select!`; every handler is a plain function. Handshakes
//! run in one `JoinSet` and hand back an authenticated connection or a refusal; connections run in
//! another and report their end through the mailbox. The mailbox is bounded: a task that asks waits
//! until the manager gets to it, which never waits itself.
//!
//! **Invariant**: at most one connection per `PeerIp` is registered, and at most one dial per
//! `PeerIp` is in progress. A connection that ends removes itself by its id only, so it cannot
//! remove the one that took its place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connecting, Incoming};
use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Gate, Ticket};
use super::bans::{BanList, Bans};
use super::connection::{ConnectionEnd, Surroundings};
use super::endpoint::Endpoint;
use super::handshake::{Attempt, HandshakeContext, Outcome, Refusal, shutting_down};
use super::peer::Peer;
use super::pins::{Decision, PinPolicy};
use super::{Direction, NetConfig, NetCounts, NetError};
use crate::env::{Offload, WallClock};
use crate::types::{Ban, MasternodeDirectory, NodeId, PeerIp};
use crate::wire::{CloseCode, CloseReason, ReachSet};

mod bans;
mod known;
mod pins;
mod refusals;
mod register;

pub(super) use bans::BanOrder;
pub(super) use known::{KnownPeers, KnownRecord, Why};
pub(super) use pins::PinOrder;
use pins::PinWrites;
pub(super) use refusals::{REFUSED_FOR_MS, RefusalList};

/// What waits for the manager.
pub(super) const MAILBOX: usize = 256;
/// The most dials in progress; the others wait their turn.
const MAX_DIALING: usize = 64;
/// How long a stopping network waits for its connections.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);
/// How long it then waits for QUIC. A close is sent at once and again when packets still come; a
/// handshake with somebody who never answers would be waited for in vain.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// A request to the manager.
pub(super) enum Ask {
    /// May this key come from this address?
    Check {
        /// The peer's address.
        ip: PeerIp,
        /// The key that it has proved to hold.
        node_id: NodeId,
        /// The answer.
        reply: oneshot::Sender<Result<Decision, CloseReason>>,
    },
    /// A change of pins and records.
    Pins(PinOrder),
    /// A connection has ended.
    Ended(ConnectionEnd),
    /// An operator's change of the bans.
    Ban(BanOrder),
}

/// What handles read, always a consistent whole.
#[derive(Clone)]
pub(super) struct View {
    /// The registered connections.
    pub peers: Arc<BTreeMap<PeerIp, Arc<Peer>>>,
    /// Everyone known.
    pub known: Arc<BTreeMap<PeerIp, Arc<KnownRecord>>>,
    /// Refusals, newest last.
    pub refused: Arc<RefusalList>,
    /// What was counted since the start.
    pub counts: Arc<NetCounts>,
    /// The masternode records in force.
    pub directory: Arc<MasternodeDirectory>,
    /// This node's pin.
    pub own: NodeId,
}

/// Where the manager publishes.
pub(super) struct Published {
    /// For handles.
    pub view: watch::Sender<View>,
    /// The masternodes that this node is connected to, itself included.
    pub reach: watch::Sender<ReachSet>,
    /// Counts connects, disconnects and news of tips.
    pub changes: watch::Sender<u64>,
    /// The bans in force.
    pub bans: watch::Sender<BanList>,
}

impl Published {
    /// Nobody is connected or known yet.
    pub(super) fn new(own: NodeId, pins: &PinPolicy, bans: Vec<Ban>) -> Self {
        Self {
            view: watch::Sender::new(View {
                peers: Arc::default(),
                known: Arc::default(),
                refused: Arc::default(),
                counts: Arc::default(),
                directory: Arc::new(pins.directory().clone()),
                own,
            }),
            reach: watch::Sender::new(ReachSet::default()),
            changes: watch::Sender::new(0),
            bans: watch::Sender::new(BanList { version: 0, bans }),
        }
    }
}

/// The actor's state.
pub(super) struct Manager {
    /// The configuration.
    pub config: NetConfig,
    /// This node's pin.
    pub own: NodeId,
    /// QUIC.
    pub endpoint: Endpoint,
    /// Who may be who.
    pub pins: PinPolicy,
    /// What every handshake needs.
    pub handshake: Arc<HandshakeContext>,
    /// What all connections share.
    pub surroundings: Arc<Surroundings>,
    /// The mailbox.
    pub mailbox: mpsc::Receiver<Ask>,
    /// Where to publish.
    pub published: Published,
    /// The time of day.
    pub clock: Arc<dyn WallClock>,
    /// Where writing runs.
    pub offload: Offload,
    /// For jitter.
    pub random: ChaCha20Rng,
    /// Everything else.
    pub state: State,
}

/// What the actor keeps about peers.
pub(super) struct State {
    admission: Admission,
    handshakes: JoinSet<Outcome>,
    connections: JoinSet<()>,
    dialing: usize,
    last_id: u64,
    registry: BTreeMap<PeerIp, Arc<Peer>>,
    /// The newest connection of each address whose events may not all be delivered yet.
    gone: BTreeMap<PeerIp, CancellationToken>,
    known: KnownPeers,
    refused: RefusalList,
    counts: NetCounts,
    counts_changed: bool,
    bans: Bans,
    pin_writes: PinWrites,
    registry_changed: bool,
    known_changed: bool,
    refused_changed: bool,
}

impl State {
    /// Nobody connected; everything is to be published.
    pub(super) fn new(known: KnownPeers, bans: Bans, admission: Admission) -> Self {
        Self {
            admission,
            handshakes: JoinSet::new(),
            connections: JoinSet::new(),
            dialing: 0,
            last_id: 0,
            registry: BTreeMap::new(),
            gone: BTreeMap::new(),
            known,
            refused: RefusalList::default(),
            counts: NetCounts::default(),
            counts_changed: false,
            bans,
            pin_writes: PinWrites::default(),
            registry_changed: true,
            known_changed: true,
            refused_changed: true,
        }
    }
}

impl Manager {
    /// Runs the network until it is cancelled or fails.
    pub(super) async fn run(mut self, cancel: CancellationToken) -> Result<(), NetError> {
        let result = loop {
            self.publish();
            let due = self.state.known.next_due();
            let may_dial = self.state.dialing < MAX_DIALING;
            tokio::select! {
                biased;
                () = cancel.cancelled() => break Ok(()),
                Some(ask) = self.mailbox.recv() => self.answer(ask),
                Some(joined) = self.state.connections.join_next() => {
                    if let Err(error) = joined {
                        break Err(NetError::TaskFailed(error.to_string()));
                    }
                }
                Some(joined) = self.state.pin_writes.join_next() => match joined {
                    Ok(written) => self.written(written),
                    Err(error) => break Err(NetError::TaskFailed(error.to_string())),
                },
                Some(joined) = self.state.handshakes.join_next() => match joined {
                    Ok(outcome) => self.handshake_over(outcome),
                    Err(error) => break Err(NetError::TaskFailed(error.to_string())),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && may_dial => {
                    self.dial_due();
                }
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.arrive(incoming),
                    None => break Err(NetError::EndpointLost),
                },
            }
        };
        self.shut_down().await;
        result
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            // A handshake that timed out meanwhile has no use for its answer.
            Ask::Check { ip, node_id, reply } => drop(reply.send(self.decide(ip, node_id))),
            Ask::Pins(order) => self.order_pins(order),
            Ask::Ended(end) => self.ended(end),
            Ask::Ban(order) => self.order_ban(order),
        }
    }

    /// A first packet from somewhere.
    fn arrive(&mut self, incoming: Incoming) {
        let ip = PeerIp::from(incoming.remote_address());
        let Some(incoming) = self.turn_banned_away(ip, incoming) else {
            return;
        };
        let recorded = self.pins.directory().by_ip(ip).is_some();
        let validated = incoming.remote_address_validated();
        let ticket = match self.state.admission.arrive(ip, validated, recorded) {
            Gate::Accept(ticket) => ticket,
            Gate::Retry => {
                self.count(|counts| counts.retried += 1);
                return ask_again(ip, incoming);
            }
            Gate::Refuse => {
                self.count(|counts| counts.turned_away += 1);
                tracing::debug!(peer.ip = %ip, "an arrival is refused: too many handshakes");
                return incoming.refuse();
            }
        };
        let direction = Direction::Inbound;
        match self.endpoint.take(incoming, recorded) {
            Ok(connecting) => {
                let arrival = Some((ticket, validated));
                self.shake_hands(connecting, (ip, direction, recorded), arrival);
            }
            // TLS can refuse a first packet at once.
            Err(error) if validated => {
                self.refused(ip, direction, super::tls::explain(&error), true)
            }
            Err(error) => self.refused_unproved(ip, super::tls::explain(&error)),
        }
    }

    /// Dials the first who is due.
    fn dial_due(&mut self) {
        let Some(ip) = self.state.known.take_due(Instant::now()) else {
            return;
        };
        self.state.known_changed = true;
        if self.put_off_while_banned(ip) {
            return;
        }
        if self.is_surplus(ip) {
            return self.state.known.give_up(ip);
        }
        let Some(address) = self.state.known.dialing(ip) else {
            return;
        };
        let recorded = self.pins.directory().by_ip(ip).is_some();
        match self.endpoint.dial(address, recorded) {
            Ok(connecting) => {
                self.state.dialing += 1;
                self.shake_hands(connecting, (ip, Direction::Outbound, recorded), None);
            }
            Err(error) => {
                let detail = format!("{address} cannot be dialed: {error}");
                let reason = CloseReason::new(CloseCode::TransportFailed, detail);
                self.dial_failed(ip, reason, true);
            }
        }
    }

    /// Runs a handshake where the peer belongs; an arrival's holds its ticket meanwhile.
    fn shake_hands(
        &mut self,
        connecting: Connecting,
        (ip, direction, recorded): (PeerIp, Direction, bool),
        arrival: Option<(Ticket, bool)>,
    ) {
        let attempt = Attempt {
            ip,
            direction,
            recorded,
        };
        let shake = self.handshake.clone().run(connecting, attempt, arrival);
        let runtimes = &self.endpoint.runtimes;
        runtimes.spawn(recorded, &mut self.state.handshakes, shake);
    }

    fn handshake_over(&mut self, outcome: Outcome) {
        if outcome.direction == Direction::Outbound {
            self.state.dialing -= 1;
        }
        match outcome.result {
            Ok(authenticated) => self.admit(*authenticated),
            Err(Refusal {
                reason,
                by_us,
                answered,
                proved,
                fault,
            }) => {
                if let Some(fault) = fault {
                    self.ban_for(outcome.ip, fault, &reason.detail);
                }
                match outcome.direction {
                    // Anyone could fill the log and the list of refusals with others' addresses.
                    Direction::Inbound if !answered => {
                        self.count(|counts| counts.unanswered += 1);
                        tracing::debug!(peer.ip = %outcome.ip, reason = %reason, "an arrival went silent");
                    }
                    Direction::Inbound if !proved => self.refused_unproved(outcome.ip, reason),
                    Direction::Inbound => {
                        self.refused(outcome.ip, Direction::Inbound, reason, by_us)
                    }
                    Direction::Outbound => self.dial_failed(outcome.ip, reason, by_us),
                }
            }
        }
    }

    /// A connection has ended: it leaves the registry if it is still the one that is there.
    fn ended(&mut self, end: ConnectionEnd) {
        if let Some(fault) = end.fault {
            self.ban_for(end.ip, fault, &end.reason.detail);
        }
        let held = self.state.registry.get(&end.ip).map(|peer| peer.id());
        let replaced = held != Some(end.id);
        if replaced && end.reason.code == CloseCode::Duplicate {
            tracing::debug!(
                peer.ip = %end.ip, connection = end.id, "the loser of two connections ended"
            );
            return;
        }
        log_disconnected(&end);
        self.count(|counts| *counts.ended.entry(end.reason.code).or_default() += 1);
        let now = (Instant::now(), self.clock.now_ms());
        self.state.known.note_end(&end, now.1);
        self.state.known_changed = true;
        if replaced {
            return;
        }
        self.state.registry.remove(&end.ip);
        self.state.registry_changed = true;
        let jitter = self.random.random();
        self.state.known.disconnected(&end, now, jitter);
    }

    fn dial_failed(&mut self, ip: PeerIp, reason: CloseReason, by_us: bool) {
        let connected = self.state.registry.contains_key(&ip);
        let jitter = self.random.random();
        let now = (Instant::now(), self.clock.now_ms());
        self.state.known.dial_failed(ip, connected, now, jitter);
        self.refused(ip, Direction::Outbound, reason, by_us);
    }

    fn count(&mut self, add: impl FnOnce(&mut NetCounts)) {
        add(&mut self.state.counts);
        self.state.counts_changed = true;
    }

    /// Publishes what has changed. Handles then see connections and records that belong together.
    fn publish(&mut self) {
        let state = &mut self.state;
        let registry = std::mem::take(&mut state.registry_changed);
        let known = std::mem::take(&mut state.known_changed);
        let refused = std::mem::take(&mut state.refused_changed);
        let counts = std::mem::take(&mut state.counts_changed);
        if !(registry || known || refused || counts) {
            return;
        }
        self.published.view.send_modify(|view| {
            if registry {
                view.peers = Arc::new(state.registry.clone());
            }
            if known {
                view.known = Arc::new(state.known.records().clone());
            }
            if refused {
                view.refused = Arc::new(state.refused.clone());
            }
            if counts {
                view.counts = Arc::new(state.counts.clone());
            }
        });
        if registry {
            let connected = state.registry.values();
            // Who takes no consensus stream of ours must get everything from others.
            let connected = connected.filter(|peer| peer.facts().consensus);
            let connected = connected.filter_map(|peer| peer.masternode());
            let reach: ReachSet = connected.chain(self.config.own_masternode).collect();
            self.published.reach.send_if_modified(|published| {
                let news = *published != reach;
                *published = reach;
                news
            });
            self.published.changes.send_modify(|version| *version += 1);
        }
    }

    /// Tells all peers, and waits a bounded time until they know.
    async fn shut_down(mut self) {
        for peer in self.state.registry.values() {
            peer.end(shutting_down());
        }
        let mut mailbox = self.mailbox;
        let mut connections = self.state.connections;
        let drained = timeout(SHUTDOWN_LIMIT, async {
            loop {
                tokio::select! {
                    biased;
                    // Connections report their end; nobody needs it any more.
                    Some(_) = mailbox.recv() => {}
                    joined = connections.join_next() => match joined {
                        Some(Ok(())) => {}
                        Some(Err(error)) => tracing::error!(%error, "a connection's task failed"),
                        None => return,
                    },
                }
            }
        });
        if drained.await.is_err() {
            tracing::debug!("some connections had undelivered events at the end");
        }
        self.state.registry.clear();
        self.published
            .view
            .send_modify(|view| view.peers = Arc::default());
        self.published.changes.send_modify(|version| *version += 1);
        let CloseReason { code, detail } = shutting_down();
        self.endpoint
            .shut_down(code as u32, &detail, FLUSH_LIMIT)
            .await;
    }
}

fn log_disconnected(end: &ConnectionEnd) {
    if !end.logged {
        return tracing::debug!(
            peer.ip = %end.ip, connection = end.id, reason = %end.reason, "disconnected"
        );
    }
    tracing::info!(
        peer.ip = %end.ip,
        connection = end.id,
        direction = ?end.direction,
        lasted_s = end.lasted.as_secs(),
        by_us = end.by_us,
        reason = %end.reason,
        "disconnected"
    );
}

/// Has an arrival prove its address, at no cost here.
fn ask_again(ip: PeerIp, incoming: Incoming) {
    if incoming.retry().is_err() {
        tracing::debug!(peer.ip = %ip, "an arrival cannot be asked to come again");
    }
}
