//! What is to be checked: submissions first, then what peers sent, in the order of arrival; and the
//! check of a batch.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::oneshot;

use super::MempoolError;
use super::pool::{Pool, Verified};
use crate::ledger::{Rules, StateView, TransactionError, check_form, check_spending};
use crate::types::{Height, OutPoint, PeerIp, Transaction, TxId, TxOutput};

/// The most submissions that wait.
pub(super) const MAX_SUBMISSIONS: usize = 256;

/// From this many bytes on, no more is read from peers.
pub(super) const PEER_BYTES: usize = 4 * 1024 * 1024;

/// The most transactions of one batch.
const BATCH_TRANSACTIONS: usize = 256;

/// A batch ends at this many bytes.
const BATCH_BYTES: usize = 512 * 1024;

/// Where the verdict on a submission goes.
pub(super) type Reply = oneshot::Sender<Result<TxId, MempoolError>>;

/// Where a transaction came from.
#[derive(Debug)]
pub(super) enum Origin {
    /// A user of this node, who waits for the verdict.
    Local(Reply),
    /// A peer.
    Peer(PeerIp),
}

/// A transaction to be checked.
#[derive(Debug)]
pub(super) struct Item {
    /// Its id.
    pub(super) txid: TxId,
    /// The transaction.
    pub(super) transaction: Transaction,
    /// Where it came from.
    pub(super) origin: Origin,
}

/// The waiting items.
#[derive(Default)]
pub(super) struct Intake {
    local: VecDeque<Item>,
    peers: VecDeque<Item>,
    peer_bytes: usize,
}

impl Intake {
    /// Queues an item. A submission beyond the limit comes back.
    pub(super) fn push(&mut self, item: Item) -> Result<(), Item> {
        match &item.origin {
            Origin::Local(_) if self.local.len() >= MAX_SUBMISSIONS => return Err(item),
            Origin::Local(_) => self.local.push_back(item),
            Origin::Peer(_) => {
                self.peer_bytes += item.transaction.encoded_bytes();
                self.peers.push_back(item);
            }
        }
        Ok(())
    }

    /// Whether more should be read from peers.
    pub(super) fn has_room(&self) -> bool {
        self.peer_bytes < PEER_BYTES
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.local.is_empty() && self.peers.is_empty()
    }

    /// The items of the next batch.
    pub(super) fn take_batch(&mut self) -> Vec<Item> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_TRANSACTIONS && bytes < BATCH_BYTES {
            let Some(item) = self.pop() else {
                break;
            };
            bytes += item.transaction.encoded_bytes();
            batch.push(item);
        }
        batch
    }

    fn pop(&mut self) -> Option<Item> {
        if let Some(item) = self.local.pop_front() {
            return Some(item);
        }
        let item = self.peers.pop_front()?;
        self.peer_bytes -= item.transaction.encoded_bytes();
        Some(item)
    }
}

/// Items to check together, with what the pool knows about their inputs.
#[derive(Debug)]
pub(super) struct Batch {
    items: Vec<Item>,
    from_pool: BTreeMap<OutPoint, TxOutput>,
}

/// The verdict on an item, before the pool's own rules.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It may enter the pool.
    Verified(Verified),
    /// It is in the chain.
    Final(Height),
    /// It breaks a rule.
    Refused(TransactionError),
}

/// A checked batch, and the chain's outputs that it was checked with.
#[derive(Debug)]
pub(super) struct Checked {
    /// Each item's id and origin, the transaction when the caller may still need it, the verdict.
    pub(super) verdicts: Vec<(Item, Verdict)>,
    /// The chain's unspent outputs among the inputs.
    pub(super) from_chain: BTreeMap<OutPoint, TxOutput>,
}

impl Batch {
    /// A batch over a pool, which must not lose transactions before the verdicts come back.
    pub(super) fn new(items: Vec<Item>, pool: &Pool) -> Self {
        let inputs = items.iter().flat_map(|item| &item.transaction.inputs);
        let from_pool = inputs
            .filter_map(|input| Some((input.outpoint, pool.output(&input.outpoint)?)))
            .collect();
        Self { items, from_pool }
    }

    /// The outputs that the chain must be asked for, ascending.
    pub(super) fn outpoints(&self) -> Vec<OutPoint> {
        let inputs = self.items.iter().flat_map(|item| &item.transaction.inputs);
        let mut outpoints: Vec<OutPoint> = inputs
            .map(|input| input.outpoint)
            .filter(|outpoint| !self.from_pool.contains_key(outpoint))
            .collect();
        outpoints.sort_unstable();
        outpoints.dedup();
        outpoints
    }

    /// Checks every item: what is cheap first, signatures only when the rest holds, so that making
    /// this node compute costs coins. An item may spend what an earlier one of the batch makes.
    pub(super) fn check(self, from_chain: BTreeMap<OutPoint, TxOutput>, rules: &Rules) -> Checked {
        let mut known = Known {
            pool: self.from_pool,
            chain: from_chain,
        };
        let mut verdicts = Vec::with_capacity(self.items.len());
        for item in self.items {
            let verdict = match known.check(&item.transaction, rules) {
                Ok(verified) => {
                    known.pool.extend(item.transaction.created());
                    Verdict::Verified(verified)
                }
                Err(error) => Verdict::Refused(error),
            };
            verdicts.push((item, verdict));
        }
        Checked {
            verdicts,
            from_chain: known.chain,
        }
    }
}

/// The outputs known to a batch.
struct Known {
    /// Made by the pool or by earlier items.
    pool: BTreeMap<OutPoint, TxOutput>,
    chain: BTreeMap<OutPoint, TxOutput>,
}

impl Known {
    fn check(
        &self,
        transaction: &Transaction,
        rules: &Rules,
    ) -> Result<Verified, TransactionError> {
        check_form(transaction, rules)?;
        check_spending(transaction, self, rules)?;
        Verified::check(transaction.clone(), rules)
    }
}

impl StateView for Known {
    fn output(&self, outpoint: &OutPoint) -> Option<TxOutput> {
        let made = self.pool.output(outpoint);
        made.or_else(|| self.chain.output(outpoint))
    }
}
