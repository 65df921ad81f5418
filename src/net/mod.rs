//! The network: one QUIC connection per peer IP, separate streams for keepalive, consensus, block
//! bodies, transactions and sync. The only user of QUIC in this crate. It decodes and never
//! interprets.
//!
//! ```text
//! socket -> endpoint -> admission -> handshake (TLS, pin, Hello) -> manager (slot, Welcome)
//!        -> connection -> one task per stream -> Inbound -> consensus | mempool | sync
//! ```
//!
//! - `manager`: the one actor that owns the registry, the dial schedule and what is known of peers;
//!   `direction`, `backoff`, `eviction` and `bans` are its pure rules, `admission` bounds handshakes
//!   in progress, `budget` what a peer may ask for, `faults` is the list of what leads to a ban.
//! - `handshake`: from the first packet to the Welcome.
//! - `connection`: the tasks of one established connection; `keepalive` and `liveness`, `queue`
//!   (lifelong streams), `bodies` and `sync_stream` under the bound of `bulk`, which `credit` sets;
//!   `windows` holds what QUIC grants and buffers.
//! - `strangers`: the thread that peers without a record share.
//! - `identity`, `tls`, `pins`, `connection_id`: who is who.
//!
//! Everything is bounded: handshakes, peers, streams, queues, frames, bytes in flight. Where a
//! queue is full, its module says what happens. All time is tokio's and the injected wall clock,
//! all randomness the injected entropy, so the same network runs in a deterministic simulation.

mod admission;
mod backoff;
mod bans;
mod bodies;
mod budget;
mod bulk;
mod certificate;
mod config;
mod confirm;
mod connection;
mod connection_id;
mod counts;
mod credit;
mod direction;
mod endpoint;
mod errors;
mod events;
mod eviction;
mod explain;
mod faults;
mod frames;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handle;
mod handshake;
pub mod identity;
mod info;
mod keepalive;
mod liveness;
mod manager;
mod meter;
mod peer;
pub mod pins;
mod queue;
mod strangers;
mod sync_stream;
#[cfg(test)]
mod tests;
mod tls;
mod windows;

pub use admission::HalfOpen;
pub use bans::{BanError, BanList};
pub use config::{NetConfig, NetEnvironment, NetTiming};
pub use counts::{NetCounts, RTT_BOUNDS_US, RttHistogram};
pub use endpoint::{SOCKET_BUFFER_BYTES, bind_udp};
pub use errors::{InstallError, NetError, SendError, SyncError};
pub use events::{BodyBytes, BodyEvent, ConsensusEvent, Inbound, SyncServe, TransactionsEvent};
pub use handle::{NetHandle, start};
pub use identity::{CertificateInfo, Identity, IdentityError, inspect_certificate};
pub use info::{Direction, KnownPeer, PeerInfo, QueueLengths, RttSummary, StreamBytes};
pub use pins::{Admission, Decision, PinError, PinPolicy, SeenRecord};
/// What an environment is made of; no other module names the QUIC crate.
pub use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
pub use sync_stream::{SyncAnswer, SyncResponses};
