//! One registered connection, as its own tasks, the manager and the handles see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::Connection;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::bodies::{BodyQueue, MAX_HELD};
use super::budget::{Spending, TokenBucket};
use super::bulk::Bulk;
use super::credit::Path;
use super::direction::Contender;
use super::faults::Fault;
use super::frames::ReadFailure;
use super::liveness::Liveness;
use super::meter::Meter;
use super::queue::{FrameQueue, QueueLimits, WhenFull};
use super::windows::{MAX_OWN_REQUESTS, MAX_SERVED, Windows};
use super::{Direction, NetTiming, PeerInfo, QueueLengths};
use crate::types::{BlockHash, Height, NodeId, PeerIp};
use crate::wire::{CloseCode, CloseReason, Hello, ReachSet};

/// What the handshake found out about a connection.
#[derive(Clone, Debug)]
pub(super) struct PeerFacts {
    /// The connection's id, unique in this process.
    pub id: u64,
    /// The peer.
    pub ip: PeerIp,
    /// Its pin.
    pub node_id: NodeId,
    /// Its position in genesis and name, when a record pins it.
    pub masternode: Option<(usize, String)>,
    /// Whether consensus and proposal streams are used: both ends are pinned masternodes.
    pub consensus: bool,
    /// Who dialed.
    pub direction: Direction,
    /// Its Hello.
    pub hello: Hello,
    /// Unix milliseconds.
    pub connected_at_ms: u64,
    /// Its wall clock less ours, in milliseconds.
    pub clock_offset_ms: i64,
    /// How often the pair had connected before.
    pub reconnects: u64,
    /// Whether what it does stands in the log above `debug`: any number of strangers may come.
    pub logged: bool,
}

/// A registered connection. Its tasks end when [`Peer::end`] was called or QUIC's connection dies.
pub(super) struct Peer {
    facts: PeerFacts,
    timing: NetTiming,
    quic: Connection,
    /// Counters.
    pub meter: Arc<Meter>,
    /// Pings, pongs and round-trip times.
    pub liveness: Mutex<Liveness>,
    /// The peer's tip, the newest it told.
    tip: Mutex<(Height, BlockHash)>,
    /// Who it is connected to, as its pings tell.
    pub reach: watch::Sender<ReachSet>,
    /// To its consensus stream, between pinned masternodes.
    pub consensus: Option<FrameQueue>,
    /// To proposal streams, between pinned masternodes.
    pub bodies: Option<BodyQueue>,
    /// To its transactions stream.
    pub transactions: FrameQueue,
    /// The bound on block bodies and sync answers to it.
    pub bulk: Arc<Bulk>,
    /// Sync requests that may still be opened.
    pub requests: Arc<Semaphore>,
    /// Sync requests of the peer's that may be answered at the same time.
    pub served: Semaphore,
    /// Block bodies of the peer's that may still be read, or wait for consensus, at the same time.
    pub bodies_held: Arc<Semaphore>,
    /// How often it was over a budget.
    pub over_budget: AtomicU64,
    /// What is left for sync requests, over all its streams.
    sync_requests: Mutex<TokenBucket>,
    /// The serial of the peer's record that this node holds; 0 for none.
    record: watch::Sender<u64>,
    /// The serial of this node's record that the peer holds, as it told.
    own_record: Mutex<Option<u64>>,
    order: watch::Sender<Option<EndOrder>>,
}

/// This node wants the connection to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndOrder {
    /// When.
    pub at: Instant,
    /// What the peer is told.
    pub reason: CloseReason,
    /// What the peer did that no honest one does.
    pub fault: Option<Fault>,
}

impl Peer {
    /// Wraps an authenticated connection.
    pub(super) fn new(
        facts: PeerFacts,
        timing: NetTiming,
        quic: Connection,
        meter: Arc<Meter>,
    ) -> Self {
        let windows = Windows::of_peer(facts.masternode.is_some());
        let path = quic.clone();
        Self {
            timing,
            quic,
            meter,
            liveness: Mutex::default(),
            tip: Mutex::new((facts.hello.tip_height, facts.hello.tip_hash)),
            reach: watch::Sender::new(ReachSet::default()),
            consensus: facts
                .consensus
                .then(|| FrameQueue::new(QueueLimits::CONSENSUS, WhenFull::DropOldestHeight)),
            bodies: facts.consensus.then(BodyQueue::default),
            transactions: FrameQueue::new(
                match facts.masternode {
                    Some(_) => QueueLimits::TRANSACTIONS,
                    None => QueueLimits::TRANSACTIONS_UNPINNED,
                },
                WhenFull::RefuseNew,
            ),
            bulk: Bulk::new(windows.bulk, facts.connected_at_ms, move || {
                read_path(&path)
            }),
            requests: Arc::new(Semaphore::new(MAX_OWN_REQUESTS as usize)),
            served: Semaphore::new(MAX_SERVED as usize),
            bodies_held: Arc::new(Semaphore::new(MAX_HELD)),
            over_budget: AtomicU64::new(0),
            sync_requests: Mutex::new(TokenBucket::new(Spending::SyncRequest, Instant::now())),
            record: watch::Sender::new(0),
            own_record: Mutex::new(None),
            order: watch::Sender::new(None),
            facts,
        }
    }

    /// The connection's id.
    pub(super) fn id(&self) -> u64 {
        self.facts.id
    }

    /// The peer's address.
    pub(super) fn ip(&self) -> PeerIp {
        self.facts.ip
    }

    /// What the handshake found out.
    pub(super) fn facts(&self) -> &PeerFacts {
        &self.facts
    }

    /// Its position in genesis, when a record pins it.
    pub(super) fn masternode(&self) -> Option<usize> {
        self.facts.masternode.as_ref().map(|(index, _)| *index)
    }

    /// What the tie-break needs.
    pub(super) fn contender(&self) -> Contender {
        Contender {
            direction: self.facts.direction,
            instance: self.facts.hello.instance,
        }
    }

    /// QUIC's connection.
    pub(super) fn quic(&self) -> &Connection {
        &self.quic
    }

    /// The durations in force.
    pub(super) fn timing(&self) -> &NetTiming {
        &self.timing
    }

    /// When its next sync request may be served.
    pub(super) fn sync_request_due(&self) -> Instant {
        let now = Instant::now();
        let mut budget = self.sync_requests.lock().expect("no holder panics");
        let due = budget.take(1, now);
        if due > now {
            self.over_budget.fetch_add(1, Ordering::Relaxed);
        }
        due
    }

    /// This node holds this version of the peer's record; the peer is told when that is news.
    pub(super) fn hold_record(&self, serial: u64) {
        self.record
            .send_if_modified(|held| std::mem::replace(held, serial) != serial);
    }

    /// Follows the serial of the peer's record that this node holds.
    pub(super) fn watch_record(&self) -> watch::Receiver<u64> {
        self.record.subscribe()
    }

    /// The peer told which version of this node's record it holds.
    pub(super) fn told_record(&self, serial: u64) {
        *self.own_record.lock().expect("no holder panics") = Some(serial);
    }

    /// Ends the connection now with a reason. The first reason stands.
    pub(super) fn end(&self, reason: CloseReason) {
        self.end_after(Duration::ZERO, reason);
    }

    /// The peer broke the protocol: ends the connection.
    pub(super) fn violation(&self, detail: impl Into<String>) {
        self.end(CloseReason::new(CloseCode::ProtocolViolation, detail));
    }

    /// A read of the peer's has failed: ends the connection when the peer broke the protocol.
    pub(super) fn read_failed(&self, failure: &ReadFailure) {
        if failure.is_violation() {
            let reason = CloseReason::new(CloseCode::ProtocolViolation, failure.to_string());
            self.order_end(Instant::now(), reason, Fault::of(failure));
        }
    }

    /// What the peer did that no honest one does.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.order.borrow().as_ref().and_then(|order| order.fault)
    }

    /// Ends the connection after a while, unless it has ended by then. An earlier end stands.
    pub(super) fn end_after(&self, delay: Duration, reason: CloseReason) {
        self.order_end(Instant::now() + delay, reason, None);
    }

    fn order_end(&self, at: Instant, reason: CloseReason, fault: Option<Fault>) {
        self.order.send_if_modified(|order| {
            let sooner = order.as_ref().is_none_or(|order| at < order.at);
            if sooner {
                *order = Some(EndOrder { at, reason, fault });
            }
            sooner
        });
    }

    /// Whether this node has ordered its end already.
    pub(super) fn is_ending(&self) -> bool {
        self.order.borrow().is_some()
    }

    /// Tells when this node wants the connection to end.
    pub(super) fn watch_order(&self) -> watch::Receiver<Option<EndOrder>> {
        self.order.subscribe()
    }

    /// The peer told its tip. Returns whether that is news.
    pub(super) fn set_tip(&self, height: Height, hash: BlockHash) -> bool {
        let mut tip = self.tip.lock().expect("no holder panics");
        let news = *tip != (height, hash);
        *tip = (height, hash);
        news
    }

    /// Whether this is the tip that it told last.
    pub(super) fn is_at(&self, height: Height, hash: BlockHash) -> bool {
        *self.tip.lock().expect("no holder panics") == (height, hash)
    }

    /// The height of its tip.
    pub(super) fn tip_height(&self) -> Height {
        self.tip.lock().expect("no holder panics").0
    }

    /// Everything that is shown of it.
    pub(super) fn info(&self) -> PeerInfo {
        let (tip_height, tip_hash) = *self.tip.lock().expect("no holder panics");
        let liveness = self.liveness.lock().expect("no holder panics");
        let liveness = liveness.summary(&self.timing, Instant::now());
        let bulk = self.bulk.summary();
        let facts = &self.facts;
        PeerInfo {
            ip: facts.ip,
            listen_port: facts.hello.listen_port,
            node_id: facts.node_id,
            name: facts.masternode.as_ref().map(|(_, name)| name.clone()),
            masternode: self.masternode(),
            role: facts.hello.role,
            direction: facts.direction,
            connection: facts.id,
            connected_at_ms: facts.connected_at_ms,
            agent: facts.hello.agent.clone(),
            tip_height,
            tip_hash,
            rtt: liveness.rtt,
            rtt_histogram: liveness.histogram,
            last_ping_ago_ms: liveness.since_ping.map(|since| since.as_millis() as u64),
            pings_sent: liveness.pings_sent,
            pongs_received: liveness.pongs_received,
            pings_received: liveness.pings_received,
            slow: liveness.slow,
            streams: self.meter.streams(),
            bulk_unconfirmed: bulk.unconfirmed,
            bulk_credit: bulk.credit,
            bulk_delay_us: bulk.delay.as_micros() as u64,
            queues: self.queues(),
            dropped: self.meter.total_dropped(),
            over_budget: self.over_budget.load(Ordering::Relaxed),
            clock_offset_ms: facts.clock_offset_ms,
            observed_us_as: facts.hello.observed,
            reconnects: facts.reconnects,
            record_serial: *self.own_record.lock().expect("no holder panics"),
        }
    }

    fn queues(&self) -> QueueLengths {
        let (consensus_messages, consensus_bytes) =
            (self.consensus.as_ref()).map_or((0, 0), FrameQueue::waiting);
        let (transactions_messages, transactions_bytes) = self.transactions.waiting();
        QueueLengths {
            consensus_messages,
            consensus_bytes,
            transactions_messages,
            transactions_bytes,
            bodies: self.bodies.as_ref().map_or(0, BodyQueue::waiting),
        }
    }
}

/// What QUIC knows of a connection's path.
fn read_path(quic: &Connection) -> Path {
    let path = quic.stats().path;
    Path {
        rtt: path.rtt,
        least_rtt: path.min_rtt,
        window: path.cwnd,
        packet: u64::from(path.current_mtu),
    }
}
