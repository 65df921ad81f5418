//! Who can reach whom.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use timed::net::Direction;
use timed::types::PeerIp;

use crate::run::scenario;
use crate::world::{Plan, World, address};

scenarios! {
    a_low_address_behind_a_firewall_dials_out,
    a_low_address_behind_a_translation_comes_back_when_the_router_forgets_it,
    a_node_that_does_not_know_its_address_is_reached_all_the_same,
    a_wrong_own_address_in_the_config_isolates_nobody,
    a_full_node_moves_to_another_address,
}

const SECOND: Duration = Duration::from_secs(1);

/// The node with the lowest address is the one that everybody dials. When nobody's packets reach
/// it, it dials them itself after the grace period, and stays connected. That opens the firewall to
/// what they send at the same moment, so either one's connection may be the one that stays.
fn a_low_address_behind_a_firewall_dials_out(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.firewall(0);
        world.start_all().await;
        world.connected_within(30 * SECOND).await;
        world.run(600 * SECOND).await;
        assert_eq!(world.checker.disconnects(), 0);
    });
}

/// Behind a router that lets nobody in. When the router starts again, the node's packets come from
/// another port, which its connections do not survive; it dials anew.
fn a_low_address_behind_a_translation_comes_back_when_the_router_forgets_it(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.translate(0);
        world.start_all().await;
        world.connected_within(30 * SECOND).await;
        world.run(300 * SECOND).await;
        assert_eq!(world.checker.disconnects(), 0);
        world.forget_translation(0);
        let before = world.height(1);
        world.run(60 * SECOND).await;
        assert!(world.height(1).0 >= before.0 + 8, "{}", world.height(1));
        world.connected_within(30 * SECOND).await;
        for peer in world.node(0).net().peers() {
            assert_eq!(peer.direction, Direction::Outbound);
            assert_eq!(peer.reconnects, 1);
        }
        world.level_within(30 * SECOND).await;
        let disconnects = world.checker.disconnects();
        world.run(300 * SECOND).await;
        assert_eq!(world.checker.disconnects(), disconnects);
    });
}

/// A masternode and a full node listen on every address of their machines.
fn a_node_that_does_not_know_its_address_is_reached_all_the_same(seed: u64) {
    scenario(with_a_full_node(), seed, async |world: &mut World| {
        for node in [1, 4] {
            world.configure(node, |config| {
                config.listen_ip = Ipv4Addr::UNSPECIFIED.into()
            });
        }
        connects_and_stays(world).await;
    });
}

/// A masternode and two full nodes believe to be somewhere else; one of them where a masternode is.
fn a_wrong_own_address_in_the_config_isolates_nobody(seed: u64) {
    let plan = Plan {
        full_nodes: 2,
        ..Plan::new(4)
    };
    scenario(plan, seed, async |world: &mut World| {
        let nobody = PeerIp::from(IpAddr::from([10, 9, 9, 9]));
        for (node, wrong) in [(1, nobody), (4, nobody), (5, address(2).into())] {
            world.configure(node, |config| config.advertised_ip = Some(wrong));
        }
        connects_and_stays(world).await;
    });
}

async fn connects_and_stays(world: &mut World) {
    world.start_all().await;
    world.connected_within(20 * SECOND).await;
    world.pay(4).await;
    world.run(120 * SECOND).await;
    assert_eq!(world.checker.disconnects(), 0);
    world.level_within(5 * SECOND).await;
}

/// Its old connections die; nobody dials a full node, so it is the one to come back.
fn a_full_node_moves_to_another_address(seed: u64) {
    scenario(with_a_full_node(), seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(60 * SECOND).await;
        world.move_to(4, Ipv4Addr::new(10, 0, 7, 7));
        world.run(45 * SECOND).await;
        world.connected_within(45 * SECOND).await;
        world.level_within(30 * SECOND).await;
        world.pay(4).await;
        let moved = PeerIp::from(IpAddr::from([10, 0, 7, 7]));
        let peers = world.node(0).net().peers();
        assert!(peers.iter().any(|peer| peer.ip == moved), "{peers:?}");
    });
}

fn with_a_full_node() -> Plan {
    Plan {
        full_nodes: 1,
        ..Plan::new(4)
    }
}
