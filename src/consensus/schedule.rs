//! When a height starts. Pure: a function of what is known and of the time.
//!
//! Blocks are made at slot boundaries, and at once when transactions wait; a node that sees others
//! start joins them.

use std::time::Duration;

use crate::types::Genesis;

/// What decides whether a height that has not started starts now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Situation {
    /// What is left of the minimum interval since the height before started here.
    pub(super) interval_left: Duration,
    /// Whether the mempool holds a transaction that a block could include.
    pub(super) transaction_waits: bool,
    /// How long until the slot boundary after the parent.
    pub(super) until_boundary: Duration,
    /// Whether a verified round-0 proposal for the height is held.
    pub(super) proposal_held: bool,
    /// Whether verified votes for the height from more than a third of the power are held.
    pub(super) votes_held: bool,
    /// Whether a verified polka or round certificate for the height is held.
    pub(super) certificate_held: bool,
    /// Whether the log of the height holds entries of an earlier run.
    pub(super) log_held: bool,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// The height starts, and why.
    Now(&'static str),
    /// Nothing starts it; by itself it will after this long.
    After(Duration),
}

/// The start rule.
pub(super) fn start(situation: &Situation) -> Start {
    if situation.log_held {
        return Start::Now("its log holds entries");
    }
    if situation.proposal_held {
        return Start::Now("a proposal is held");
    }
    if situation.votes_held {
        return Start::Now("votes of more than a third of the power are held");
    }
    if situation.certificate_held {
        return Start::Now("a certificate is held");
    }
    if situation.until_boundary.is_zero() {
        return Start::Now("the slot boundary is reached");
    }
    if !situation.transaction_waits {
        return Start::After(situation.until_boundary);
    }
    if situation.interval_left.is_zero() {
        return Start::Now("a transaction waits");
    }
    Start::After(situation.interval_left.min(situation.until_boundary))
}

/// The slot of a time, counted from genesis.
pub(super) fn slot(genesis: &Genesis, time_ms: u64) -> u64 {
    time_ms.saturating_sub(genesis.time_ms) / genesis.slot_ms.max(1)
}

/// When the slot after the parent's begins, Unix milliseconds.
pub(super) fn boundary_ms(genesis: &Genesis, parent_ms: u64) -> u64 {
    let next = slot(genesis, parent_ms).saturating_add(1);
    genesis
        .time_ms
        .saturating_add(next.saturating_mul(genesis.slot_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Situation = Situation {
        interval_left: Duration::ZERO,
        transaction_waits: false,
        until_boundary: Duration::from_secs(5),
        proposal_held: false,
        votes_held: false,
        certificate_held: false,
        log_held: false,
    };

    #[test]
    fn the_start_rule_as_a_table() {
        let ms = Duration::from_millis;
        let starts = |situation: Situation| matches!(start(&situation), Start::Now(_));
        assert_eq!(start(&IDLE), Start::After(ms(5_000)), "nothing waits");
        let waits = Situation {
            transaction_waits: true,
            ..IDLE
        };
        assert!(starts(waits), "a transaction after the interval");
        let early = Situation {
            interval_left: ms(200),
            ..waits
        };
        assert_eq!(
            start(&early),
            Start::After(ms(200)),
            "before the interval's end"
        );
        let near_boundary = Situation {
            until_boundary: ms(50),
            ..early
        };
        assert_eq!(start(&near_boundary), Start::After(ms(50)));
        // The boundary and what others do count before the interval has passed.
        let busy = Situation {
            interval_left: ms(200),
            ..IDLE
        };
        for (name, situation) in [
            (
                "boundary",
                Situation {
                    until_boundary: Duration::ZERO,
                    ..busy
                },
            ),
            (
                "proposal",
                Situation {
                    proposal_held: true,
                    ..busy
                },
            ),
            (
                "votes",
                Situation {
                    votes_held: true,
                    ..busy
                },
            ),
            (
                "certificate",
                Situation {
                    certificate_held: true,
                    ..busy
                },
            ),
            (
                "log",
                Situation {
                    log_held: true,
                    ..busy
                },
            ),
        ] {
            assert!(starts(situation), "{name}");
        }
        assert!(!starts(busy));
    }

    #[test]
    fn slots_are_counted_from_genesis() {
        let genesis = crate::consensus::tests::genesis(&[1]);
        let at = genesis.time_ms;
        assert_eq!(slot(&genesis, at), 0);
        assert_eq!(slot(&genesis, at - 1), 0);
        assert_eq!(slot(&genesis, at + genesis.slot_ms - 1), 0);
        assert_eq!(slot(&genesis, at + genesis.slot_ms), 1);
        assert_eq!(boundary_ms(&genesis, at), at + genesis.slot_ms);
        assert_eq!(
            boundary_ms(&genesis, at + genesis.slot_ms + 3),
            at + 2 * genesis.slot_ms
        );
    }
}
