//! The network in memory of the library's own tests.

// What the shared file takes from its parent.
use timed::env::Entropy;

#[path = "../../src/net/tests/wire.rs"]
#[allow(
    dead_code,
    reason = "the tests of the network alone use other parts of it"
)]
mod shared;

pub use shared::{Link, Rate, Sent, Socket, Wire};
