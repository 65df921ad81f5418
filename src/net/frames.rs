//! Frames on a QUIC stream: one reader and one writer per stream.
//!
//! The reader belongs to one task and makes one read per [`FrameReader::step`], whose state lives
//! in the reader: nothing is lost when a step is dropped half-way. A frame's length is checked
//! against the limit of its kind before anything is allocated, and the buffer grows with the bytes
//! that arrive, so a header that announces megabytes costs next to nothing until they come. One read
//! takes all that is there, not a packet: what a read costs is paid by the read.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;

use super::bulk::STALL_LIMIT;
use super::meter::Meter;
use crate::wire::frame::FRAME_HEADER_BYTES;
use crate::wire::{FrameError, StreamKind, decode_frame, encode_frame, frame_length};

/// The stream error code for a kind byte that this version does not know.
pub(super) const UNKNOWN_KIND: VarInt = VarInt::from_u32(1);
/// The stream error code for a stream that is given up.
pub(super) const ABANDONED: VarInt = VarInt::from_u32(2);
/// The stream error code for a stream that the receiver may not be sent, although the sender
/// thinks it may.
pub(super) const NOT_ALLOWED: VarInt = VarInt::from_u32(3);

/// The most bytes taken from QUIC in one read.
const READ_BYTES: usize = 64 * 1024;
/// Of the first read of a frame.
const FIRST_READ_BYTES: usize = 4 * 1024;
/// No larger buffer is kept for the next frame, or made before the frame's bytes are here.
const KEPT_BYTES: usize = 2 * 1024 * 1024;

/// Why a stream gives no more frames.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFailure {
    /// The peer sent what is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream was finished in the middle of a frame.
    #[error("a {} stream ended inside a frame", .kind.name())]
    Truncated {
        /// The stream's kind.
        kind: StreamKind,
    },
    /// The stream carries what its kind does not allow.
    #[error("on a {} stream: {detail}", .kind.name())]
    Content {
        /// The stream's kind.
        kind: StreamKind,
        /// What is wrong.
        detail: String,
    },
    /// Nothing came for too long.
    #[error("a {} stream did not move for {STALL_LIMIT:?}", .kind.name())]
    Stalled {
        /// The stream's kind.
        kind: StreamKind,
    },
    /// The peer reset the stream, or the connection has ended.
    #[error("the stream broke off: {0}")]
    Broken(#[from] ReadError),
}

impl ReadFailure {
    /// Whether the peer broke the protocol, rather than the stream or connection having ended.
    pub(super) fn is_violation(&self) -> bool {
        !matches!(self, ReadFailure::Broken(_) | ReadFailure::Stalled { .. })
    }
}

/// What one read gave.
pub(super) enum Step {
    /// More bytes, but no whole frame yet.
    Progress,
    /// A frame's payload.
    Frame(Vec<u8>),
    /// The stream was finished between frames.
    End,
}

/// Reads the frames of one stream.
pub(super) struct FrameReader {
    recv: RecvStream,
    kind: StreamKind,
    /// The longest payload, where that is less than the kind allows.
    limit: usize,
    meter: Arc<Meter>,
    header: [u8; FRAME_HEADER_BYTES],
    header_filled: usize,
    /// The payload's length, once the header is complete.
    length: usize,
    /// The payload as far as it is here.
    payload: Vec<u8>,
    /// The length of the frame before, as far as the next one may be taken to be as long.
    usual: usize,
    consumed: u64,
}

/// Reads the byte that opens a stream; `None` when the stream ended before it.
pub(super) async fn read_kind(recv: &mut RecvStream) -> Result<Option<u8>, ReadError> {
    let mut byte = [0];
    let read = recv.read(&mut byte).await?;
    Ok(read.map(|_| byte[0]))
}

impl FrameReader {
    /// For a stream whose kind byte was read.
    pub(super) fn new(recv: RecvStream, kind: StreamKind, meter: Arc<Meter>) -> Self {
        meter.received(kind, 1);
        Self::without_kind(recv, kind, meter, 1)
    }

    /// For the answering half of a sync stream, which has no kind byte.
    pub(super) fn answer(recv: RecvStream, meter: Arc<Meter>) -> Self {
        Self::without_kind(recv, StreamKind::Sync, meter, 0)
    }

    fn without_kind(recv: RecvStream, kind: StreamKind, meter: Arc<Meter>, consumed: u64) -> Self {
        Self {
            recv,
            kind,
            limit: kind.max_frame_bytes(),
            meter,
            header: [0; FRAME_HEADER_BYTES],
            header_filled: 0,
            length: 0,
            payload: Vec::new(),
            usual: 0,
            consumed,
        }
    }

    /// Tightens the frame limit for a stream whose messages are known to be short.
    pub(super) fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// The QUIC stream's id.
    pub(super) fn id(&self) -> u64 {
        self.recv.id().into()
    }

    /// Bytes read so far, the kind byte and frame headers included.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The frame that is arriving: its payload's length, and how much of it is here. `None` before
    /// its header is complete.
    pub(super) fn arriving(&self) -> Option<(usize, usize)> {
        (self.header_filled == FRAME_HEADER_BYTES).then_some((self.length, self.payload.len()))
    }

    /// The next message; `None` when the stream was finished.
    pub(super) async fn next<T: Serialize + DeserializeOwned>(
        &mut self,
    ) -> Result<Option<T>, ReadFailure> {
        loop {
            match self.step().await? {
                Step::Progress => {}
                Step::Frame(payload) => {
                    let message = decode_frame(self.kind, &payload)?;
                    self.reuse(payload);
                    return Ok(Some(message));
                }
                Step::End => return Ok(None),
            }
        }
    }

    /// Takes a payload back, for the next one to be read into.
    pub(super) fn reuse(&mut self, mut payload: Vec<u8>) {
        if self.payload.is_empty() && payload.capacity() <= KEPT_BYTES {
            payload.clear();
            self.payload = payload;
        }
    }

    /// One read.
    pub(super) async fn step(&mut self) -> Result<Step, ReadFailure> {
        if self.header_filled < FRAME_HEADER_BYTES {
            let read = self.recv.read(&mut self.header[self.header_filled..]);
            let Some(count) = read.await? else {
                return self.end();
            };
            self.note(count);
            self.header_filled += count;
            if self.header_filled == FRAME_HEADER_BYTES {
                self.length = self.checked_length()?;
            }
            return Ok(Step::Progress);
        }
        let most = self.make_room();
        let mut room = (&mut self.payload).limit(most);
        // Nothing is read when this is given up.
        let count = self.recv.read_buf(&mut room).await.map_err(broken)?;
        if count == 0 {
            return self.end();
        }
        self.note(count);
        if self.payload.len() < self.length {
            return Ok(Step::Progress);
        }
        self.usual = self.length.min(KEPT_BYTES);
        self.header_filled = 0;
        Ok(Step::Frame(std::mem::take(&mut self.payload)))
    }

    /// Makes room for the next read, and says how much it may take: as much again as is here, within
    /// bounds.
    fn make_room(&mut self) -> usize {
        let filled = self.payload.len();
        let most = filled.clamp(FIRST_READ_BYTES, READ_BYTES);
        let end = self.length.min(filled + most);
        if self.payload.capacity() < end {
            // Not by `Vec`'s own growth: whoever gets the payload would hold up to twice its length.
            let room = self.length.min(self.usual.max(2 * filled).max(end));
            self.payload.reserve_exact(room - filled);
        }
        end - filled
    }

    /// Gives the stream up: the peer stops sending.
    pub(super) fn stop(&mut self) {
        // The only error says that the stream is over already.
        self.recv.stop(ABANDONED).ok();
    }

    fn checked_length(&self) -> Result<usize, ReadFailure> {
        let length = frame_length(self.kind, self.header)?;
        if length > self.limit {
            return Err(ReadFailure::Content {
                kind: self.kind,
                detail: format!(
                    "a message of {length} bytes, where {} are enough",
                    self.limit
                ),
            });
        }
        Ok(length)
    }

    fn note(&mut self, count: usize) {
        self.consumed += count as u64;
        self.meter.received(self.kind, count);
    }

    fn end(&self) -> Result<Step, ReadFailure> {
        if self.header_filled == 0 {
            Ok(Step::End)
        } else {
            Err(ReadFailure::Truncated { kind: self.kind })
        }
    }
}

/// What ended the stream, out of the error that carries it.
fn broken(error: std::io::Error) -> ReadError {
    // quinn's reader has no other errors.
    error.downcast().unwrap_or(ReadError::ClosedStream)
}

/// Writes one stream. One that is dropped in the middle of a write resets it: QUIC would otherwise
/// finish it, and what was cut short would look to the peer like a frame of a broken program.
pub(super) struct FrameWriter {
    send: SendStream,
    kind: StreamKind,
    meter: Arc<Meter>,
    /// A write has begun and not returned: part of it may be on its way.
    writing: bool,
}

impl FrameWriter {
    /// Sets the priority of the kind on a sending half.
    pub(super) fn new(send: SendStream, kind: StreamKind, meter: Arc<Meter>) -> Self {
        Self::with_priority(send, kind, kind.priority(), meter)
    }

    /// The requesting half of a sync stream: confirmations must not wait behind bulk.
    pub(super) fn sync_request(send: SendStream, meter: Arc<Meter>) -> Self {
        let priority = StreamKind::Consensus.priority();
        Self::with_priority(send, StreamKind::Sync, priority, meter)
    }

    fn with_priority(send: SendStream, kind: StreamKind, priority: i32, meter: Arc<Meter>) -> Self {
        // Refused only on a stream that is over already, as every write will say.
        send.set_priority(priority).ok();
        Self {
            send,
            kind,
            meter,
            writing: false,
        }
    }

    /// The QUIC stream's id.
    pub(super) fn id(&self) -> u64 {
        self.send.id().into()
    }

    /// The QUIC sending half.
    pub(super) fn stream(&mut self) -> &mut SendStream {
        &mut self.send
    }

    /// Writes the byte that opens the stream.
    pub(super) async fn open(&mut self) -> Result<(), WriteError> {
        self.write(&[self.kind.byte()]).await
    }

    /// Writes bytes as they are.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.writing = true;
        self.send.write_all(bytes).await?;
        self.writing = false;
        self.meter.sent(self.kind, bytes.len());
        Ok(())
    }

    /// Writes bytes as they are, without a copy: they are held until the peer has them.
    pub(super) async fn write_held(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        let length = bytes.len();
        self.writing = true;
        self.send.write_chunk(bytes).await?;
        self.writing = false;
        self.meter.sent(self.kind, length);
        Ok(())
    }

    /// Writes a message that is known to be within its frame's limit.
    pub(super) async fn message<T: Serialize>(&mut self, message: &T) -> Result<(), WriteError> {
        let frame = encode_frame(self.kind, message)
            .expect("messages of the network itself are far below their frame's limit");
        self.write(&frame).await
    }

    /// Gives the stream up: what was not delivered yet never will be.
    pub(super) fn abandon(&mut self) {
        // The only error says that the stream is over already.
        self.send.reset(ABANDONED).ok();
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        if self.writing {
            self.abandon();
        }
    }
}
