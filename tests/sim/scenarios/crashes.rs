//! The crash matrix on whole nodes: a machine loses power at each point at which its node writes or
//! sends something during one height, and comes back with what its disk kept. The machine holds so
//! much power that nothing is decided without it: whatever it had begun, it must finish.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use timed::env::Entropy;
use timed::types::Round;

use super::Scenario;
use crate::disk::Disk;
use crate::power::Point;
use crate::run::{Outcome, scenario, simulate};
use crate::world::{Plan, World};

scenarios! {
    a_crash_of_the_proposer_makes_no_second_signature,
    a_crash_of_a_voter_makes_no_second_signature,
    a_node_that_never_signed_waits_for_a_live_height,
}

/// Every point, for a campaign.
#[allow(dead_code, reason = "for a campaign")]
pub const MATRIX: &[Scenario] = &[
    Scenario {
        name: concat!(module_path!(), "::every_point_of_the_proposer"),
        run: every_point_of_the_proposer,
    },
    Scenario {
        name: concat!(module_path!(), "::every_point_of_a_voter"),
        run: every_point_of_a_voter,
    },
];

const SECOND: Duration = Duration::from_secs(1);

/// Whose power fails: 40 of 100.
const CRASHING: usize = 3;

/// Points that the suite tries, of each role.
const SPREAD: usize = 8;

/// What the crashing node has to do in the height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Proposer,
    Voter,
}

fn a_crash_of_the_proposer_makes_no_second_signature(seed: u64) {
    spread(seed, Role::Proposer);
}

fn a_crash_of_a_voter_makes_no_second_signature(seed: u64) {
    spread(seed, Role::Voter);
}

fn every_point_of_the_proposer(seed: u64) {
    let points = window(seed, Role::Proposer).points.len();
    (0..points).for_each(|point| crash_at(seed, Role::Proposer, point));
}

fn every_point_of_a_voter(seed: u64) {
    let points = window(seed, Role::Voter).points.len();
    (0..points).for_each(|point| crash_at(seed, Role::Voter, point));
}

/// Some points, each in another part of the height.
fn spread(seed: u64, role: Role) {
    let points = window(seed, role).points.len();
    let mut random = Entropy::from_seed([0; 32]).rng(&format!("spread {seed}"));
    for part in 0..SPREAD {
        let (from, to) = (part * points / SPREAD, (part + 1) * points / SPREAD);
        crash_at(seed, role, random.random_range(from..to));
    }
}

fn plan() -> Plan {
    Plan {
        powers: &[10, 20, 30, 40],
        ..Plan::new(4)
    }
}

/// The height that is looked at.
struct Window {
    /// What the node passes in it.
    points: Vec<Point>,
    /// Its disk before.
    before: Disk,
}

/// One height without a crash.
fn window(seed: u64, role: Role) -> Window {
    let mut seen = None;
    scenario(plan(), seed, async |world: &mut World| {
        let from = reach(world, role).await;
        let before = world
            .disk(CRASHING)
            .after_crash(|_| crate::disk::Fate::Kept);
        world.pay(0).await;
        world.transactions_final_within(10 * SECOND).await;
        world.run(SECOND).await;
        let points = world.points(CRASHING).split_off(from);
        seen = Some(Window { points, before });
    });
    let seen = seen.expect("the story has run");
    assert!(
        count(&seen.points)[&Point::DiskSync] >= 3,
        "the height was logged"
    );
    seen
}

/// How many points of each kind there are.
fn count(points: &[Point]) -> BTreeMap<Point, usize> {
    let mut count = BTreeMap::new();
    for point in points {
        *count.entry(*point).or_default() += 1;
    }
    count
}

/// Runs until the crashing node has its role in the next height; says how many points it has passed.
async fn reach(world: &mut World, role: Role) -> usize {
    world.start_all().await;
    world.connected_within(20 * SECOND).await;
    world.run(12 * SECOND).await;
    loop {
        world.level_within(10 * SECOND).await;
        let chain = world.node(CRASHING).chain();
        let next = chain.tip().height.next();
        let proposer = chain.validators().proposer(next, Round(0)).power;
        if (proposer == 40) == (role == Role::Proposer) {
            return world.points(CRASHING).len();
        }
        world.pay(0).await;
        world.run(SECOND).await;
    }
}

/// The power fails at one point of the height and comes back.
fn crash_at(seed: u64, role: Role, point: usize) {
    scenario(plan(), seed, async |world: &mut World| {
        crash_and_return(world, role, point, |_| ()).await;
    });
}

/// The same, with something done to the machine while it is down.
async fn crash_and_return(
    world: &mut World,
    role: Role,
    point: usize,
    meanwhile: impl FnOnce(&mut World),
) {
    let from = reach(world, role).await;
    world.power_fails_after(CRASHING, from + point);
    world.pay(0).await;
    assert!(
        world.down_within(CRASHING, 20 * SECOND).await,
        "{role:?} {point}"
    );
    let before = world.height(0);
    world.run(3 * SECOND).await;
    meanwhile(world);
    world.start(CRASHING).await;
    world.connected_within(60 * SECOND).await;
    world.transactions_final_within(60 * SECOND).await;
    world.run(20 * SECOND).await;
    assert!(
        world.height(CRASHING).0 >= before.0 + 4,
        "{}",
        world.height(0)
    );
    world.level_within(10 * SECOND).await;
    world.all_sign_within(SECOND).await;
}

/// It joined the chain, and lost power before it had signed anything: nothing tells it from a node
/// that lost its state. So with another one down the chain stands still, until that is back.
fn a_node_that_never_signed_waits_for_a_live_height(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        for node in [0, 1, 2] {
            world.start(node).await;
        }
        world.run(30 * SECOND).await;
        world.start(3).await;
        world.level_within(10 * SECOND).await;
        world.crash(3);
        world.stop(2).await;
        world.start(3).await;
        world.connected_within(60 * SECOND).await;
        let why = world.consensus(3).not_signing.expect("it has no history");
        assert!(why.contains("was missing"), "{why}");
        let stands = world.height(0);
        world.run(60 * SECOND).await;
        assert_eq!(world.height(0), stands);
        world.start(2).await;
        world.connected_within(60 * SECOND).await;
        world.all_sign_within(60 * SECOND).await;
        world.run(30 * SECOND).await;
        assert!(world.height(0).0 >= stands.0 + 4, "{}", world.height(0));
        world.level_within(10 * SECOND).await;
    });
}

/// The control: a machine that comes back without its log and `consensus.state`, and is forced to
/// sign, signs some slot twice. So the check can fail.
#[test]
fn without_log_and_state_a_forced_node_signs_twice() {
    let seed = crate::run::seed();
    let Window { points, before } = window(seed, Role::Proposer);
    let twice = |point: usize| {
        let outcome = lossy(seed, point, |world| world.forget(CRASHING, &before, true));
        (outcome.violations.iter()).any(|text| text.contains("signed twice"))
    };
    assert!((0..points.len()).any(twice));
}

/// A crash of the proposer after which the machine is not what it was.
fn lossy(seed: u64, point: usize, loss: impl FnOnce(&mut World)) -> Outcome {
    simulate(plan(), seed, async |world: &mut World| {
        let from = reach(world, Role::Proposer).await;
        world.power_fails_after(CRASHING, from + point);
        world.pay(0).await;
        assert!(world.down_within(CRASHING, 20 * SECOND).await);
        world.run(3 * SECOND).await;
        loss(world);
        world.start(CRASHING).await;
        world.run(20 * SECOND).await;
    })
}

/// The log of the very height, as it was earlier in that height: valid, and too short.
#[test]
fn an_older_log_of_the_same_height_makes_no_second_signature() {
    let seed = crate::run::seed();
    let points = window(seed, Role::Proposer).points;
    let syncs = (0..points.len()).filter(|at| points[*at] == Point::DiskSync);
    let images = syncs.map(|point| {
        let mut image = None;
        simulate(plan(), seed, async |world: &mut World| {
            let from = reach(world, Role::Proposer).await;
            world.power_fails_after(CRASHING, from + point + 1);
            world.pay(0).await;
            world.down_within(CRASHING, 20 * SECOND).await;
            image = Some(world.disk(CRASHING));
        });
        (point, image.expect("the story has run"))
    });
    let mut broken = Vec::new();
    for (older, image) in images {
        let packets = (older..points.len()).filter(|at| points[*at] == Point::Packet);
        for point in packets {
            let outcome = lossy(seed, point, |world| world.restore(CRASHING, &image));
            let twice = |text: &String| text.contains("signed twice");
            let twice = outcome.violations.into_iter().filter(twice);
            broken.extend(twice.map(|text| (older, point, text)));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
