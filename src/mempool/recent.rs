//! A bounded memory of transaction ids.

use lru::LruCache;

use crate::types::TxId;

/// Remembers the ids that were used last, up to a number.
pub(super) struct RecentIds {
    ids: LruCache<TxId, ()>,
    limit: usize,
}

impl RecentIds {
    /// Remembers up to `limit` ids. Memory grows with what is held, not with the limit.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            ids: LruCache::unbounded(),
            limit,
        }
    }

    /// Remembers an id; the one not used for longest is forgotten when there are too many.
    pub(super) fn insert(&mut self, txid: TxId) {
        self.ids.put(txid, ());
        if self.ids.len() > self.limit {
            self.ids.pop_lru();
        }
    }

    /// Whether an id is remembered.
    pub(super) fn contains(&self, txid: &TxId) -> bool {
        self.ids.contains(txid)
    }

    /// Forgets an id.
    pub(super) fn remove(&mut self, txid: &TxId) {
        self.ids.pop(txid);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.ids.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_not_used_for_longest_is_forgotten_first() {
        let id = |byte| TxId([byte; 32]);
        let mut recent = RecentIds::new(2);
        recent.insert(id(1));
        recent.insert(id(2));
        recent.insert(id(1));
        recent.insert(id(3));
        assert!(recent.contains(&id(1)));
        assert!(!recent.contains(&id(2)));
        assert!(recent.contains(&id(3)));
        recent.remove(&id(1));
        assert!(!recent.contains(&id(1)));
        recent.clear();
        assert!(!recent.contains(&id(3)));
    }
}
