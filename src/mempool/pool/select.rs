//! The pool in order: what goes into a block, what is shown, what peers are told.

use std::collections::BTreeSet;

use super::{Entry, Pool};
use crate::mempool::WaitingTransaction;
use crate::mempool::rate::{FeeRate, Rank};
use crate::types::{Transaction, TxId};

impl Pool {
    /// Transactions for up to `max_bytes`: best rate first, each after its parents. A transaction
    /// counts with its own rate or that of it and its ancestors, whichever is lower, because it can
    /// only enter a block with them.
    pub(in crate::mempool) fn select(&self, max_bytes: usize) -> Vec<Transaction> {
        let mut room = max_bytes;
        let mut placed = BTreeSet::new();
        let mut selected = Vec::new();
        for rank in self.best_first() {
            let mut package = Vec::new();
            self.collect_package(rank.txid, &placed, &mut package);
            let bytes: usize = package.iter().map(|txid| self.entries[txid].bytes).sum();
            if bytes > room {
                continue;
            }
            room -= bytes;
            for txid in package {
                placed.insert(txid);
                selected.push((*self.entries[&txid].transaction).clone());
            }
        }
        selected
    }

    /// The ids of the best up to a number, in the order of [`Pool::select`], of those that had arrived
    /// when [`Pool::arrivals`] was `arrivals`.
    pub(in crate::mempool) fn best_of_arrivals(&self, arrivals: u64, most: usize) -> Vec<TxId> {
        let mut placed = BTreeSet::new();
        let mut best = Vec::new();
        for rank in self.best_first() {
            if best.len() >= most {
                break;
            }
            // What it builds on has arrived before it.
            if rank.arrival.0 <= arrivals {
                let mut package = Vec::new();
                self.collect_package(rank.txid, &placed, &mut package);
                placed.extend(package.iter().copied());
                best.extend(package);
            }
        }
        best.truncate(most);
        best
    }

    /// All ids, each after its parents, in the order of arrival.
    pub(in crate::mempool) fn ids(&self) -> Vec<TxId> {
        let mut ids: Vec<(u64, TxId)> = self
            .entries
            .iter()
            .map(|(txid, entry)| (entry.arrival, *txid))
            .collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, txid)| txid).collect()
    }

    /// All transactions for display, best rate first.
    pub(in crate::mempool) fn list(&self) -> Vec<WaitingTransaction> {
        let mut ranks: Vec<Rank> = self
            .entries
            .iter()
            .map(|(txid, entry)| entry.rank(*txid, entry.rate()))
            .collect();
        ranks.sort_unstable();
        let waiting = ranks.into_iter().rev().map(|rank| {
            let entry = &self.entries[&rank.txid];
            WaitingTransaction {
                txid: rank.txid,
                bytes: entry.bytes,
                fee: entry.fee,
            }
        });
        waiting.collect()
    }

    /// All, the best first by the lower of their own rate and that with their ancestors.
    fn best_first(&self) -> impl Iterator<Item = Rank> {
        let mut ranks: Vec<Rank> = self
            .entries
            .iter()
            .map(|(txid, entry)| entry.rank(*txid, self.rate_with_ancestors(entry)))
            .collect();
        ranks.sort_unstable();
        ranks.into_iter().rev()
    }

    fn rate_with_ancestors(&self, entry: &Entry) -> FeeRate {
        let ancestors = self.ancestors_of(&entry.parents);
        let rates = ancestors.iter().map(|txid| self.entries[txid].rate());
        entry.rate().min(rates.fold(entry.rate(), FeeRate::plus))
    }
}
