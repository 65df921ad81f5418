//! Bodies that wait for their turn to be committed.

use std::collections::BTreeMap;

use crate::types::Height;

/// Bodies by height, with their weight.
pub(super) struct HeldBodies<B> {
    bodies: BTreeMap<Height, (usize, B)>,
    bytes: usize,
}

impl<B> HeldBodies<B> {
    pub(super) fn new() -> Self {
        Self {
            bodies: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// The bytes of all.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn contains(&self, height: Height) -> bool {
        self.bodies.contains_key(&height)
    }

    /// The bytes of one.
    pub(super) fn bytes_at(&self, height: Height) -> Option<usize> {
        self.bodies.get(&height).map(|(bytes, _)| *bytes)
    }

    pub(super) fn insert(&mut self, height: Height, bytes: usize, body: B) {
        self.remove(height);
        self.bytes += bytes;
        self.bodies.insert(height, (bytes, body));
    }

    pub(super) fn remove(&mut self, height: Height) -> Option<B> {
        let (bytes, body) = self.bodies.remove(&height)?;
        self.bytes -= bytes;
        Some(body)
    }

    /// Drops the highest one that is above `above` and weighs more than `least_bytes`; returns its
    /// height.
    pub(super) fn drop_highest(&mut self, above: Height, least_bytes: usize) -> Option<Height> {
        let mut candidates = self.bodies.range(above.next()..).rev();
        let (height, _) = candidates.find(|(_, (bytes, _))| *bytes > least_bytes)?;
        let height = *height;
        self.remove(height);
        Some(height)
    }

    /// Drops those up to and with `height`.
    pub(super) fn drop_up_to(&mut self, height: Height) {
        while let Some(lowest) = self.bodies.first_key_value().map(|(height, _)| *height)
            && lowest <= height
        {
            self.remove(lowest);
        }
    }

    pub(super) fn clear(&mut self) {
        self.bodies.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_the_highest_that_frees_something() {
        let mut held = HeldBodies::new();
        for (height, bytes) in [(4, 500), (5, 1_000), (6, 64), (7, 2_000), (8, 64)] {
            held.insert(Height(height), bytes, ());
        }
        let mut drop = || held.drop_highest(Height(4), 64);
        assert_eq!(drop(), Some(Height(7)));
        assert_eq!(drop(), Some(Height(5)));
        assert_eq!(drop(), None);
        assert!(
            [4, 6, 8]
                .iter()
                .all(|height| held.contains(Height(*height)))
        );
        assert_eq!(held.bytes(), 628);
    }
}
