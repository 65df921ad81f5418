//! Who has which transaction, what is asked of whom, and what is still to be sent: no clock, no
//! network.
//!
//! - **Announce.** A transaction that enters the pool is announced to every peer that is not known to
//!   have it; a new peer is told of the whole pool.
//! - **Announce again.** Peers drop ids that they have no room for, and count on hearing of them again.
//!   Every 60 s all are told once more of what was in the pool 60 s ago already: of the best 1,000 in
//!   the order of selection, because blocks take those first and so bring the others forward. A peer
//!   that connected meanwhile is left out: it was told of the whole pool. What a user submits again is
//!   announced again at once. While the pool is empty there are no rounds.
//! - **Ask.** An unknown id is asked of one of its announcers at a time. An announcer that lets 2 s
//!   pass without sending anything that was wanted from it, or 20 s in which other transactions came
//!   instead, has let the question lapse. Then those are asked that were asked least often for this
//!   id: each announcer once before any of them twice. Its late answer is still welcome. The id is
//!   forgotten when it was asked for six times and of every announcer.
//! - **Serve.** Bodies go out in frames of at most 256 KiB, in the order in which they were asked for.
//!
//! What a full send queue does not take stays here and is tried again at the next tick. Peers are
//! visited in a fixed order, so a run is reproducible: those first that have let the fewest questions
//! lapse since they connected, of equals the lower address. So of several that could be asked, those
//! that let questions lapse are asked only for what the better ones have no room for.

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

/// The most bodies that a peer may have asked for and not yet been sent.
pub(super) const MAX_TO_SERVE: usize = 2 * MAX_TRANSACTION_IDS;

/// A peer that sends nothing wanted for this long after a question loses it.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A peer that sends other transactions but not this one for this long loses the question.
pub(super) const SLOW_ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How often an id is asked for before it is forgotten, if every announcer was asked.
const MAX_ATTEMPTS: u32 = 6;

/// How often what waits is announced again, and how long it must have waited.
pub(super) const ROUND: Duration = Duration::from_secs(60);

/// The most ids that are announced again in a round: one message to each peer.
const MAX_OF_ROUND: usize = MAX_TRANSACTION_IDS;

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
    /// When what waits is announced again; `None` while the pool is empty.
    next_round: Option<Round>,
    over_limit: u64,
    unrequested: u64,
}

/// A round of announcing again.
struct Round {
    due: Instant,
    /// What had arrived in the pool when the round before was due.
    arrivals: u64,
}

/// An id that a peer has and this node does not.
struct Wanted {
    sequence: u64,
    /// Who can be asked for it, and how often each was. Bounded by the peers there are, and together
    /// by what each of them may be an announcer of.
    announcers: BTreeMap<PeerIp, u32>,
    stage: Stage,
    attempts: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It stands in the offers of those announcers that were asked for it least often.
    Open,
    /// A peer was asked for it.
    Asked(PeerIp),
    /// A copy of this peer has arrived and is being checked.
    Checking(PeerIp),
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
            .filter(|(_, wanted)| wanted.announcers.contains_key(&peer))
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
                announcers: BTreeMap::new(),
                stage: Stage::Open,
                attempts: 0,
            }
        });
        if wanted.announcers.contains_key(&peer) {
            return;
        }
        wanted.announcers.insert(peer, 0);
        state.wanted += 1;
        if wanted.stage != Stage::Open {
            return;
        }
        if wanted.attempts == 0 {
            state.offers.insert((wanted.sequence, txid));
        } else {
            self.offer(txid);
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
        let Some(wanted) = self.wanted.get_mut(&txid) else {
            self.unrequested += 1;
            return false;
        };
        let checking = matches!(wanted.stage, Stage::Checking(_));
        if checking || !wanted.announcers.contains_key(&peer) {
            return false;
        }
        // Nothing else counts: whoever has no answer could hold its questions with any bytes.
        state.progress = now;
        let stage = std::mem::replace(&mut wanted.stage, Stage::Checking(peer));
        let key = (wanted.sequence, txid);
        if let Stage::Asked(asked) = stage
            && let Some(asked) = self.peers.get_mut(&asked)
        {
            asked.in_flight.remove(&txid);
        }
        for announcer in wanted.announcers.keys() {
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
        for announcer in wanted.announcers.keys() {
            if let Some(announcer) = self.peers.get_mut(announcer) {
                announcer.wanted -= 1;
                announcer.offers.remove(&(wanted.sequence, *txid));
                announcer.in_flight.remove(txid);
            }
        }
    }

    /// The copy that a peer sent was worthless although the id may be good: all others can be asked that
    /// have it, as far as is known. So those count too that announced it while this copy was held as an
    /// orphan, and those that were told of it from here before it left the pool.
    pub(super) fn bad_copy(&mut self, peer: PeerIp, txid: TxId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.known.remove(&txid);
        }
        let has_it = |(_, peer): &(&PeerIp, &Peer)| peer.known.contains(&txid);
        let others = self.peers.iter().filter(has_it);
        let others: Vec<PeerIp> = others.map(|(ip, _)| *ip).collect();
        for other in others {
            self.want(other, txid);
        }
        if let Some(wanted) = self.wanted.get_mut(&txid)
            && wanted.stage == Stage::Checking(peer)
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

    /// All will be told of ids again, whatever they are known to have.
    pub(super) fn announce_again(&mut self, ids: &[TxId], pool: &Pool) {
        for peer in self.peers.values_mut() {
            peer.will_tell_again(ids, pool);
        }
    }

    /// Sends what there is to send, passes overdue questions on, and announces again what is due.
    pub(super) fn flush(&mut self, pool: &Pool, now: Instant, outbox: &mut dyn Outbox) {
        if self.next_tick.is_some_and(|tick| tick <= now) {
            self.next_tick = None;
            for peer in self.peers.values_mut() {
                peer.blocked = false;
            }
            self.pass_on_overdue(now);
        }
        self.begin_round(pool, now);
        let mut unfinished = false;
        for ip in self.in_order() {
            let Some(peer) = self.peers.get_mut(&ip) else {
                continue;
            };
            if !peer.blocked {
                peer.blocked = !peer.flush(ip, pool, &mut self.wanted, now, outbox);
            }
            unfinished |= peer.blocked || !peer.in_flight.is_empty();
        }
        if unfinished && self.next_tick.is_none() {
            self.next_tick = Some(now + TICK);
        }
    }

    /// When [`Gossip::flush`] must be called again at the latest.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let round = self.next_round.as_ref().map(|round| round.due);
        self.next_tick.into_iter().chain(round).min()
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

    /// Announces again what has waited since the round before, when that is due.
    fn begin_round(&mut self, pool: &Pool, now: Instant) {
        if pool.is_empty() {
            self.next_round = None;
            return;
        }
        if self.next_round.as_ref().is_some_and(|next| now < next.due) {
            return;
        }
        let next = Round {
            due: now + ROUND,
            arrivals: pool.arrivals(),
        };
        let Some(round) = self.next_round.replace(next) else {
            return;
        };
        let ids = pool.best_of_arrivals(round.arrivals, MAX_OF_ROUND);
        for peer in self.peers.values_mut() {
            if now >= peer.connected + ROUND {
                peer.will_tell_again(&ids, pool);
            }
        }
    }

    /// All peers, those first that have let the fewest questions lapse.
    fn in_order(&self) -> Vec<PeerIp> {
        let mut order: Vec<PeerIp> = self.peers.keys().copied().collect();
        order.sort_by_key(|ip| self.peers[ip].lapses);
        order
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
                peer.lapses = peer.lapses.saturating_add(1);
            }
            self.reopen(txid);
        }
    }

    /// Offers an id to its announcers again, or forgets it when it was asked for often enough.
    fn reopen(&mut self, txid: TxId) {
        let Some(wanted) = self.wanted.get_mut(&txid) else {
            return;
        };
        if wanted.is_hopeless() {
            self.settled(&txid);
            return;
        }
        wanted.stage = Stage::Open;
        self.offer(txid);
    }

    /// Puts an open id into the offers of those that were asked for it least often, and of no others.
    fn offer(&mut self, txid: TxId) {
        let Some(wanted) = self.wanted.get(&txid) else {
            return;
        };
        let fewest = wanted.fewest_tries();
        for (announcer, tries) in &wanted.announcers {
            let Some(peer) = self.peers.get_mut(announcer) else {
                continue;
            };
            if Some(*tries) == fewest {
                peer.offers.insert((wanted.sequence, txid));
            } else {
                peer.offers.remove(&(wanted.sequence, txid));
            }
        }
    }

    fn drop_announcer(&mut self, txid: TxId, peer: PeerIp) {
        let Some(wanted) = self.wanted.get_mut(&txid) else {
            return;
        };
        if wanted.announcers.remove(&peer).is_some()
            && let Some(state) = self.peers.get_mut(&peer)
        {
            state.wanted -= 1;
            state.offers.remove(&(wanted.sequence, txid));
            state.in_flight.remove(&txid);
        }
        match wanted.stage {
            Stage::Open => self.reopen(txid),
            Stage::Asked(asked) if asked == peer => self.reopen(txid),
            Stage::Asked(_) | Stage::Checking(_) => {}
        }
    }
}

impl Wanted {
    /// How often those were asked that were asked least often; `None` when nobody has it.
    fn fewest_tries(&self) -> Option<u32> {
        self.announcers.values().copied().min()
    }

    fn is_hopeless(&self) -> bool {
        match self.fewest_tries() {
            Some(fewest) => fewest > 0 && self.attempts >= MAX_ATTEMPTS,
            None => true,
        }
    }
}

#[cfg(test)]
mod tests;
