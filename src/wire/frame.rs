//! Frames: a 4-byte little-endian payload length, then the payload, a message in canonical encoding.

use std::mem::{replace, take};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{StreamKind, SyncResponse};
use crate::types::codec::{self, CodecError};
use crate::types::{Transaction, body};

/// The length of a frame's header, in bytes.
pub const FRAME_HEADER_BYTES: usize = 4;

/// How much of a block is encoded at a time.
pub const PIECE_BYTES: usize = 128 * 1024;

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

/// The frame of a sync answer: what [`encode_frame`] gives, and for blocks in a part of the time
/// and in pieces, so that no more of a block is held than is being sent.
pub fn encode_answer(response: &SyncResponse) -> Result<Pieces<'_>, FrameError> {
    let SyncResponse::Body(transactions) = response else {
        return Ok(Pieces {
            piece: encode_frame(StreamKind::Sync, response)?,
            rest: &[],
        });
    };
    let length = BODY.len() + body::encoded_bytes(transactions);
    check_length(StreamKind::Sync, length)?;
    let mut piece = Vec::with_capacity(PIECE_BYTES.min(FRAME_HEADER_BYTES + length));
    piece.extend((length as u32).to_le_bytes());
    piece.extend(BODY);
    body::write_count(transactions.len(), &mut piece);
    Ok(Pieces {
        piece,
        rest: transactions,
    })
}

/// A frame in pieces of at most [`PIECE_BYTES`], or one transaction. None is empty.
pub struct Pieces<'a> {
    piece: Vec<u8>,
    rest: &'a [Transaction],
}

impl Iterator for Pieces<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        while let Some((first, rest)) = self.rest.split_first() {
            let filled = self.piece.len();
            if filled > 0 && filled + first.encoded_bytes() > PIECE_BYTES {
                return Some(replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES)));
            }
            body::write(first, &mut self.piece);
            self.rest = rest;
        }
        Some(take(&mut self.piece)).filter(|last| !last.is_empty())
    }
}

/// The sync answer of a frame's payload: what [`decode_frame`] gives.
pub fn decode_answer(payload: &[u8]) -> Result<SyncResponse, FrameError> {
    let kind = StreamKind::Sync;
    match payload.strip_prefix(&BODY) {
        Some(transactions) => body::decode(transactions)
            .map(SyncResponse::Body)
            .map_err(|source| FrameError::Codec { kind, source }),
        None => decode_frame(kind, payload),
    }
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
