//! Who can reach whom.

use std::time::Duration;

use timed::net::Direction;

use crate::run::scenario;
use crate::world::{Plan, World};

scenarios! {
    a_low_address_behind_a_firewall_dials_out,
}

const SECOND: Duration = Duration::from_secs(1);

/// The node with the lowest address is the one that everybody dials. When nobody's packets reach
/// it, it dials them itself after the grace period, and stays connected.
fn a_low_address_behind_a_firewall_dials_out(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.firewall(0);
        world.start_all().await;
        world.connected_within(30 * SECOND).await;
        for peer in world.node(0).net().peers() {
            assert_eq!(peer.direction, Direction::Outbound);
        }
        world.run(600 * SECOND).await;
        assert_eq!(world.checker.disconnects(), 0);
    });
}
