//! Masternodes that do not keep the rules, one behaviour a file, with up to just under a third of the
//! power. The honest ones go on, agree, stay connected to each other, and tell who it was.

mod bogus_bodies;
mod equivocating_proposals;
mod equivocating_votes;
mod flood;
mod late_votes;
mod protocol_breakers;
mod replay;
mod silence;
mod slow_answers;
mod sync_liars;

use std::time::Duration;

use tokio::time::Instant;

use super::Scenario;
use crate::check::name;
use crate::world::World;

/// The stories of each file.
pub const FILES: [&[Scenario]; 10] = [
    bogus_bodies::ALL,
    equivocating_proposals::ALL,
    equivocating_votes::ALL,
    flood::ALL,
    late_votes::ALL,
    protocol_breakers::ALL,
    replay::ALL,
    silence::ALL,
    slow_answers::ALL,
    sync_liars::ALL,
];

const SECOND: Duration = Duration::from_secs(1);

/// How often heights are looked at.
const STEP: Duration = Duration::from_millis(500);

/// Between two payments.
const PAYMENT: Duration = Duration::from_secs(20);

/// The longest that a height may take: its slot of 5 s, two seconds for messages, and one failed
/// round for each puppet, because they may be the proposers of consecutive rounds. A failed round
/// takes at most its three timeouts, by the defaults of genesis.
fn height_limit(puppets: usize) -> Duration {
    let rounds = (0..puppets as u32).map(|round| {
        let step = SECOND / 2 * round;
        3 * SECOND + step + 2 * (SECOND + step)
    });
    7 * SECOND + rounds.sum::<Duration>()
}

/// Starts the honest ones and waits until they are connected.
async fn begin(world: &mut World) {
    world.start_all().await;
    world.connected_within(20 * SECOND).await;
    world.run(10 * SECOND).await;
}

/// Lets the honest ones go on for so long, with payments now and then: no height may take longer than
/// its limit, all payments become final, nobody disconnects from another honest one. Returns how many
/// heights were made.
async fn goes_on(world: &mut World, time: Duration) -> u64 {
    let honest = world.honest();
    let limit = height_limit(world.all().len() - honest.len());
    let (begin, first) = (Instant::now(), world.height(honest[0]));
    let disconnects = world.checker.disconnects();
    let mut newest = vec![(first, begin); honest.len()];
    let mut paid = 0;
    while begin.elapsed() < time {
        if begin.elapsed() >= PAYMENT * paid {
            world.pay(honest[paid as usize % honest.len()]).await;
            paid += 1;
        }
        world.run(STEP).await;
        for (node, (height, since)) in honest.iter().zip(&mut newest) {
            let now = world.height(*node);
            if now > *height {
                (*height, *since) = (now, Instant::now());
            }
            let waited = since.elapsed();
            let node = name(*node);
            assert!(waited <= limit, "{node} stands at {height} for {waited:?}");
        }
    }
    world.transactions_final_within(limit).await;
    world.level_within(10 * SECOND).await;
    assert_eq!(world.checker.disconnects(), disconnects);
    world.height(honest[0]).0 - first.0
}

/// Every honest node holds evidence, and all of it is about one of these; returns the sentences of the
/// first.
async fn all_hold_evidence(world: &World, of: &[usize]) -> Vec<String> {
    let mut first = Vec::new();
    for node in world.honest() {
        let sentences = world.evidence(node).await;
        for puppet in of {
            let begins = format!("{} signed two ", name(*puppet));
            let held = sentences.iter().any(|one| one.starts_with(&begins));
            assert!(held, "{} holds only {sentences:?}", name(node));
        }
        if first.is_empty() {
            first = sentences;
        }
    }
    first
}
