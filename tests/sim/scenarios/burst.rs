//! More transactions at once than anybody waits for.

use std::time::Duration;

use super::sized;
use crate::run::scenario;
use crate::world::{Plan, World};

scenarios! {
    a_burst_of_ten_thousand_transactions_becomes_final,
}

const SECOND: Duration = Duration::from_secs(1);

const BURST: usize = sized(10_000, 2_000) as usize;

/// All at one node, at one moment. Each is final or refused with a reason; nobody disconnects.
fn a_burst_of_ten_thousand_transactions_becomes_final(seed: u64) {
    let plan = Plan {
        allocations: BURST,
        ..Plan::new(4)
    };
    scenario(plan, seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(10 * SECOND).await;
        let refused = world.pay_many(1, BURST).await;
        println!("{} refused: {:?}", refused.len(), refused.first());
        world.transactions_final_within(60 * SECOND).await;
        assert!(refused.len() < BURST / 2, "{}", refused.len());
        world.run(30 * SECOND).await;
        world.level_within(5 * SECOND).await;
        assert_eq!(world.checker.disconnects(), 0);
    });
}
