//! Everyone known: where to dial them, when the next dial is due, and what last happened.
//!
//! Masternodes, configured peers and peers of an earlier run are dialed for ever. Whoever else
//! connects is remembered, at most [`MAX_REMEMBERED`] of them, the longest gone forgotten first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::net::backoff::Backoff;
use crate::net::connection::ConnectionEnd;
use crate::net::direction::{dials_at_once, first_dial_delay};
use crate::net::peer::PeerFacts;
use crate::net::{Direction, KnownPeer, NetTiming};
use crate::types::PeerIp;
use crate::wire::{CloseCode, CloseReason};

/// The most records of peers that are neither dialed nor connected.
const MAX_REMEMBERED: usize = 256;

/// What is known of one peer.
#[derive(Clone, Debug)]
pub(crate) struct KnownRecord {
    ip: PeerIp,
    port: Option<u16>,
    name: Option<String>,
    /// Whether this node dials it.
    dialed: bool,
    link: Link,
    backoff: Backoff,
    last_end: Option<End>,
    reconnects: u64,
    /// A connection was lost and not replaced: the next one is a reconnect.
    lost: bool,
}

/// The last disconnect or refusal.
#[derive(Clone, Debug)]
struct End {
    at_ms: u64,
    direction: Direction,
    reason: CloseReason,
    /// How long the connection lasted; `None` for a refusal.
    lasted: Option<Duration>,
}

/// The state of the connection to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Not connected, and this node will not dial.
    Idle,
    /// The next dial is due, Unix milliseconds.
    Waiting {
        /// When.
        next_dial_ms: u64,
        /// The peer is expected to dial first.
        grace: bool,
    },
    /// This node is dialing.
    Dialing,
    /// Registered.
    Connected {
        /// Unix milliseconds.
        since_ms: u64,
        /// Who dialed.
        direction: Direction,
        /// This node is dialing nevertheless; the tie-break will decide.
        dialing: bool,
    },
}

/// All records and the schedule of dials.
pub(crate) struct KnownPeers {
    own_ip: Option<PeerIp>,
    /// Whether peers know this node from a record, and so may be waited for.
    recorded: bool,
    timing: NetTiming,
    records: BTreeMap<PeerIp, Arc<KnownRecord>>,
    due: BTreeSet<(Instant, PeerIp)>,
    due_at: BTreeMap<PeerIp, Instant>,
}

impl KnownPeers {
    /// Nobody yet. `recorded`: this node is a masternode, whom others dial. Nobody needs to know a
    /// full node, so it never waits to be dialed.
    pub(crate) fn new(own_ip: Option<PeerIp>, recorded: bool, timing: NetTiming) -> Self {
        Self {
            own_ip,
            recorded,
            timing,
            records: BTreeMap::new(),
            due: BTreeSet::new(),
            due_at: BTreeMap::new(),
        }
    }

    /// Adds a peer to dial. `at_once`: this node had it as a peer in an earlier run.
    pub(crate) fn add_dialed(
        &mut self,
        address: SocketAddr,
        name: Option<String>,
        at_once: bool,
        now: (Instant, u64),
    ) {
        let ip = PeerIp::from(address);
        // What the operator says of a full node's own address may be wrong, and must not keep it from
        // a peer that is really there.
        if Some(ip) == self.own_dialed() || !ip.is_usable() {
            return;
        }
        let record = self.record(ip);
        record.dialed = true;
        // A masternode's record comes first and knows the port best.
        record.port = record
            .port
            .or(Some(address.port()).filter(|port| *port != 0));
        record.name = record.name.take().or(name);
        let delay = match at_once {
            true => Duration::ZERO,
            false => first_dial_delay(self.own_dialed(), ip, self.timing.dial_grace),
        };
        let sooner = (self.due_at.get(&ip)).is_none_or(|due| now.0 + delay < *due);
        if sooner {
            self.schedule(ip, delay, now);
        }
    }

    /// All records.
    pub(crate) fn records(&self) -> &BTreeMap<PeerIp, Arc<KnownRecord>> {
        &self.records
    }

    /// When the next dial is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the first who is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<PeerIp> {
        let (at, ip) = *self.due.first()?;
        (at <= now).then(|| {
            self.unschedule(ip);
            ip
        })
    }

    /// A dial starts; gives where to.
    pub(crate) fn dialing(&mut self, ip: PeerIp) -> Option<SocketAddr> {
        let record = self.record(ip);
        let address = record.port.map(|port| ip.with_port(port));
        record.link = match address {
            Some(_) => Link::Dialing,
            None => Link::Idle,
        };
        address
    }

    /// A dial has failed. The next one is due after a back-off, unless the peer is connected.
    pub(crate) fn dial_failed(
        &mut self,
        ip: PeerIp,
        connected: bool,
        now: (Instant, u64),
        jitter: u32,
    ) {
        let record = self.record(ip);
        if connected {
            if let Link::Connected { dialing, .. } = &mut record.link {
                *dialing = false;
            }
            return;
        }
        let delay = record.backoff.fail(jitter);
        self.schedule(ip, delay, now);
    }

    /// A connection is registered.
    pub(crate) fn connected(&mut self, facts: &PeerFacts) {
        self.unschedule(facts.ip);
        let record = self.record(facts.ip);
        let was_dialing = match record.link {
            Link::Dialing => true,
            Link::Connected { dialing, .. } => dialing,
            Link::Idle | Link::Waiting { .. } => false,
        };
        record.link = Link::Connected {
            since_ms: facts.connected_at_ms,
            direction: facts.direction,
            dialing: was_dialing && facts.direction == Direction::Inbound,
        };
        if let Some((_, name)) = &facts.masternode {
            record.name = Some(name.clone());
        }
        if (!record.dialed || record.port.is_none()) && facts.hello.listen_port != 0 {
            record.port = Some(facts.hello.listen_port);
        }
        self.forget_surplus();
    }

    /// Counts a connection that is about to be registered; gives the number of reconnects.
    /// `restarted`: it displaces a connection of the peer's earlier process.
    pub(crate) fn count_reconnect(&mut self, ip: PeerIp, restarted: bool) -> u64 {
        let record = self.record(ip);
        if restarted {
            record.backoff.reset();
        }
        if std::mem::take(&mut record.lost) || restarted {
            record.reconnects += 1;
        }
        record.reconnects
    }

    /// Keeps the end of a connection in the peer's record.
    pub(crate) fn note_end(&mut self, end: &ConnectionEnd, at_ms: u64) {
        self.record(end.ip).last_end = Some(End {
            at_ms,
            direction: end.direction,
            reason: end.reason.clone(),
            lasted: Some(end.lasted),
        });
    }

    /// The registered connection has ended: the next dial is scheduled.
    pub(crate) fn disconnected(&mut self, end: &ConnectionEnd, now: (Instant, u64), jitter: u32) {
        let (own, timing) = (self.own_dialed(), self.timing);
        let record = self.record(end.ip);
        let duplicate = end.reason.code == CloseCode::Duplicate;
        record.lost |= !duplicate;
        if end.lasted >= timing.backoff_reset {
            record.backoff.reset();
        }
        let still_dialing = matches!(record.link, Link::Connected { dialing: true, .. });
        if still_dialing {
            record.link = Link::Dialing;
            return;
        }
        record.link = Link::Idle;
        if !record.dialed {
            return;
        }
        let delay = record.backoff.fail(jitter) + first_dial_delay(own, end.ip, timing.dial_grace);
        self.schedule(end.ip, delay, now);
    }

    /// A handshake was refused or failed. Kept for peers that have a record.
    pub(crate) fn refused(
        &mut self,
        ip: PeerIp,
        direction: Direction,
        reason: &CloseReason,
        at_ms: u64,
    ) {
        if let Some(record) = self.records.get_mut(&ip) {
            Arc::make_mut(record).last_end = Some(End {
                at_ms,
                direction,
                reason: reason.clone(),
                lasted: None,
            });
        }
    }

    /// This node's address when peers may dial it; `None` when they have no reason to.
    fn own_dialed(&self) -> Option<PeerIp> {
        self.own_ip.filter(|_| self.recorded)
    }

    fn record(&mut self, ip: PeerIp) -> &mut KnownRecord {
        let timing = &self.timing;
        let record = self.records.entry(ip).or_insert_with(|| {
            Arc::new(KnownRecord {
                ip,
                port: None,
                name: None,
                dialed: false,
                link: Link::Idle,
                backoff: Backoff::new(timing.backoff_start, timing.backoff_limit),
                last_end: None,
                reconnects: 0,
                lost: false,
            })
        });
        Arc::make_mut(record)
    }

    fn schedule(&mut self, ip: PeerIp, delay: Duration, now: (Instant, u64)) {
        self.unschedule(ip);
        let at = now.0 + delay;
        self.due.insert((at, ip));
        self.due_at.insert(ip, at);
        let own = self.own_dialed();
        let record = self.record(ip);
        record.link = Link::Waiting {
            next_dial_ms: now.1 + delay.as_millis() as u64,
            grace: record.backoff.failures() == 0 && !delay.is_zero() && !dials_at_once(own, ip),
        };
    }

    fn unschedule(&mut self, ip: PeerIp) {
        if let Some(at) = self.due_at.remove(&ip) {
            self.due.remove(&(at, ip));
        }
    }

    fn forget_surplus(&mut self) {
        let forgettable = |record: &KnownRecord| !record.dialed && record.link == Link::Idle;
        let mut idle: Vec<(u64, PeerIp)> = (self.records.values())
            .filter(|record| forgettable(record))
            .map(|record| {
                (
                    record.last_end.as_ref().map_or(0, |end| end.at_ms),
                    record.ip,
                )
            })
            .collect();
        if idle.len() > MAX_REMEMBERED {
            idle.sort_unstable();
            for (_, ip) in &idle[..idle.len() - MAX_REMEMBERED] {
                self.records.remove(ip);
            }
        }
    }
}

impl KnownRecord {
    /// For display, at a time of day.
    pub(crate) fn shown(&self, now_ms: u64) -> KnownPeer {
        let next_dial_ms = match self.link {
            Link::Waiting { next_dial_ms, .. } => Some(next_dial_ms),
            _ => None,
        };
        let last_end = self.last_end.as_ref();
        KnownPeer {
            ip: self.ip,
            port: self.port,
            name: self.name.clone(),
            connected: matches!(self.link, Link::Connected { .. }),
            next_dial_ms,
            failures: self.backoff.failures(),
            last_end: last_end.map(|end| (end.at_ms, end.direction, end.sentence())),
            explanation: self.explain(now_ms),
        }
    }

    fn explain(&self, now_ms: u64) -> String {
        let seconds_to = |at_ms: u64| at_ms.saturating_sub(now_ms).div_ceil(1000);
        let last = match &self.last_end {
            Some(end) => format!("; last: {}", end.sentence()),
            None => String::new(),
        };
        match self.link {
            Link::Connected {
                since_ms,
                direction,
                ..
            } => format!(
                "connected for {} s, {}",
                now_ms.saturating_sub(since_ms) / 1000,
                match direction {
                    Direction::Inbound => "it dialed",
                    Direction::Outbound => "this node dialed",
                }
            ),
            Link::Dialing => format!("being dialed now{last}"),
            Link::Waiting {
                next_dial_ms,
                grace: true,
            } => format!(
                "expected to dial this node, its address being higher; dialed in {} s if it does \
                 not{last}",
                seconds_to(next_dial_ms)
            ),
            Link::Waiting { next_dial_ms, .. } => {
                format!("next dialed in {} s{last}", seconds_to(next_dial_ms))
            }
            Link::Idle if self.dialed => {
                format!("not dialed: its port is not known{last}")
            }
            Link::Idle => format!("not dialed: it is neither recorded nor configured{last}"),
        }
    }
}

impl End {
    fn sentence(&self) -> String {
        match self.lasted {
            Some(lasted) => format!("after {} s, {}", lasted.as_secs(), self.reason),
            None => self.reason.to_string(),
        }
    }
}
