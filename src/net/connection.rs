//! The life of one established connection: its streams, its tasks, its end.
//!
//! ```text
//! run -+- keepalive sender, keepalive receiver
//!      +- transactions: announce Connected, writer; its reader when the peer's stream opens
//!      +- consensus (pinned pairs): announce Connected and Reach, writer, bodies; reader
//!      +- one task per stream that the peer opens, bounded by QUIC's stream limits
//! ```
//!
//! For the rest of the node, one peer's events come in this order: Connected, messages,
//! Disconnected; and a connection that replaces another is announced only when the events of all
//! those before it are delivered. Readers wait until Connected is delivered. A consumer that is
//! behind holds back only the stream that it is behind on, never the keepalive.
//!
//! The end: QUIC's connection dies, or [`Peer::end`] was called, or nothing came for the silence
//! limit. The manager is told at once; then the readers run dry and Disconnected is delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::VarInt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::faults::Fault;
use super::frames::{FrameReader, FrameWriter, NOT_ALLOWED, ReadFailure};
use super::keepalive::{self, KeepaliveSender, PONG_QUEUE};
use super::manager::Ask;
use super::peer::Peer;
use super::queue::FrameQueue;
use super::{ConsensusEvent, Direction, Inbound, TransactionsEvent, bodies, tls};
use crate::types::{PeerIp, Tip};
use crate::wire::{CloseCode, CloseReason, ReachSet, Role, StreamKind, Welcome};

mod readers;

use readers::{read_bi, read_uni};

/// How long closing waits for bulk streams to be reset, so that the close is not stuck behind them.
const BULK_RESET_LIMIT: Duration = Duration::from_millis(200);
/// How long closing then waits for what is in flight, at most: QUIC sends no close while its congestion
/// window is full, and once it is closing, no acknowledgement opens the window any more.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// How long a peer may hold an acknowledgement back (RFC 9000 section 18.2).
const ACK_DELAY: Duration = Duration::from_millis(25);
/// How long a peer that ended a lifelong stream may take to close the connection.
const CLOSE_AFTER_STREAM_LIMIT: Duration = Duration::from_secs(1);

/// What all connections share.
pub(super) struct Surroundings {
    /// Where messages go.
    pub inbound: Inbound,
    /// This node's tip.
    pub tip: watch::Receiver<Tip>,
    /// The masternodes that this node is connected to.
    pub reach: watch::Receiver<ReachSet>,
    /// Counts connects, disconnects and news of tips.
    pub changes: watch::Sender<u64>,
    /// The number of masternodes in genesis.
    pub masternodes: usize,
    /// Whether this node is one of them.
    pub own_role: Role,
    /// To the manager.
    pub mailbox: mpsc::Sender<Ask>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectionEnd {
    /// Whose.
    pub ip: PeerIp,
    /// Which one.
    pub id: u64,
    /// Who had dialed.
    pub direction: Direction,
    /// Why.
    pub reason: CloseReason,
    /// Whether this node ended it.
    pub by_us: bool,
    /// How long it lasted.
    pub lasted: Duration,
    /// What the peer did that no honest one does.
    pub fault: Option<Fault>,
    /// Whether it stands in the log at `info`, as its beginning did.
    pub logged: bool,
}

/// An established connection that is about to run.
pub(super) struct Established {
    /// The connection.
    pub peer: Arc<Peer>,
    /// The acceptor's Welcome, still to be sent.
    pub welcome: Option<Welcome>,
    /// This node's keepalive stream.
    pub writer: FrameWriter,
    /// The peer's keepalive stream.
    pub reader: FrameReader,
    /// Cancelled when the events of all earlier connections of the peer are delivered.
    pub predecessor: CancellationToken,
    /// Cancelled when this connection's events are delivered too.
    pub gone: CancellationToken,
    /// What all connections share.
    pub surroundings: Arc<Surroundings>,
}

/// What the tasks of one connection share.
struct Shared {
    peer: Arc<Peer>,
    surroundings: Arc<Surroundings>,
    /// QUIC's connection is over.
    closed: CancellationToken,
    /// Bulk streams must be reset: this node is about to close.
    stop_bulk: CancellationToken,
    consensus_announced: CancellationToken,
    transactions_announced: CancellationToken,
    /// Which lifelong streams the peer has opened, by kind.
    opened: [AtomicBool; 5],
}

impl Established {
    /// Runs the connection to its end.
    pub(super) async fn run(self) {
        let gone = self.gone.clone().drop_guard();
        let predecessor = self.predecessor.clone();
        // In a box, so that nothing of the connection is held any more by what waits after it.
        Box::pin(self.live()).await;
        // One that ended before it was announced has not waited for the events before its own yet.
        predecessor.cancelled().await;
        drop(gone);
    }

    async fn live(self) {
        let shared = Arc::new(Shared {
            peer: self.peer,
            surroundings: self.surroundings,
            closed: CancellationToken::new(),
            stop_bulk: CancellationToken::new(),
            consensus_announced: CancellationToken::new(),
            transactions_announced: CancellationToken::new(),
            opened: Default::default(),
        });
        shared.opened[StreamKind::Keepalive as usize].store(true, Ordering::Relaxed);
        let mut tasks = JoinSet::new();
        let mut bulk = JoinSet::new();
        spawn_keepalive(&mut tasks, &shared, self.writer, self.reader, self.welcome);
        tasks.spawn(announce_transactions(
            shared.clone(),
            self.predecessor.clone(),
        ));
        tasks.spawn(write_queue(shared.clone(), StreamKind::Transactions));
        if shared.peer.facts().consensus {
            tasks.spawn(announce_consensus(shared.clone(), self.predecessor));
            tasks.spawn(write_queue(shared.clone(), StreamKind::Consensus));
            bulk.spawn(bodies::send_bodies(
                shared.peer.clone(),
                shared.stop_bulk.clone(),
            ));
        }
        let end = shared.until_end(&mut tasks, &mut bulk).await;
        shared.close(&end, &mut bulk).await;
        if shared
            .surroundings
            .mailbox
            .send(Ask::Ended(end))
            .await
            .is_err()
        {
            // The manager is gone: the node is shutting down and nobody keeps records any more.
            return;
        }
        join_all(&mut bulk).await;
        join_all(&mut tasks).await;
        shared.farewell().await;
    }
}

fn spawn_keepalive(
    tasks: &mut JoinSet<()>,
    shared: &Arc<Shared>,
    writer: FrameWriter,
    reader: FrameReader,
    welcome: Option<Welcome>,
) {
    let (pongs_in, pongs) = mpsc::channel(PONG_QUEUE);
    let sender = KeepaliveSender {
        peer: shared.peer.clone(),
        writer,
        pongs,
        tip: shared.surroundings.tip.clone(),
        reach: shared.surroundings.reach.clone(),
    };
    let here = shared.clone();
    tasks.spawn(async move {
        // A sender that may send no further ping would never notice the end by itself.
        let sent = here.closed.run_until_cancelled(sender.run(welcome)).await;
        if let Some(Err(error)) = sent {
            here.write_failed(StreamKind::Keepalive, error).await;
        }
    });
    let here = shared.clone();
    tasks.spawn(async move {
        let Surroundings {
            masternodes,
            changes,
            ..
        } = &*here.surroundings;
        let read = keepalive::receive(&here.peer, reader, pongs_in, *masternodes, changes).await;
        here.lifelong_ended(StreamKind::Keepalive, read).await;
    });
}

/// Waits for all tasks; a panic in one continues here.
async fn join_all(tasks: &mut JoinSet<()>) {
    while let Some(joined) = tasks.join_next().await {
        propagate(joined);
    }
}

fn propagate(joined: Result<(), tokio::task::JoinError>) {
    if let Err(error) = joined
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

impl Shared {
    /// Takes the peer's streams until the connection must end or has ended.
    async fn until_end(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        bulk: &mut JoinSet<()>,
    ) -> ConnectionEnd {
        let quic = self.peer.quic();
        let silence_limit = self.peer.timing().silence_limit;
        let mut order = self.peer.watch_order();
        loop {
            let ordered = order.borrow_and_update().clone();
            let silent_at = self.peer.meter.last_received() + silence_limit;
            let end_at = ordered.as_ref().map_or(silent_at, |order| order.at);
            tokio::select! {
                biased;
                error = quic.closed() => return self.ended(tls::explain(&error), false),
                () = sleep_until(end_at.min(silent_at)) => {
                    if let Some(order) = ordered.filter(|order| order.at <= Instant::now()) {
                        return self.ended(order.reason, true);
                    }
                    if self.peer.meter.last_received() + silence_limit <= Instant::now() {
                        return self.ended(silent(silence_limit), true);
                    }
                }
                changed = order.changed() => {
                    changed.expect("the peer, which this task holds, holds the sender");
                }
                Some(joined) = tasks.join_next() => propagate(joined),
                Some(joined) = bulk.join_next() => propagate(joined),
                Ok(recv) = quic.accept_uni() => {
                    tasks.spawn(read_uni(self.clone(), recv));
                }
                Ok((send, recv)) = quic.accept_bi() => {
                    bulk.spawn(read_bi(self.clone(), send, recv));
                }
            }
        }
    }

    fn ended(&self, reason: CloseReason, by_us: bool) -> ConnectionEnd {
        ConnectionEnd {
            ip: self.peer.ip(),
            id: self.peer.id(),
            direction: self.peer.facts().direction,
            reason,
            by_us,
            lasted: self.peer.meter.age(),
            fault: self.peer.fault(),
            logged: self.peer.facts().logged,
        }
    }

    /// Closes QUIC's connection, bulk streams first: a close can be lost behind bulk in flight.
    async fn close(&self, end: &ConnectionEnd, bulk: &mut JoinSet<()>) {
        let in_flight = self.peer.bulk.summary().unconfirmed > 0;
        self.stop_bulk.cancel();
        if end.by_us {
            let reset = timeout(BULK_RESET_LIMIT, join_all(bulk)).await;
            if reset.is_err() {
                tracing::debug!(peer.ip = %end.ip, "bulk streams were not reset in time");
            }
            if in_flight {
                let drained = self.peer.quic().rtt() * 3 / 2 + ACK_DELAY;
                sleep(drained.min(DRAIN_LIMIT)).await;
            }
            close(self.peer.quic(), &end.reason);
        }
        self.closed.cancel();
        self.peer.transactions.close();
        if let Some(queue) = &self.peer.consensus {
            queue.close();
        }
    }

    /// Delivers Disconnected to whoever had Connected.
    async fn farewell(&self) {
        let peer = self.peer.ip();
        if self.transactions_announced.is_cancelled() {
            let event = TransactionsEvent::Disconnected { peer };
            let told = self.surroundings.inbound.transactions.send(event).await;
            note_undelivered(told.is_ok(), "the mempool", peer);
        }
        if self.consensus_announced.is_cancelled()
            && let Some(consensus) = &self.surroundings.inbound.consensus
            && let Some(masternode) = self.peer.masternode()
        {
            let event = ConsensusEvent::Disconnected { peer, masternode };
            let told = consensus.send(event).await;
            note_undelivered(told.is_ok(), "consensus", peer);
        }
    }

    /// A reader has failed.
    fn read_failed(&self, failure: &ReadFailure) {
        self.peer.read_failed(failure);
    }

    /// A lifelong stream of the peer's gives no more. Usually the connection's close is on its way.
    async fn lifelong_ended(&self, kind: StreamKind, read: Result<(), ReadFailure>) {
        if let Err(failure) = &read
            && failure.is_violation()
        {
            return self.read_failed(failure);
        }
        let closing = timeout(CLOSE_AFTER_STREAM_LIMIT, self.closed.cancelled()).await;
        if closing.is_err() {
            self.peer
                .violation(format!("it ended its {} stream", kind.name()));
        }
    }

    /// A lifelong stream of this node's cannot be written.
    async fn write_failed(&self, kind: StreamKind, error: quinn::WriteError) {
        if error == quinn::WriteError::Stopped(NOT_ALLOWED) && kind == StreamKind::Consensus {
            // It has no record of this node: an operator's matter, not a reason to disconnect.
            tracing::warn!(
                peer.ip = %self.peer.ip(),
                "the peer takes no consensus stream: it holds no record of this masternode"
            );
            if let Some(queue) = &self.peer.consensus {
                queue.close();
            }
            return;
        }
        let closing = timeout(CLOSE_AFTER_STREAM_LIMIT, self.closed.cancelled()).await;
        if closing.is_err() {
            self.peer
                .violation(format!("it stopped the {} stream: {error}", kind.name()));
        }
    }

    /// Refuses a second lifelong stream of a kind.
    fn open_once(&self, kind: StreamKind) -> Result<(), ReadFailure> {
        if self.opened[kind as usize].swap(true, Ordering::Relaxed) {
            return Err(ReadFailure::Content {
                kind,
                detail: "a second stream of this kind".into(),
            });
        }
        Ok(())
    }
}

fn silent(limit: Duration) -> CloseReason {
    CloseReason::new(
        CloseCode::Silent,
        format!("no application bytes came on any stream for {limit:?}"),
    )
}

fn note_undelivered(told: bool, whom: &str, peer: PeerIp) {
    if !told {
        tracing::debug!(peer.ip = %peer, "{whom} has stopped: a disconnect is not delivered");
    }
}

/// Closes with a reason that the peer can show.
pub(super) fn close(quic: &quinn::Connection, reason: &CloseReason) {
    let code = VarInt::from_u32(reason.code as u32);
    quic.close(code, reason.detail.as_bytes());
}

/// Tells the mempool that the peer is there.
async fn announce_transactions(shared: Arc<Shared>, predecessor: CancellationToken) {
    let peer = shared.peer.ip();
    let events = &shared.surroundings.inbound.transactions;
    let announce = async {
        predecessor.cancelled().await;
        events.send(TransactionsEvent::Connected { peer }).await
    };
    if let Some(Ok(())) = shared.closed.run_until_cancelled(announce).await {
        shared.transactions_announced.cancel();
    }
}

/// Tells consensus that the masternode is there, then whom it reaches, whenever that changes.
async fn announce_consensus(shared: Arc<Shared>, predecessor: CancellationToken) {
    let (peer, surroundings) = (shared.peer.ip(), &shared.surroundings);
    let (Some(events), Some(masternode)) =
        (&surroundings.inbound.consensus, shared.peer.masternode())
    else {
        return;
    };
    let announce = async {
        predecessor.cancelled().await;
        let connected = ConsensusEvent::Connected { peer, masternode };
        events.send(connected).await
    };
    let Some(Ok(())) = shared.closed.run_until_cancelled(announce).await else {
        return;
    };
    shared.consensus_announced.cancel();
    let mut news = shared.peer.reach.subscribe();
    // Pings that came before are news as well.
    let mut reach = news.borrow_and_update().clone();
    let mut told = ReachSet::default();
    loop {
        if reach != told {
            told = reach.clone();
            let event = ConsensusEvent::Reach { peer, reach };
            let sent = shared.closed.run_until_cancelled(events.send(event)).await;
            if !matches!(sent, Some(Ok(()))) {
                return;
            }
        }
        match shared.closed.run_until_cancelled(news.changed()).await {
            Some(Ok(())) => reach = news.borrow_and_update().clone(),
            _ => return,
        }
    }
}

/// Opens a lifelong stream of this node's and writes its queue to it.
async fn write_queue(shared: Arc<Shared>, kind: StreamKind) {
    let queue: &FrameQueue = match (kind, &shared.peer.consensus) {
        (StreamKind::Consensus, Some(queue)) => queue,
        _ => &shared.peer.transactions,
    };
    let Ok(stream) = shared.peer.quic().open_uni().await else {
        return;
    };
    let mut writer = FrameWriter::new(stream, kind, shared.peer.meter.clone());
    let failed = match writer.open().await {
        Err(error) => error,
        Ok(()) => loop {
            let Some(batch) = shared.closed.run_until_cancelled(queue.take()).await else {
                return;
            };
            if let Err(error) = writer.write(&batch).await {
                break error;
            }
        },
    };
    shared.write_failed(kind, failed).await;
}
