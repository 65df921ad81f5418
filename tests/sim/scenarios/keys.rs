//! Keys that are rotated, and a key that is in two places.

use std::time::Duration;

use crate::run::scenario;
use crate::world::{Plan, World};

scenarios! {
    a_certificate_is_rotated_without_an_outage,
    a_consensus_key_on_two_machines_stops_signing,
}

const SECOND: Duration = Duration::from_secs(1);

/// A record with two pins is installed everywhere, one node after the other, and then the
/// masternode goes over to its next key. The chain never stops.
fn a_certificate_is_rotated_without_an_outage(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(15 * SECOND).await;
        let record = world.record_with_two_pins(0);
        for node in world.all() {
            world.stop(node).await;
            world.install_record(node, &record);
            world.start(node).await;
            world.connected_within(90 * SECOND).await;
            world.level_within(30 * SECOND).await;
        }
        world.stop(0).await;
        world.rotate_key(0);
        world.start(0).await;
        world.connected_within(90 * SECOND).await;
        let before = world.height(1);
        world.pay(0).await;
        world.run(60 * SECOND).await;
        assert!(world.height(1).0 >= before.0 + 12, "{}", world.height(1));
        assert_eq!(world.consensus(0).not_signing, None);
    });
}

/// A masternode was moved to a new machine, and the old one was not switched off. Half of the others
/// know the new record. Whichever hears the other stops, and nothing forks.
fn a_consensus_key_on_two_machines_stops_signing(seed: u64) {
    let plan = Plan {
        full_nodes: 1,
        ..Plan::new(5)
    };
    scenario(plan, seed, async |world: &mut World| {
        let (old, new) = (0, 5);
        let moved = world.record_at(old, new);
        world.copy_consensus_key(old, new);
        // Else the two would propose the same block, and sign nothing that the other does not.
        world.skew(new, 7);
        for knows in [3, 4, new] {
            world.install_record(knows, &moved);
        }
        for node in 0..new {
            world.start(node).await;
        }
        world.run(60 * SECOND).await;
        world.start(new).await;
        world.run(120 * SECOND).await;
        let before = world.height(1);
        world.run(60 * SECOND).await;
        assert!(world.height(1).0 >= before.0 + 8, "{}", world.height(1));
        let why = [old, new].map(|node| world.consensus(node).not_signing);
        let why = format!("{why:?}");
        println!("{why}");
        world.stop(old).await;
    });
}
