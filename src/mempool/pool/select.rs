//! The pool in order: what goes into a block, what is shown, what a new peer is told.

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
        let mut ranks: Vec<Rank> = self
            .entries
            .iter()
            .map(|(txid, entry)| entry.rank(*txid, self.rate_with_ancestors(entry)))
            .collect();
        ranks.sort_unstable();
        let mut room = max_bytes;
        let mut placed = BTreeSet::new();
        let mut selected = Vec::new();
        for rank in ranks.into_iter().rev() {
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

    fn rate_with_ancestors(&self, entry: &Entry) -> FeeRate {
        let ancestors = self.ancestors_of(&entry.parents);
        let rates = ancestors.iter().map(|txid| self.entries[txid].rate());
        entry.rate().min(rates.fold(entry.rate(), FeeRate::plus))
    }
}
