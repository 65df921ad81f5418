//! The bounded queue before a lifelong stream, and the task that writes it.
//!
//! When the queue is full the message of the oldest height goes (consensus: a peer that is behind
//! recovers from certificates and sync), or the new message is refused (transactions: they are
//! announced again by others). Confirmations of bulk are written first: the newest per stream replaces
//! the one before it, and only a peer that reads none for more streams than it may have open loses
//! the oldest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use tokio::sync::Notify;

use super::confirm::Confirmation;
use crate::types::Height;
use crate::wire::{ConsensusMessage, StreamKind, encode_frame};

/// The most bytes that one write takes from the queue, unless one frame alone is longer.
const BATCH_BYTES: usize = 32 * 1024;

/// The most confirmations that wait: more than streams that the peer may have open. One that is
/// behind with reading them finishes bodies nevertheless, and the oldest stream is over.
const MAX_CONFIRMATIONS: usize = 64;

/// How much a queue holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// Frames.
    pub frames: usize,
    /// Bytes of all frames.
    pub bytes: usize,
}

impl QueueLimits {
    /// Of a consensus stream.
    pub(super) const CONSENSUS: QueueLimits = QueueLimits {
        frames: 4096,
        bytes: 8 * 1024 * 1024,
    };
    /// Of a transactions stream to a masternode.
    pub(super) const TRANSACTIONS: QueueLimits = QueueLimits {
        frames: 1024,
        bytes: 8 * 1024 * 1024,
    };
    /// Of a transactions stream to any other peer: all of them may ask for the pool and read nothing.
    pub(super) const TRANSACTIONS_UNPINNED: QueueLimits = QueueLimits {
        frames: 1024,
        bytes: 1024 * 1024,
    };
}

/// What happens to a message that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// The oldest height's messages make room; the new one is refused only if it is the oldest.
    DropOldestHeight,
    /// It is refused.
    RefuseNew,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It is in the queue; so many others were dropped for it.
    Queued {
        /// Messages dropped to make room.
        dropped: usize,
    },
    /// It was dropped.
    Refused,
    /// The stream is gone.
    Closed,
}

/// A bounded queue of encoded frames; one task takes from it.
pub(super) struct FrameQueue {
    limits: QueueLimits,
    when_full: WhenFull,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Default)]
struct State {
    frames: VecDeque<(Height, Vec<u8>)>,
    bytes: usize,
    /// Proposal stream id to cumulative bytes.
    confirmations: BTreeMap<u64, Confirmation>,
    closed: bool,
}

impl FrameQueue {
    /// An empty queue.
    pub(super) fn new(limits: QueueLimits, when_full: WhenFull) -> Self {
        Self {
            limits,
            when_full,
            state: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Adds a frame. Its height matters only with [`WhenFull::DropOldestHeight`].
    pub(super) fn push(&self, height: Height, frame: Vec<u8>) -> Pushed {
        let mut state = self.state.lock().expect("no holder panics");
        if state.closed {
            return Pushed::Closed;
        }
        let mut dropped = 0;
        while !state.has_room(&self.limits, frame.len()) {
            if self.when_full == WhenFull::RefuseNew || !state.drop_below(height) {
                return Pushed::Refused;
            }
            dropped += 1;
        }
        state.bytes += frame.len();
        state.frames.push_back((height, frame));
        self.filled.notify_one();
        Pushed::Queued { dropped }
    }

    /// Confirms the bytes consumed of a proposal stream; replaces an earlier confirmation of it.
    pub(super) fn confirm(&self, stream: u64, confirmation: Confirmation) {
        let mut state = self.state.lock().expect("no holder panics");
        if !state.closed {
            state.confirmations.insert(stream, confirmation);
            if state.confirmations.len() > MAX_CONFIRMATIONS {
                state.confirmations.pop_first();
            }
            self.filled.notify_one();
        }
    }

    /// Waits for frames and takes as many as make a write of reasonable size. For one taker only.
    pub(super) async fn take(&self) -> Vec<u8> {
        loop {
            let batch = self.try_take();
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    /// How many frames wait, and their bytes.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock().expect("no holder panics");
        (state.frames.len(), state.bytes)
    }

    /// No more frames are taken or accepted.
    pub(super) fn close(&self) {
        let mut state = self.state.lock().expect("no holder panics");
        *state = State {
            closed: true,
            ..State::default()
        };
    }

    fn try_take(&self) -> Vec<u8> {
        let mut state = self.state.lock().expect("no holder panics");
        let mut batch = Vec::new();
        for (stream, Confirmation { bytes, at_us }) in std::mem::take(&mut state.confirmations) {
            let message = ConsensusMessage::Consumed {
                stream,
                bytes,
                at_us,
            };
            batch.extend(
                encode_frame(StreamKind::Consensus, &message)
                    .expect("a confirmation is a few bytes"),
            );
        }
        while let Some((_, frame)) = state.frames.front() {
            if !batch.is_empty() && batch.len() + frame.len() > BATCH_BYTES {
                break;
            }
            let (_, frame) = state.frames.pop_front().expect("just seen");
            state.bytes -= frame.len();
            batch.extend(frame);
        }
        batch
    }
}

impl State {
    fn has_room(&self, limits: &QueueLimits, length: usize) -> bool {
        self.frames.len() < limits.frames
            && (self.frames.is_empty() || self.bytes + length <= limits.bytes)
    }

    /// Drops the first message of the lowest height, unless that is above `height`.
    fn drop_below(&mut self, height: Height) -> bool {
        let oldest = (0..self.frames.len()).min_by_key(|at| self.frames[*at].0);
        let Some(oldest) = oldest.filter(|at| self.frames[*at].0 <= height) else {
            return false;
        };
        if let Some((_, frame)) = self.frames.remove(oldest) {
            self.bytes -= frame.len();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmations_that_nobody_takes_stay_few_and_the_newest_streams_are_kept() {
        let queue = FrameQueue::new(QueueLimits::CONSENSUS, WhenFull::DropOldestHeight);
        for stream in 0..10_000 {
            queue.confirm(stream, confirmation(1));
        }
        let kept = queue.state.lock().unwrap().confirmations.clone();
        assert_eq!(kept.len(), MAX_CONFIRMATIONS);
        assert!(kept.contains_key(&9_999));
    }

    fn confirmation(bytes: u64) -> Confirmation {
        Confirmation { bytes, at_us: 7 }
    }

    const TINY: QueueLimits = QueueLimits {
        frames: 3,
        bytes: 100,
    };

    #[test]
    fn a_full_consensus_queue_drops_the_oldest_height_first() {
        let queue = FrameQueue::new(TINY, WhenFull::DropOldestHeight);
        for (height, byte) in [(7, b'a'), (5, b'b'), (6, b'c')] {
            let pushed = queue.push(Height(height), vec![byte]);
            assert_eq!(pushed, Pushed::Queued { dropped: 0 });
        }
        assert_eq!(
            queue.push(Height(8), vec![b'd']),
            Pushed::Queued { dropped: 1 }
        );
        // Older than everything that waits: it is the one to drop.
        assert_eq!(queue.push(Height(4), vec![b'e']), Pushed::Refused);
        assert_eq!(queue.try_take(), b"acd");
    }

    #[test]
    fn a_full_transactions_queue_refuses_the_new_message() {
        let queue = FrameQueue::new(TINY, WhenFull::RefuseNew);
        assert_eq!(
            queue.push(Height(0), vec![0; 60]),
            Pushed::Queued { dropped: 0 }
        );
        assert_eq!(queue.push(Height(0), vec![0; 60]), Pushed::Refused);
        queue.close();
        assert_eq!(queue.push(Height(0), vec![0]), Pushed::Closed);
    }

    #[test]
    fn confirmations_go_first_and_only_the_newest_of_a_stream() {
        let queue = FrameQueue::new(TINY, WhenFull::DropOldestHeight);
        queue.push(Height(1), vec![9]);
        queue.confirm(3, confirmation(10));
        queue.confirm(3, confirmation(20));
        let expected = encode_frame(
            StreamKind::Consensus,
            &ConsensusMessage::Consumed {
                stream: 3,
                bytes: 20,
                at_us: 7,
            },
        )
        .unwrap();
        let batch = queue.try_take();
        assert_eq!(batch[..expected.len()], expected);
        assert_eq!(batch[expected.len()..], [9]);
    }
}
