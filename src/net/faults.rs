//! What leads to a ban, all of it: bytes that no honest program of this protocol sends.
//!
//! | fault | bytes | ends the connection | bans |
//! |---|---|---|---|
//! | `frame_length` | a frame of no bytes, or longer than its stream allows | yes | yes |
//! | `encoding` | a payload that is no canonical message of its stream | yes | yes |
//! | `message` | a message or stream where it cannot be: a second Hello, too many ids, a second lifelong stream, a consensus stream from a node that does not call itself a masternode, a confirmation of bytes that were never written | yes | yes |
//!
//! Everything else that goes wrong is no fault: a stream that breaks off or ends early, a late or
//! missing pong, silence, a full queue, too much of anything (delayed or dropped, and counted), an
//! old record, a wrong pin, another chain, a handshake that fails. Friends do all of those.
//!
//! What a masternode signs twice is evidence, kept by consensus; it does not end connections.
//!
//! The address is proved when a fault is seen: a handshake was completed from there. So nobody can
//! have another address banned.

use std::time::Duration;

use super::frames::ReadFailure;
use crate::wire::FrameError;

/// How long a fault bans an address.
pub(super) const FAULT_BAN: Duration = Duration::from_secs(3_600);
/// How long it bans a recorded masternode: a fault in its program must not take its voting power
/// away for longer than its operator needs to see it.
pub(super) const MASTERNODE_FAULT_BAN: Duration = Duration::from_secs(60);

/// Bytes that cannot be honest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A frame's length is impossible.
    FrameLength,
    /// A payload is no canonical message.
    Encoding,
    /// A message or stream stands where it cannot.
    Message,
}

impl Fault {
    /// The fault in a failed read, if there is one.
    pub(super) fn of(failure: &ReadFailure) -> Option<Self> {
        match failure {
            ReadFailure::Frame(FrameError::Empty { .. } | FrameError::TooLong { .. }) => {
                Some(Fault::FrameLength)
            }
            ReadFailure::Frame(FrameError::Codec { .. }) => Some(Fault::Encoding),
            ReadFailure::Content { .. } => Some(Fault::Message),
            ReadFailure::Truncated { .. }
            | ReadFailure::Stalled { .. }
            | ReadFailure::Broken(_) => None,
        }
    }

    /// The name in logs and reasons.
    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::FrameLength => "frame_length",
            Fault::Encoding => "encoding",
            Fault::Message => "message",
        }
    }
}
