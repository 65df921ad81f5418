//! Transactions of peers whose inputs are not known yet: they wait for the transaction that makes
//! them, or the block whose reward they are.

use std::collections::VecDeque;

use crate::types::{PeerIp, Transaction, TxId};

/// The most orphans.
pub(super) const MAX_ORPHANS: usize = 100;

/// The most orphans of one peer.
pub(super) const MAX_ORPHANS_OF_PEER: usize = 20;

/// An orphan waits while this many blocks pass.
const MAX_BLOCKS: u32 = 20;

/// A transaction that waits for another.
#[derive(Debug)]
pub(super) struct Orphan {
    /// Its id.
    pub(super) txid: TxId,
    /// The transaction.
    pub(super) transaction: Transaction,
    /// Who sent it.
    pub(super) from: PeerIp,
    /// The first transaction that it needs and that is not known.
    pub(super) parent: TxId,
    /// How many blocks it has seen pass.
    pub(super) blocks: u32,
}

/// The orphans, oldest first. Few enough to search them one by one.
#[derive(Default)]
pub(super) struct Orphans {
    held: VecDeque<Orphan>,
}

impl Orphans {
    /// Keeps an orphan. The oldest of the same peer leaves when that peer has too many, the oldest
    /// of all when there are too many together.
    pub(super) fn insert(&mut self, orphan: Orphan) {
        if self.contains(&orphan.txid) {
            return;
        }
        let of_peer = |held: &Orphan| held.from == orphan.from;
        if self.held.iter().filter(|held| of_peer(held)).count() >= MAX_ORPHANS_OF_PEER {
            let oldest = self.held.iter().position(of_peer);
            self.held.remove(oldest.expect("the peer has several"));
        } else if self.held.len() >= MAX_ORPHANS {
            self.held.pop_front();
        }
        self.held.push_back(orphan);
    }

    /// Takes out all that wait for a transaction, oldest first.
    pub(super) fn take_children(&mut self, parent: &TxId) -> Vec<Orphan> {
        let (children, rest): (Vec<Orphan>, Vec<Orphan>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|orphan| orphan.parent == *parent);
        self.held = rest.into();
        children
    }

    /// Takes out all, oldest first.
    pub(super) fn take_all(&mut self) -> Vec<Orphan> {
        std::mem::take(&mut self.held).into()
    }

    /// A block has passed: forgets what has waited for [`MAX_BLOCKS`] of them.
    pub(super) fn age(&mut self) {
        for orphan in &mut self.held {
            orphan.blocks += 1;
        }
        self.held.retain(|orphan| orphan.blocks < MAX_BLOCKS);
    }

    /// Forgets a transaction.
    pub(super) fn remove(&mut self, txid: &TxId) {
        self.held.retain(|orphan| orphan.txid != *txid);
    }

    /// Whether a transaction is held.
    pub(super) fn contains(&self, txid: &TxId) -> bool {
        self.held.iter().any(|orphan| orphan.txid == *txid)
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orphan(number: u8, peer: u8, parent: u8) -> Orphan {
        Orphan {
            txid: TxId([number; 32]),
            transaction: Transaction {
                version: 1,
                inputs: vec![],
                outputs: vec![],
            },
            from: format!("127.0.0.{peer}").parse().unwrap(),
            parent: TxId([parent; 32]),
            blocks: 0,
        }
    }

    #[test]
    fn children_leave_with_their_parents_arrival_in_order() {
        let mut orphans = Orphans::default();
        for (number, parent) in [(1, 9), (2, 8), (3, 9)] {
            orphans.insert(orphan(number, 1, parent));
        }
        let taken: Vec<TxId> = orphans
            .take_children(&TxId([9; 32]))
            .into_iter()
            .map(|orphan| orphan.txid)
            .collect();
        assert_eq!(taken, [TxId([1; 32]), TxId([3; 32])]);
        assert_eq!(orphans.len(), 1);
        orphans.remove(&TxId([2; 32]));
        assert!(orphans.is_empty());
    }

    #[test]
    fn an_orphan_is_forgotten_after_some_blocks() {
        let mut orphans = Orphans::default();
        orphans.insert(orphan(1, 1, 9));
        for _ in 1..MAX_BLOCKS {
            orphans.age();
        }
        assert_eq!(orphans.len(), 1);
        orphans.age();
        assert!(orphans.is_empty());
    }

    #[test]
    fn one_peer_displaces_only_its_own() {
        let mut orphans = Orphans::default();
        orphans.insert(orphan(200, 2, 9));
        for number in 0..30 {
            orphans.insert(orphan(number, 1, 9));
        }
        assert_eq!(orphans.len(), 1 + MAX_ORPHANS_OF_PEER);
        assert!(orphans.contains(&TxId([200; 32])));
        assert!(!orphans.contains(&TxId([9; 32])));
        assert!(orphans.contains(&TxId([10; 32])));
    }

    #[test]
    fn all_peers_together_stay_under_the_limit() {
        let mut orphans = Orphans::default();
        for number in 0..120 {
            orphans.insert(orphan(number, number / 10, 9));
        }
        assert_eq!(orphans.len(), MAX_ORPHANS);
        assert!(!orphans.contains(&TxId([19; 32])));
        assert!(orphans.contains(&TxId([20; 32])));
    }
}
