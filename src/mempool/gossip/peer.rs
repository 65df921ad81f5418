//! One peer: what it is known to have, and what is still to be said, asked and served.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;

use super::{Outbox, Stage, Wanted};
use crate::mempool::pool::Pool;
use crate::mempool::recent::RecentIds;
use crate::types::{PeerIp, Transaction, TxId};
use crate::wire::TransactionsMessage;
use crate::wire::messages::MAX_TRANSACTION_IDS;

/// How many ids a peer is remembered to have: more than a pool holds.
const KNOWN_IDS: usize = 12_000;

/// The most ids asked of a peer and not yet answered.
pub(super) const MAX_IN_FLIGHT: usize = 512;

/// Bodies are packed into frames of this size: far below the stream's limit, so that a queue of them
/// stays small, and above the largest transaction.
const BODIES_BYTES: usize = 256 * 1024;

/// What passes between this node and a peer.
pub(super) struct Peer {
    /// Since when it is connected.
    pub(super) connected: Instant,
    /// What it has, as far as it said or was told.
    pub(super) known: RecentIds,
    /// What it is to be told.
    pub(super) unannounced: VecDeque<TxId>,
    /// Wanted ids that it can be asked for, oldest first.
    pub(super) offers: BTreeSet<(u64, TxId)>,
    /// How many wanted ids it is an announcer of.
    pub(super) wanted: usize,
    /// What it was asked for, and when.
    pub(super) in_flight: BTreeMap<TxId, Instant>,
    /// When it last sent a body that was wanted from it, or was asked while it owed none.
    pub(super) progress: Instant,
    /// How many questions it has let lapse since it connected.
    pub(super) lapses: u32,
    /// What it has asked for.
    pub(super) to_serve: VecDeque<TxId>,
    /// Its send queue was full: nothing is tried before the next tick.
    pub(super) blocked: bool,
}

impl Peer {
    /// A peer that is to be told of everything in the pool.
    pub(super) fn new(pool: &Pool, now: Instant) -> Self {
        Self {
            connected: now,
            known: RecentIds::new(KNOWN_IDS),
            unannounced: pool.ids().into(),
            offers: BTreeSet::new(),
            wanted: 0,
            in_flight: BTreeMap::new(),
            progress: now,
            lapses: 0,
            to_serve: VecDeque::new(),
            blocked: false,
        }
    }

    /// It is to be told of an id.
    pub(super) fn will_tell(&mut self, txid: TxId, pool: &Pool) {
        // Ids that have left the pool in the meantime make room; a pool's worth always fits.
        if self.unannounced.len() >= KNOWN_IDS {
            self.unannounced.retain(|txid| pool.contains(txid));
        }
        self.unannounced.push_back(txid);
    }

    /// It is to be told of ids that it may have been told of before.
    pub(super) fn will_tell_again(&mut self, ids: &[TxId], pool: &Pool) {
        // However long its queue is full, no id waits here twice.
        let waiting: BTreeSet<TxId> = self.unannounced.iter().copied().collect();
        for txid in ids {
            self.known.remove(txid);
            if !waiting.contains(txid) {
                self.will_tell(*txid, pool);
            }
        }
    }

    /// Sends it what there is to send; returns whether all of it was sent.
    pub(super) fn flush(
        &mut self,
        ip: PeerIp,
        pool: &Pool,
        wanted: &mut BTreeMap<TxId, Wanted>,
        now: Instant,
        outbox: &mut dyn Outbox,
    ) -> bool {
        self.flush_announcements(ip, pool, outbox)
            && self.flush_questions(ip, wanted, now, outbox)
            && self.flush_bodies(ip, pool, outbox)
    }

    fn flush_announcements(&mut self, ip: PeerIp, pool: &Pool, outbox: &mut dyn Outbox) -> bool {
        loop {
            let mut ids = Vec::new();
            while ids.len() < MAX_TRANSACTION_IDS
                && let Some(txid) = self.unannounced.pop_front()
            {
                if pool.contains(&txid) && !self.known.contains(&txid) {
                    ids.push(txid);
                }
            }
            if ids.is_empty() {
                return true;
            }
            if outbox
                .send(ip, TransactionsMessage::Announce(ids.clone()))
                .is_err()
            {
                for txid in ids.into_iter().rev() {
                    self.unannounced.push_front(txid);
                }
                return false;
            }
            for txid in ids {
                self.known.insert(txid);
            }
        }
    }

    fn flush_bodies(&mut self, ip: PeerIp, pool: &Pool, outbox: &mut dyn Outbox) -> bool {
        while !self.to_serve.is_empty() {
            let (taken, bodies) = self.next_bodies(pool);
            let sent: Vec<TxId> = self.to_serve.iter().take(taken).copied().collect();
            if !bodies.is_empty()
                && outbox
                    .send(ip, TransactionsMessage::Bodies(bodies))
                    .is_err()
            {
                return false;
            }
            self.to_serve.drain(..taken);
            for txid in sent {
                self.known.insert(txid);
            }
        }
        true
    }

    /// The next frame of bodies, and how many requests it answers: ids that have left the pool are
    /// passed over.
    fn next_bodies(&self, pool: &Pool) -> (usize, Vec<Transaction>) {
        let mut bytes = 0;
        let mut bodies = Vec::new();
        for (taken, txid) in self.to_serve.iter().enumerate() {
            let Some(transaction) = pool.get(txid) else {
                continue;
            };
            bytes += transaction.encoded_bytes();
            if bytes > BODIES_BYTES && !bodies.is_empty() {
                return (taken, bodies);
            }
            bodies.push((**transaction).clone());
        }
        (self.to_serve.len(), bodies)
    }

    fn flush_questions(
        &mut self,
        ip: PeerIp,
        wanted: &mut BTreeMap<TxId, Wanted>,
        now: Instant,
        outbox: &mut dyn Outbox,
    ) -> bool {
        let mut ids = Vec::new();
        let room = MAX_IN_FLIGHT.saturating_sub(self.in_flight.len());
        while ids.len() < room.min(MAX_TRANSACTION_IDS)
            && let Some((_, txid)) = self.offers.pop_first()
        {
            // Another announcer was asked meanwhile: if it fails, the id is offered again.
            let open = |wanted: &&Wanted| wanted.stage == Stage::Open;
            if wanted.get(&txid).as_ref().is_some_and(open) {
                ids.push(txid);
            }
        }
        if ids.is_empty() {
            return true;
        }
        if outbox
            .send(ip, TransactionsMessage::Get(ids.clone()))
            .is_err()
        {
            let open = |txid: TxId| Some((wanted.get(&txid)?.sequence, txid));
            self.offers.extend(ids.into_iter().filter_map(open));
            return false;
        }
        if self.in_flight.is_empty() {
            self.progress = now;
        }
        for txid in ids {
            if let Some(wanted) = wanted.get_mut(&txid) {
                wanted.stage = Stage::Asked(ip);
                wanted.attempts += 1;
                if let Some(tries) = wanted.announcers.get_mut(&ip) {
                    *tries += 1;
                }
                self.in_flight.insert(txid, now);
            }
        }
        true
    }
}
