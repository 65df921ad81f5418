//! The network: one QUIC connection per peer IP, separate streams for keepalive, consensus, block
//! bodies, transactions and sync. The only user of QUIC in this crate.

pub mod api;
pub mod identity;

pub use api::{
    BodyEvent, ConsensusEvent, Direction, Inbound, KnownPeer, NetConfig, NetEnvironment, NetError,
    NetHandle, NetTiming, PeerInfo, RttSummary, SendError, StreamBytes, SyncAnswer, SyncError,
    SyncServe, TransactionsEvent, start,
};
pub use identity::{Identity, IdentityError};
