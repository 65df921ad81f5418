//! Bytes and messages: framing, the kinds of stream with their limits, and one small message enum
//! per stream. `docs/protocol.md` shows the bytes; golden tests hold them.
//!
//! Enums only grow at their end: a variant's position is its number on the wire.

pub mod close;
pub mod frame;
#[cfg(test)]
pub(crate) mod golden;
pub mod messages;
#[cfg(test)]
mod second_encoder;
pub mod stream;

pub use close::{CloseCode, CloseReason};
pub use frame::{
    FrameError, decode_answer, decode_frame, encode_answer, encode_frame, frame_length,
};
pub use messages::{
    BodyHeader, ConsensusMessage, Hello, KeepaliveMessage, Ping, ReachSet, Role, SyncRequest,
    SyncResponse, SyncUp, TransactionsMessage, Welcome,
};
pub use stream::StreamKind;
