use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn any_ip() -> impl Strategy<Value = PeerIp> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)).into()),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)).into()),
        (1u32..6).prop_map(|low| IpAddr::V4(Ipv4Addr::from_bits(0x7f00_0000 + low)).into()),
    ]
}

/// One end of the pair in the model: which connection is registered there.
#[derive(Clone, Copy, Default, Debug)]
struct End {
    registered: Option<usize>,
}

/// Two nodes, each with one dial in progress; connection `i` was dialed by node `i`.
struct Model {
    ends: [End; 2],
    preferred: [Direction; 2],
    closed: [bool; 2],
    welcomed: [bool; 2],
}

impl Model {
    fn direction(end: usize, connection: usize) -> Direction {
        if end == connection {
            Direction::Outbound
        } else {
            Direction::Inbound
        }
    }

    /// A connection is authenticated at one end. Returns whether it was taken.
    fn admit(&mut self, end: usize, connection: usize) -> bool {
        let contender = |connection| Contender {
            direction: Self::direction(end, connection),
            instance: 7,
        };
        if let Some(held) = self.ends[end].registered {
            let verdict = settle(contender(held), contender(connection), self.preferred[end]);
            if verdict == Verdict::KeepRegistered {
                self.close(connection);
                return false;
            }
            // The winner's dialer closes the loser; its acceptor lets it linger.
            if end == connection {
                self.close(held);
            }
        }
        self.ends[end].registered = Some(connection);
        true
    }

    fn close(&mut self, connection: usize) {
        self.closed[connection] = true;
        for end in &mut self.ends {
            if end.registered == Some(connection) {
                end.registered = None;
            }
        }
    }

    /// The next step of a connection's handshake: the acceptor's Welcome, then its arrival.
    fn step(&mut self, connection: usize) {
        if self.closed[connection] {
            return;
        }
        if !self.welcomed[connection] {
            self.welcomed[connection] = self.admit(1 - connection, connection);
        } else if self.ends[connection].registered != Some(connection) {
            self.admit(connection, connection);
        }
    }
}

proptest! {
    #[test]
    fn both_ends_keep_the_same_connection(
        a in any_ip(),
        b in any_ip(),
        order in proptest::collection::vec(0usize..2, 0..6),
    ) {
        let nodes = [(a, NodeId([1; 32])), (b, NodeId([2; 32]))];
        let mut model = Model {
            ends: [End::default(); 2],
            preferred: [
                preferred_direction(nodes[0], nodes[1]),
                preferred_direction(nodes[1], nodes[0]),
            ],
            closed: [false; 2],
            welcomed: [false; 2],
        };
        // Any interleaving of the two handshakes' steps, then whatever is left of them.
        for connection in order.into_iter().chain([0, 0, 1, 1]) {
            model.step(connection);
        }
        prop_assert!(model.ends[0].registered.is_some());
        prop_assert_eq!(model.ends[0].registered, model.ends[1].registered);
    }

    #[test]
    fn exactly_one_end_of_a_pair_dials_at_once(a in any_ip(), b in any_ip()) {
        prop_assume!(a != b);
        prop_assert_ne!(dials_at_once(Some(a), b), dials_at_once(Some(b), a));
        prop_assert!(dials_at_once(None, a));
        let (low, high) = (a.min(b), a.max(b));
        let grace = Duration::from_secs(10);
        prop_assert_eq!(first_dial_delay(Some(high), low, grace), Duration::ZERO);
        prop_assert_eq!(first_dial_delay(Some(low), high, grace), grace);
    }

    #[test]
    fn the_two_ends_prefer_opposite_directions_of_one_connection(a in any_ip(), b in any_ip()) {
        let (own, peer) = ((a, NodeId([1; 32])), (b, NodeId([2; 32])));
        prop_assert_ne!(preferred_direction(own, peer), preferred_direction(peer, own));
    }
}

#[test]
fn a_newer_instance_wins_whatever_the_direction() {
    for direction in [Direction::Inbound, Direction::Outbound] {
        for preferred in [Direction::Inbound, Direction::Outbound] {
            let old = Contender {
                direction: preferred,
                instance: 1,
            };
            let new = Contender {
                direction,
                instance: 2,
            };
            assert_eq!(settle(old, new, preferred), Verdict::ReplaceOlderInstance);
        }
    }
}

#[test]
fn of_two_in_the_same_direction_the_newer_wins() {
    let one = Contender {
        direction: Direction::Inbound,
        instance: 1,
    };
    assert_eq!(settle(one, one, Direction::Outbound), Verdict::Replace);
}
