//! A day in which nothing happens.

use std::time::Duration;

use crate::run::scenario;
use crate::wire::Link;
use crate::world::{Plan, World};

scenarios! {
    a_quiet_day_has_no_disconnect,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// 0.5 % of all packets are lost, some are doubled or late, and nobody ever disconnects.
fn a_quiet_day_has_no_disconnect(seed: u64) {
    let plan = Plan {
        slot: 600 * SECOND,
        link: Link::INTERNET,
        ..Plan::new(3)
    };
    scenario(plan, seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(24 * HOUR).await;
        assert_eq!(world.checker.disconnects(), 0);
        assert!(world.height(0).0 >= 143, "{}", world.height(0));
        for node in world.all() {
            for peer in world.node(node).net().peers() {
                assert_eq!(peer.reconnects, 0);
                assert!(peer.pings_sent > 24 * 600, "{} pings", peer.pings_sent);
            }
        }
    });
}
