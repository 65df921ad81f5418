//! The readers of one connection: what the peer opens and sends.

use std::sync::Arc;

use quinn::{RecvStream, SendStream};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::net::budget::{Budget, Spending};
use crate::net::confirm::Confirmation;
use crate::net::frames::{FrameReader, NOT_ALLOWED, ReadFailure, UNKNOWN_KIND, read_kind};
use crate::net::{ConsensusEvent, TransactionsEvent, bodies, sync_stream};
use crate::wire::messages::MAX_TRANSACTION_IDS;
use crate::wire::{ConsensusMessage, Role, StreamKind, TransactionsMessage};

/// Reads a unidirectional stream of the peer's.
pub(super) async fn read_uni(shared: Arc<Shared>, mut recv: RecvStream) {
    let kind = match read_kind(&mut recv).await {
        Ok(Some(byte)) => StreamKind::from_byte(byte),
        Ok(None) | Err(_) => return,
    };
    let meter = shared.peer.meter.clone();
    let read = match kind {
        None => return refuse_unknown(&shared, &mut recv),
        Some(StreamKind::Consensus | StreamKind::Proposal) if !shared.peer.facts().consensus => {
            refuse_unpinned(&shared, &mut recv)
        }
        Some(StreamKind::Sync) => Err(ReadFailure::Content {
            kind: StreamKind::Sync,
            detail: "a unidirectional stream".into(),
        }),
        Some(StreamKind::Proposal) => {
            let reader = FrameReader::new(recv, StreamKind::Proposal, meter);
            read_proposal(&shared, reader).await
        }
        Some(kind) => match shared.open_once(kind) {
            Err(failure) => Err(failure),
            Ok(()) => {
                let reader = FrameReader::new(recv, kind, meter);
                let read = match kind {
                    StreamKind::Consensus => read_consensus(&shared, reader).await,
                    _ => read_transactions(&shared, reader).await,
                };
                return shared.lifelong_ended(kind, read).await;
            }
        },
    };
    if let Err(failure) = read {
        shared.read_failed(&failure);
    }
}

/// Serves a bidirectional stream of the peer's.
pub(super) async fn read_bi(shared: Arc<Shared>, mut send: SendStream, mut recv: RecvStream) {
    let opening = shared.stop_bulk.run_until_cancelled(read_kind(&mut recv));
    let served = match opening.await {
        Some(Ok(Some(byte))) => match StreamKind::from_byte(byte) {
            Some(StreamKind::Sync) => {
                let Shared {
                    peer, surroundings, ..
                } = &*shared;
                let server = &surroundings.inbound.sync;
                sync_stream::serve(peer, send, recv, server, &shared.stop_bulk).await
            }
            Some(kind) => Err(ReadFailure::Content {
                kind,
                detail: "a bidirectional stream".into(),
            }),
            None => {
                // The only error says that the stream is over already.
                send.reset(UNKNOWN_KIND).ok();
                return refuse_unknown(&shared, &mut recv);
            }
        },
        _ => return,
    };
    if let Err(failure) = served {
        shared.read_failed(&failure);
    }
}

/// An unknown kind may be a newer version's: only the stream goes.
fn refuse_unknown(shared: &Shared, recv: &mut RecvStream) {
    tracing::debug!(peer.ip = %shared.peer.ip(), "a stream of an unknown kind is refused");
    // The only error says that the stream is over already.
    recv.stop(UNKNOWN_KIND).ok();
}

/// A consensus or proposal stream of a peer that is not pinned. A masternode whose record is
/// missing here may rightly believe that it is: its stream is refused and the connection stays, or
/// two operators who exchange records one after the other would see a flapping connection. It may
/// open such streams as fast as it likes: the operator is warned of the first.
fn refuse_unpinned(shared: &Shared, recv: &mut RecvStream) -> Result<(), ReadFailure> {
    let both_masternodes = shared.surroundings.own_role == Role::Masternode
        && shared.peer.facts().hello.role == Role::Masternode;
    if !both_masternodes {
        return Err(ReadFailure::Content {
            kind: StreamKind::Consensus,
            detail: "only pinned masternodes may open consensus and proposal streams".into(),
        });
    }
    let facts = shared.peer.facts();
    if shared.open_once(StreamKind::Consensus).is_ok() && facts.logged {
        tracing::warn!(
            peer.ip = %facts.ip,
            "consensus stream refused: this node holds no usable record of that masternode"
        );
    } else {
        tracing::debug!(peer.ip = %facts.ip, "a consensus or proposal stream is refused");
    }
    // The only error says that the stream is over already.
    recv.stop(NOT_ALLOWED).ok();
    Ok(())
}

async fn read_consensus(shared: &Shared, mut reader: FrameReader) -> Result<(), ReadFailure> {
    let kind = StreamKind::Consensus;
    let peer = shared.peer.ip();
    let Some(events) = &shared.surroundings.inbound.consensus else {
        return Ok(());
    };
    let mut announced = false;
    while let Some(message) = reader.next::<ConsensusMessage>().await? {
        if let ConsensusMessage::Consumed {
            stream,
            bytes,
            at_us,
        } = message
        {
            let confirmation = Confirmation { bytes, at_us };
            let confirmed = shared.peer.bulk.confirm(stream, confirmation);
            confirmed.map_err(|error| ReadFailure::Content {
                kind,
                detail: error.to_string(),
            })?;
            continue;
        }
        // Confirmations do not wait for consensus to hear of the peer; messages do.
        if !announced && !shared.wait_announced(&shared.consensus_announced).await {
            return Ok(());
        }
        announced = true;
        let event = ConsensusEvent::Message { peer, message };
        if events.send(event).await.is_err() {
            return shared.consumer_stopped().await;
        }
    }
    Ok(())
}

async fn read_transactions(shared: &Shared, mut reader: FrameReader) -> Result<(), ReadFailure> {
    let peer = shared.peer.ip();
    let events = &shared.surroundings.inbound.transactions;
    if !shared.wait_announced(&shared.transactions_announced).await {
        return Ok(());
    }
    let over = &shared.peer.over_budget;
    let mut id_budget = Budget::new(Spending::TransactionId, over);
    let mut byte_budget = Budget::new(Spending::TransactionByte, over);
    let mut consumed = reader.consumed();
    while let Some(message) = reader.next::<TransactionsMessage>().await? {
        let ids = match &message {
            TransactionsMessage::Announce(ids) | TransactionsMessage::Get(ids) => ids.len(),
            TransactionsMessage::Bodies(_) => 0,
        };
        if ids > MAX_TRANSACTION_IDS {
            return Err(ReadFailure::Content {
                kind: StreamKind::Transactions,
                detail: format!("{ids} ids in one message"),
            });
        }
        let bytes = reader.consumed() - std::mem::replace(&mut consumed, reader.consumed());
        byte_budget.wait(bytes).await;
        id_budget.wait(ids as u64).await;
        let event = TransactionsEvent::Message { peer, message };
        if events.send(event).await.is_err() {
            return shared.consumer_stopped().await;
        }
    }
    Ok(())
}

/// Reads a block body once fewer than the most are being read or waiting for consensus.
async fn read_proposal(shared: &Shared, reader: FrameReader) -> Result<(), ReadFailure> {
    let Some(events) = &shared.surroundings.inbound.consensus else {
        return Ok(());
    };
    let held = shared.peer.bodies_held.clone().acquire_owned();
    let Some(Ok(permit)) = shared.closed.run_until_cancelled(held).await else {
        return Ok(());
    };
    if !shared.wait_announced(&shared.consensus_announced).await {
        return Ok(());
    }
    bodies::receive_body(&shared.peer, reader, events, permit).await
}

impl Shared {
    /// Waits until Connected was delivered; false when the connection ended before.
    async fn wait_announced(&self, announced: &CancellationToken) -> bool {
        let waiting = self.closed.run_until_cancelled(announced.cancelled());
        waiting.await.is_some()
    }

    /// The consumer of a stream is gone, so the node is stopping: nothing more is read.
    async fn consumer_stopped(&self) -> Result<(), ReadFailure> {
        self.closed.cancelled().await;
        Ok(())
    }
}
