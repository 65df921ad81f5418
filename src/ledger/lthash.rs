//! LtHash: an incremental hash of a set.
//!
//! Each element is expanded to 1,024 lanes of 16 bits; the set's hash is the lane-wise sum modulo
//! 2^16. So the order of insertions does not matter, taking an element out undoes putting it in, and
//! the hashes of two disjoint sets add up to the hash of their union.
//!
//! Source: Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing" (1997), with the
//! parameters of lthash16 from Lewi, Kim, Maykov and Weis, "Securing Update Propagation with
//! Homomorphic Hashing" (2019), and BLAKE3's extended output as the expander.

use std::fmt;

use crate::types::hash::{self, context};
use crate::types::{OutPoint, StateCommitment, TxOutput, codec};

/// How many lanes a set hash has.
const LANES: usize = 1024;

/// The length of the lanes, in bytes.
pub const LTHASH_BYTES: usize = 2 * LANES;

/// The set hash: 1,024 lanes of 16 bits, 2,048 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct LtHash {
    lanes: Box<[u16; LANES]>,
}

impl LtHash {
    /// The hash of the empty set.
    pub fn empty() -> Self {
        Self {
            lanes: Box::new([0; LANES]),
        }
    }

    /// The hash of these unspent outputs, each given once.
    pub fn of(outputs: impl IntoIterator<Item = (OutPoint, TxOutput)>) -> Self {
        let mut set = Self::empty();
        for (outpoint, output) in outputs {
            set.insert(&outpoint, &output);
        }
        set
    }

    /// Adds an unspent output.
    pub fn insert(&mut self, outpoint: &OutPoint, output: &TxOutput) {
        self.combine(outpoint, output, u16::wrapping_add);
    }

    /// Takes an output out that was inserted.
    pub fn remove(&mut self, outpoint: &OutPoint, output: &TxOutput) {
        self.combine(outpoint, output, u16::wrapping_sub);
    }

    /// What a header commits to.
    pub fn commitment(&self) -> StateCommitment {
        StateCommitment(hash::hash(context::SET_COMMITMENT, &[&self.to_bytes()]))
    }

    /// The lanes, little-endian, for storage.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; LTHASH_BYTES];
        for (pair, lane) in bytes.chunks_exact_mut(2).zip(self.lanes.iter()) {
            pair.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }

    /// Reads the lanes; `None` unless there are 2,048 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != LTHASH_BYTES {
            return None;
        }
        let mut set = Self::empty();
        for (lane, pair) in set.lanes.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = u16::from_le_bytes([pair[0], pair[1]]);
        }
        Some(set)
    }

    /// Generic over `with`, so that the loop over the lanes becomes vector instructions: through a
    /// function pointer it would be 1,024 calls.
    fn combine(&mut self, outpoint: &OutPoint, output: &TxOutput, with: impl Fn(u16, u16) -> u16) {
        let mut element = [0; LTHASH_BYTES];
        blake3::Hasher::new_derive_key(context::SET_ELEMENT)
            .update(&codec::encode(&(outpoint, output)))
            .finalize_xof()
            .fill(&mut element);
        for (lane, pair) in self.lanes.iter_mut().zip(element.chunks_exact(2)) {
            *lane = with(*lane, u16::from_le_bytes([pair[0], pair[1]]));
        }
    }
}

impl fmt::Debug for LtHash {
    /// The commitment's start: the lanes would fill a screen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LtHash({})", self.commitment().short())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::types::{Address, Amount, TxId};

    fn any_output() -> impl Strategy<Value = (OutPoint, TxOutput)> {
        (any::<[u8; 32]>(), any::<u32>(), any::<u64>()).prop_map(|(bytes, index, amount)| {
            let outpoint = OutPoint {
                txid: TxId(bytes),
                index,
            };
            let output = TxOutput {
                amount: Amount(amount),
                address: Address(bytes),
            };
            (outpoint, output)
        })
    }

    fn any_set() -> impl Strategy<Value = Vec<(OutPoint, TxOutput)>> {
        proptest::collection::vec(any_output(), 0..20).prop_map(|outputs| {
            let unique: BTreeMap<_, _> = outputs.into_iter().collect();
            unique.into_iter().collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_order_of_insertions_does_not_matter(
            (sorted, shuffled) in any_set()
                .prop_flat_map(|set| (Just(set.clone()), Just(set).prop_shuffle()))
        ) {
            prop_assert_eq!(LtHash::of(sorted), LtHash::of(shuffled));
        }

        #[test]
        fn removing_undoes_inserting(set in any_set(), (outpoint, output) in any_output()) {
            let before = LtHash::of(set);
            let mut after = before.clone();
            after.insert(&outpoint, &output);
            prop_assert_ne!(&after, &before);
            prop_assert_ne!(after.commitment(), before.commitment());
            after.remove(&outpoint, &output);
            prop_assert_eq!(after, before);
        }

        #[test]
        fn storage_keeps_every_lane(set in any_set()) {
            let hash = LtHash::of(set);
            prop_assert_eq!(LtHash::from_bytes(&hash.to_bytes()), Some(hash));
        }
    }

    #[test]
    fn only_the_exact_length_is_read() {
        for length in [0, LTHASH_BYTES - 1, LTHASH_BYTES + 1] {
            assert_eq!(LtHash::from_bytes(&vec![0; length]), None);
        }
    }

    #[test]
    fn every_field_of_an_output_counts() {
        let outpoint = OutPoint {
            txid: TxId([1; 32]),
            index: 0,
        };
        let output = TxOutput {
            amount: Amount(7),
            address: Address([2; 32]),
        };
        let reference = LtHash::of([(outpoint, output)]);
        let other_index = OutPoint {
            index: 1,
            ..outpoint
        };
        let other_amount = TxOutput {
            amount: Amount(8),
            ..output
        };
        let other_address = TxOutput {
            address: Address([3; 32]),
            ..output
        };
        assert_ne!(LtHash::of([(other_index, output)]), reference);
        assert_ne!(LtHash::of([(outpoint, other_amount)]), reference);
        assert_ne!(LtHash::of([(outpoint, other_address)]), reference);
    }

    #[test]
    fn one_elements_lanes_are_blake3s_extended_output_over_its_bytes() {
        let outpoint = OutPoint {
            txid: TxId([1; 32]),
            index: 2,
        };
        let output = TxOutput {
            amount: Amount(3),
            address: Address([4; 32]),
        };
        let mut bytes = vec![1; 32];
        bytes.extend([2, 0, 0, 0]);
        bytes.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([4; 32]);
        let mut lanes = vec![0; LTHASH_BYTES];
        blake3::Hasher::new_derive_key("timed 2026-11 lthash element v1")
            .update(&bytes)
            .finalize_xof()
            .fill(&mut lanes);
        assert_eq!(LtHash::of([(outpoint, output)]).to_bytes(), lanes);
    }

    #[test]
    fn golden_commitments() {
        assert_eq!(
            LtHash::empty().commitment().to_string(),
            "8e0e8aa528a47aad3102415905825ee17ff4ee7395c1e0bed6e02e1ac51a90a7"
        );
        let outputs = (0u8..3).map(|byte| {
            let outpoint = OutPoint {
                txid: TxId([byte; 32]),
                index: u32::from(byte),
            };
            let output = TxOutput {
                amount: Amount(1000 + u64::from(byte)),
                address: Address([byte + 100; 32]),
            };
            (outpoint, output)
        });
        assert_eq!(
            LtHash::of(outputs).commitment().to_string(),
            "bad495b918b230d600fadeccf2d9cccdd06dad97e1a5a94f9db857a6eae078d0"
        );
    }
}
