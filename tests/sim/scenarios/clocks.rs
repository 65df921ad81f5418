//! A masternode whose time of day is wrong.

use std::time::Duration;

use crate::run::scenario;
use crate::world::{Plan, World};

scenarios! {
    a_clock_that_is_slow_stops_nobody,
    a_clock_that_is_fast_stops_nobody,
}

const SECOND: Duration = Duration::from_secs(1);

fn with_one_clock_off(seed: u64, ms: i64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.skew(2, ms);
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(60 * SECOND).await;
        let before = world.height(0);
        world.pay(0).await;
        world.pay(2).await;
        world.run(300 * SECOND).await;
        let made = world.height(0).0 - before.0;
        assert!(made >= 40, "{made} blocks in 60 slots");
        world.level_within(10 * SECOND).await;
        assert_eq!(world.checker.disconnects(), 0);
    });
}

fn a_clock_that_is_slow_stops_nobody(seed: u64) {
    with_one_clock_off(seed, -30_000);
}

fn a_clock_that_is_fast_stops_nobody(seed: u64) {
    with_one_clock_off(seed, 30_000);
}
