//! Very many nodes start at once.

use std::time::Duration;

use timed::types::Height;
use tokio::time::Instant;

use super::sized;
use crate::run::scenario;
use crate::wire::Link;
use crate::world::{Plan, World};

scenarios! {
    a_hundred_nodes_start_within_a_second,
}

const SECOND: Duration = Duration::from_secs(1);

/// Ten seconds after the last start all are connected, and have their first block.
fn a_hundred_nodes_start_within_a_second(seed: u64) {
    let nodes = sized(100, 30) as usize;
    let plan = Plan {
        link: Link::INTERNET,
        ..Plan::new(nodes)
    };
    scenario(plan, seed, async |world: &mut World| {
        for node in world.all() {
            world.start(node).await;
            tokio::time::sleep(SECOND / 100).await;
        }
        let started = Instant::now();
        world.connected_within(10 * SECOND).await;
        while started.elapsed() < 10 * SECOND {
            world.run(SECOND).await;
        }
        let blocks = world.all().into_iter().map(|node| world.height(node));
        let lowest = blocks.min().unwrap();
        assert!(lowest >= Height(1), "{lowest}");
        world.run(20 * SECOND).await;
        world.level_within(5 * SECOND).await;
        assert_eq!(world.checker.disconnects(), 0);
    });
}
