//! LtHash: an incremental hash of a set.

use crate::types::{OutPoint, StateCommitment, TxOutput};

/// The set hash: 1,024 lanes of 16 bits (lthash16 of Bellare and Micciancio's LtHash, with BLAKE3's
/// extended output), 2,048 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct LtHash {
    lanes: Box<[u16; 1024]>,
}

impl LtHash {
    /// The hash of the empty set.
    pub fn empty() -> Self {
        Self {
            lanes: Box::new([0; 1024]),
        }
    }

    /// Adds an unspent output.
    pub fn insert(&mut self, outpoint: &OutPoint, output: &TxOutput) {
        let _ = (outpoint, output, &self.lanes);
        todo!()
    }

    /// Takes an output out that was inserted.
    pub fn remove(&mut self, outpoint: &OutPoint, output: &TxOutput) {
        let _ = (outpoint, output);
        todo!()
    }

    /// What a header commits to.
    pub fn commitment(&self) -> StateCommitment {
        todo!()
    }

    /// The lanes, little-endian, for storage.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads the lanes; `None` unless there are 2,048 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let _ = bytes;
        todo!()
    }
}
