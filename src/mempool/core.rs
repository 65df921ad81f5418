//! The mempool without chain, network and time: pool, intake, orphans and gossip together.
//!
//! The caller asks for a batch, checks it against the chain ([`Batch`]) and hands the verdicts back.
//! Between the two, the pool must not lose transactions: blocks wait until the verdicts are in.

use tokio::time::Instant;
use tracing::debug;

use super::gossip::{Gossip, Outbox};
use super::intake::{Batch, Checked, Intake, Item, Origin, Reply, Verdict};
use super::orphans::{Orphan, Orphans};
use super::pool::{Insertion, Pool, PoolLimits};
use super::recent::RecentIds;
use super::{MempoolError, MempoolStats};
use crate::ledger::{Rules, StateView, TransactionError};
use crate::net::TransactionsEvent;
use crate::types::block::reward_txid;
use crate::types::{Block, PeerIp, Transaction, TxId};
use crate::wire::TransactionsMessage;

/// How many ids of confirmed and of refused transactions are remembered, so that they are not
/// fetched again.
const REMEMBERED_IDS: usize = 20_000;

/// Everything but chain, network and time.
pub(super) struct Core {
    pool: Pool,
    intake: Intake,
    orphans: Orphans,
    gossip: Gossip,
    /// Ids of the last blocks' transactions and rewards.
    confirmed: RecentIds,
    /// Ids that cannot be taken before the next block.
    refused: RecentIds,
    invalid: u64,
}

impl Core {
    /// An empty mempool.
    pub(super) fn new(rules: Rules, limits: PoolLimits) -> Self {
        Self {
            pool: Pool::new(rules, limits),
            intake: Intake::default(),
            orphans: Orphans::default(),
            gossip: Gossip::default(),
            confirmed: RecentIds::new(REMEMBERED_IDS),
            refused: RecentIds::new(REMEMBERED_IDS),
            invalid: 0,
        }
    }

    /// The pool.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether network events should be read.
    pub(super) fn has_room(&self) -> bool {
        self.intake.has_room()
    }

    /// Whether nothing here depends on the chain: blocks need not be read.
    pub(super) fn is_idle(&self) -> bool {
        self.pool.is_empty() && self.intake.is_empty() && self.orphans.is_empty()
    }

    /// Counts and sizes.
    pub(super) fn stats(&self) -> MempoolStats {
        MempoolStats {
            transactions: self.pool.len(),
            bytes: self.pool.bytes(),
            orphans: self.orphans.len(),
            wanted: self.gossip.wanted(),
            invalid: self.invalid,
            unrequested: self.gossip.unrequested(),
            over_limit: self.gossip.over_limit(),
        }
    }

    /// A user submits a transaction.
    pub(super) fn submit(&mut self, transaction: Transaction, reply: Reply) {
        let item = Item {
            txid: transaction.id(),
            transaction,
            origin: Origin::Local(reply),
        };
        if let Err(item) = self.intake.push(item) {
            self.refuse(item, MempoolError::Busy);
        }
    }

    /// The network delivers.
    pub(super) fn on_event(&mut self, event: TransactionsEvent, now: Instant) {
        match event {
            TransactionsEvent::Connected { peer } => self.gossip.connected(peer, &self.pool, now),
            TransactionsEvent::Disconnected { peer } => self.gossip.disconnected(peer),
            TransactionsEvent::Message { peer, message } => match message {
                TransactionsMessage::Announce(ids) => self.on_announce(peer, &ids),
                TransactionsMessage::Get(ids) => self.gossip.requested(peer, ids),
                TransactionsMessage::Bodies(bodies) => self.on_bodies(peer, bodies, now),
            },
        }
    }

    /// Sends what there is to send.
    pub(super) fn flush(&mut self, now: Instant, outbox: &mut dyn Outbox) {
        self.gossip.flush(&self.pool, now, outbox);
    }

    /// When [`Core::flush`] must be called again at the latest.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        self.gossip.next_tick()
    }

    /// The next transactions to check, `None` when none wait. What the pool alone can decide is
    /// decided at once.
    pub(super) fn next_batch(&mut self) -> Option<Batch> {
        loop {
            let taken = self.intake.take_batch();
            if taken.is_empty() {
                return None;
            }
            let mut items = Vec::with_capacity(taken.len());
            for item in taken {
                if self.pool.contains(&item.txid) {
                    self.confirm_waiting(item);
                    continue;
                }
                match self.pool.check_conflict(item.txid, &item.transaction) {
                    Ok(()) => items.push(item),
                    Err(error) => self.refuse(item, error),
                }
            }
            if !items.is_empty() {
                return Some(Batch::new(items, &self.pool));
            }
        }
    }

    /// The verdicts on a batch.
    pub(super) fn on_checked(&mut self, checked: Checked) {
        let Checked {
            verdicts,
            from_chain,
        } = checked;
        for (item, verdict) in verdicts {
            match verdict {
                Verdict::Verified(verified) => match self.pool.insert(verified, &from_chain) {
                    Ok(Insertion::New { evicted }) => {
                        debug!(txid = %item.txid, evicted = evicted.len(), "took a transaction");
                        self.accept(item);
                    }
                    Ok(Insertion::Known) => self.confirm_waiting(item),
                    Err(error) => self.refuse(item, error),
                },
                Verdict::Final(height) => {
                    self.confirmed.insert(item.txid);
                    let txid = item.txid;
                    self.refuse(item, MempoolError::AlreadyFinal { txid, height });
                }
                Verdict::Refused(error) => self.refuse(item, error.into()),
            }
        }
    }

    /// The chain has a new block.
    pub(super) fn on_block(&mut self, block: &Block) {
        let height = block.header.height;
        let conflicting = self.pool.apply_block(&block.transactions);
        if !conflicting.is_empty() {
            debug!(%height, count = conflicting.len(), "dropped what the block contradicts");
        }
        self.refused.clear();
        self.orphans.age();
        // The reward has an id and outputs, but no transaction.
        let reward = reward_txid(&block.header.parent, height);
        let transactions = block.transactions.iter().map(Transaction::id);
        for txid in transactions.chain([reward]) {
            self.confirmed.insert(txid);
            self.orphans.remove(&txid);
            self.gossip.settled(&txid);
            self.retry_children(&txid);
        }
    }

    /// The chain has moved in a way that was not followed block by block; `chain` answers for all of
    /// the pool's inputs. Returns how many transactions were dropped.
    pub(super) fn recheck(&mut self, chain: &dyn StateView) -> usize {
        self.refused.clear();
        for orphan in self.orphans.take_all() {
            self.queue(orphan.from, orphan.txid, orphan.transaction);
        }
        self.pool.recheck(chain).len()
    }

    /// The chain has moved while nothing here depended on it.
    pub(super) fn skip_blocks(&mut self) {
        self.refused.clear();
    }

    fn on_announce(&mut self, peer: PeerIp, ids: &[TxId]) {
        let Self {
            pool,
            orphans,
            confirmed,
            refused,
            gossip,
            ..
        } = self;
        gossip.announced(peer, ids, |txid| {
            !pool.contains(txid)
                && !confirmed.contains(txid)
                && !refused.contains(txid)
                && !orphans.contains(txid)
        });
    }

    fn on_bodies(&mut self, peer: PeerIp, bodies: Vec<Transaction>, now: Instant) {
        for transaction in bodies {
            let txid = transaction.id();
            if self.gossip.arrived(peer, txid, now) {
                self.queue(peer, txid, transaction);
            }
        }
    }

    fn queue(&mut self, peer: PeerIp, txid: TxId, transaction: Transaction) {
        let item = Item {
            txid,
            transaction,
            origin: Origin::Peer(peer),
        };
        self.intake
            .push(item)
            .expect("only submissions are turned away");
    }

    /// An item has entered the pool.
    fn accept(&mut self, item: Item) {
        self.orphans.remove(&item.txid);
        self.gossip.accepted(item.txid, &self.pool);
        self.retry_children(&item.txid);
        if let Origin::Local(reply) = item.origin {
            answer(reply, Ok(item.txid));
        }
    }

    /// An item was in the pool already. A user who submits it again wants it spread: peers may have
    /// dropped it.
    fn confirm_waiting(&mut self, item: Item) {
        self.gossip.settled(&item.txid);
        if let Origin::Local(reply) = item.origin {
            self.gossip.announce_again(&[item.txid], &self.pool);
            answer(reply, Ok(item.txid));
        }
    }

    fn refuse(&mut self, item: Item, error: MempoolError) {
        let peer = match item.origin {
            Origin::Local(reply) => return answer(reply, Err(error)),
            Origin::Peer(peer) => peer,
        };
        debug!(peer.ip = %peer, txid = %item.txid, reason = %error, "refused a transaction");
        if let MempoolError::Invalid(reason) = &error {
            if let TransactionError::MissingInput { outpoint, .. } = **reason {
                return self.keep_orphan(item.txid, item.transaction, peer, outpoint.txid);
            }
            self.invalid += 1;
            if reason.is_about_witness() {
                // The true one may have come with the same batch.
                if !self.pool.contains(&item.txid) {
                    self.gossip.bad_copy(peer, item.txid);
                }
                return;
            }
        }
        self.refused.insert(item.txid);
        self.gossip.settled(&item.txid);
    }

    /// Keeps a transaction until the one that it spends from is known, and asks for that one.
    fn keep_orphan(&mut self, txid: TxId, transaction: Transaction, peer: PeerIp, parent: TxId) {
        self.gossip.settled(&txid);
        // A known parent without that output, or one that was refused, will not bring it.
        let hopeless = self.pool.contains(&parent)
            || self.confirmed.contains(&parent)
            || self.refused.contains(&parent);
        if hopeless {
            self.refused.insert(txid);
            return;
        }
        if !self.orphans.contains(&parent) {
            self.gossip.want(peer, parent);
        }
        self.orphans.insert(Orphan {
            txid,
            transaction,
            from: peer,
            parent,
            blocks: 0,
        });
    }

    fn retry_children(&mut self, parent: &TxId) {
        for orphan in self.orphans.take_children(parent) {
            self.queue(orphan.from, orphan.txid, orphan.transaction);
        }
    }
}

/// Answers a user, who may have stopped waiting.
fn answer(reply: Reply, verdict: Result<TxId, MempoolError>) {
    if reply.send(verdict).is_err() {
        debug!("the submitter no longer waits for the verdict");
    }
}

#[cfg(test)]
mod tests;
