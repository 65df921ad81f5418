//! The keepalive streams of an established connection: pings, pongs, tips.
//!
//! The sender is one task: it pings when due, tells a new tip at once but at most four times a
//! second (the newest wins), and answers pings. The receiver is another; it hands nonces to answer
//! through a channel of [`PONG_QUEUE`]. When that is full, the peer does not read our pongs, and its
//! further pings stay unread.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::budget::{Budget, Spending};
use super::frames::{FrameReader, FrameWriter, ReadFailure};
use super::liveness::MAX_OUTSTANDING;
use super::peer::Peer;
use crate::types::{BlockHash, Height, Tip};
use crate::wire::{KeepaliveMessage, Ping, ReachSet, Role, StreamKind, Welcome};

/// Pings of the peer that wait to be answered.
pub(super) const PONG_QUEUE: usize = MAX_OUTSTANDING;
/// The least time between two Tip messages.
const TIP_INTERVAL: Duration = Duration::from_millis(250);
/// The most addresses in one message.
const MAX_ADDRESSES: usize = 100;

/// What the sender tells.
pub(super) struct KeepaliveSender {
    /// The connection.
    pub peer: Arc<Peer>,
    /// Its keepalive stream.
    pub writer: FrameWriter,
    /// Nonces to answer.
    pub pongs: mpsc::Receiver<u64>,
    /// This node's tip.
    pub tip: watch::Receiver<Tip>,
    /// The masternodes that this node is connected to.
    pub reach: watch::Receiver<ReachSet>,
}

impl KeepaliveSender {
    /// Sends until the stream breaks. The acceptor's Welcome goes first.
    pub(super) async fn run(mut self, welcome: Option<Welcome>) -> Result<(), quinn::WriteError> {
        let mut record = self.peer.watch_record();
        // The acceptor's Welcome tells it; only masternodes have a record.
        let tells_record = self.peer.facts().hello.role == Role::Masternode;
        if welcome
            .as_ref()
            .is_none_or(|told| told.record_serial != *record.borrow())
        {
            record.mark_changed();
        }
        if let Some(welcome) = welcome {
            let welcome = KeepaliveMessage::Welcome(welcome);
            self.writer.message(&welcome).await?;
        }
        self.tip.mark_changed();
        let (mut tip_told, mut tip_due) = (None, None);
        let (mut tips_end, mut reach_ends) = (false, false);
        let mut reach_news = false;
        loop {
            let ping_due = self.ping_due(reach_news);
            tokio::select! {
                biased;
                () = sleep_until(ping_due) => {
                    // Pongs that came meanwhile may have put the next ping off.
                    if self.ping_due(reach_news) <= Instant::now() && self.ping().await? {
                        reach_news = false;
                    }
                }
                () = sleep_until(tip_due.unwrap_or(ping_due)), if tip_due.is_some() => {
                    self.tell_tip().await?;
                    tip_told = Some(Instant::now());
                    tip_due = None;
                }
                Some(nonce) = self.pongs.recv() => self.pong(nonce).await?,
                changed = self.tip.changed(), if !tips_end && tip_due.is_none() => {
                    tips_end = changed.is_err();
                    tip_due = Some(tip_told.map_or_else(Instant::now, |at| at + TIP_INTERVAL));
                }
                Ok(()) = record.changed(), if tells_record => {
                    let serial = *record.borrow_and_update();
                    self.writer.message(&KeepaliveMessage::Record { serial }).await?;
                }
                changed = self.reach.changed(), if !reach_ends && !reach_news => {
                    reach_ends = changed.is_err();
                    reach_news = true;
                }
            }
        }
    }

    /// When to look again whether a ping is due. News of reach make one due a little earlier, since
    /// votes are relayed by it.
    fn ping_due(&self, reach_news: bool) -> Instant {
        let (timing, now) = (self.peer.timing(), Instant::now());
        let liveness = self.peer.liveness.lock().expect("no holder panics");
        let soon = now + timing.ping_interval_overdue();
        match (liveness.next_ping(timing, now), liveness.last_ping()) {
            (Some(due), Some(last)) if reach_news => due.min(last + timing.ping_interval_overdue()),
            (due, _) => due.unwrap_or(soon),
        }
    }

    /// Sends a ping, unless too many are outstanding.
    async fn ping(&mut self) -> Result<bool, quinn::WriteError> {
        let nonce = {
            let mut liveness = self.peer.liveness.lock().expect("no holder panics");
            let now = Instant::now();
            if liveness.next_ping(self.peer.timing(), now).is_none() {
                return Ok(false);
            }
            liveness.ping(now)
        };
        let tip = *self.tip.borrow();
        let reach = self.reach.borrow().clone();
        let ping = KeepaliveMessage::Ping(Ping {
            nonce,
            tip_height: tip.height,
            tip_hash: tip.hash,
            reach,
        });
        self.writer.message(&ping).await?;
        Ok(true)
    }

    async fn tell_tip(&mut self) -> Result<(), quinn::WriteError> {
        let tip = *self.tip.borrow_and_update();
        let (height, hash) = (tip.height, tip.hash);
        let message = KeepaliveMessage::Tip { height, hash };
        self.writer.message(&message).await
    }

    /// Answers a ping, and counts it as answered only then.
    async fn pong(&mut self, nonce: u64) -> Result<(), quinn::WriteError> {
        self.writer
            .message(&KeepaliveMessage::Pong { nonce })
            .await?;
        let mut liveness = self.peer.liveness.lock().expect("no holder panics");
        liveness.pinged();
        Ok(())
    }
}

/// Reads the peer's keepalive stream until it ends.
pub(super) async fn receive(
    peer: &Peer,
    mut reader: FrameReader,
    pongs: mpsc::Sender<u64>,
    masternodes: usize,
    changes: &watch::Sender<u64>,
) -> Result<(), ReadFailure> {
    let over = &peer.over_budget;
    let mut pings = Budget::new(Spending::Ping, over);
    let mut tips = Budget::new(Spending::Tip, over);
    let mut told_addresses = Budget::new(Spending::Address, over);
    while let Some(message) = reader.next::<KeepaliveMessage>().await? {
        match message {
            KeepaliveMessage::Ping(ping) => {
                pings.wait(1).await;
                if !ping.reach.is_valid(masternodes) {
                    return Err(content("a ping names masternodes that there are not"));
                }
                let tip = (ping.tip_height, ping.tip_hash);
                note_tip(peer, &mut tips, tip, changes);
                peer.reach.send_if_modified(|reach| {
                    let news = *reach != ping.reach;
                    *reach = ping.reach;
                    news
                });
                if pongs.send(ping.nonce).await.is_err() {
                    // The sender has failed, and so has the connection.
                    return Ok(());
                }
            }
            KeepaliveMessage::Pong { nonce } => note_pong(peer, nonce),
            KeepaliveMessage::Tip { height, hash } => {
                note_tip(peer, &mut tips, (height, hash), changes);
            }
            KeepaliveMessage::Addresses(addresses) if addresses.len() <= MAX_ADDRESSES => {
                let count = addresses.len() as u64;
                if told_addresses.allows(count) {
                    tracing::trace!(peer.ip = %peer.ip(), count, "addresses received");
                }
            }
            KeepaliveMessage::Record { serial } => peer.told_record(serial),
            KeepaliveMessage::Addresses(_) => return Err(content("more than 100 addresses")),
            KeepaliveMessage::Hello(_) => return Err(content("a second Hello")),
            KeepaliveMessage::Welcome(_) => return Err(content("an unexpected Welcome")),
        }
    }
    Ok(())
}

fn note_pong(peer: &Peer, nonce: u64) {
    let mut liveness = peer.liveness.lock().expect("no holder panics");
    match liveness.pong(nonce, peer.timing(), Instant::now()) {
        Some(rtt) if rtt > peer.timing().slow_after => {
            tracing::debug!(peer.ip = %peer.ip(), ?rtt, "a late pong: the peer is slow");
        }
        Some(_) => {}
        None => tracing::debug!(peer.ip = %peer.ip(), nonce, "a pong without its ping"),
    }
}

/// The peer told its tip. The whole node looks at such news, so it has a budget; what is over it is
/// passed by, and the next ping tells the tip again.
fn note_tip(
    peer: &Peer,
    budget: &mut Budget<'_>,
    tip: (Height, BlockHash),
    changes: &watch::Sender<u64>,
) {
    if peer.is_at(tip.0, tip.1) || !budget.allows(1) {
        return;
    }
    if peer.set_tip(tip.0, tip.1) {
        changes.send_modify(|version| *version += 1);
    }
}

fn content(detail: &str) -> ReadFailure {
    ReadFailure::Content {
        kind: StreamKind::Keepalive,
        detail: detail.into(),
    }
}
