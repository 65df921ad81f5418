//! `timed`: a TIME Coin node whose network cannot flap.
//!
//! Data flows one way: a datagram reaches [`net`] (stream, frame), becomes a message of [`wire`],
//! goes to [`consensus`], [`mempool`] or [`sync`], from there to [`chain`], which checks it with
//! [`ledger`], commits it to [`store`] and publishes the tip to everyone. Nothing calls upwards.
//!
//! # In another program
//!
//! A whole node, here the only masternode of a chain of its own, until its first block is final:
//!
//! ```
//! use timed::node::setup::{self, GenesisOptions, InitOptions};
//! use timed::node::{Node, NodeEnvironment, NodeFiles};
//! use timed::types::Height;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let root = tempfile::tempdir()?;
//! let folder = root.path().join("alone");
//! setup::init(&InitOptions {
//!     data_dir: folder.clone(),
//!     name: "alone".into(),
//!     ip: "127.78.0.1".parse()?,
//!     ..InitOptions::default()
//! })?;
//! setup::build_genesis(&GenesisOptions {
//!     folder: folder.join("certs"),
//!     output: folder.join("genesis.toml"),
//!     slot_ms: 250,
//!     ..GenesisOptions::default()
//! })?;
//!
//! let files = NodeFiles::load(&folder)?;
//! let environment = NodeEnvironment::real(&files)?;
//! let node = Node::start(files, environment).await?;
//! let mut tip = node.chain().watch_tip();
//! tip.wait_for(|tip| tip.height > Height::GENESIS).await?;
//! node.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The network alone, without a chain: `examples/embed_network.rs`. Which key may speak from which
//! address is a value that can be asked without a socket: [`net::PinPolicy`]. Transfers are built and
//! signed without a node: [`node::wallet`].

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
