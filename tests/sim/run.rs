//! Runs a scenario on virtual time. A failure prints the last events, the seed, and the command that
//! repeats it.

use std::sync::Arc;

use super::journal::Journal;
use super::world::{Plan, World};

/// The variable that replaces every scenario's seed.
const SEED: &str = "SIM_SEED";

/// The variable that shows the nodes' own logs, in the form of `tracing`'s filters.
const LOG: &str = "SIM_LOG";

/// What came of a run.
pub struct Outcome {
    pub trace: blake3::Hash,
    pub violations: Vec<String>,
}

/// The seed of every scenario in the suite: 1, or what `SIM_SEED` says.
pub fn seed() -> u64 {
    match std::env::var(SEED) {
        Ok(text) => text.parse().expect("SIM_SEED is a number"),
        Err(_) => 1,
    }
}

/// Runs a scenario; panics when an invariant is broken.
pub fn scenario(plan: Plan, seed: u64, story: impl AsyncFnOnce(&mut World)) {
    let outcome = simulate(plan, seed, async |world| {
        story(world).await;
        world.finish().await;
        // Here, so that the report of a failure has the events.
        let violations = world.journal.violations();
        assert!(violations.is_empty(), "broken: {violations:#?}");
    });
    println!("seed {seed}: trace {}", outcome.trace);
}

/// Runs a story with a seed, whatever becomes of the invariants.
pub fn simulate(plan: Plan, seed: u64, story: impl AsyncFnOnce(&mut World)) -> Outcome {
    let _log = std::env::var(LOG).ok().map(|filter| {
        let log = tracing_subscriber::fmt().with_env_filter(filter);
        tracing::subscriber::set_default(log.without_time().with_test_writer().finish())
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let journal = Arc::new(Journal::new());
        let _report = Report {
            seed,
            journal: journal.clone(),
        };
        let mut world = World::new(plan, seed, journal.clone());
        story(&mut world).await;
        println!(
            "{:.0} s of virtual time, {} packets",
            journal.elapsed().as_secs_f64(),
            journal.packets()
        );
        Outcome {
            trace: journal.trace(),
            violations: journal.violations(),
        }
    })
}

/// Prints how to repeat a run that panics.
struct Report {
    seed: u64,
    journal: Arc<Journal>,
}

impl Drop for Report {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("TEST");
        eprintln!("the last events:\n{}", self.journal.last_events());
        eprintln!(
            "seed {0}; repeat with:\n  {SEED}={0} cargo test --test sim -- --exact {test} --nocapture",
            self.seed
        );
    }
}
