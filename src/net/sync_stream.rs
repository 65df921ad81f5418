//! Sync streams: one bidirectional stream per request.
//!
//! The requester sends the kind byte, the request, and then confirmations of what it consumed; the
//! server sends the answer's frames as the bulk bound allows. The end of the requesting half gives
//! the answer up. An answer that its server drops unfinished is reset, never finished by accident.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::bodies::write_bulk;
use super::bulk::{BulkClass, BulkStream, STALL_LIMIT};
use super::confirm::{Confirmation, Confirmer};
use super::frames::{FrameReader, FrameWriter, ReadFailure, Step};
use super::peer::Peer;
use super::{SyncError, SyncServe};
use crate::types::PeerIp;
use crate::wire::messages::MAX_SYNC_HEIGHTS;
use crate::wire::{
    StreamKind, SyncRequest, SyncResponse, SyncUp, decode_answer, encode_answer, encode_frame,
};

/// No message of a requester is longer.
const MAX_SYNC_UP_BYTES: usize = 64;

/// The sending side of a sync stream. Dropping it before [`SyncAnswer::finish`] resets the stream.
pub struct SyncAnswer {
    peer: PeerIp,
    frames: mpsc::Sender<Bytes>,
    finished: Arc<AtomicBool>,
    /// Why the stream ended, once it has.
    ended: Arc<OnceLock<String>>,
}

impl SyncAnswer {
    /// Sends one frame, waiting for bulk credit: returns when all but its end is written. Not
    /// cancel-safe: drop the whole value to give up.
    pub async fn send(&mut self, response: &SyncResponse) -> Result<(), SyncError> {
        let pieces = encode_answer(response).map_err(|error| SyncError::Protocol {
            peer: self.peer,
            detail: error.to_string(),
        })?;
        for piece in pieces {
            self.send_frame(piece).await?;
        }
        Ok(())
    }

    /// Sends an encoded frame, or the next piece of one.
    pub(super) async fn send_frame(&mut self, frame: Bytes) -> Result<(), SyncError> {
        self.frames.send(frame).await.map_err(|_| self.ended())
    }

    /// Ends the answer.
    pub fn finish(self) -> Result<(), SyncError> {
        if self.frames.is_closed() {
            return Err(self.ended());
        }
        self.finished.store(true, Ordering::Release);
        Ok(())
    }

    fn ended(&self) -> SyncError {
        let detail = self.ended.get().cloned();
        SyncError::Ended {
            peer: self.peer,
            detail: detail.unwrap_or_else(|| "the connection ended".into()),
        }
    }
}

/// The receiving side of a sync stream. Confirms what it hands out.
pub struct SyncResponses {
    peer: Arc<Peer>,
    reader: FrameReader,
    request: FrameWriter,
    confirmer: Confirmer,
    progress: watch::Sender<u64>,
    _permit: OwnedSemaphorePermit,
}

impl SyncResponses {
    /// Opens the stream and sends the request; waits while too many are open to the peer.
    pub(super) async fn open(peer: Arc<Peer>, request: SyncRequest) -> Result<Self, SyncError> {
        let ended = |error: String| SyncError::Ended {
            peer: peer.ip(),
            detail: error,
        };
        let permit = (peer.requests.clone().acquire_owned().await)
            .expect("the semaphore of a peer is never closed");
        let opened = peer.quic().open_bi().await;
        let (send, recv) = opened.map_err(|error| ended(error.to_string()))?;
        let mut writer = FrameWriter::sync_request(send, peer.meter.clone());
        let mut bytes = vec![StreamKind::Sync.byte()];
        bytes.extend(
            encode_frame(StreamKind::Sync, &SyncUp::Request(request))
                .expect("a request is a few bytes"),
        );
        let written = writer.write(&bytes).await;
        written.map_err(|error| ended(error.to_string()))?;
        Ok(Self {
            reader: FrameReader::answer(recv, peer.meter.clone()),
            request: writer,
            confirmer: Confirmer::new(peer.bulk.began()),
            progress: watch::Sender::new(0),
            peer,
            _permit: permit,
        })
    }

    /// The next frame; `None` at the answer's end. Not cancel-safe: drop the whole value to give up.
    pub async fn next(&mut self) -> Result<Option<SyncResponse>, SyncError> {
        match self.next_payload().await? {
            Some(payload) => self.decoded(payload).map(Some),
            None => Ok(None),
        }
    }

    /// The next frame's payload.
    pub(super) async fn next_payload(&mut self) -> Result<Option<Vec<u8>>, SyncError> {
        loop {
            let before = self.reader.consumed();
            let step = match self.confirmer.step(&mut self.reader).await {
                Ok(step) => step,
                Err(failure) => return Err(self.failed(failure)),
            };
            let consumed = self.reader.consumed();
            if consumed > before {
                self.progress.send_if_modified(|progress| {
                    *progress = consumed;
                    self.progress.receiver_count() > 0
                });
            }
            let at_end = matches!(step, Some(Step::End));
            if let Some(confirmation) = self.confirmer.take(consumed, at_end) {
                self.confirm(confirmation).await;
            }
            match step {
                None | Some(Step::Progress) => {}
                Some(Step::End) => return Ok(None),
                Some(Step::Frame(payload)) => return Ok(Some(payload)),
            }
        }
    }

    /// Bytes received so far, for rate and progress: changes while a frame is still arriving.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    async fn confirm(&mut self, Confirmation { bytes, at_us }: Confirmation) {
        let consumed = SyncUp::Consumed { bytes, at_us };
        if let Err(error) = self.request.message(&consumed).await {
            // The server needs no confirmation any more; what it sent can still be read.
            tracing::trace!(peer.ip = %self.peer.ip(), %error, "a sync confirmation was not sent");
        }
    }

    fn decoded(&self, payload: Vec<u8>) -> Result<SyncResponse, SyncError> {
        let response = decode_answer(payload.into())
            .map_err(|error| self.failed(ReadFailure::Frame(error)))?;
        match &response {
            SyncResponse::Headers(headers) if headers.len() as u64 > MAX_SYNC_HEIGHTS => Err(self
                .failed(ReadFailure::Content {
                    kind: StreamKind::Sync,
                    detail: format!("{} headers in one frame", headers.len()),
                })),
            _ => Ok(response),
        }
    }

    fn failed(&self, failure: ReadFailure) -> SyncError {
        let (peer, detail) = (self.peer.ip(), failure.to_string());
        if failure.is_violation() {
            self.peer.read_failed(&failure);
            return SyncError::Protocol { peer, detail };
        }
        SyncError::Ended { peer, detail }
    }
}

/// Serves one sync stream whose kind byte was read. A violation is returned; the caller ends the
/// connection with it.
pub(super) async fn serve(
    peer: &Peer,
    send: SendStream,
    recv: RecvStream,
    server: &mpsc::Sender<SyncServe>,
    stop: &CancellationToken,
) -> Result<(), ReadFailure> {
    let reader = FrameReader::new(recv, StreamKind::Sync, peer.meter.clone());
    let mut reader = reader.with_limit(MAX_SYNC_UP_BYTES);
    let request = match reader.next::<SyncUp>().await? {
        Some(SyncUp::Request(request)) if request.is_valid() => request,
        Some(other) => {
            return Err(content(format!("expected a valid request, got {other:?}")));
        }
        None => {
            let kind = StreamKind::Sync;
            return Err(ReadFailure::Truncated { kind });
        }
    };
    let Some(Ok(_place)) = stop.run_until_cancelled(peer.served.acquire()).await else {
        return Ok(());
    };
    let mut writer = FrameWriter::new(send, StreamKind::Sync, peer.meter.clone());
    let account = peer.bulk.open(writer.id(), BulkClass::Sync);
    let (frames_in, mut frames) = mpsc::channel(1);
    let finished = Arc::new(AtomicBool::new(false));
    let ended = Arc::new(OnceLock::new());
    let answer = SyncAnswer {
        peer: peer.ip(),
        frames: frames_in,
        finished: finished.clone(),
        ended: ended.clone(),
    };
    let serve = SyncServe {
        peer: peer.ip(),
        request,
        answer,
    };
    let (why, result) = tokio::select! {
        biased;
        () = stop.cancelled() => ("the connection is closing".into(), Ok(())),
        read = read_confirmations(&mut reader, &account) => match read {
            Ok(()) => ("the peer gave the request up".into(), Ok(())),
            Err(failure) => (failure.to_string(), Err(failure)),
        },
        () = account.stalled() => (
            format!("the peer confirmed nothing for {STALL_LIMIT:?}"),
            Ok(()),
        ),
        written = async {
            sleep_until(peer.sync_request_due()).await;
            if server.send(serve).await.is_err() {
                return Err("sync has stopped".to_string());
            }
            write_answer(&mut writer, &account, &mut frames, &finished).await
        } => match written {
            Ok(()) => return Ok(()),
            Err(why) => (why, Ok(())),
        },
    };
    // Set before `frames` is dropped and the answer's channel closes, so that its error can tell.
    ended.set(why).ok();
    writer.abandon();
    result
}

fn content(detail: String) -> ReadFailure {
    ReadFailure::Content {
        kind: StreamKind::Sync,
        detail,
    }
}

/// Counts the peer's confirmations until it ends its half.
async fn read_confirmations(
    reader: &mut FrameReader,
    account: &BulkStream,
) -> Result<(), ReadFailure> {
    loop {
        match reader.next::<SyncUp>().await? {
            Some(SyncUp::Consumed { bytes, at_us }) => account
                .confirm(Confirmation { bytes, at_us })
                .map_err(|error| content(error.to_string()))?,
            Some(SyncUp::Request(_)) => return Err(content("a second request".into())),
            None => return Ok(()),
        }
    }
}

/// Writes the answer's frames until it is finished, all of it confirmed, and nothing of it held any
/// more.
async fn write_answer(
    writer: &mut FrameWriter,
    account: &BulkStream,
    frames: &mut mpsc::Receiver<Bytes>,
    finished: &AtomicBool,
) -> Result<(), String> {
    while let Some(frame) = frames.recv().await {
        let written = write_bulk(writer, account, frame).await;
        written.map_err(|error| error.to_string())?;
    }
    if !finished.load(Ordering::Acquire) {
        return Err("the answer was given up".into());
    }
    // Refused only on a stream that has ended; then no confirmation is owed either.
    if writer.stream().finish().is_ok() {
        account.all_confirmed().await;
        // As long as its end is not acknowledged, QUIC holds the whole of the last block: so the place is
        // taken until then. However the stream ends, it holds nothing.
        writer.stream().stopped().await.ok();
    }
    Ok(())
}
