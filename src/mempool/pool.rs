//! The pool of waiting transactions: no clock, no input or output.
//!
//! **Invariants** (held by the property tests):
//! - every input names an output of the chain or of another transaction of the pool, and no two
//!   transactions spend the same output;
//! - a transaction has fewer than [`PoolLimits::chain`] unconfirmed ancestors;
//! - the pool never exceeds its limits.
//!
//! When it is full, a newcomer must pay a better rate than what it displaces: the transactions of
//! the worst worth, each with its descendants. The worth of a transaction is its own rate or that of
//! it and its descendants together, whichever is better, so a child that pays well protects its
//! parents. Nothing replaces a waiting transaction that spends the same output.

mod select;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::MempoolError;
use super::rate::{FeeRate, Rank};
use crate::ledger::{
    Rules, StateView, TransactionError, check_form, check_signatures, check_spending,
};
use crate::types::{Amount, OutPoint, Transaction, TxId, TxOutput};

/// How much waits at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PoolLimits {
    /// The most transactions.
    pub(super) transactions: usize,
    /// The most encoded bytes.
    pub(super) bytes: usize,
    /// The longest unconfirmed chain: a transaction and all its unconfirmed ancestors.
    pub(super) chain: usize,
}

impl PoolLimits {
    /// The limits of a node.
    pub(super) const RECOMMENDED: PoolLimits = PoolLimits {
        transactions: 10_000,
        bytes: 100_000_000,
        chain: 25,
    };
}

/// A transaction whose form and signatures hold: what may be checked without knowing any output.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    txid: TxId,
    transaction: Arc<Transaction>,
}

impl Verified {
    /// Checks form and signatures.
    pub(super) fn check(transaction: Transaction, rules: &Rules) -> Result<Self, TransactionError> {
        check_form(&transaction, rules)?;
        check_signatures(&transaction, rules)?;
        Ok(Self {
            txid: transaction.id(),
            transaction: Arc::new(transaction),
        })
    }
}

/// What became of a transaction that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    /// It waits now.
    New {
        /// What had to leave for it.
        evicted: Vec<TxId>,
    },
    /// It waited already.
    Known,
}

/// The waiting transactions.
pub(super) struct Pool {
    rules: Rules,
    limits: PoolLimits,
    entries: BTreeMap<TxId, Entry>,
    /// Which transaction spends an output.
    spenders: BTreeMap<OutPoint, TxId>,
    /// All transactions, the least worth keeping first.
    by_worth: BTreeSet<Rank>,
    bytes: usize,
    arrivals: u64,
}

struct Entry {
    transaction: Arc<Transaction>,
    fee: Amount,
    bytes: usize,
    arrival: u64,
    /// Transactions of the pool whose outputs it spends.
    parents: BTreeSet<TxId>,
    /// Transactions of the pool that spend its outputs.
    children: BTreeSet<TxId>,
    /// It and all its descendants.
    family: FeeRate,
}

impl Entry {
    fn rate(&self) -> FeeRate {
        FeeRate {
            fee: u128::from(self.fee.0),
            bytes: self.bytes as u128,
        }
    }

    fn rank(&self, txid: TxId, rate: FeeRate) -> Rank {
        Rank {
            rate,
            arrival: Reverse(self.arrival),
            txid,
        }
    }

    fn worth(&self, txid: TxId) -> Rank {
        self.rank(txid, self.rate().max(self.family))
    }
}

/// The chain's outputs with those of the pool over them.
struct Overlay<'a> {
    pool: &'a Pool,
    chain: &'a dyn StateView,
}

impl StateView for Overlay<'_> {
    fn output(&self, outpoint: &OutPoint) -> Option<TxOutput> {
        self.pool
            .output(outpoint)
            .or_else(|| self.chain.output(outpoint))
    }
}

impl Pool {
    /// An empty pool.
    pub(super) fn new(rules: Rules, limits: PoolLimits) -> Self {
        Self {
            rules,
            limits,
            entries: BTreeMap::new(),
            spenders: BTreeMap::new(),
            by_worth: BTreeSet::new(),
            bytes: 0,
            arrivals: 0,
        }
    }

    /// Takes a transaction in, if it may spend what it names and there is room for it. `chain` must
    /// know those of its inputs that are not made in the pool.
    pub(super) fn insert(
        &mut self,
        verified: Verified,
        chain: &dyn StateView,
    ) -> Result<Insertion, MempoolError> {
        let Verified { txid, transaction } = verified;
        if self.contains(&txid) {
            return Ok(Insertion::Known);
        }
        self.check_conflict(txid, &transaction)?;
        let overlay = Overlay { pool: self, chain };
        let fee = check_spending(&transaction, &overlay, &self.rules)?;
        let ancestors = self.ancestors_of(&self.parents_of(&transaction));
        if ancestors.len() + 1 > self.limits.chain {
            return Err(MempoolError::ChainTooLong {
                txid,
                limit: self.limits.chain,
            });
        }
        let rate = FeeRate {
            fee: u128::from(fee.0),
            bytes: transaction.encoded_bytes() as u128,
        };
        let evicted = self.make_room(txid, rate, &ancestors)?;
        self.arrivals += 1;
        self.link(txid, transaction, fee, self.arrivals);
        Ok(Insertion::New { evicted })
    }

    /// Refuses a transaction that spends what a waiting one spends.
    pub(super) fn check_conflict(
        &self,
        txid: TxId,
        transaction: &Transaction,
    ) -> Result<(), MempoolError> {
        for input in &transaction.inputs {
            if let Some(other) = self.spenders.get(&input.outpoint) {
                return Err(MempoolError::Conflict {
                    txid,
                    outpoint: input.outpoint,
                    other: *other,
                });
            }
        }
        Ok(())
    }

    /// Takes out what a new block of the chain contains, and what spends the same outputs with all
    /// its descendants. Returns the latter.
    pub(super) fn apply_block(&mut self, transactions: &[Transaction]) -> Vec<TxId> {
        let mut conflicting = Vec::new();
        for transaction in transactions {
            let txid = transaction.id();
            if self.contains(&txid) {
                self.confirm(txid);
                continue;
            }
            for input in &transaction.inputs {
                if let Some(spender) = self.spenders.get(&input.outpoint) {
                    conflicting.extend(self.remove_with_descendants(*spender));
                }
            }
        }
        conflicting
    }

    /// Checks every transaction again after changes of the chain that the pool has not followed:
    /// takes out those that spend what neither the pool makes nor `chain` knows, and returns them.
    /// `chain` must answer for all of [`Pool::inputs`].
    pub(super) fn recheck(&mut self, chain: &dyn StateView) -> Vec<TxId> {
        let old = std::mem::take(&mut self.entries);
        self.spenders.clear();
        self.by_worth.clear();
        self.bytes = 0;
        // Parents arrive before their children, so this order sees them first.
        let mut in_order: Vec<(TxId, Entry)> = old.into_iter().collect();
        in_order.sort_by_key(|(_, entry)| entry.arrival);
        let mut removed = Vec::new();
        for (txid, entry) in in_order {
            let overlay = Overlay { pool: self, chain };
            let mut outpoints = entry.transaction.inputs.iter().map(|input| input.outpoint);
            if outpoints.all(|outpoint| overlay.output(&outpoint).is_some()) {
                self.link(txid, entry.transaction, entry.fee, entry.arrival);
            } else {
                removed.push(txid);
            }
        }
        removed
    }

    /// Every output that is spent here, ascending.
    pub(super) fn inputs(&self) -> Vec<OutPoint> {
        self.spenders.keys().copied().collect()
    }

    /// A waiting transaction.
    pub(super) fn get(&self, txid: &TxId) -> Option<&Arc<Transaction>> {
        self.entries.get(txid).map(|entry| &entry.transaction)
    }

    /// Whether a transaction waits.
    pub(super) fn contains(&self, txid: &TxId) -> bool {
        self.entries.contains_key(txid)
    }

    /// An output that a waiting transaction makes, spent or not.
    pub(super) fn output(&self, outpoint: &OutPoint) -> Option<TxOutput> {
        let transaction = self.get(&outpoint.txid)?;
        let index = usize::try_from(outpoint.index).ok()?;
        transaction.outputs.get(index).copied()
    }

    /// The number of the last arrival: what arrives from now on has a higher one.
    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// How many transactions wait.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Their encoded bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Evicts what is worth less than a newcomer until there is room for it, or changes nothing.
    /// What the newcomer builds on stays.
    fn make_room(
        &mut self,
        txid: TxId,
        rate: FeeRate,
        ancestors: &BTreeSet<TxId>,
    ) -> Result<Vec<TxId>, MempoolError> {
        let mut bytes = self.bytes + rate.bytes as usize;
        let mut count = self.len() + 1;
        let mut victims = BTreeSet::new();
        for worst in &self.by_worth {
            if bytes <= self.limits.bytes && count <= self.limits.transactions {
                break;
            }
            if ancestors.contains(&worst.txid) || victims.contains(&worst.txid) {
                continue;
            }
            if worst.rate >= rate {
                return Err(MempoolError::Full {
                    txid,
                    offered: rate.per_kb(),
                    needed: worst.rate.per_kb(),
                });
            }
            for victim in self.with_descendants(worst.txid) {
                if victims.insert(victim) {
                    bytes -= self.entries[&victim].bytes;
                    count -= 1;
                }
            }
        }
        if bytes > self.limits.bytes || count > self.limits.transactions {
            return Err(MempoolError::Full {
                txid,
                offered: rate.per_kb(),
                needed: rate.per_kb(),
            });
        }
        // Descendants leave first, so that what is taken out never has children.
        let mut evicted: Vec<TxId> = victims.into_iter().collect();
        evicted.sort_by_key(|victim| Reverse(self.entries[victim].arrival));
        for victim in &evicted {
            self.unlink(*victim);
        }
        Ok(evicted)
    }

    /// Enters a transaction into every index.
    fn link(&mut self, txid: TxId, transaction: Arc<Transaction>, fee: Amount, arrival: u64) {
        let parents = self.parents_of(&transaction);
        let bytes = transaction.encoded_bytes();
        let own = FeeRate {
            fee: u128::from(fee.0),
            bytes: bytes as u128,
        };
        for ancestor in self.ancestors_of(&parents) {
            self.change_family(ancestor, |family| family.plus(own));
        }
        for parent in &parents {
            let parent = self
                .entries
                .get_mut(parent)
                .expect("parents are in the pool");
            parent.children.insert(txid);
        }
        for input in &transaction.inputs {
            self.spenders.insert(input.outpoint, txid);
        }
        let entry = Entry {
            transaction,
            fee,
            bytes,
            arrival,
            parents,
            children: BTreeSet::new(),
            family: own,
        };
        self.by_worth.insert(entry.worth(txid));
        self.bytes += bytes;
        self.entries.insert(txid, entry);
    }

    /// Takes a transaction out of every index. It must have no parents or no children in the pool,
    /// so that the families of its ancestors lose nothing but itself.
    fn unlink(&mut self, txid: TxId) {
        let Some(entry) = self.entries.remove(&txid) else {
            return;
        };
        debug_assert!(entry.parents.is_empty() || entry.children.is_empty());
        for ancestor in self.ancestors_of(&entry.parents) {
            self.change_family(ancestor, |family| family.minus(entry.rate()));
        }
        for parent in &entry.parents {
            let parent = self
                .entries
                .get_mut(parent)
                .expect("parents are in the pool");
            parent.children.remove(&txid);
        }
        for child in &entry.children {
            let child = self
                .entries
                .get_mut(child)
                .expect("children are in the pool");
            child.parents.remove(&txid);
        }
        for input in &entry.transaction.inputs {
            self.spenders.remove(&input.outpoint);
        }
        self.by_worth.remove(&entry.worth(txid));
        self.bytes -= entry.bytes;
    }

    /// Takes out a transaction that the chain contains now; its children spend from the chain. Its
    /// ancestors are in the chain too, and leave before it.
    fn confirm(&mut self, txid: TxId) {
        let mut package = Vec::new();
        self.collect_package(txid, &BTreeSet::new(), &mut package);
        for txid in package {
            self.unlink(txid);
        }
    }

    fn remove_with_descendants(&mut self, txid: TxId) -> Vec<TxId> {
        let mut removed: Vec<TxId> = self.with_descendants(txid).into_iter().collect();
        removed.sort_by_key(|txid| Reverse(self.entries[txid].arrival));
        for txid in &removed {
            self.unlink(*txid);
        }
        removed
    }

    fn change_family(&mut self, txid: TxId, change: impl FnOnce(FeeRate) -> FeeRate) {
        let entry = self
            .entries
            .get_mut(&txid)
            .expect("relatives are in the pool");
        self.by_worth.remove(&entry.worth(txid));
        entry.family = change(entry.family);
        self.by_worth.insert(entry.worth(txid));
    }

    fn parents_of(&self, transaction: &Transaction) -> BTreeSet<TxId> {
        let made_by = transaction.inputs.iter().map(|input| input.outpoint.txid);
        made_by.filter(|txid| self.contains(txid)).collect()
    }

    /// These and everything that they build on; stops at the first beyond the longest chain.
    fn ancestors_of(&self, parents: &BTreeSet<TxId>) -> BTreeSet<TxId> {
        let mut open: Vec<TxId> = parents.iter().copied().collect();
        let mut ancestors = BTreeSet::new();
        while let Some(txid) = open.pop() {
            if ancestors.len() >= self.limits.chain {
                break;
            }
            if ancestors.insert(txid) {
                open.extend(&self.entries[&txid].parents);
            }
        }
        ancestors
    }

    fn with_descendants(&self, txid: TxId) -> BTreeSet<TxId> {
        let mut open = vec![txid];
        let mut family = BTreeSet::new();
        while let Some(txid) = open.pop() {
            if family.insert(txid) {
                open.extend(&self.entries[&txid].children);
            }
        }
        family
    }

    /// A transaction and those of its ancestors that are not placed yet, parents first. The depth of
    /// the recursion is bounded by the longest chain.
    fn collect_package(&self, txid: TxId, placed: &BTreeSet<TxId>, package: &mut Vec<TxId>) {
        if placed.contains(&txid) || package.contains(&txid) {
            return;
        }
        for parent in &self.entries[&txid].parents {
            self.collect_package(*parent, placed, package);
        }
        package.push(txid);
    }
}

#[cfg(test)]
mod tests;
