//! What is kept of refused and failed handshakes, to be shown: the newest of the last hour.
//!
//! Whoever forges the source of a first packet can have a handshake fail in another's name: TLS
//! refuses some of those packets as soon as it reads them. So a failure counts as its address's own
//! only once the address is proved. The others are shown beside them, so that an honest peer's
//! wrong program can be seen, but they are few, taken once a second, and displace nothing else.

use std::collections::VecDeque;

use super::Manager;
use crate::net::Direction;
use crate::types::PeerIp;
use crate::wire::{CloseCode, CloseReason};

/// Refusals kept for display, those of unproved addresses among them.
const MAX_REFUSED: usize = 100;
/// Those of unproved addresses.
const MAX_UNPROVED: usize = 10;
/// Between two that are taken.
const UNPROVED_EVERY_MS: u64 = 1_000;
/// How long they are shown.
pub(in crate::net) const REFUSED_FOR_MS: u64 = 3_600_000;
/// Refusals, bans and connections in the log a minute, without those of masternodes, of configured peers and
/// of whom this node dialed: any number of strangers may come.
const LOGGED_PER_MINUTE: u32 = 60;

/// A refused or failed handshake.
#[derive(Clone, Debug)]
pub(in crate::net) struct Refused {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// With whom.
    pub ip: PeerIp,
    /// Whether it is proved that it was with that address.
    pub proved: bool,
    /// Who dialed.
    pub direction: Direction,
    /// Why.
    pub reason: CloseReason,
}

impl Refused {
    fn repeats(&self, other: &Self) -> bool {
        (self.ip, self.direction, self.proved) == (other.ip, other.direction, other.proved)
            && self.reason == other.reason
    }
}

/// The list of them, oldest first.
#[derive(Clone, Debug, Default)]
pub(in crate::net) struct RefusalList {
    shown: VecDeque<Refused>,
    unproved_at_ms: Option<u64>,
    /// The minute of the newest that is in the log, and how many there were in it.
    logged: (u64, u32),
}

impl RefusalList {
    /// Oldest first.
    pub(in crate::net) fn shown(&self) -> impl DoubleEndedIterator<Item = &Refused> {
        self.shown.iter()
    }

    /// Notes one; whether it is not only another one repeated. One that repeats another is shown
    /// once, with the newest time.
    fn note(&mut self, one: Refused) -> bool {
        let at_ms = one.at_ms;
        self.shown
            .retain(|held| held.at_ms + REFUSED_FOR_MS >= at_ms);
        let before = self.shown.iter().position(|held| held.repeats(&one));
        if let Some(before) = before {
            self.shown.remove(before);
        }
        if self.shown.len() >= MAX_REFUSED {
            let unproved = self.shown.iter().position(|held| !held.proved);
            self.shown.remove(unproved.unwrap_or(0));
        }
        self.shown.push_back(one);
        before.is_none()
    }

    /// Notes one whose address may be forged; whether it was taken.
    fn note_unproved(&mut self, one: Refused) -> bool {
        let next_ms = self.unproved_at_ms.map_or(0, |at| at + UNPROVED_EVERY_MS);
        let unproved = self.shown.iter().filter(|held| !held.proved).count();
        let oldest = self.shown.iter().position(|held| !held.proved);
        let crowded = self.shown.len() >= MAX_REFUSED && unproved == 0;
        if one.at_ms < next_ms || crowded {
            return false;
        }
        self.unproved_at_ms = Some(one.at_ms);
        if let Some(oldest) = oldest
            && unproved >= MAX_UNPROVED
        {
            self.shown.remove(oldest);
        }
        self.note(one);
        true
    }

    /// Whether one more stranger may stand in the log.
    fn may_log(&mut self, at_ms: u64) -> bool {
        let minute = at_ms / 60_000;
        if self.logged.0 != minute {
            self.logged = (minute, 0);
        }
        self.logged.1 += 1;
        self.logged.1 <= LOGGED_PER_MINUTE
    }
}

impl Manager {
    /// Notes and logs a refusal or failure.
    pub(super) fn refused(
        &mut self,
        ip: PeerIp,
        direction: Direction,
        reason: CloseReason,
        by_us: bool,
    ) {
        if reason.code == CloseCode::Duplicate && self.state.registry.contains_key(&ip) {
            // The tie-break at work: the pair is connected.
            tracing::debug!(peer.ip = %ip, ?direction, by_us, "a second connection was not needed");
            return;
        }
        let what = (direction, reason.code);
        self.count(|counts| *counts.refused.entry(what).or_default() += 1);
        let at_ms = self.clock.now_ms();
        let known = &mut self.state.known;
        known.refused(ip, direction, (&reason, by_us), at_ms);
        let news = self.state.refused.note(Refused {
            at_ms,
            ip,
            proved: true,
            direction,
            reason: reason.clone(),
        });
        if news && self.may_log(ip, direction) {
            tracing::info!(peer.ip = %ip, ?direction, by_us, reason = %reason, "not connected");
        } else {
            tracing::debug!(peer.ip = %ip, ?direction, by_us, reason = %reason, "not connected");
        }
        self.state.refused_changed = true;
        self.state.known_changed = true;
    }

    /// Whether a refusal, a ban or a connection may stand in the log at `info` or above; at `debug` it may always.
    pub(super) fn may_log(&mut self, ip: PeerIp, direction: Direction) -> bool {
        let chosen = direction == Direction::Outbound || self.state.known.is_chosen(ip);
        chosen || self.state.refused.may_log(self.clock.now_ms())
    }

    /// Notes the failure of an arrival whose address may be forged.
    pub(super) fn refused_unproved(&mut self, ip: PeerIp, reason: CloseReason) {
        let direction = Direction::Inbound;
        let what = (direction, reason.code);
        self.count(|counts| *counts.refused.entry(what).or_default() += 1);
        tracing::debug!(peer.ip = %ip, reason = %reason, "not connected; the address is not proved");
        let detail = format!("{} (the address is not proved)", reason.detail);
        self.state.refused_changed |= self.state.refused.note_unproved(Refused {
            at_ms: self.clock.now_ms(),
            ip,
            proved: false,
            direction,
            reason: CloseReason::new(reason.code, detail),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(last: u8, at_ms: u64, proved: bool) -> Refused {
        Refused {
            at_ms,
            ip: std::net::IpAddr::from([10, 0, 0, last]).into(),
            proved,
            direction: Direction::Inbound,
            reason: CloseReason::new(CloseCode::TlsRefused, "a test"),
        }
    }

    fn proved(list: &RefusalList) -> usize {
        list.shown().filter(|one| one.proved).count()
    }

    #[test]
    fn what_may_be_forged_is_shown_a_little_and_displaces_nothing() {
        let mut list = RefusalList::default();
        for last in 0..95 {
            assert!(list.note(refused(last, 0, true)));
        }
        for (number, at_ms) in (0..200_000).step_by(10).enumerate() {
            list.note_unproved(refused(number as u8, at_ms, false));
        }
        assert_eq!((proved(&list), list.shown().count()), (95, 100));
        let newest = list.shown().next_back().unwrap();
        assert_eq!((newest.proved, newest.at_ms), (false, 199_000));
        // What is proved takes the place of what is not.
        for last in 95..105 {
            list.note(refused(last, 200_000, true));
        }
        assert_eq!((proved(&list), list.shown().count()), (100, 100));
        assert!(!list.note_unproved(refused(1, 900_000, false)));
    }

    #[test]
    fn one_that_repeats_another_is_shown_once_for_an_hour() {
        let mut list = RefusalList::default();
        assert!(list.note(refused(1, 0, true)));
        assert!(!list.note(refused(1, 5, true)));
        let times: Vec<u64> = list.shown().map(|one| one.at_ms).collect();
        assert_eq!(times, [5]);
        list.note(refused(2, 6 + REFUSED_FOR_MS, true));
        assert_eq!(list.shown().count(), 1);
    }

    #[test]
    fn the_log_has_room_for_so_many_strangers_a_minute() {
        let mut list = RefusalList::default();
        let logged = (0..120_000).step_by(100).filter(|at| list.may_log(*at));
        assert_eq!(logged.count(), 2 * LOGGED_PER_MINUTE as usize);
    }
}
