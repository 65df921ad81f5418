//! Who of the strangers gives way when there are too many. Pure.
//!
//! Masternodes with a record and peers that the operator configured have slots of their own and never
//! give way, whoever dialed. The others, those of an earlier run among them, share `max_unpinned`
//! slots, and one prefix (/24 of IPv4, /64 of IPv6) has at most half of them. A newcomer beyond either
//! bound is ranked with those that are there, and whoever ranks last goes, which may be the newcomer
//! itself:
//!
//! 1. one whose chain has not moved for [`STALLED_AFTER`], before all others;
//! 2. one of the prefix with the most connections, the newcomer's counted with it;
//! 3. one whose chain has not moved since it connected;
//! 4. the youngest.
//!
//! So a crowd from one network displaces only itself; from many networks it displaces only peers
//! that are of no use; and whoever has followed the chain the longest stays.

use std::net::IpAddr;
use std::time::Duration;

use super::admission::prefix;
use crate::types::PeerIp;

/// A peer whose tip has not moved for this long since it connected is of no use: two of the main
/// network's slots.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(1_200);

/// One stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its address.
    pub ip: PeerIp,
    /// How long it has been connected.
    pub age: Duration,
    /// Whether its chain has moved since.
    pub moved: bool,
}

/// The outcome for a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// There is room.
    Free,
    /// It takes the place of this one.
    InPlaceOf(PeerIp),
    /// It gets none.
    None,
}

/// Decides about a newcomer among those that are there.
pub(super) fn find_slot(newcomer: PeerIp, there: &[Candidate], max_unpinned: usize) -> Slot {
    let own_prefix = prefix(newcomer);
    let same_prefix = |one: &&Candidate| prefix(one.ip) == own_prefix;
    let prefix_full = there.iter().filter(same_prefix).count() >= most_of_a_prefix(max_unpinned);
    if !prefix_full && there.len() < max_unpinned {
        return Slot::Free;
    }
    let newcomer = Candidate {
        ip: newcomer,
        age: Duration::ZERO,
        moved: false,
    };
    // A full prefix settles it among its own.
    let ranked = (there.iter().chain([&newcomer]))
        .filter(|one| !prefix_full || prefix(one.ip) == own_prefix);
    let last = ranked.max_by_key(|one| {
        (
            !one.moved && one.age >= STALLED_AFTER,
            crowd(prefix(one.ip), there, &newcomer),
            !one.moved,
            std::cmp::Reverse(one.age),
        )
    });
    match last {
        Some(last) if last.ip != newcomer.ip => Slot::InPlaceOf(last.ip),
        _ => Slot::None,
    }
}

/// The most slots of one prefix.
fn most_of_a_prefix(max_unpinned: usize) -> usize {
    max_unpinned.div_ceil(2)
}

fn crowd(of: IpAddr, there: &[Candidate], newcomer: &Candidate) -> usize {
    let all = there.iter().chain([newcomer]);
    all.filter(|one| prefix(one.ip) == of).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(network: u8, host: u8) -> PeerIp {
        IpAddr::from([10, 0, network, host]).into()
    }

    fn peer(network: u8, host: u8, age_s: u64, moved: bool) -> Candidate {
        Candidate {
            ip: ip(network, host),
            age: Duration::from_secs(age_s),
            moved,
        }
    }

    #[test]
    fn one_network_has_at_most_half_of_the_slots_and_displaces_only_itself() {
        let mut there = vec![peer(1, 1, 50, true), peer(1, 2, 40, false)];
        assert_eq!(find_slot(ip(2, 1), &there, 4), Slot::Free);
        // The newcomer is younger than those of its network that are there.
        assert_eq!(find_slot(ip(1, 3), &there, 4), Slot::None);
        there.push(peer(2, 1, 1, false));
        there[1].age = STALLED_AFTER;
        assert_eq!(find_slot(ip(1, 3), &there, 4), Slot::InPlaceOf(ip(1, 2)));
    }

    #[test]
    fn the_most_crowded_network_gives_way_with_its_youngest_of_no_progress() {
        let there = [
            peer(1, 1, 500, true),
            peer(1, 2, 30, false),
            peer(1, 3, 90, false),
            peer(2, 1, 10, false),
            peer(3, 1, 5, false),
        ];
        assert_eq!(find_slot(ip(4, 1), &there, 6), Slot::Free);
        assert_eq!(find_slot(ip(4, 1), &there, 5), Slot::InPlaceOf(ip(1, 2)));
    }

    #[test]
    fn newcomers_from_everywhere_displace_only_those_of_no_use() {
        let mut there = vec![peer(1, 1, 5_000, true), peer(2, 1, 60, false)];
        assert_eq!(find_slot(ip(3, 1), &there, 2), Slot::None);
        there[1].age = STALLED_AFTER;
        assert_eq!(find_slot(ip(3, 1), &there, 2), Slot::InPlaceOf(ip(2, 1)));
    }

    proptest! {
        /// However many come from one network, a peer of another that follows the chain stays.
        #[test]
        fn a_crowd_never_displaces_a_useful_peer_of_another_network(
            crowd in prop::collection::vec((1u8..=255, any::<bool>(), 0u64..3_000), 2..40),
            age in 0u64..3_000,
        ) {
            let mut there = vec![peer(9, 1, age, true)];
            for (host, moved, age) in crowd {
                let slot = find_slot(ip(1, host), &there, 4);
                match slot {
                    Slot::None => {}
                    Slot::Free => there.push(peer(1, host, age, moved)),
                    Slot::InPlaceOf(gone) => {
                        prop_assert_ne!(gone, ip(9, 1));
                        there.retain(|one| one.ip != gone);
                        there.push(peer(1, host, age, moved));
                    }
                }
                prop_assert!(there.len() <= 4);
            }
        }
    }
}
