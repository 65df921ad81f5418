//! Blocks as large as the chain allows, over uplinks as slow as the chain allows for.

use std::time::Duration;

use super::sized;
use crate::run::scenario;
use crate::wire::Rate;
use crate::world::{Plan, World};

scenarios! {
    full_blocks_pass_slow_uplinks_and_the_chain_goes_on,
}

const SECOND: Duration = Duration::from_secs(1);

/// A home router's buffer: 250 ms at 20 Mbit/s.
const UPLINK: Rate = Rate::mbit_per_s(20, 520);

/// As many transactions of 100 kB as a full block holds.
const FULL_BLOCK: usize = sized(40, 8) as usize;

/// Every node can send 20 Mbit/s. A full block then needs half a minute to reach nineteen others.
fn full_blocks_pass_slow_uplinks_and_the_chain_goes_on(seed: u64) {
    let (nodes, blocks) = (sized(20, 5) as usize, sized(2, 1) as usize);
    let plan = Plan {
        allocations: blocks * FULL_BLOCK + 1,
        ..Plan::new(nodes)
    };
    scenario(plan, seed, async |world: &mut World| {
        for node in world.all() {
            world.uplink(node, UPLINK);
        }
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(10 * SECOND).await;
        let refused = world.pay_large(1, blocks * FULL_BLOCK).await;
        assert!(refused.is_empty(), "{:?}", refused.first());
        let limit = (60 + 120 * blocks as u32) * SECOND;
        world.transactions_final_within(limit).await;
        let before = world.height(0);
        world.run(60 * SECOND).await;
        assert!(world.height(0).0 >= before.0 + 12, "{}", world.height(0));
        world.level_within(10 * SECOND).await;
        assert_eq!(world.checker.disconnects(), 0);
    });
}
