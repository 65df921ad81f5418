//! The bound on bulk: block bodies and sync answers together may have only so many bytes written
//! and not yet confirmed as consumed, over the whole connection. Whatever is in flight stands
//! before a ping in the network's queues, and only the sender can keep that short.
//!
//! The receiver confirms cumulative bytes per stream. A stream that ends early gives its bytes
//! back when its [`BulkStream`] is dropped. A confirmation of more than was written is a lie and
//! ends the connection. Only [`Bound`] decides how much may be outstanding.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

/// The most bytes of one write.
pub(super) const CHUNK_BYTES: u64 = 64 * 1024;
/// The least bytes of one write, unless less is left: smaller ones waste the link.
const MIN_CHUNK_BYTES: u64 = 16 * 1024;
/// A receiver confirms at least whenever so many bytes more have been consumed.
pub(super) const CONFIRM_EVERY_BYTES: u64 = 16 * 1024;
/// And when nothing more came for so long: what several streams have consumed and not confirmed may
/// add up to the sender's bound, and then nothing ever would come.
pub(super) const CONFIRM_AFTER: Duration = Duration::from_millis(20);

/// What a bulk stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BulkClass {
    /// A block body for consensus.
    Proposal,
    /// An answer of sync.
    Sync,
}

/// How much may be outstanding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// Bytes for all streams together.
    limit: u64,
    /// Of these, what sync leaves to proposals, so that a slow sync reader cannot hold up consensus.
    proposal_reserve: u64,
}

impl Bound {
    /// 128 KiB: the best fixed value on the reference link.
    pub(super) const FIXED: Bound = Bound {
        limit: 128 * 1024,
        proposal_reserve: 32 * 1024,
    };

    /// What a stream of this class may write now.
    fn allowance(&self, class: BulkClass, unconfirmed: u64) -> u64 {
        let limit = match class {
            BulkClass::Proposal => self.limit,
            BulkClass::Sync => self.limit - self.proposal_reserve,
        };
        limit.saturating_sub(unconfirmed)
    }
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

/// The bulk of one connection.
pub(super) struct Bulk {
    state: Mutex<State>,
    /// Wakes all waiting streams when something was confirmed or released.
    changed: Notify,
}

struct State {
    bound: Bound,
    unconfirmed: u64,
    streams: BTreeMap<u64, Stream>,
    /// Stream ids below this were opened at some time.
    opened_below: u64,
}

#[derive(Default)]
struct Stream {
    written: u64,
    confirmed: u64,
}

impl Bulk {
    /// Nothing outstanding.
    pub(super) fn new(bound: Bound) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                bound,
                unconfirmed: 0,
                streams: BTreeMap::new(),
                opened_below: 0,
            }),
            changed: Notify::new(),
        })
    }

    /// Accounts for a stream of this node's from now on.
    pub(super) fn open(self: &Arc<Self>, id: u64, class: BulkClass) -> BulkStream {
        let mut state = self.state.lock().expect("no holder panics");
        state.streams.insert(id, Stream::default());
        if class == BulkClass::Proposal {
            state.opened_below = state.opened_below.max(id + 1);
        }
        BulkStream {
            bulk: self.clone(),
            id,
            class,
        }
    }

    /// The peer has consumed so much of a proposal stream. A stream that is over is passed by: it
    /// was reset while the confirmation was on its way.
    pub(super) fn confirm(&self, stream: u64, bytes: u64) -> Result<(), OverConfirmed> {
        let mut state = self.state.lock().expect("no holder panics");
        let over = stream < state.opened_below && !state.streams.contains_key(&stream);
        if !over {
            state.confirm(stream, bytes)?;
            self.changed.notify_waiters();
        }
        Ok(())
    }

    /// Bytes written and not yet confirmed.
    pub(super) fn unconfirmed(&self) -> u64 {
        self.state.lock().expect("no holder panics").unconfirmed
    }
}

impl State {
    fn confirm(&mut self, id: u64, bytes: u64) -> Result<(), OverConfirmed> {
        let written = self.streams.get(&id).map_or(0, |stream| stream.written);
        match self.streams.get_mut(&id) {
            Some(stream) if bytes <= stream.written => {
                // Confirmations are cumulative: an older one changes nothing.
                let more = bytes.saturating_sub(stream.confirmed);
                stream.confirmed += more;
                self.unconfirmed -= more;
                Ok(())
            }
            _ => Err(OverConfirmed {
                stream: id,
                confirmed: bytes,
                written,
            }),
        }
    }
}

/// One bulk stream's account; dropping it gives back what was not confirmed.
pub(super) struct BulkStream {
    bulk: Arc<Bulk>,
    id: u64,
    class: BulkClass,
}

impl BulkStream {
    /// Waits until some of `wanted` bytes may be written, counts them as written, and says how
    /// many: at most [`CHUNK_BYTES`].
    pub(super) async fn acquire(&self, wanted: usize) -> usize {
        let wanted = (wanted as u64).min(CHUNK_BYTES);
        loop {
            // Registered before the check, so that a confirmation in between is not missed.
            let changed = self.bulk.changed.notified();
            {
                let mut state = self.bulk.state.lock().expect("no holder panics");
                let allowed = state.bound.allowance(self.class, state.unconfirmed);
                if allowed >= wanted.min(MIN_CHUNK_BYTES) {
                    let granted = allowed.min(wanted);
                    state.unconfirmed += granted;
                    if let Some(stream) = state.streams.get_mut(&self.id) {
                        stream.written += granted;
                    }
                    return granted as usize;
                }
            }
            changed.await;
        }
    }

    /// The peer has consumed so much of this stream.
    pub(super) fn confirm(&self, bytes: u64) -> Result<(), OverConfirmed> {
        let mut state = self.bulk.state.lock().expect("no holder panics");
        state.confirm(self.id, bytes)?;
        self.bulk.changed.notify_waiters();
        Ok(())
    }

    /// Waits until everything written is confirmed.
    pub(super) async fn all_confirmed(&self) {
        loop {
            let changed = self.bulk.changed.notified();
            {
                let state = self.bulk.state.lock().expect("no holder panics");
                if (state.streams.get(&self.id)).is_none_or(|one| one.confirmed == one.written) {
                    return;
                }
            }
            changed.await;
        }
    }
}

impl Drop for BulkStream {
    fn drop(&mut self) {
        let mut state = self.bulk.state.lock().expect("no holder panics");
        if let Some(stream) = state.streams.remove(&self.id) {
            state.unconfirmed -= stream.written - stream.confirmed;
        }
        self.bulk.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use proptest::prelude::*;

    #[tokio::test(start_paused = true)]
    async fn the_bound_holds_over_all_streams_and_a_confirmation_lets_the_next_chunk_out() {
        let bulk = Bulk::new(Bound::FIXED);
        let one = bulk.open(3, BulkClass::Proposal);
        let other = bulk.open(7, BulkClass::Proposal);
        assert_eq!(one.acquire(1 << 20).await, 64 * 1024);
        assert_eq!(other.acquire(1 << 20).await, 64 * 1024);
        assert_eq!(bulk.unconfirmed(), 128 * 1024);
        let blocked = async { one.acquire(1 << 20).await };
        tokio::pin!(blocked);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(9), &mut blocked).await;
        assert!(waited.is_err());
        bulk.confirm(7, 32 * 1024).unwrap();
        assert_eq!(blocked.await, 32 * 1024);
        drop(other);
        assert_eq!(bulk.unconfirmed(), 96 * 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn sync_leaves_a_reserve_to_proposals() {
        let bulk = Bulk::new(Bound::FIXED);
        let sync = bulk.open(0, BulkClass::Sync);
        assert_eq!(sync.acquire(1 << 20).await, 64 * 1024);
        assert_eq!(sync.acquire(1 << 20).await, 32 * 1024);
        let body = bulk.open(3, BulkClass::Proposal);
        assert_eq!(body.acquire(1 << 20).await, 32 * 1024);
    }

    #[tokio::test]
    async fn a_confirmation_beyond_what_was_written_is_refused() {
        let bulk = Bulk::new(Bound::FIXED);
        let stream = bulk.open(3, BulkClass::Proposal);
        assert_eq!(stream.acquire(100).await, 100);
        assert!(bulk.confirm(3, 101).is_err());
        assert!(bulk.confirm(11, 1).is_err());
        bulk.confirm(3, 100).unwrap();
        stream.all_confirmed().await;
        drop(stream);
        // Late, for a stream that is over.
        bulk.confirm(3, 100).unwrap();
    }

    proptest! {
        #[test]
        fn what_is_unconfirmed_is_the_sum_over_open_streams(
            steps in proptest::collection::vec((0u64..4, 1u64..40_000), 1..60),
        ) {
            let bulk = Bulk::new(Bound::FIXED);
            let mut open: BTreeMap<u64, (BulkStream, u64, u64)> = BTreeMap::new();
            for (id, bytes) in steps {
                let entry = open
                    .entry(id)
                    .or_insert_with(|| (bulk.open(id, BulkClass::Proposal), 0, 0));
                let granted = {
                    let acquired = std::pin::pin!(entry.0.acquire(bytes as usize));
                    acquired.poll(&mut Context::from_waker(Waker::noop()))
                };
                match granted {
                    Poll::Ready(granted) => entry.1 += granted as u64,
                    Poll::Pending if bytes % 3 == 0 => drop(open.remove(&id)),
                    Poll::Pending => {
                        entry.2 = entry.1;
                        bulk.confirm(id, entry.1).unwrap();
                    }
                }
                let expected: u64 = open.values().map(|(_, w, c)| w - c).sum();
                prop_assert_eq!(bulk.unconfirmed(), expected);
                prop_assert!(expected <= 128 * 1024);
            }
        }
    }
}
