//! Which addresses are banned. Pure; the time of day is an argument.
//!
//! A banned address is told so, with the time and the reason, but at most once per
//! [`TELL_INTERVAL_MS`]: telling costs a handshake. In between it is refused by its first packet,
//! which costs nothing. So an operator on either side can see why, and a flood from a banned
//! address is the cheapest of all to turn away.

use std::collections::BTreeMap;

use crate::types::{Ban, BannedBy, PeerIp};

/// The most bans. One more by a fault takes the place of the fault's ban that ends first.
const MAX_BANS: usize = 1_000;

/// The least time between two handshakes that tell a banned address why.
const TELL_INTERVAL_MS: u64 = 60_000;

/// The bans in force, as they are published: each change has the next number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BanList {
    /// Counts changes since the start.
    pub version: u64,
    /// Ascending by address. Those whose time is over may still be among them.
    pub bans: Vec<Ban>,
}

/// The bans in force.
#[derive(Default)]
pub(super) struct Bans {
    list: BTreeMap<PeerIp, Ban>,
    /// When banned addresses were last told, Unix milliseconds.
    told: BTreeMap<PeerIp, u64>,
}

/// Why an address was not banned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BanError {
    /// It is this node's own.
    #[error("{0} is this node's own address: a node does not ban itself")]
    Own(PeerIp),
    /// It can belong to no peer.
    #[error("{0} is no peer's address")]
    Unusable(PeerIp),
    /// The list is full.
    #[error(
        "{MAX_BANS} addresses are banned already: lift one with `timed unban IP`, or all with \
         `timed rpc clearbanned`"
    )]
    Full,
    /// The network has ended.
    #[error("the node is stopping")]
    Stopping,
}

impl Bans {
    /// Takes over stored bans that still hold.
    pub(super) fn new(stored: Vec<Ban>, now_ms: u64) -> Self {
        let list = stored.into_iter().filter(|ban| ban.holds(now_ms));
        Self {
            list: list.take(MAX_BANS).map(|ban| (ban.ip, ban)).collect(),
            told: BTreeMap::new(),
        }
    }

    /// All bans that hold, ascending by address.
    pub(super) fn list(&self, now_ms: u64) -> Vec<Ban> {
        let held = self.list.values().filter(|ban| ban.holds(now_ms));
        held.cloned().collect()
    }

    /// The ban of an address.
    pub(super) fn get(&self, ip: PeerIp, now_ms: u64) -> Option<&Ban> {
        self.list.get(&ip).filter(|ban| ban.holds(now_ms))
    }

    /// Whether the address may be told of its ban now, with a handshake.
    pub(super) fn may_tell(&mut self, ip: PeerIp, now_ms: u64) -> bool {
        let told = self.told.get(&ip);
        let due = told.is_none_or(|at| at.saturating_add(TELL_INTERVAL_MS) <= now_ms);
        if due {
            self.told.insert(ip, now_ms);
        }
        due
    }

    /// Bans an address, in place of an earlier ban of it. A fault does not shorten what an operator
    /// decided.
    pub(super) fn add(&mut self, ban: Ban, now_ms: u64) -> Result<(), BanError> {
        self.expire(now_ms);
        if let Some(held) = self.list.get(&ban.ip)
            && ban.by == BannedBy::Fault
            && held.until_ms >= ban.until_ms
        {
            return Ok(());
        }
        if self.list.len() >= MAX_BANS && !self.list.contains_key(&ban.ip) {
            let faults = self.list.values().filter(|one| one.by == BannedBy::Fault);
            let first = faults.min_by_key(|one| one.until_ms).map(|one| one.ip);
            self.lift(first.ok_or(BanError::Full)?);
        }
        self.list.insert(ban.ip, ban);
        Ok(())
    }

    /// Lifts the ban of an address, completely; whether there was one.
    pub(super) fn lift(&mut self, ip: PeerIp) -> bool {
        self.told.remove(&ip);
        self.list.remove(&ip).is_some()
    }

    /// Forgets bans that are over.
    fn expire(&mut self, now_ms: u64) {
        self.list.retain(|_, ban| ban.holds(now_ms));
        let list = &self.list;
        self.told.retain(|ip, _| list.contains_key(ip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(low: u32) -> PeerIp {
        std::net::IpAddr::V4((0x0a00_0000 + low).into()).into()
    }

    fn ban(low: u32, until_ms: u64, by: BannedBy) -> Ban {
        Ban::new(ip(low), (0, until_ms), by, "why")
    }

    #[test]
    fn a_ban_ends_with_its_time_and_lifting_it_leaves_nothing() {
        let mut bans = Bans::new(vec![ban(1, 100, BannedBy::Operator)], 100);
        assert_eq!(bans.list(0), [], "it was over when it was read");
        bans.add(ban(1, 100, BannedBy::Operator), 0).unwrap();
        assert!(bans.get(ip(1), 99).is_some() && bans.get(ip(1), 100).is_none());
        assert!(bans.may_tell(ip(1), 0));
        assert!(bans.lift(ip(1)) && !bans.lift(ip(1)));
        assert!(bans.list.is_empty() && bans.told.is_empty());
    }

    #[test]
    fn a_banned_address_is_told_once_a_minute() {
        let mut bans = Bans::default();
        bans.add(ban(1, u64::MAX, BannedBy::Fault), 0).unwrap();
        assert!(bans.may_tell(ip(1), 1_000));
        assert!(!bans.may_tell(ip(1), 60_999));
        assert!(bans.may_tell(ip(1), 61_000));
    }

    #[test]
    fn a_fault_does_not_shorten_an_operators_ban() {
        let mut bans = Bans::default();
        let long = ban(1, 1_000, BannedBy::Operator);
        bans.add(long.clone(), 0).unwrap();
        bans.add(ban(1, 500, BannedBy::Fault), 0).unwrap();
        assert_eq!(bans.list(0), [long]);
        bans.add(ban(1, 50, BannedBy::Operator), 0).unwrap();
        assert_eq!(bans.list(0)[0].until_ms, 50);
    }

    #[test]
    fn a_full_list_gives_up_the_faults_that_end_first_and_never_an_operators() {
        let mut bans = Bans::default();
        let most = MAX_BANS as u32;
        for low in 0..most {
            bans.add(ban(low, 10_000 + u64::from(low), BannedBy::Fault), 0)
                .unwrap();
        }
        bans.add(ban(most, 5, BannedBy::Operator), 0).unwrap();
        assert_eq!(bans.list.len(), MAX_BANS);
        assert!(bans.get(ip(0), 0).is_none() && bans.get(ip(1), 0).is_some());
        let mut bans = Bans::default();
        for low in 0..most {
            bans.add(ban(low, 10, BannedBy::Operator), 0).unwrap();
        }
        let one_more = ban(most, 10, BannedBy::Operator);
        assert_eq!(bans.add(one_more.clone(), 0), Err(BanError::Full));
        assert_eq!(
            bans.add(one_more, 10),
            Ok(()),
            "those that are over make room"
        );
    }
}
