//! The disk of the store's own tests: it loses what was not synced when the machine crashes.

// What the shared file takes from its parent.
use timed::store::Backend;

#[path = "../../src/store/testing.rs"]
#[allow(dead_code, reason = "the store's own tests use other parts of it")]
mod testing;

pub(crate) use testing::{Disk, Fate, fates};
