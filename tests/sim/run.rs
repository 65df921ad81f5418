//! Runs a scenario on virtual time. A failure prints the last events, the seed, and the command that
//! repeats it; a campaign collects all that instead.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::journal::Journal;
use super::signatures::Signatures;
use super::world::{Plan, World};

/// The variable that replaces every scenario's seed.
pub const SEED: &str = "SIM_SEED";

/// The variable that shows the nodes' own logs, in the form of `tracing`'s filters.
const LOG: &str = "SIM_LOG";

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub trace: blake3::Hash,
    pub violations: Vec<String>,
    /// Virtual time.
    pub lasted: Duration,
    pub packets: u64,
}

/// What a campaign is told of the runs on its thread.
#[derive(Clone, Debug, Default)]
#[allow(dead_code, reason = "a campaign reads it")]
pub struct Observed {
    /// Of every simulation that came to its end; most scenarios are one.
    pub outcomes: Vec<Outcome>,
    /// Of one that did not, the last events.
    pub last_events: Option<String>,
    /// Whether the scenario panicked.
    pub failed: bool,
}

thread_local! {
    /// While a campaign observes this thread.
    static OBSERVED: RefCell<Option<Observed>> = const { RefCell::new(None) };
}

/// The seed of every scenario in the suite: 1, or what `SIM_SEED` says.
pub fn seed() -> u64 {
    match std::env::var(SEED) {
        Ok(text) => text.parse().expect("SIM_SEED is a number"),
        Err(_) => 1,
    }
}

/// Runs a scenario for a campaign: nothing is printed, and a panic ends the run only.
#[allow(dead_code, reason = "a campaign runs the scenarios with it")]
pub fn observed(run: impl FnOnce()) -> Observed {
    OBSERVED.set(Some(Observed::default()));
    let ended = catch_unwind(AssertUnwindSafe(run));
    let mut observed = OBSERVED.take().unwrap_or_default();
    observed.failed = ended.is_err();
    observed
}

/// Tells the campaign, if there is one.
fn tell(what: impl FnOnce(&mut Observed)) -> bool {
    OBSERVED.with_borrow_mut(|observed| observed.as_mut().map(what).is_some())
}

/// Runs a scenario; panics when an invariant is broken.
pub fn scenario(plan: Plan, seed: u64, story: impl AsyncFnOnce(&mut World)) {
    simulate(plan, seed, async |world| {
        story(world).await;
        world.finish().await;
        // Here, so that the report of a failure has the events.
        let violations = world.journal.violations();
        assert!(violations.is_empty(), "broken: {violations:#?}");
    });
}

/// Runs a story with a seed, whatever becomes of the invariants.
pub fn simulate(plan: Plan, seed: u64, story: impl AsyncFnOnce(&mut World)) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let outcome = runtime.block_on(async {
        let journal = Arc::new(Journal::new());
        let _log = log(&journal);
        let _report = Report {
            seed,
            journal: journal.clone(),
        };
        let mut world = World::new(plan, seed, journal.clone());
        story(&mut world).await;
        Outcome {
            trace: journal.trace(),
            violations: journal.violations(),
            lasted: journal.elapsed(),
            packets: journal.packets(),
        }
    });
    if !tell(|observed| observed.outcomes.push(outcome.clone())) {
        println!(
            "seed {seed}: {:.0} s of virtual time, {} packets, trace {}",
            outcome.lasted.as_secs_f64(),
            outcome.packets,
            outcome.trace
        );
    }
    outcome
}

/// The nodes' log on this thread: always read by the witness of signatures, shown when asked for.
fn log(journal: &Arc<Journal>) -> tracing::subscriber::DefaultGuard {
    let shown = std::env::var(LOG).ok().map(|filter| {
        let shown = tracing_subscriber::fmt::layer().without_time();
        shown.with_test_writer().with_filter(EnvFilter::new(filter))
    });
    let log = Registry::default().with(shown);
    tracing::subscriber::set_default(log.with(Signatures::observe(journal.clone())))
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
        let events = self.journal.last_events();
        if tell(|observed| observed.last_events = Some(events.clone())) {
            return;
        }
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("TEST");
        eprintln!("the last events:\n{events}");
        eprintln!(
            "seed {0}; repeat with:\n  {SEED}={0} cargo test --test sim -- --exact {test} --nocapture",
            self.seed
        );
    }
}
