//! The bound on bulk: block bodies and sync answers together may have only so many bytes written
//! and not yet confirmed as consumed, over the whole connection. Whatever is in flight stands
//! before a ping in the network's queues, and only the sender can keep that short. [`Credit`] says
//! how many.
//!
//! The receiver confirms cumulative bytes per stream. A stream that ends early gives its bytes
//! back when its [`BulkStream`] is dropped. A confirmation of more than was written is a lie and
//! ends the connection.
//!
//! Streams that wait are served in turn, and none holds more than its part of the bound, so that a
//! reader that stalls leaves the rest to the others. Block bodies go before sync, and a reserve
//! beside the bound is theirs alone. [`BulkStream::stalled`] tells of a stream that does not move.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::confirm::Confirmation;
use super::credit::{Confirmed, Credit, Path};

/// The most bytes of one write.
pub(super) const CHUNK_BYTES: u64 = 64 * 1024;
/// A stream whose reader confirms nothing for so long is given up.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(20);
/// A body that has not moved for so long no longer holds back sync.
const PRECEDENCE: Duration = Duration::from_secs(1);
/// What QUIC adds to a packet of bulk, about: header, connection id, stream frame, seal.
const PACKET_OVERHEAD: u64 = 48;
/// Writes of one stream whose times are kept apart, at most.
const MAX_TIMES: usize = 256;

/// What a bulk stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum BulkClass {
    /// A block body for consensus.
    Proposal,
    /// An answer of sync.
    Sync,
}

/// A confirmation that cannot be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{confirmed} bytes of bulk stream {stream} confirmed, but only {written} were written")]
pub(super) struct OverConfirmed {
    /// The QUIC stream id.
    pub stream: u64,
    /// What the peer claims to have consumed.
    pub confirmed: u64,
    /// What was written.
    pub written: u64,
}

/// What is shown of a connection's bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BulkSummary {
    /// The bound, in bytes.
    pub credit: u64,
    /// Bytes written and not yet confirmed.
    pub unconfirmed: u64,
    /// The queueing delay that the bound goes by.
    pub delay: Duration,
}

/// The bulk of one connection.
pub(super) struct Bulk {
    state: Mutex<State>,
    began: Instant,
    path: Box<dyn Fn() -> Path + Send + Sync>,
}

struct State {
    credit: Credit,
    unconfirmed: u64,
    streams: BTreeMap<u64, Stream>,
    /// Streams that wait for the bound, in the order of their turn.
    waiting: VecDeque<u64>,
    /// Ids of proposal streams below this were opened at some time.
    opened_below: u64,
    packet: u64,
}

struct Stream {
    class: BulkClass,
    written: u64,
    confirmed: u64,
    /// When the reader last confirmed something, or the first byte after all were confirmed was
    /// written.
    moved: Instant,
    /// Writes that are not wholly confirmed, oldest first: the bytes written with each, and when.
    writes: VecDeque<(u64, Instant)>,
    wake: Arc<Notify>,
}

impl Bulk {
    /// Nothing outstanding, and at most `max` ever but for the reserve of block bodies.
    /// `now_ms` is the time of day.
    pub(super) fn new(
        max: u64,
        now_ms: u64,
        path: impl Fn() -> Path + Send + Sync + 'static,
    ) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            state: Mutex::new(State {
                credit: Credit::new(max, now, now_ms),
                unconfirmed: 0,
                streams: BTreeMap::new(),
                waiting: VecDeque::new(),
                opened_below: 0,
                packet: path().packet,
            }),
            began: now,
            path: Box::new(path),
        })
    }

    /// Accounts for a stream of this node's from now on.
    pub(super) fn open(self: &Arc<Self>, id: u64, class: BulkClass) -> BulkStream {
        let mut state = self.state();
        let wake = Arc::new(Notify::new());
        let stream = Stream {
            class,
            written: 0,
            confirmed: 0,
            moved: Instant::now(),
            writes: VecDeque::new(),
            wake: wake.clone(),
        };
        state.streams.insert(id, stream);
        if class == BulkClass::Proposal {
            state.opened_below = state.opened_below.max(id + 1);
        }
        BulkStream {
            bulk: self.clone(),
            id,
            wake,
        }
    }

    /// The peer has consumed so much of a proposal stream. A stream that is over is passed by: it
    /// was reset while the confirmation was on its way.
    pub(super) fn confirm(
        &self,
        stream: u64,
        confirmation: Confirmation,
    ) -> Result<(), OverConfirmed> {
        // Asked before the lock is taken, since QUIC takes its own.
        let (path, now) = ((self.path)(), Instant::now());
        let mut state = self.state();
        if stream < state.opened_below && !state.streams.contains_key(&stream) {
            return Ok(());
        }
        state.confirm(stream, confirmation, path, (self.began, now))?;
        state.wake_next(now);
        Ok(())
    }

    /// Where the clock of this node's confirmations begins.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The state for display.
    pub(super) fn summary(&self) -> BulkSummary {
        let state = self.state();
        BulkSummary {
            credit: state.credit.bytes(),
            unconfirmed: state.unconfirmed,
            delay: state.credit.delay(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    fn confirm(
        &mut self,
        id: u64,
        Confirmation { bytes, at_us }: Confirmation,
        path: Path,
        (began, now): (Instant, Instant),
    ) -> Result<(), OverConfirmed> {
        let written = self.streams.get(&id).map_or(0, |stream| stream.written);
        let stream = match self.streams.get_mut(&id) {
            Some(stream) if bytes <= stream.written => stream,
            _ => {
                return Err(OverConfirmed {
                    stream: id,
                    confirmed: bytes,
                    written,
                });
            }
        };
        // Confirmations are cumulative: an older one changes nothing.
        let more = bytes.saturating_sub(stream.confirmed);
        if more == 0 {
            return Ok(());
        }
        stream.confirmed += more;
        stream.moved = now;
        let written_at = stream.written_at(bytes).unwrap_or(now);
        if stream.outstanding() == 0 {
            stream.wake.notify_one();
        }
        self.unconfirmed -= more;
        self.packet = path.packet;
        let [written_us, now_us] =
            [written_at, now].map(|at| at.duration_since(began).as_micros() as u64);
        let confirmed = Confirmed {
            bytes: more,
            // Whatever the peer claims: only differences count.
            way_us: at_us.wrapping_sub(written_us) as i64,
            back_us: now_us.wrapping_sub(at_us) as i64,
            limited: !self.waiting.is_empty(),
        };
        self.credit.confirmed(now, confirmed, path);
        Ok(())
    }

    /// Counts up to `wanted` bytes as written if it is this stream's turn and the bound allows some.
    fn grant(&mut self, id: u64, wanted: u64, now: Instant) -> Option<u64> {
        let class = self.streams.get(&id)?.class;
        let allowed = self.allowed(id, now).min(wanted);
        let others_turn = self.turn(class, now).is_some_and(|turn| turn != id);
        if others_turn || allowed < wanted.min(self.least_chunk()) {
            return None;
        }
        // Whole packets, or each write would end in a small one.
        let unit = self.packet.saturating_sub(PACKET_OVERHEAD).max(1);
        let allowed = match allowed < wanted && allowed >= unit {
            true => allowed - allowed % unit,
            false => allowed,
        };
        if self.unconfirmed == 0 {
            self.credit.resume(now);
        }
        self.unconfirmed += allowed;
        if let Some(stream) = self.streams.get_mut(&id) {
            if stream.outstanding() == 0 {
                stream.moved = now;
            }
            stream.written += allowed;
            stream.note_write(now);
        }
        Some(allowed)
    }

    /// Whose turn it is among the waiting streams of a class that may write.
    fn turn(&self, class: BulkClass, now: Instant) -> Option<u64> {
        let mut waiting = self.waiting.iter().copied();
        waiting.find(|id| self.is(*id, class) && self.allowed(*id, now) >= self.least_chunk())
    }

    fn is(&self, id: u64, class: BulkClass) -> bool {
        self.streams.get(&id).is_some_and(|one| one.class == class)
    }

    /// Smaller writes waste the link, larger ones are bursts.
    fn least_chunk(&self) -> u64 {
        (self.credit.bytes() / 32).clamp(self.packet, CHUNK_BYTES / 4)
    }

    /// What a stream may write now.
    fn allowed(&self, id: u64, now: Instant) -> u64 {
        let Some(stream) = self.streams.get(&id) else {
            return 0;
        };
        let credit = self.credit.bytes();
        let free = credit.saturating_sub(self.unconfirmed);
        let of_class = || (self.streams.iter()).filter(|(_, other)| other.class == stream.class);
        match stream.class {
            BulkClass::Proposal => {
                let bodies: u64 = of_class().map(|(_, body)| body.outstanding()).sum();
                free.max(self.reserve().saturating_sub(bodies))
            }
            BulkClass::Sync if self.body_waits(now) => 0,
            BulkClass::Sync => {
                let active = of_class()
                    .filter(|(other, sync)| sync.outstanding() > 0 || self.waiting.contains(other))
                    .count() as u64;
                let part = (credit / active.max(1)).max(2 * self.packet);
                free.min(part.saturating_sub(stream.outstanding()))
            }
        }
    }

    /// What block bodies may have outstanding whatever sync has.
    fn reserve(&self) -> u64 {
        (self.credit.bytes() / 4).max(2 * self.packet)
    }

    fn body_waits(&self, now: Instant) -> bool {
        let mut waiting = self.waiting.iter().filter_map(|id| self.streams.get(id));
        waiting.any(|stream| stream.class == BulkClass::Proposal && now < stream.moved + PRECEDENCE)
    }

    fn wake_next(&self, now: Instant) {
        for class in [BulkClass::Proposal, BulkClass::Sync] {
            let turn = self.turn(class, now);
            if let Some(stream) = turn.and_then(|id| self.streams.get(&id)) {
                stream.wake.notify_one();
            }
        }
    }

    fn leave(&mut self, id: u64) {
        self.waiting.retain(|waiting| *waiting != id);
        self.wake_next(Instant::now());
    }
}

impl Stream {
    fn outstanding(&self) -> u64 {
        self.written - self.confirmed
    }

    fn note_write(&mut self, now: Instant) {
        let full = self.writes.len() >= MAX_TIMES;
        match self.writes.back_mut() {
            Some((end, _)) if full => *end = self.written,
            _ => self.writes.push_back((self.written, now)),
        }
    }

    /// When the last of so many bytes was written, and forgets the writes before.
    fn written_at(&mut self, bytes: u64) -> Option<Instant> {
        let mut at = None;
        while let Some((end, when)) = self.writes.front().copied() {
            at = Some(when);
            if end > bytes {
                break;
            }
            self.writes.pop_front();
            if end == bytes {
                break;
            }
        }
        at
    }
}

/// One bulk stream's account; dropping it gives back what was not confirmed.
pub(super) struct BulkStream {
    bulk: Arc<Bulk>,
    id: u64,
    /// Its turn may have come, or everything is confirmed.
    wake: Arc<Notify>,
}

impl BulkStream {
    /// Waits until some of `wanted` bytes may be written, counts them as written, and says how
    /// many: at most [`CHUNK_BYTES`].
    pub(super) async fn acquire(&self, wanted: usize) -> usize {
        let wanted = (wanted as u64).min(CHUNK_BYTES);
        let mut place = None;
        loop {
            let now = Instant::now();
            let held_back = {
                let mut state = self.bulk.state();
                if let Some(granted) = state.grant(self.id, wanted, now) {
                    drop(state);
                    return granted as usize;
                }
                if place.is_none() {
                    state.waiting.push_back(self.id);
                    place = Some(Place(self));
                }
                state.is(self.id, BulkClass::Sync) && state.body_waits(now)
            };
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = sleep_until(now + PRECEDENCE), if held_back => {}
            }
        }
    }

    /// The peer has consumed so much of this stream.
    pub(super) fn confirm(&self, confirmation: Confirmation) -> Result<(), OverConfirmed> {
        self.bulk.confirm(self.id, confirmation)
    }

    /// Waits until everything written is confirmed.
    pub(super) async fn all_confirmed(&self) {
        loop {
            {
                let state = self.bulk.state();
                if (state.streams.get(&self.id)).is_none_or(|one| one.outstanding() == 0) {
                    return;
                }
            }
            self.wake.notified().await;
        }
    }

    /// Returns when the reader has confirmed nothing for [`STALL_LIMIT`] although something is
    /// outstanding.
    pub(super) async fn stalled(&self) {
        loop {
            let now = Instant::now();
            let look_at = {
                let state = self.bulk.state();
                match state.streams.get(&self.id) {
                    Some(stream) if stream.outstanding() > 0 => stream.moved + STALL_LIMIT,
                    _ => now + STALL_LIMIT,
                }
            };
            if look_at <= now {
                return;
            }
            sleep_until(look_at).await;
        }
    }
}

/// A stream's place among those that wait; it is left when the wait ends, however it ends.
struct Place<'a>(&'a BulkStream);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.bulk.state().leave(self.0.id);
    }
}

impl Drop for BulkStream {
    fn drop(&mut self) {
        let mut state = self.bulk.state();
        if let Some(stream) = state.streams.remove(&self.id) {
            state.unconfirmed -= stream.outstanding();
        }
        state.wake_next(Instant::now());
    }
}

#[cfg(test)]
mod tests;
