//! Who has which transaction, what is asked of whom, and what is still to be sent: no clock, no
//! network.
//!
//! - **Announce.** A transaction that enters the pool is announced to every peer that is not known to
//!   have it; a new peer is told of the whole pool.
//! - **Ask.** An unknown id is asked of one of its announcers at a time. An announcer that lets 2 s
//!   pass without sending anything, or 20 s in which other transactions came instead, loses the
//!   question to the next one. After six questions the id is forgotten.
//! - **Serve.** Bodies go out in frames of at most 256 KiB, in the order in which they were asked for.
//!
//! What a full send queue does not take stays here and is tried again at the next tick. Peers are
//! visited in ascending order, so a run is reproducible.

mod peer;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::pool::Pool;
use crate::net::SendError;
use crate::types::{PeerIp, TxId};
use crate::wire::TransactionsMessage;
use crate::wire::messages::MAX_TRANSACTION_IDS;

use peer::Peer;

/// The most wanted ids that a peer may be an announcer of: a whole pool.
pub(super) const MAX_WANTED_OF_PEER: usize = 10_000;

/// The most announcers remembered for an id.
const MAX_ANNOUNCERS: usize = 8;

/// The most bodies that a peer may have asked for and not yet been sent.
pub(super) const MAX_TO_SERVE: usize = 2 * MAX_TRANSACTION_IDS;

/// A peer that sends nothing for this long after a question loses it.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A peer that sends other transactions but not this one for this long loses the question.
pub(super) const SLOW_ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How often an id is asked for before it is forgotten.
const MAX_ATTEMPTS: u8 = 6;

/// How often timeouts are looked at and full queues tried again.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// Where messages go.
pub(super) trait Outbox {
    /// Queues a message for a peer.
    fn send(&mut self, to: PeerIp, message: TransactionsMessage) -> Result<(), SendError>;
}

/// The state of gossip with all peers.
#[derive(Default)]
pub(super) struct Gossip {
    peers: BTreeMap<PeerIp, Peer>,
    wanted: BTreeMap<TxId, Wanted>,
    /// Numbers wanted ids in the order in which they became known.
    sequence: u64,
    /// When timeouts are looked at and full queues tried again; `None` while there is nothing to do.
    next_tick: Option<Instant>,
    over_limit: u64,
    unrequested: u64,
}

/// An id that a peer has and this node does not.
struct Wanted {
    sequence: u64,
    announcers: Vec<PeerIp>,
    stage: Stage,
    attempts: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It stands in the offers of its announcers.
    Open,
    /// A peer was asked for it.
    Asked(PeerIp),
    /// A copy has arrived and is being checked.
    Checking,
}

impl Gossip {
    /// A peer is connected: it will be told of everything in the pool.
    pub(super) fn connected(&mut self, peer: PeerIp, pool: &Pool, now: Instant) {
        self.disconnected(peer);
        self.peers.insert(peer, Peer::new(pool, now));
    }

    /// A peer is gone: what it was asked for is open again, what only it had is forgotten.
    pub(super) fn disconnected(&mut self, peer: PeerIp) {
        if self.peers.remove(&peer).is_none() {
            return;
        }
        let announced: Vec<TxId> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| wanted.announcers.contains(&peer))
            .map(|(txid, _)| *txid)
            .collect();
        for txid in announced {
            self.drop_announcer(txid, peer);
        }
    }

    /// A peer has ids; `is_needed` says which are unknown here.
    pub(super) fn announced(
        &mut self,
        peer: PeerIp,
        ids: &[TxId],
        is_needed: impl Fn(&TxId) -> bool,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if ids.len() > MAX_TRANSACTION_IDS {
            self.over_limit += 1;
            return;
        }
        for txid in ids {
            state.known.insert(*txid);
        }
        for txid in ids.iter().filter(|txid| is_needed(txid)) {
            self.want(peer, *txid);
        }
    }

    /// A peer can be asked for an id that is needed here.
    pub(super) fn want(&mut self, peer: PeerIp, txid: TxId) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if state.wanted >= MAX_WANTED_OF_PEER {
            self.over_limit += 1;
            return;
        }
        let wanted = self.wanted.entry(txid).or_insert_with(|| {
            self.sequence += 1;
            Wanted {
                sequence: self.sequence,
                announcers: Vec::new(),
                stage: Stage::Open,
                attempts: 0,
            }
        });
        if wanted.announcers.contains(&peer) || wanted.announcers.len() >= MAX_ANNOUNCERS {
            return;
        }
        wanted.announcers.push(peer);
        state.wanted += 1;
        if wanted.stage == Stage::Open {
            state.offers.insert((wanted.sequence, txid));
        }
    }

    /// A peer asks for bodies.
    pub(super) fn requested(&mut self, peer: PeerIp, ids: Vec<TxId>) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if ids.len() > MAX_TRANSACTION_IDS || state.to_serve.len() + ids.len() > MAX_TO_SERVE {
            self.over_limit += 1;
            return;
        }
        state.to_serve.extend(ids);
    }

    /// A peer has sent a body. True when it is to be checked: it was wanted, that peer could be
    /// asked for it, and no other copy is being checked.
    pub(super) fn arrived(&mut self, peer: PeerIp, txid: TxId, now: Instant) -> bool {
        let Some(state) = self.peers.get_mut(&peer) else {
            return false;
        };
        state.known.insert(txid);
        state.progress = now;
        let Some(wanted) = self.wanted.get_mut(&txid) else {
            self.unrequested += 1;
            return false;
        };
        if wanted.stage == Stage::Checking || !wanted.announcers.contains(&peer) {
            return false;
        }
        let stage = std::mem::replace(&mut wanted.stage, Stage::Checking);
        let key = (wanted.sequence, txid);
        if let Stage::Asked(asked) = stage
            && let Some(asked) = self.peers.get_mut(&asked)
        {
            asked.in_flight.remove(&txid);
        }
        for announcer in &wanted.announcers {
            if let Some(announcer) = self.peers.get_mut(announcer) {
                announcer.offers.remove(&key);
            }
        }
        true
    }

    /// An id is no longer wanted, whatever the reason.
    pub(super) fn settled(&mut self, txid: &TxId) {
        let Some(wanted) = self.wanted.remove(txid) else {
            return;
        };
        for announcer in &wanted.announcers {
            if let Some(announcer) = self.peers.get_mut(announcer) {
                announcer.wanted -= 1;
                announcer.offers.remove(&(wanted.sequence, *txid));
                announcer.in_flight.remove(txid);
            }
        }
    }

    /// The copy that a peer sent was worthless although the id may be good: others are asked.
    pub(super) fn bad_copy(&mut self, peer: PeerIp, txid: TxId) {
        if let Some(wanted) = self.wanted.get_mut(&txid)
            && wanted.stage == Stage::Checking
        {
            wanted.stage = Stage::Asked(peer);
            self.drop_announcer(txid, peer);
        }
    }

    /// A transaction has entered the pool: all who are not known to have it will be told.
    pub(super) fn accepted(&mut self, txid: TxId, pool: &Pool) {
        self.settled(&txid);
        for peer in self.peers.values_mut() {
            if !peer.known.contains(&txid) {
                peer.will_tell(txid, pool);
            }
        }
    }

    /// Sends what there is to send, and passes overdue questions on.
    pub(super) fn flush(&mut self, pool: &Pool, now: Instant, outbox: &mut dyn Outbox) {
        if self.next_tick.is_some_and(|tick| tick <= now) {
            self.next_tick = None;
            for peer in self.peers.values_mut() {
                peer.blocked = false;
            }
            self.pass_on_overdue(now);
        }
        let mut unfinished = false;
        for (ip, peer) in &mut self.peers {
            if !peer.blocked {
                peer.blocked = !peer.flush(*ip, pool, &mut self.wanted, now, outbox);
            }
            unfinished |= peer.blocked || !peer.in_flight.is_empty();
        }
        if unfinished && self.next_tick.is_none() {
            self.next_tick = Some(now + TICK);
        }
    }

    /// When [`Gossip::flush`] must be called again at the latest.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        self.next_tick
    }

    /// How many ids are wanted.
    pub(super) fn wanted(&self) -> usize {
        self.wanted.len()
    }

    /// Announcements and requests ignored because they were over a limit.
    pub(super) fn over_limit(&self) -> u64 {
        self.over_limit
    }

    /// Bodies that nobody had asked for.
    pub(super) fn unrequested(&self) -> u64 {
        self.unrequested
    }

    fn pass_on_overdue(&mut self, now: Instant) {
        let mut overdue = Vec::new();
        for (ip, peer) in &self.peers {
            for (txid, asked) in &peer.in_flight {
                let silent = now >= peer.progress.max(*asked) + ANSWER_TIMEOUT;
                if silent || now >= *asked + SLOW_ANSWER_TIMEOUT {
                    overdue.push((*ip, *txid));
                }
            }
        }
        for (ip, txid) in overdue {
            if let Some(peer) = self.peers.get_mut(&ip) {
                peer.in_flight.remove(&txid);
            }
            self.reopen(txid, Some(ip));
        }
    }

    /// Offers an id to its announcers again, except to one that failed unless it is the only one.
    fn reopen(&mut self, txid: TxId, failed: Option<PeerIp>) {
        let Some(wanted) = self.wanted.get_mut(&txid) else {
            return;
        };
        if wanted.attempts >= MAX_ATTEMPTS || wanted.announcers.is_empty() {
            self.settled(&txid);
            return;
        }
        wanted.stage = Stage::Open;
        let alone = wanted.announcers.len() == 1;
        for announcer in &wanted.announcers {
            if (alone || Some(*announcer) != failed)
                && let Some(peer) = self.peers.get_mut(announcer)
            {
                peer.offers.insert((wanted.sequence, txid));
            }
        }
    }

    fn drop_announcer(&mut self, txid: TxId, peer: PeerIp) {
        let Some(wanted) = self.wanted.get_mut(&txid) else {
            return;
        };
        let before = wanted.announcers.len();
        wanted.announcers.retain(|announcer| *announcer != peer);
        if wanted.announcers.len() < before
            && let Some(state) = self.peers.get_mut(&peer)
        {
            state.wanted -= 1;
            state.offers.remove(&(wanted.sequence, txid));
            state.in_flight.remove(&txid);
        }
        match wanted.stage {
            Stage::Asked(asked) if asked == peer => self.reopen(txid, None),
            Stage::Open if wanted.announcers.is_empty() => self.settled(&txid),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
