//! The network: one QUIC connection per peer IP, separate streams for keepalive, consensus, block
//! bodies, transactions and sync. The only user of QUIC in this crate.

pub mod api;
mod certificate;
mod connection_id;
mod explain;
pub mod identity;
pub mod pins;
mod tls;

pub use api::{
    BodyEvent, ConsensusEvent, Direction, Inbound, KnownPeer, NetConfig, NetEnvironment, NetError,
    NetHandle, NetTiming, PeerInfo, RttSummary, SendError, StreamBytes, SyncAnswer, SyncError,
    SyncServe, TransactionsEvent, start,
};
pub use identity::{CertificateInfo, Identity, IdentityError, inspect_certificate};
pub use pins::{Admission, PinError, PinPolicy, SeenRecord};
