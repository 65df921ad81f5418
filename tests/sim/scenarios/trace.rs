//! The simulation itself: it repeats, and its checks can fail.

use std::process::Command;
use std::time::Duration;

use timed::wire::{CloseCode, CloseReason};

use crate::run::{Outcome, SEED, simulate};
use crate::wire::Link;
use crate::world::{Plan, World, address};

scenarios! {
    an_eventful_minute,
}

const SECOND: Duration = Duration::from_secs(1);

/// Loss, a payment, a crash, a partition and its end.
fn an_eventful_minute(seed: u64) {
    assert_eq!(eventful(seed).violations, Vec::<String>::new());
}

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

/// Memory is laid out differently there, and std's hash maps are seeded differently.
#[test]
fn the_same_seed_gives_the_same_trace_in_every_process() {
    let program = std::env::current_exe().unwrap();
    let trace = |seed: u64| {
        let story = "scenarios::trace::suite::an_eventful_minute";
        let mut process = Command::new(&program);
        process.args(["--exact", story, "--nocapture"]);
        let output = process.env(SEED, seed.to_string()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, trace) = text.split_once("trace ").expect("a run prints its trace");
        trace.split_whitespace().next().unwrap().to_owned()
    };
    let first = trace(7);
    assert_eq!(first, trace(7));
    assert_ne!(first, trace(8));
    assert_eq!(first, eventful(7).trace.to_string());
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
