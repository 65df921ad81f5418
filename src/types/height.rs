//! Heights and rounds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A block's height. Genesis is height 0 and has no block; the first block is height 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Height(pub u64);

impl Height {
    /// The height of genesis.
    pub const GENESIS: Height = Height(0);

    /// The next height.
    pub fn next(self) -> Height {
        Height(self.0.saturating_add(1))
    }

    /// The height before; genesis stays genesis.
    pub fn previous(self) -> Height {
        Height(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A consensus round within a height, from 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Round(pub u32);

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
