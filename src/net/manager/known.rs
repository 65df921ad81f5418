//! Everyone known: where to dial them, when the next dial is due, and what last happened.
//!
//! Masternodes and configured peers are dialed for ever, peers of an earlier run until they have
//! failed [`MAX_EARLIER_FAILURES`] times in a row or strangers have all slots. Whoever else connects is remembered, at most
//! [`MAX_REMEMBERED`] of them, the longest gone forgotten first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::net::backoff::Backoff;
use crate::net::connection::ConnectionEnd;
use crate::net::direction::{dials_at_once, first_dial_delay};
use crate::net::peer::PeerFacts;
use crate::net::{Direction, NetTiming};
use crate::types::{MasternodeDirectory, PeerIp};
use crate::wire::{CloseCode, CloseReason};

mod shown;

/// The most records of peers that are neither dialed nor connected.
const MAX_REMEMBERED: usize = 256;

/// The failures in a row after which a peer of an earlier run is dialed no more: about 2 minutes.
const MAX_EARLIER_FAILURES: u32 = 8;

/// Why a peer is dialed.
pub(crate) enum Why {
    /// A masternode record names it.
    Recorded(String),
    /// The operator named it.
    Configured,
    /// It was connected in an earlier run.
    Earlier,
}

/// What is known of one peer.
#[derive(Clone, Debug)]
pub(crate) struct KnownRecord {
    ip: PeerIp,
    port: Option<u16>,
    name: Option<String>,
    /// A masternode record names it: dialed for ever.
    recorded: bool,
    /// The operator named it: dialed for ever.
    configured: bool,
    /// It was connected in an earlier run: dialed until [`MAX_EARLIER_FAILURES`] in a row.
    earlier: bool,
    link: Link,
    backoff: Backoff,
    last_end: Option<End>,
    last_refusal: Option<End>,
    reconnects: u64,
    /// A connection was lost and not replaced: the next one is a reconnect.
    lost: bool,
}

/// A disconnect or a refusal.
#[derive(Clone, Debug)]
struct End {
    at_ms: u64,
    direction: Direction,
    reason: CloseReason,
    /// This node ended or refused it.
    by_us: bool,
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

    /// Adds a peer to dial.
    pub(crate) fn add(&mut self, address: SocketAddr, why: Why, now: (Instant, u64)) {
        let ip = PeerIp::from(address);
        // What the operator says of a full node's own address may be wrong, and must not keep it from
        // a peer that is really there.
        if Some(ip) == self.own_dialed() || !ip.is_usable() {
            return;
        }
        let delay = match why {
            Why::Earlier => Duration::ZERO,
            _ => first_dial_delay(self.own_dialed(), ip, self.timing.dial_grace),
        };
        let record = self.record(ip);
        // A masternode's record comes first and knows the port best.
        record.port = record
            .port
            .or(Some(address.port()).filter(|port| *port != 0));
        match why {
            Why::Recorded(name) => {
                record.recorded = true;
                record.name = Some(name);
            }
            Why::Configured => record.configured = true,
            Why::Earlier => record.earlier = true,
        }
        let sooner = (self.due_at.get(&ip)).is_none_or(|due| now.0 + delay < *due);
        if sooner {
            self.schedule(ip, delay, now);
        }
    }

    /// Other masternode records are in force: those that they name are dialed, where they say. A
    /// masternode that has moved is no longer dialed at its old address. `own_ip` is where this node's
    /// own record says it is, if there is one.
    pub(crate) fn use_records(
        &mut self,
        directory: &MasternodeDirectory,
        own_ip: Option<PeerIp>,
        now: (Instant, u64),
    ) {
        self.own_ip = own_ip.or(self.own_ip);
        self.recorded |= own_ip.is_some();
        let own_dialed = self.own_dialed();
        let left: Vec<PeerIp> = (self.records.values())
            .filter(|record| record.recorded && directory.by_ip(record.ip).is_none())
            .map(|record| record.ip)
            .collect();
        for ip in left {
            let record = self.record(ip);
            (record.recorded, record.earlier) = (false, false);
            if !record.dialed() {
                if matches!(record.link, Link::Waiting { .. }) {
                    record.link = Link::Idle;
                }
                self.unschedule(ip);
            }
        }
        for (_, record) in directory.records() {
            let ip = record.ip;
            let known = self.records.get(&ip);
            let unchanged =
                known.is_some_and(|known| known.recorded && known.port == Some(record.port));
            if unchanged || Some(ip) == own_dialed {
                continue;
            }
            let known = self.record(ip);
            known.recorded = true;
            known.port = Some(record.port);
            known.name = Some(record.name.clone());
            if matches!(known.link, Link::Idle | Link::Waiting { .. }) {
                known.backoff.reset();
                self.schedule(ip, Duration::ZERO, now);
            }
        }
    }

    /// All records.
    pub(crate) fn records(&self) -> &BTreeMap<PeerIp, Arc<KnownRecord>> {
        &self.records
    }

    /// Whether a record or the operator names this peer, and not only the past of this node.
    pub(crate) fn is_chosen(&self, ip: PeerIp) -> bool {
        let known = self.records.get(&ip);
        known.is_some_and(|record| record.recorded || record.configured)
    }

    /// A peer of an earlier run is not dialed any more.
    pub(crate) fn give_up(&mut self, ip: PeerIp) {
        self.unschedule(ip);
        let record = self.record(ip);
        record.earlier = false;
        record.link = Link::Idle;
        self.forget_surplus();
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
        if record.backoff.failures() + 1 >= MAX_EARLIER_FAILURES {
            record.earlier = false;
        }
        if connected {
            if let Link::Connected { dialing, .. } = &mut record.link {
                *dialing = false;
            }
            return;
        }
        let delay = record.backoff.fail(jitter);
        if !record.dialed() {
            // An earlier peer that is not there any more, or one that is no longer recorded.
            record.link = Link::Idle;
            return self.forget_surplus();
        }
        self.schedule(ip, delay, now);
    }

    /// Puts the next dial of a banned address off.
    pub(crate) fn postpone(&mut self, ip: PeerIp, delay: Duration, now: (Instant, u64)) {
        self.schedule(ip, delay, now);
    }

    /// Dials an address at once that is only waited for.
    pub(crate) fn dial_soon(&mut self, ip: PeerIp, now: (Instant, u64)) {
        if self.due_at.contains_key(&ip) {
            self.record(ip).backoff.reset();
            self.schedule(ip, Duration::ZERO, now);
        }
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
        if (!record.dialed() || record.port.is_none()) && facts.hello.listen_port != 0 {
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
            by_us: end.by_us,
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
        if !record.dialed() {
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
        (reason, by_us): (&CloseReason, bool),
        at_ms: u64,
    ) {
        if let Some(record) = self.records.get_mut(&ip) {
            Arc::make_mut(record).last_refusal = Some(End {
                at_ms,
                direction,
                reason: reason.clone(),
                by_us,
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
                recorded: false,
                configured: false,
                earlier: false,
                link: Link::Idle,
                backoff: Backoff::new(timing.backoff_start, timing.backoff_limit),
                last_end: None,
                last_refusal: None,
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
        let forgettable = |record: &KnownRecord| !record.dialed() && record.link == Link::Idle;
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
    fn dialed(&self) -> bool {
        self.recorded || self.configured || self.earlier
    }
}
