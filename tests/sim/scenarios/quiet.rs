//! Hours in which nothing happens.

use std::time::Duration;

use timed::types::Round;

use super::sized;
use crate::run::scenario;
use crate::wire::Link;
use crate::world::{Plan, World};

scenarios! {
    a_quiet_day_has_no_disconnect,
    twenty_nodes_make_a_block_in_every_slot_of_an_hour,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// 0.5 % of all packets are lost, some are doubled or late, and nobody ever disconnects.
fn a_quiet_day_has_no_disconnect(seed: u64) {
    quiet(5, sized(24, 3), seed);
}

/// Too long for the suite: `cargo test --release --test sim -- --ignored twenty_nodes_for_a_day`.
#[cfg(test)]
#[test]
#[ignore = "takes very long"]
fn twenty_nodes_for_a_day() {
    super::timed(|seed| quiet(20, 24, seed));
}

fn quiet(nodes: usize, hours: u32, seed: u64) {
    let plan = Plan {
        slot: 600 * SECOND,
        link: Link::INTERNET,
        ..Plan::new(nodes)
    };
    scenario(plan, seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(hours * HOUR).await;
        assert_eq!(world.checker.disconnects(), 0);
        let height = world.height(0);
        assert!(height.0 + 1 >= u64::from(6 * hours), "{height}");
        for node in world.all() {
            for peer in world.node(node).net().peers() {
                assert_eq!(peer.reconnects, 0);
                let pings = u64::from(hours) * 600;
                assert!(peer.pings_sent > pings, "{} pings", peer.pings_sent);
            }
        }
    });
}

/// Under the same losses, no slot passes without a block, and hardly one needs a second round.
fn twenty_nodes_make_a_block_in_every_slot_of_an_hour(seed: u64) {
    let minutes = sized(60, 1);
    let plan = Plan {
        link: Link::INTERNET,
        ..Plan::new(20)
    };
    scenario(plan, seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        let before = world.height(0);
        world.run(minutes * 60 * SECOND).await;
        let made = world.height(0).0 - before.0;
        assert!(made + 1 >= u64::from(minutes * 12), "{made} blocks");
        let latest = world.latest_round(0, before.next(), world.height(0)).await;
        assert_eq!(latest, Round::default());
        assert_eq!(world.checker.disconnects(), 0);
        world.level_within(10 * SECOND).await;
    });
}
