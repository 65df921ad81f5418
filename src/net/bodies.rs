//! Block bodies on proposal streams: the kind byte, a frame with the [`BodyHeader`], a frame whose
//! payload is the encoded block, the end.
//!
//! Sending: one body at a time per peer, at most [`MAX_WAITING`] wait; a newer round's body takes
//! the place of the oldest round's. Receiving: at most [`MAX_HELD`] are read at a time per peer, the
//! others stay unread in QUIC's window; consumed bytes are confirmed on the consensus stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::bulk::{BulkClass, BulkStream, CHUNK_BYTES, STALL_LIMIT};
use super::confirm::Confirmer;
use super::frames::{FrameReader, FrameWriter, ReadFailure, Step};
use super::peer::Peer;
use super::{BodyBytes, BodyEvent, ConsensusEvent};
use crate::wire::frame::FRAME_HEADER_BYTES;
use crate::wire::{BodyHeader, StreamKind, decode_frame, encode_frame};

/// The most bodies that wait to be sent to one peer.
pub(super) const MAX_WAITING: usize = 3;
/// The most bodies of one peer that are read at a time.
pub(super) const MAX_HELD: usize = 2;
/// A progress event is sent at most so often.
const PROGRESS_EVERY_BYTES: usize = 64 * 1024;

/// The bodies that wait for one peer.
#[derive(Default)]
pub(super) struct BodyQueue {
    waiting: Mutex<VecDeque<(BodyHeader, Arc<Vec<u8>>)>>,
    filled: Notify,
}

impl BodyQueue {
    /// Adds a body; gives how many were dropped for it, or `None` when it was itself the oldest.
    pub(super) fn push(&self, header: BodyHeader, block: Arc<Vec<u8>>) -> Option<usize> {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        let mut dropped = 0;
        if waiting.len() >= MAX_WAITING {
            let age = |header: &BodyHeader| (header.height, header.round);
            let oldest = (0..waiting.len()).min_by_key(|at| age(&waiting[*at].0))?;
            if age(&header) < age(&waiting[oldest].0) {
                return None;
            }
            waiting.remove(oldest);
            dropped = 1;
        }
        waiting.push_back((header, block));
        self.filled.notify_one();
        Some(dropped)
    }

    /// How many bodies wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().expect("no holder panics").len()
    }

    /// Waits for a body. For one taker only.
    async fn take(&self) -> (BodyHeader, Arc<Vec<u8>>) {
        loop {
            let next = self.waiting.lock().expect("no holder panics").pop_front();
            match next {
                Some(body) => return body,
                None => self.filled.notified().await,
            }
        }
    }
}

/// Sends the peer's bodies one after another, until the connection ends.
pub(super) async fn send_bodies(peer: Arc<Peer>, stop: CancellationToken) {
    let Some(queue) = &peer.bodies else { return };
    loop {
        let Some((header, block)) = stop.run_until_cancelled(queue.take()).await else {
            return;
        };
        let opening = stop.run_until_cancelled(peer.quic().open_uni());
        let Some(Ok(stream)) = opening.await else {
            return;
        };
        let mut writer = FrameWriter::new(stream, StreamKind::Proposal, peer.meter.clone());
        let account = peer.bulk.open(writer.id(), BulkClass::Proposal);
        let sent = stop
            .run_until_cancelled(async {
                tokio::select! {
                    biased;
                    sent = send_body(&mut writer, &account, &header, block) => sent.map_err(|e| e.to_string()),
                    () = account.stalled() => Err(format!("nothing confirmed for {STALL_LIMIT:?}")),
                }
            })
            .await;
        match sent {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::debug!(peer.ip = %peer.ip(), %error, "a block body was not delivered");
                writer.abandon();
            }
            None => return writer.abandon(),
        }
    }
}

async fn send_body(
    writer: &mut FrameWriter,
    account: &BulkStream,
    header: &BodyHeader,
    block: Arc<Vec<u8>>,
) -> Result<(), quinn::WriteError> {
    let mut head = vec![StreamKind::Proposal.byte()];
    head.extend(
        encode_frame(StreamKind::Proposal, header).expect("a body's header is a few bytes"),
    );
    head.extend((block.len() as u32).to_le_bytes());
    write_bulk(writer, account, head.into()).await?;
    write_bulk(writer, account, Bytes::from_owner(Shared(block))).await?;
    // Finishing is refused only on a stream that has ended; then `stopped` says so.
    writer.stream().finish().ok();
    // As long as anything of it is not acknowledged, QUIC holds the whole block, whatever the peer has
    // confirmed: so the next body waits for that, and a peer costs one block.
    match writer.stream().stopped().await {
        Ok(None) => account.all_confirmed().await,
        Ok(Some(code)) => return Err(quinn::WriteError::Stopped(code)),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// One block for all peers that it is sent to.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Writes bytes of a bulk stream as credit allows.
pub(super) async fn write_bulk(
    writer: &mut FrameWriter,
    account: &BulkStream,
    mut bytes: Bytes,
) -> Result<(), quinn::WriteError> {
    while !bytes.is_empty() {
        let granted = account.acquire(bytes.len().min(CHUNK_BYTES as usize)).await;
        writer.write_held(bytes.split_to(granted)).await?;
    }
    Ok(())
}

/// The longest block that fits a body's frame, in bytes.
pub(super) fn fits(block: &[u8]) -> bool {
    (1..=StreamKind::Proposal.max_frame_bytes()).contains(&block.len())
}

/// Reads one proposal stream and delivers its body, with the permit that bounds how many of the
/// peer's are read or waiting. A violation is returned; the caller ends the connection with it.
pub(super) async fn receive_body(
    peer: &Peer,
    mut reader: FrameReader,
    events: &mpsc::Sender<ConsensusEvent>,
    permit: OwnedSemaphorePermit,
) -> Result<(), ReadFailure> {
    let mut confirmer = Confirmer::new(peer.bulk.began());
    let Some(payload) = read_confirming(peer, &mut reader, &mut confirmer, |_, _| {}).await? else {
        return Err(ReadFailure::Truncated {
            kind: StreamKind::Proposal,
        });
    };
    let header: BodyHeader = decode_frame(StreamKind::Proposal, &payload)?;
    let event = |event| ConsensusEvent::Body {
        peer: peer.ip(),
        header,
        event,
    };
    let mut told = None;
    let body = read_confirming(peer, &mut reader, &mut confirmer, |total, received| {
        let news = match told {
            None => BodyEvent::Started { total },
            Some(told) if received >= told + PROGRESS_EVERY_BYTES => {
                BodyEvent::Progress { received }
            }
            Some(_) => return,
        };
        told = Some(received);
        if events.try_send(event(news)).is_err() {
            tracing::trace!(peer.ip = %peer.ip(), "consensus is behind: progress of a body not told");
        }
    })
    .await;
    let (last, result) = match body {
        Ok(Some(bytes)) => {
            let bytes = BodyBytes::held(bytes, permit);
            (BodyEvent::Complete { bytes }, Ok(()))
        }
        Ok(None) => (
            BodyEvent::Failed,
            Err(ReadFailure::Truncated {
                kind: StreamKind::Proposal,
            }),
        ),
        Err(failure) => (BodyEvent::Failed, Err(failure)),
    };
    if events.send(event(last)).await.is_err() {
        tracing::debug!(peer.ip = %peer.ip(), "consensus has stopped: a block body is dropped");
    }
    result?;
    match reader.step().await? {
        Step::End => Ok(()),
        _ => Err(ReadFailure::Content {
            kind: StreamKind::Proposal,
            detail: "bytes after the block".into(),
        }),
    }
}

/// Reads one frame, confirming on the way and at its end. `progress` is told the frame's length and
/// how much of it is here.
async fn read_confirming(
    peer: &Peer,
    reader: &mut FrameReader,
    confirmer: &mut Confirmer,
    mut progress: impl FnMut(usize, usize),
) -> Result<Option<Vec<u8>>, ReadFailure> {
    loop {
        let Ok(step) = timeout(STALL_LIMIT, confirmer.step(reader)).await else {
            reader.stop();
            return Err(ReadFailure::Stalled {
                kind: StreamKind::Proposal,
            });
        };
        let step = step?;
        let consumed = reader.consumed();
        let whole = matches!(step, Some(Step::Frame(_)));
        if let Some(confirmation) = confirmer.take(consumed, whole)
            && let Some(queue) = &peer.consensus
        {
            queue.confirm(reader.id(), confirmation);
        }
        match step {
            None => {}
            Some(Step::Frame(payload)) => return Ok(Some(payload)),
            Some(Step::End) => return Ok(None),
            Some(Step::Progress) => {
                if let Some((total, received)) = reader.arriving() {
                    progress(total, received);
                }
            }
        }
    }
}

const _: () = assert!(FRAME_HEADER_BYTES == 4, "send_body writes a 4-byte length");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BlockHash, Height, Round};

    fn header(height: u64, round: u32) -> BodyHeader {
        BodyHeader {
            height: Height(height),
            round: Round(round),
            block: BlockHash([0; 32]),
        }
    }

    #[tokio::test]
    async fn a_newer_round_takes_the_place_of_the_oldest_that_waits() {
        let queue = BodyQueue::default();
        let block = Arc::new(vec![1]);
        for round in [1, 0, 2] {
            assert_eq!(queue.push(header(5, round), block.clone()), Some(0));
        }
        assert_eq!(queue.push(header(5, 3), block.clone()), Some(1));
        assert_eq!(queue.push(header(4, 9), block.clone()), None);
        for round in [1, 2, 3] {
            assert_eq!(queue.take().await.0, header(5, round));
        }
    }
}
