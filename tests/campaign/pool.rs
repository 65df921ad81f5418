//! Runs of a campaign on threads of its own: one simulation with its paused clock on each.

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::options::Options;
use super::report::{progress, short_name};
use super::run::{self, Outcome};
use super::scenarios::Scenario;

/// How often the progress is told.
const PROGRESS: Duration = Duration::from_secs(10);

/// One run of a scenario.
pub struct Run {
    pub scenario: String,
    pub seed: u64,
    pub outcomes: Vec<Outcome>,
    pub wall: Duration,
    pub failure: Option<Failure>,
}

pub struct Failure {
    /// What the panic said.
    pub why: String,
    pub last_events: Option<String>,
}

/// What all runs gave, in the order in which they were begun.
pub struct Campaign {
    pub runs: Vec<Run>,
    pub wall: Duration,
}

impl Campaign {
    pub fn failures(&self) -> impl Iterator<Item = (&Run, &Failure)> {
        let runs = self.runs.iter();
        runs.filter_map(|run| Some((run, run.failure.as_ref()?)))
    }
}

thread_local! {
    /// The panics of the run on this thread.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Runs the scenarios in turn, each round of them with the next seed.
pub fn run(options: &Options, scenarios: &[Scenario]) -> Campaign {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
    }));
    let limit = match options.runs {
        Some(0) => scenarios.len(),
        Some(runs) => runs,
        None => usize::MAX,
    };
    let began = now();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let told = Mutex::new(began);
    let work = || {
        while options.time.is_none_or(|time| began.elapsed() < time) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= limit {
                break;
            }
            let scenario = &scenarios[at % scenarios.len()];
            let seed = options.seed + (at / scenarios.len()) as u64;
            let run = one(scenario, seed);
            let mut done = done.lock().unwrap();
            done.push((at, run));
            let mut told = told.lock().unwrap();
            if told.elapsed() >= PROGRESS {
                *told = now();
                progress(&done, options, began.elapsed());
            }
        }
    };
    std::thread::scope(|threads| {
        for _ in 0..options.jobs.min(limit) {
            threads.spawn(work);
        }
    });
    // The hook is not needed any more: what panics from here on is the campaign itself.
    drop(std::panic::take_hook());
    let mut runs = done.into_inner().unwrap();
    runs.sort_by_key(|(at, _)| *at);
    Campaign {
        runs: runs.into_iter().map(|(_, run)| run).collect(),
        wall: began.elapsed(),
    }
}

fn one(scenario: &Scenario, seed: u64) -> Run {
    PANICS.take();
    let began = now();
    let observed = run::observed(|| (scenario.run)(seed));
    let why = PANICS.take().join("\n");
    let failure = observed.failed.then_some(Failure {
        why,
        last_events: observed.last_events,
    });
    Run {
        scenario: short_name(scenario),
        seed,
        outcomes: observed.outcomes,
        wall: began.elapsed(),
        failure,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a campaign takes is real time"
)]
fn now() -> Instant {
    Instant::now()
}
