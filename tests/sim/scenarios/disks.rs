//! Disks that are full, slow or lost.

use std::time::Duration;

use crate::run::scenario;
use crate::world::{Plan, World};

scenarios! {
    a_full_disk_ends_its_node_only,
    a_slow_disk_slows_nobody_else,
    a_masternode_that_lost_its_database_signs_nothing_twice,
    a_masternode_that_lost_everything_but_its_keys_signs_nothing_twice,
}

const SECOND: Duration = Duration::from_secs(1);

/// A node whose disk is full ends with that reason; the others go on without it.
fn a_full_disk_ends_its_node_only(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(30 * SECOND).await;
        let before = world.height(0);
        let why = world.disk_fails(3, 30 * SECOND).await.to_string();
        assert!(why.contains("disk") || why.contains("space"), "{why}");
        world.run(60 * SECOND).await;
        assert!(world.height(0).0 >= before.0 + 8, "{}", world.height(0));
    });
}

/// Each write takes 200 ms. It proposes and votes late, but no slot passes without a block, and
/// nobody takes it for dead.
fn a_slow_disk_slows_nobody_else(seed: u64) {
    scenario(Plan::new(5), seed, async |world: &mut World| {
        world.slow_disk(2, SECOND / 5);
        world.start_all().await;
        world.connected_within(30 * SECOND).await;
        world.run(30 * SECOND).await;
        let before = world.height(0);
        world.pay(2).await;
        world.pay(0).await;
        world.run(300 * SECOND).await;
        let made = world.height(0).0 - before.0;
        assert!(made >= 60, "{made} blocks in 60 slots");
        world.level_within(10 * SECOND).await;
        assert_eq!(world.checker.disconnects(), 0);
    });
}

/// Its database is gone, in the middle of a height and again and again; `consensus.state` is not.
fn a_masternode_that_lost_its_database_signs_nothing_twice(seed: u64) {
    comes_back_without(seed, World::lose_database);
}

/// Both are gone: only keys and configuration are left.
fn a_masternode_that_lost_everything_but_its_keys_signs_nothing_twice(seed: u64) {
    comes_back_without(seed, |world, node| {
        world.lose_database(node);
        world.lose_consensus_state(node);
    });
}

fn comes_back_without(seed: u64, lose: impl Fn(&mut World, usize)) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(30 * SECOND).await;
        for attempt in 0..6 {
            // At slots' beginnings and a little later: while votes of a height are on their way.
            world.until_slot_and(attempt * SECOND / 25).await;
            world.crash(1);
            lose(world, 1);
            world.start(1).await;
            world.connected_within(90 * SECOND).await;
            world.level_within(30 * SECOND).await;
            world.run(30 * SECOND).await;
            assert_eq!(world.consensus(1).not_signing, None);
        }
    });
}
