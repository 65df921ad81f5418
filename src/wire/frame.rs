//! Frames: a 4-byte little-endian payload length, then the payload, a message in canonical encoding.

use std::mem::take;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{StreamKind, SyncResponse};
use crate::types::EncodedBody;
use crate::types::codec::{self, CodecError};

/// The length of a frame's header, in bytes.
pub const FRAME_HEADER_BYTES: usize = 4;

/// The most of a block that is written at a time.
pub const PIECE_BYTES: usize = 128 * 1024;

/// So much of a block goes behind its frame's header by a copy: a small one is a single piece.
const COPIED_BYTES: usize = 16 * 1024;

/// The number of [`SyncResponse::Body`].
const BODY: [u8; 4] = 2u32.to_le_bytes();

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
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    codec::encode_onto(message, &mut frame);
    let length = frame.len() - FRAME_HEADER_BYTES;
    check_length(kind, length)?;
    frame[..FRAME_HEADER_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// The frame of a sync answer: what [`encode_frame`] gives, in pieces, of which those of a block are
/// views of it.
pub fn encode_answer(response: &SyncResponse) -> Result<Pieces, FrameError> {
    let SyncResponse::Body(body) = response else {
        return Ok(Pieces {
            head: encode_frame(StreamKind::Sync, response)?,
            rest: Bytes::new(),
        });
    };
    let mut rest = body.bytes().clone();
    let length = BODY.len() + rest.len();
    check_length(StreamKind::Sync, length)?;
    let copied = rest.split_to(COPIED_BYTES.min(rest.len()));
    Ok(Pieces {
        head: [&(length as u32).to_le_bytes(), &BODY, copied.as_ref()].concat(),
        rest,
    })
}

/// A frame in pieces; those of a block have at most [`PIECE_BYTES`]. None is empty.
pub struct Pieces {
    head: Vec<u8>,
    rest: Bytes,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let piece = match take(&mut self.head) {
            head if head.is_empty() => self.rest.split_to(PIECE_BYTES.min(self.rest.len())),
            head => head.into(),
        };
        Some(piece).filter(|piece| !piece.is_empty())
    }
}

/// The sync answer of a frame's payload: what [`decode_frame`] gives. A block stays as it has come.
pub fn decode_answer(payload: Bytes) -> Result<SyncResponse, FrameError> {
    let kind = StreamKind::Sync;
    if !payload.starts_with(&BODY) {
        return decode_frame(kind, &payload);
    }
    EncodedBody::checked(payload.slice(BODY.len()..))
        .map(SyncResponse::Body)
        .map_err(|source| FrameError::Codec { kind, source })
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
