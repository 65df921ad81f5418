//! Keys that are rotated, and a key that is in two places.

use std::time::Duration;

use crate::run::scenario;
use crate::world::{Plan, World};

scenarios! {
    a_certificate_is_rotated_by_restarts_without_an_outage,
    a_certificate_is_rotated_while_all_run_and_nobody_disconnects,
    a_consensus_key_on_two_machines_forks_nothing,
}

const SECOND: Duration = Duration::from_secs(1);

/// A record with two pins is installed everywhere, one node after the other, and then the
/// masternode goes over to its next key. The chain never stops.
fn a_certificate_is_rotated_by_restarts_without_an_outage(seed: u64) {
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

/// The same without a restart: no connection ends. Those made later use the next key.
fn a_certificate_is_rotated_while_all_run_and_nobody_disconnects(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(15 * SECOND).await;
        let record = world.record_with_two_pins(0);
        for node in world.all() {
            world.install_record(node, &record);
            world.reload(node).await;
            world.run(10 * SECOND).await;
        }
        world.rotate_key(0);
        world.reload(0).await;
        world.run(60 * SECOND).await;
        assert_eq!(world.checker.disconnects(), 0);
        world.crash(2);
        world.run(40 * SECOND).await;
        world.start(2).await;
        world.connected_within(90 * SECOND).await;
        world.level_within(30 * SECOND).await;
        let peers = world.node(2).net().peers();
        let rotated = peers
            .iter()
            .find(|peer| peer.masternode == Some(0))
            .unwrap();
        assert_eq!(rotated.node_id, record.pins[1]);
        assert_eq!(world.consensus(0).not_signing, None);
    });
}

/// A masternode was moved to a new machine, and the old one was not switched off. Half of the others
/// know the new record, so both are heard, and what they sign contradicts each other: the others
/// keep the evidence, and nothing forks. The old one stops when it learns of the new record.
fn a_consensus_key_on_two_machines_forks_nothing(seed: u64) {
    let plan = Plan {
        full_nodes: 1,
        ..Plan::new(5)
    };
    scenario(plan, seed, async |world: &mut World| {
        let (old, new) = (0, 5);
        let moved = world.record_at(old, new);
        world.copy_consensus_key(old, new);
        world.skew(new, 7);
        for knows in [3, 4, new] {
            world.install_record(knows, &moved);
        }
        for node in 0..new {
            world.start(node).await;
        }
        world.run(60 * SECOND).await;
        world.start(new).await;
        let before = world.height(1);
        // The block of a slot boundary would be the same from both. What is proposed for a transaction
        // has the time of the proposer's clock in it.
        for _ in 0..40 {
            world.pay(1).await;
            world.run(4 * SECOND).await;
        }
        assert!(world.height(1).0 >= before.0 + 30, "{}", world.height(1));
        let evidence: u64 = (1..5).map(|node| world.consensus(node).evidence).sum();
        assert!(evidence > 0, "nobody noticed");

        world.disturb(old);
        world.disturb(new);
        for node in [1, 2, old] {
            world.install_record(node, &moved);
            world.reload(node).await;
        }
        world.run(30 * SECOND).await;
        let why = world.consensus(old).not_signing.unwrap_or_default();
        assert!(why.contains("another machine"), "{why}");
        assert_eq!(world.consensus(new).not_signing, None);
        world.stop(old).await;
    });
}
