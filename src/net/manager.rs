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

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use quinn::Incoming;
use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Gate};
use super::connection::{ConnectionEnd, Established, Surroundings, close};
use super::direction::{Verdict, preferred_direction, settle};
use super::endpoint::{Endpoint, widen};
use super::handshake::{Authenticated, HandshakeContext, Outcome, Refusal, shutting_down};
use super::peer::{Peer, PeerFacts};
use super::pins::{self, PinPolicy};
use super::{Direction, NetConfig, NetError};
use crate::env::WallClock;
use crate::types::{NodeId, PeerIp};
use crate::wire::{CloseCode, CloseReason, ReachSet, Welcome};

mod known;

pub use known::{KnownPeers, KnownRecord};

/// What waits for the manager.
pub const MAILBOX: usize = 256;
/// The most dials in progress; the others wait their turn.
const MAX_DIALING: usize = 64;
/// Refusals kept for display.
const MAX_REFUSED: usize = 100;
/// How long they are shown.
pub const REFUSED_FOR_MS: u64 = 3_600_000;
/// How long the acceptor of a winning connection leaves it to the dialer to close the loser.
const LOSER_LINGERS: Duration = Duration::from_secs(2);
/// How long a stopping network waits for its connections, and then for QUIC.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// A request to the manager.
pub enum Ask {
    /// May this key come from this address?
    Pin {
        /// The peer's address.
        ip: PeerIp,
        /// The key that it has proved to hold.
        node_id: NodeId,
        /// The answer.
        reply: oneshot::Sender<Result<pins::Admission, CloseReason>>,
    },
    /// A connection has ended.
    Ended(ConnectionEnd),
}

/// A refused or failed handshake.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// With whom.
    pub ip: PeerIp,
    /// Who dialed.
    pub direction: Direction,
    /// Why.
    pub reason: CloseReason,
}

/// What handles read, always a consistent whole.
#[derive(Clone, Default)]
pub struct View {
    /// The registered connections.
    pub peers: Arc<BTreeMap<PeerIp, Arc<Peer>>>,
    /// Everyone known.
    pub known: Arc<BTreeMap<PeerIp, Arc<KnownRecord>>>,
    /// Refusals, newest last.
    pub refused: Arc<VecDeque<Refused>>,
}

/// Where the manager publishes.
pub struct Published {
    /// For handles.
    pub view: watch::Sender<View>,
    /// The masternodes that this node is connected to, itself included.
    pub reach: watch::Sender<ReachSet>,
    /// Counts connects, disconnects and news of tips.
    pub changes: watch::Sender<u64>,
}

/// The actor's state.
pub struct Manager {
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
    /// For jitter.
    pub random: ChaCha20Rng,
    /// Everything else.
    pub state: State,
}

/// What the actor keeps about peers.
pub struct State {
    admission: Admission,
    handshakes: JoinSet<Outcome>,
    connections: JoinSet<()>,
    dialing: usize,
    last_id: u64,
    registry: BTreeMap<PeerIp, Arc<Peer>>,
    /// The newest connection of each address whose events may not all be delivered yet.
    gone: BTreeMap<PeerIp, CancellationToken>,
    known: KnownPeers,
    refused: VecDeque<Refused>,
    registry_changed: bool,
    known_changed: bool,
    refused_changed: bool,
}

impl State {
    /// Nobody connected; everything is to be published.
    pub fn new(known: KnownPeers) -> Self {
        Self {
            admission: Admission::default(),
            handshakes: JoinSet::new(),
            connections: JoinSet::new(),
            dialing: 0,
            last_id: 0,
            registry: BTreeMap::new(),
            gone: BTreeMap::new(),
            known,
            refused: VecDeque::new(),
            registry_changed: true,
            known_changed: true,
            refused_changed: true,
        }
    }
}

impl Manager {
    /// Runs the network until it is cancelled or fails.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), NetError> {
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
            Ask::Pin { ip, node_id, reply } => {
                // A handshake that timed out meanwhile has no use for the answer.
                reply.send(self.pins.check(ip, node_id)).ok();
            }
            Ask::Ended(end) => self.ended(end),
        }
    }

    /// A first packet from somewhere.
    fn arrive(&mut self, incoming: Incoming) {
        let ip = PeerIp::from(incoming.remote_address());
        let recorded = self.pins.directory().by_ip(ip).is_some();
        let validated = incoming.remote_address_validated();
        let ticket = match self.state.admission.arrive(ip, validated, recorded) {
            Gate::Accept(ticket) => ticket,
            Gate::Retry => {
                if incoming.retry().is_err() {
                    tracing::debug!(peer.ip = %ip, "an arrival cannot be asked to come again");
                }
                return;
            }
            Gate::Refuse => {
                tracing::debug!(peer.ip = %ip, "an arrival is refused: too many handshakes");
                return incoming.refuse();
            }
        };
        let direction = Direction::Inbound;
        match self.endpoint.take(incoming, recorded) {
            Ok(connecting) => {
                let handshake = self.handshake.clone();
                let shake = handshake.run(connecting, ip, direction, Some(ticket));
                self.state.handshakes.spawn(shake);
            }
            Err(error) => self.refused(ip, direction, super::tls::explain(&error), true),
        }
    }

    /// Dials the first who is due.
    fn dial_due(&mut self) {
        let Some(ip) = self.state.known.take_due(Instant::now()) else {
            return;
        };
        self.state.known_changed = true;
        let Some(address) = self.state.known.dialing(ip) else {
            return;
        };
        let recorded = self.pins.directory().by_ip(ip).is_some();
        match self.endpoint.dial(address, recorded) {
            Ok(connecting) => {
                self.state.dialing += 1;
                let handshake = self.handshake.clone();
                let shake = handshake.run(connecting, ip, Direction::Outbound, None);
                self.state.handshakes.spawn(shake);
            }
            Err(error) => {
                let detail = format!("{address} cannot be dialed: {error}");
                let reason = CloseReason::new(CloseCode::TransportFailed, detail);
                self.dial_failed(ip, reason, true);
            }
        }
    }

    fn handshake_over(&mut self, outcome: Outcome) {
        if outcome.direction == Direction::Outbound {
            self.state.dialing -= 1;
        }
        match outcome.result {
            Ok(authenticated) => self.admit(*authenticated),
            Err(Refusal { reason, by_us }) => match outcome.direction {
                Direction::Inbound => self.refused(outcome.ip, Direction::Inbound, reason, by_us),
                Direction::Outbound => self.dial_failed(outcome.ip, reason, by_us),
            },
        }
    }

    /// Registers an authenticated connection, or closes it with the reason.
    fn admit(&mut self, new: Authenticated) {
        match self.find_slot(&new) {
            Ok(loser) => self.register(new, loser),
            Err(reason) => {
                close(&new.quic, &reason);
                match new.direction {
                    Direction::Inbound => self.refused(new.ip, new.direction, reason, true),
                    Direction::Outbound => self.dial_failed(new.ip, reason, true),
                }
            }
        }
    }

    /// Decides about a new connection: refuse it, or take it and tell the connection that it
    /// displaces why.
    fn find_slot(&self, new: &Authenticated) -> Result<Option<CloseReason>, CloseReason> {
        let Some(held) = self.state.registry.get(&new.ip) else {
            return self.find_free_slot(new).map(|()| None);
        };
        if held.facts().node_id != new.node_id {
            let detail = format!(
                "{} holds a live connection with another key ({}); two nodes behind one address \
                 cannot both connect",
                new.ip,
                held.facts().node_id.short()
            );
            let reason = CloseReason::new(CloseCode::IpTaken, detail);
            let displaces = new.masternode.is_some() && held.masternode().is_none();
            return if displaces {
                Ok(Some(reason))
            } else {
                Err(reason)
            };
        }
        let contender = super::direction::Contender {
            direction: new.direction,
            instance: new.hello.instance,
        };
        let preferred = preferred_direction((new.hello.observed, self.own), (new.ip, new.node_id));
        let duplicate = || {
            let detail = "another connection of this pair stays";
            CloseReason::new(CloseCode::Duplicate, detail)
        };
        match settle(held.contender(), contender, preferred) {
            Verdict::KeepRegistered => Err(duplicate()),
            Verdict::Replace => Ok(Some(duplicate())),
            Verdict::ReplaceOlderInstance => Ok(Some(newer_instance())),
        }
    }

    fn find_free_slot(&self, new: &Authenticated) -> Result<(), CloseReason> {
        let unpinned = self.state.registry.values();
        let unpinned = unpinned.filter(|peer| peer.masternode().is_none()).count();
        if new.masternode.is_none() && unpinned >= self.config.max_unpinned {
            let detail = format!("all {unpinned} slots for peers without a record are taken");
            return Err(CloseReason::new(CloseCode::Full, detail));
        }
        Ok(())
    }

    fn register(&mut self, new: Authenticated, displaced_for: Option<CloseReason>) {
        let restarted =
            (displaced_for.as_ref()).is_some_and(|why| why.code == CloseCode::NewerInstance);
        self.state.last_id += 1;
        let peer = self.make_peer(&new, restarted);
        if let (Some(reason), Some(loser)) = (displaced_for, self.state.registry.remove(&new.ip)) {
            // Of two live connections the winner's dialer closes the loser once it has the
            // Welcome. Its acceptor cannot know when that is, and gives it time.
            let ours_to_close =
                new.direction == Direction::Outbound || reason.code != CloseCode::Duplicate;
            let delay = if ours_to_close {
                Duration::ZERO
            } else {
                LOSER_LINGERS
            };
            loser.end_after(delay, reason);
        }
        self.end_older_instances(&peer);
        if peer.masternode().is_none() {
            widen(&new.quic);
        }
        let welcome = self.welcome_for(&new);
        self.state.gone.retain(|_, gone| !gone.is_cancelled());
        let gone = CancellationToken::new();
        let predecessor = self.state.gone.insert(new.ip, gone.clone());
        let predecessor = predecessor.unwrap_or_else(|| {
            let nobody = CancellationToken::new();
            nobody.cancel();
            nobody
        });
        let facts = peer.facts();
        tracing::info!(
            peer.ip = %new.ip,
            peer.node = %new.node_id.short(),
            peer.name = facts.masternode.as_ref().map(|(_, name)| name.as_str()),
            direction = ?new.direction,
            connection = facts.id,
            agent = new.hello.agent,
            "connected"
        );
        self.state.known.connected(facts);
        self.state.registry.insert(new.ip, peer.clone());
        self.state.registry_changed = true;
        self.state.known_changed = true;
        let established = Established {
            peer,
            welcome,
            writer: new.writer,
            reader: new.reader,
            predecessor,
            gone,
            surroundings: self.surroundings.clone(),
        };
        self.state.connections.spawn(established.run());
    }

    fn make_peer(&mut self, new: &Authenticated, restarted: bool) -> Arc<Peer> {
        let directory = self.pins.directory();
        let masternode = new.masternode.and_then(|index| {
            let name = directory.name(index)?.to_string();
            Some((index, name))
        });
        // The acceptor says whether it holds this node's record: without one it takes no
        // consensus stream.
        let they_hold_ours = new.welcome.as_ref().is_none_or(|welcome| welcome.pinned);
        let facts = PeerFacts {
            id: self.state.last_id,
            ip: new.ip,
            node_id: new.node_id,
            consensus: masternode.is_some()
                && they_hold_ours
                && self.config.own_masternode.is_some()
                && self.surroundings.inbound.consensus.is_some(),
            masternode,
            direction: new.direction,
            hello: new.hello.clone(),
            connected_at_ms: self.clock.now_ms(),
            clock_offset_ms: new.clock_offset_ms,
            reconnects: self.state.known.count_reconnect(new.ip, restarted),
        };
        self.compare_serials(new);
        let timing = self.config.timing;
        let (quic, meter) = (new.quic.clone(), new.meter.clone());
        Arc::new(Peer::new(facts, timing, quic, meter))
    }

    /// The peer holds an older or newer record of this masternode: an operator should know.
    fn compare_serials(&self, new: &Authenticated) {
        let own = self.config.own_masternode;
        let own = own.and_then(|index| self.pins.directory().record(index));
        if let (Some(own), Some(welcome)) = (own, &new.welcome)
            && welcome.record_serial != own.serial
        {
            tracing::warn!(
                peer.ip = %new.ip,
                theirs = welcome.record_serial,
                ours = own.serial,
                "the peer holds another version of this masternode's record; 0 means none"
            );
        }
    }

    fn welcome_for(&self, new: &Authenticated) -> Option<Welcome> {
        let record = new
            .masternode
            .and_then(|at| self.pins.directory().record(at));
        (new.direction == Direction::Inbound).then(|| Welcome {
            version: new.version,
            pinned: record.is_some(),
            record_serial: record.map_or(0, |record| record.serial),
        })
    }

    /// The peer's earlier process is dead, at whatever address it was connected.
    fn end_older_instances(&self, peer: &Peer) {
        let facts = peer.facts();
        for other in self.state.registry.values() {
            if other.facts().node_id == facts.node_id
                && other.facts().hello.instance != facts.hello.instance
            {
                other.end(newer_instance());
            }
        }
    }

    /// A connection has ended: it leaves the registry if it is still the one that is there.
    fn ended(&mut self, end: ConnectionEnd) {
        let held = self.state.registry.get(&end.ip);
        let Some(peer) = held.filter(|peer| peer.id() == end.id).cloned() else {
            tracing::debug!(
                peer.ip = %end.ip, connection = end.id, reason = %end.reason, by_us = end.by_us,
                "a replaced connection ended"
            );
            return;
        };
        tracing::info!(
            peer.ip = %end.ip,
            connection = end.id,
            direction = ?peer.facts().direction,
            lasted_s = end.lasted.as_secs(),
            by_us = end.by_us,
            reason = %end.reason,
            "disconnected"
        );
        self.state.registry.remove(&end.ip);
        self.state.registry_changed = true;
        let jitter = self.random.random();
        let now = (Instant::now(), self.clock.now_ms());
        (self.state.known).disconnected(&end, peer.facts().direction, now, jitter);
        self.state.known_changed = true;
    }

    fn dial_failed(&mut self, ip: PeerIp, reason: CloseReason, by_us: bool) {
        let connected = self.state.registry.contains_key(&ip);
        let jitter = self.random.random();
        let now = (Instant::now(), self.clock.now_ms());
        self.state.known.dial_failed(ip, connected, now, jitter);
        self.refused(ip, Direction::Outbound, reason, by_us);
    }

    /// Notes and logs a refusal or failure. One that only repeats what is known is no news.
    fn refused(&mut self, ip: PeerIp, direction: Direction, reason: CloseReason, by_us: bool) {
        if reason.code == CloseCode::Duplicate && self.state.registry.contains_key(&ip) {
            // The tie-break at work: the pair is connected.
            tracing::debug!(peer.ip = %ip, ?direction, by_us, "a second connection was not needed");
            return;
        }
        let at_ms = self.clock.now_ms();
        let news = self.state.known.refused(ip, direction, &reason, at_ms);
        if news {
            tracing::info!(peer.ip = %ip, ?direction, by_us, reason = %reason, "not connected");
        } else {
            tracing::debug!(peer.ip = %ip, ?direction, by_us, reason = %reason, "not connected");
        }
        let refused = &mut self.state.refused;
        while refused.len() >= MAX_REFUSED
            || refused
                .front()
                .is_some_and(|one| one.at_ms + REFUSED_FOR_MS < at_ms)
        {
            refused.pop_front();
        }
        refused.push_back(Refused {
            at_ms,
            ip,
            direction,
            reason,
        });
        self.state.refused_changed = true;
        self.state.known_changed = true;
    }

    /// Publishes what has changed. Handles then see connections and records that belong together.
    fn publish(&mut self) {
        let state = &mut self.state;
        let registry = std::mem::take(&mut state.registry_changed);
        let known = std::mem::take(&mut state.known_changed);
        let refused = std::mem::take(&mut state.refused_changed);
        if !(registry || known || refused) {
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
        });
        if registry {
            let connected = state.registry.values().filter_map(|peer| peer.masternode());
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
        self.state.handshakes.abort_all();
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
        let limit = SHUTDOWN_LIMIT;
        self.endpoint.shut_down(code as u32, &detail, limit).await;
    }
}

fn newer_instance() -> CloseReason {
    let detail = "a newer process of the same node has connected";
    CloseReason::new(CloseCode::NewerInstance, detail)
}
