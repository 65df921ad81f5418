//! Timers of the round: durations from genesis, a table owned by the actor, and the rule by which a
//! body in progress holds the propose timer back.
//!
//! The table is polled by the actor that owns it, so a timer that was cancelled or replaced cannot
//! fire late.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::types::{Genesis, Round, Timeouts};

/// A body that has made no progress for this long no longer holds the propose timer back.
pub(super) const MAX_BODY_GAP: Duration = Duration::from_secs(3);

/// The longest interval between repetitions of this node's last votes.
const MAX_REBROADCAST: Duration = Duration::from_secs(10);

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum TimeoutKind {
    /// No proposal has led to a prevote.
    Propose,
    /// Prevotes of a quorum, but for no one value.
    Prevote,
    /// Precommits of a quorum, but for no one value.
    Precommit,
    /// The last votes are sent again.
    Rebroadcast,
}

/// A timer of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Timeout {
    pub(super) kind: TimeoutKind,
    pub(super) round: Round,
}

/// How long a timer runs.
pub(super) fn duration(timeouts: &Timeouts, timeout: Timeout) -> Duration {
    let steps = timeouts.step_ms.saturating_mul(u64::from(timeout.round.0));
    let propose = timeouts.propose_ms.saturating_add(steps);
    let vote = timeouts
        .vote_ms
        .saturating_add(steps)
        .min(timeouts.max_vote_ms);
    Duration::from_millis(match timeout.kind {
        TimeoutKind::Propose => propose,
        TimeoutKind::Prevote | TimeoutKind::Precommit => vote,
        TimeoutKind::Rebroadcast => {
            let whole_round = propose.saturating_add(2 * vote);
            whole_round.min(MAX_REBROADCAST.as_millis() as u64)
        }
    })
}

/// How long after its start a propose timer may be held back at most: one and a half times what
/// the proposer's uplink needs to send a full block to all others.
pub(super) fn longest_hold(genesis: &Genesis) -> Duration {
    let others = genesis.masternodes.len().saturating_sub(1) as u64;
    let bits = u64::from(genesis.max_block_bytes) * 8 * others;
    let bits_per_ms = (u64::from(genesis.uplink_mbit) * 1_000).max(1);
    Duration::from_millis(bits * 3 / 2 / bits_per_ms)
}

/// Until when a propose timer that is due is held back: `None` lets it fire now. `last_progress` is
/// `None` when the round has no verified proposal or its body is no longer awaited.
pub(super) fn held_until(
    now: Instant,
    armed_at: Instant,
    longest: Duration,
    last_progress: Option<Instant>,
) -> Option<Instant> {
    let until = (last_progress? + MAX_BODY_GAP).min(armed_at + longest);
    (until > now).then_some(until)
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    at: Instant,
    due: Instant,
}

/// The armed timers.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeMap<Timeout, Armed>);

impl Timers {
    /// Arms a timer; one that is armed already starts again.
    pub(super) fn arm(&mut self, timeout: Timeout, now: Instant, duration: Duration) {
        let due = now + duration;
        self.0.insert(timeout, Armed { at: now, due });
    }

    pub(super) fn cancel(&mut self, timeout: Timeout) {
        self.0.remove(&timeout);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When the next timer is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.values().map(|armed| armed.due).min()
    }

    /// Takes the earliest timer that is due. `hold` may move a propose timer: it is given when the
    /// timer was armed and says until when it waits.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        hold: impl Fn(Round, Instant) -> Option<Instant>,
    ) -> Option<Timeout> {
        loop {
            let (timeout, armed) = self
                .0
                .iter()
                .filter(|(_, armed)| armed.due <= now)
                .min_by_key(|(_, armed)| armed.due)
                .map(|(timeout, armed)| (*timeout, *armed))?;
            if timeout.kind == TimeoutKind::Propose
                && let Some(until) = hold(timeout.round, armed.at)
                && until > now
            {
                let due = until;
                self.0.insert(timeout, Armed { due, ..armed });
                continue;
            }
            self.0.remove(&timeout);
            return Some(timeout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(kind: TimeoutKind, round: u32) -> Timeout {
        Timeout {
            kind,
            round: Round(round),
        }
    }

    #[test]
    fn durations_grow_with_the_round_and_votes_stop_at_their_limit() {
        let table = Timeouts::default();
        for (kind, round, ms) in [
            (TimeoutKind::Propose, 0, 3_000),
            (TimeoutKind::Propose, 4, 5_000),
            (TimeoutKind::Prevote, 0, 1_000),
            (TimeoutKind::Precommit, 2, 2_000),
            (TimeoutKind::Prevote, 1_000, 10_000),
            (TimeoutKind::Precommit, u32::MAX, 10_000),
            (TimeoutKind::Rebroadcast, 0, 5_000),
            (TimeoutKind::Rebroadcast, u32::MAX, 10_000),
        ] {
            let found = duration(&table, timeout(kind, round));
            assert_eq!(found, Duration::from_millis(ms), "{kind:?} {round}");
        }
    }

    #[test]
    fn a_body_holds_the_propose_timer_back_up_to_gap_and_bound() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let longest = Duration::from_secs(7);
        let held = |now: u32, progress: Option<u32>| {
            held_until(
                start + second * now,
                start,
                longest,
                progress.map(|at| start + second * at),
            )
            .map(|until| (until - start).as_secs())
        };
        assert_eq!(held(3, None), None, "no proposal");
        assert_eq!(held(3, Some(2)), Some(5), "progress a second ago");
        assert_eq!(held(5, Some(2)), None, "a gap of three seconds");
        assert_eq!(held(6, Some(6)), Some(7), "never past the bound");
        assert_eq!(held(7, Some(7)), None, "at the bound");
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_timers_never_fire_and_held_ones_fire_later() {
        let mut timers = Timers::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        timers.arm(timeout(TimeoutKind::Propose, 0), now, second);
        timers.arm(timeout(TimeoutKind::Prevote, 0), now, second * 2);
        timers.arm(timeout(TimeoutKind::Precommit, 0), now, second);
        timers.cancel(timeout(TimeoutKind::Precommit, 0));
        let later = now + second * 3;
        let hold = |_, armed| Some(armed + second * 10);
        assert_eq!(
            timers.take_due(later, hold),
            Some(timeout(TimeoutKind::Prevote, 0))
        );
        assert_eq!(timers.take_due(later, hold), None);
        assert_eq!(timers.next_due(), Some(now + second * 10));
        assert_eq!(
            timers.take_due(later + second * 8, |_, _| None),
            Some(timeout(TimeoutKind::Propose, 0))
        );
        assert_eq!(timers.next_due(), None);
    }
}
