//! The simulation itself: it repeats, and its checks can fail.

use std::time::Duration;

use timed::wire::{CloseCode, CloseReason};

use crate::run::{Outcome, simulate};
use crate::wire::Link;
use crate::world::{Plan, World, address};

const SECOND: Duration = Duration::from_secs(1);

fn eventful(seed: u64) -> Outcome {
    let plan = Plan {
        link: Link::INTERNET,
        ..Plan::new(4)
    };
    simulate(plan, seed, async |world: &mut World| {
        world.start_all().await;
        world.run(20 * SECOND).await;
        world.pay(1).await;
        world.crash(3);
        world.partition(&[&[0, 1], &[2, 3]]);
        world.run(40 * SECOND).await;
        world.heal();
        world.start(3).await;
        world.connected_within(90 * SECOND).await;
        world.finish().await;
    })
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let first = eventful(7);
    assert_eq!(first.violations, Vec::<String>::new());
    assert_eq!(eventful(7).trace, first.trace);
    assert_ne!(eventful(8).trace, first.trace);
}

#[test]
fn a_disconnect_that_nobody_injected_is_seen() {
    let outcome = simulate(Plan::new(2), 1, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(60 * SECOND).await;
        let reason = CloseReason::new(CloseCode::Operator, "a test");
        (world.node(0).net().disconnect(address(1).into(), reason)).unwrap();
        world.run(5 * SECOND).await;
    });
    assert_eq!(outcome.violations.len(), 2, "{:?}", outcome.violations);
}
