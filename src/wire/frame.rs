//! Frames: a 4-byte little-endian payload length, then the payload, a message in canonical encoding.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StreamKind;
use crate::types::codec::{self, CodecError};

/// The length of a frame's header, in bytes.
pub const FRAME_HEADER_BYTES: usize = 4;

/// Why a frame cannot be sent or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The payload is longer than the stream's kind allows.
    #[error("frame of {length} bytes on a {} stream, whose limit is {}", .kind.name(), .kind.max_frame_bytes())]
    TooLong {
        /// The stream's kind.
        kind: StreamKind,
        /// The payload's length.
        length: usize,
    },
    /// The payload is empty.
    #[error("empty frame on a {} stream", .kind.name())]
    Empty {
        /// The stream's kind.
        kind: StreamKind,
    },
    /// The payload is no message of the stream.
    #[error("on a {} stream: {source}", .kind.name())]
    Codec {
        /// The stream's kind.
        kind: StreamKind,
        /// What is wrong with the bytes.
        source: CodecError,
    },
}

/// The whole frame of a message.
pub fn encode_frame<T: Serialize>(kind: StreamKind, message: &T) -> Result<Vec<u8>, FrameError> {
    let payload = codec::encode(message);
    check_length(kind, payload.len())?;
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len());
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend(payload);
    Ok(frame)
}

/// The payload length that a frame's header announces, checked before anything is allocated.
pub fn frame_length(
    kind: StreamKind,
    header: [u8; FRAME_HEADER_BYTES],
) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(header) as usize;
    check_length(kind, length)?;
    Ok(length)
}

/// The message of a frame's payload.
pub fn decode_frame<T: Serialize + DeserializeOwned>(
    kind: StreamKind,
    payload: &[u8],
) -> Result<T, FrameError> {
    codec::decode(payload).map_err(|source| FrameError::Codec { kind, source })
}

fn check_length(kind: StreamKind, length: usize) -> Result<(), FrameError> {
    if length == 0 {
        return Err(FrameError::Empty { kind });
    }
    if length > kind.max_frame_bytes() {
        return Err(FrameError::TooLong { kind, length });
    }
    Ok(())
}
