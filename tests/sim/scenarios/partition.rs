//! The network falls apart and heals.

use std::time::Duration;

use timed::types::Round;

use crate::run::scenario;
use crate::wire::Link;
use crate::world::{Plan, World};

scenarios! {
    halves_halt_and_go_on_together,
    the_larger_part_goes_on_and_the_smaller_catches_up,
    a_cut_between_two_costs_no_round,
    a_one_way_cut_ends_and_heals,
    a_partition_of_any_length_heals,
    a_network_that_flaps_comes_to_rest,
}

const SECOND: Duration = Duration::from_secs(1);

/// How long every pair may take to be connected again, after a partition of any length.
const RECONNECTED: Duration = Duration::from_secs(90);

/// How long heights may take to be equal after that.
const LEVEL: Duration = Duration::from_secs(30);

/// Neither half has a quorum: nobody goes on, and all go on together afterwards.
fn halves_halt_and_go_on_together(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(30 * SECOND).await;
        world.partition(&[&[0, 1], &[2, 3]]);
        world.pay(0).await;
        world.pay(3).await;
        world.run(10 * SECOND).await;
        let halted = world.all().into_iter().map(|node| world.height(node));
        let halted: Vec<_> = halted.collect();
        world.run(300 * SECOND).await;
        for (node, height) in halted.iter().enumerate() {
            assert_eq!(world.height(node), *height, "half of the power decided");
        }
        world.heal();
        world.connected_within(RECONNECTED).await;
        world.level_within(LEVEL).await;
        let healed = world.height(0);
        world.run(60 * SECOND).await;
        assert!(world.height(0).0 >= healed.0 + 10);
    });
}

/// Seven of ten go on; the other three catch up.
fn the_larger_part_goes_on_and_the_smaller_catches_up(seed: u64) {
    scenario(Plan::new(10), seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(30 * SECOND).await;
        world.partition(&[&[0, 2, 4, 6, 7, 8, 9], &[1, 3, 5]]);
        world.run(10 * SECOND).await;
        let (larger, smaller) = (world.height(0), world.height(1));
        world.pay(1).await;
        world.run(120 * SECOND).await;
        assert!(world.height(0).0 >= larger.0 + 10, "{}", world.height(0));
        assert_eq!(world.height(1), smaller);
        world.heal();
        world.connected_within(RECONNECTED).await;
        world.level_within(LEVEL).await;
    });
}

/// Two masternodes that do not hear each other, but both hear the rest, cost no round.
fn a_cut_between_two_costs_no_round(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(60 * SECOND).await;
        world.cut(0, 3);
        world.connected_within(60 * SECOND).await;
        let from = world.height(1).next();
        world.pay(0).await;
        world.pay(3).await;
        world.run(180 * SECOND).await;
        let to = world.height(1);
        assert!(to.0 >= from.0 + 30, "from {from} to {to}");
        assert_eq!(world.latest_round(1, from, to).await, Round::default());
        world.heal();
        world.connected_within(RECONNECTED).await;
        world.level_within(LEVEL).await;
    });
}

/// One direction alone is cut: the pair disconnects cleanly, and comes back.
fn a_one_way_cut_ends_and_heals(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(30 * SECOND).await;
        world.cut_one_way(2, 0);
        let before = world.height(1);
        world.run(120 * SECOND).await;
        assert!(world.height(1).0 >= before.0 + 15, "{}", world.height(1));
        world.heal();
        world.connected_within(RECONNECTED).await;
        world.level_within(LEVEL).await;
    });
}

/// However long it lasted: shorter than the idle timeout, about as long, long past every back-off.
fn a_partition_of_any_length_heals(seed: u64) {
    let plan = Plan {
        link: Link::INTERNET,
        ..Plan::new(4)
    };
    scenario(plan, seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        for seconds in [5, 25, 31, 45, 90, 300, 1_800] {
            world.partition(&[&[0, 3], &[1], &[2]]);
            world.run(seconds * SECOND).await;
            world.pay(1).await;
            world.heal();
            world.connected_within(RECONNECTED).await;
            world.level_within(LEVEL).await;
            world.transactions_final_within(LEVEL).await;
        }
    });
}

/// Two halves lose each other every 40 s for ten minutes: just when they have found each other.
fn a_network_that_flaps_comes_to_rest(seed: u64) {
    let plan = Plan {
        link: Link::INTERNET,
        ..Plan::new(6)
    };
    scenario(plan, seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        let before = world.height(0);
        for _ in 0..8 {
            world.partition(&[&[0, 2, 4], &[1, 3, 5]]);
            world.run(40 * SECOND).await;
            world.heal();
            world.pay(0).await;
            world.run(40 * SECOND).await;
        }
        world.connected_within(RECONNECTED).await;
        world.level_within(LEVEL).await;
        assert!(world.height(0) > before, "{}", world.height(0));
        let rested = world.height(0);
        world.run(60 * SECOND).await;
        assert!(world.height(0).0 >= rested.0 + 10, "{}", world.height(0));
    });
}
