//! A node that is far behind.

use std::time::Duration;

use super::sized;
use crate::run::scenario;
use crate::wire::Link;
use crate::world::{Plan, World};

scenarios! {
    a_node_far_behind_catches_up_and_takes_part,
}

const SECOND: Duration = Duration::from_secs(1);

/// One masternode has enough power to go on alone. Ten thousand blocks later the other one starts,
/// and so does a full node.
fn a_node_far_behind_catches_up_and_takes_part(seed: u64) {
    let blocks = sized(10_000, 1_500);
    let plan = Plan {
        full_nodes: 1,
        powers: &[100],
        slot: SECOND,
        link: Link::INTERNET,
        ..Plan::new(2)
    };
    scenario(plan, seed, async |world: &mut World| {
        world.start(0).await;
        while world.height(0).0 < u64::from(blocks) {
            world.run(60 * SECOND).await;
        }
        let height = world.height(0);
        world.start(1).await;
        world.start(2).await;
        world.connected_within(20 * SECOND).await;
        let took = world.level_within(300 * SECOND).await;
        println!("{height} blocks behind: level after {took:?}");
        world.pay(2).await;
        world.run(30 * SECOND).await;
        assert_eq!(world.consensus(1).not_signing, None);
        assert_eq!(world.checker.disconnects(), 0);
    });
}
