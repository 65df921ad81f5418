//! Nodes stop, crash and come back.

use std::time::Duration;

use timed::types::Round;

use crate::run::scenario;
use crate::wire::Link;
use crate::world::{Plan, World};

scenarios! {
    all_crash_at_once_and_go_on,
    a_rolling_restart_does_not_stop_the_chain,
    all_stop_and_start_at_once_on_a_quiet_chain_and_no_round_is_lost,
}

const SECOND: Duration = Duration::from_secs(1);

/// All machines lose power at the same moment.
fn all_crash_at_once_and_go_on(seed: u64) {
    scenario(Plan::new(5), seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(30 * SECOND).await;
        world.pay(2).await;
        world.transactions_final_within(10 * SECOND).await;
        for node in world.all() {
            world.crash(node);
        }
        world.run(30 * SECOND).await;
        world.start_all().await;
        world.connected_within(90 * SECOND).await;
        let before = world.height(0);
        world.pay(4).await;
        world.run(60 * SECOND).await;
        assert!(world.height(0).0 >= before.0 + 10, "{}", world.height(0));
        world.level_within(10 * SECOND).await;
    });
}

/// One node after the other is stopped in order and started again; the chain never stops.
fn a_rolling_restart_does_not_stop_the_chain(seed: u64) {
    let plan = Plan {
        link: Link::INTERNET,
        ..Plan::new(5)
    };
    scenario(plan, seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        // A node that has never signed cannot be told from one that lost its state, and would wait
        // for a live height after its restart: let all sign once.
        world.run(10 * SECOND).await;
        for node in world.all() {
            let other = (node + 1) % 5;
            let before = world.height(other);
            world.stop(node).await;
            world.run(20 * SECOND).await;
            assert!(world.height(other) > before, "the chain stopped");
            world.start(node).await;
            world.connected_within(30 * SECOND).await;
            world.level_within(30 * SECOND).await;
            world.pay(node).await;
        }
    });
}

/// All nodes are stopped and started between two slots: each later slot is decided in round 0.
fn all_stop_and_start_at_once_on_a_quiet_chain_and_no_round_is_lost(seed: u64) {
    let plan = Plan {
        slot: 600 * SECOND,
        link: Link::INTERNET,
        ..Plan::new(5)
    };
    scenario(plan, seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(700 * SECOND).await;
        let before = world.height(0);
        for node in world.all() {
            world.stop(node).await;
        }
        world.run(5 * SECOND).await;
        world.start_all().await;
        world.connected_within(90 * SECOND).await;
        assert_eq!(world.height(0), before);
        world.run(5 * 600 * SECOND).await;
        let after = world.height(0);
        assert_eq!(after.0, before.0 + 5);
        let latest = world.latest_round(0, before.next(), after).await;
        assert_eq!(latest, Round::default());
    });
}
