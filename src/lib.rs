//! `timed`: a TIME Coin node whose network cannot flap.
//!
//! Data flows one way: a datagram reaches [`net`] (stream, frame), becomes a message of [`wire`],
//! goes to [`consensus`], [`mempool`] or [`sync`], from there to [`chain`], which checks it with
//! [`ledger`], commits it to [`store`] and publishes the tip to everyone. Nothing calls upwards.

/// For files that the tests share with the benches, which name this crate from outside.
#[cfg(test)]
extern crate self as timed;

pub mod chain;
pub mod config;
pub mod consensus;
pub mod env;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod ledger;
pub mod mempool;
pub mod net;
pub mod node;
pub mod rpc;
pub mod store;
pub mod sync;
pub mod types;
pub mod wire;
