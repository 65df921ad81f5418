//! What the fuzz targets in `fuzz/` run: one function for each decoder, and one for the ledger.
//! Built for fuzzing and for tests only.
//!
//! Each function takes any bytes and panics when a promise is broken: what decodes encodes to the
//! same bytes, what encodes decodes to the same value, what is accepted keeps the rules, and nothing
//! panics. The functions that need a module's own parts stand in that module. The tests here run
//! every committed seed through the same functions, so that no seed and no target rots.

mod certificates;
mod choices;
mod files;
mod ledger;
mod text;
mod wire;

#[cfg(test)]
mod seeds;
#[cfg(test)]
mod tests;

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use choices::Choices;

pub use crate::consensus::fuzzing::{consensus_state, wal};
pub use crate::net::fuzzing::{pins, tls_certificate};
pub use crate::rpc::fuzzing::jsonrpc;
pub use crate::store::fuzzing::rows;
pub use certificates::certificates;
pub use files::{config, genesis, record};
pub use ledger::ledger;
pub use text::text;
pub use wire::{consensus, frames, keepalive, proposal, sync, transactions};

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target; `fuzz/fuzz_targets` has one file for each.
pub const TARGETS: &[Target] = &[
    ("certificates", certificates),
    ("config", config),
    ("consensus", consensus),
    ("consensus_state", consensus_state),
    ("frames", frames),
    ("genesis", genesis),
    ("jsonrpc", jsonrpc),
    ("keepalive", keepalive),
    ("ledger", ledger),
    ("pins", pins),
    ("proposal", proposal),
    ("record", record),
    ("rows", rows),
    ("sync", sync),
    ("text", text),
    ("tls_certificate", tls_certificate),
    ("transactions", transactions),
    ("wal", wal),
];

/// The value that these bytes are the canonical encoding of, if any.
///
/// # Panics
/// When it has other bytes too, or its bytes another value.
pub(crate) fn canonical<T>(bytes: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let value = crate::types::codec::decode(bytes).ok()?;
    assert_eq!(round_trip(&value), bytes, "{value:?} has two encodings");
    Some(value)
}

/// The bytes of a value.
///
/// # Panics
/// When they do not decode to it.
pub(crate) fn round_trip<T>(value: &T) -> Vec<u8>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let bytes = crate::types::codec::encode(value);
    let again = crate::types::codec::decode(&bytes);
    assert_eq!(again.as_ref(), Ok(value));
    bytes
}
