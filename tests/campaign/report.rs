//! What a campaign says: its progress, a summary of each scenario, and how to repeat what failed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::options::Options;
use super::pool::{Campaign, Run};
use super::scenarios::Scenario;

/// A scenario as it is called in the suite, without the program's own name.
pub fn short_name(scenario: &Scenario) -> String {
    let name = scenario.name.split_once("::").map(|(_, name)| name);
    name.unwrap_or(scenario.name).into()
}

/// The command that repeats a run.
fn repeat(run: &Run) -> String {
    format!(
        "cargo test --release --test campaign -- --scenario {} --seed {}",
        run.scenario, run.seed
    )
}

pub fn progress(done: &[(usize, Run)], options: &Options, wall: Duration) {
    let failures = done.iter().filter(|(_, run)| run.failure.is_some());
    let of = match options.runs {
        Some(runs) if runs > 0 => format!(" of {runs}"),
        _ => String::new(),
    };
    let virtual_hours = virtual_time(done.iter().map(|(_, run)| run)).as_secs_f64() / 3_600.0;
    eprintln!(
        "{:.0} s: {}{of} runs, {virtual_hours:.1} virtual hours, {} failed",
        wall.as_secs_f64(),
        done.len(),
        failures.count()
    );
}

fn virtual_time<'a>(runs: impl Iterator<Item = &'a Run>) -> Duration {
    runs.flat_map(|run| &run.outcomes)
        .map(|outcome| outcome.lasted)
        .sum()
}

/// One scenario's figures.
#[derive(Default)]
struct Figures {
    runs: usize,
    failures: usize,
    virtual_time: Duration,
    wall: Duration,
}

/// The summary, and what failed.
pub fn print(options: &Options, campaign: &Campaign) {
    let mut scenarios: BTreeMap<&str, Figures> = BTreeMap::new();
    for run in &campaign.runs {
        let figures = scenarios.entry(&run.scenario).or_default();
        figures.runs += 1;
        figures.failures += usize::from(run.failure.is_some());
        figures.virtual_time += virtual_time([run].into_iter());
        figures.wall += run.wall;
    }
    println!(
        "{:>6} {:>6} {:>10} {:>9}  scenario",
        "runs", "failed", "virtual h", "wall s"
    );
    for (name, figures) in &scenarios {
        println!(
            "{:>6} {:>6} {:>10.2} {:>9.1}  {name}",
            figures.runs,
            figures.failures,
            figures.virtual_time.as_secs_f64() / 3_600.0,
            figures.wall.as_secs_f64()
        );
    }
    for (run, failure) in campaign.failures() {
        println!("\nFAILED: {} with seed {}", run.scenario, run.seed);
        if let Some(events) = &failure.last_events {
            println!("the last events:\n{events}");
        }
        println!("{}\nrepeat with:\n  {}", failure.why, repeat(run));
    }
    println!(
        "\n{} runs, {} failed, {:.2} virtual hours, {:.0} s, {} at a time",
        campaign.runs.len(),
        campaign.failures().count(),
        virtual_time(campaign.runs.iter()).as_secs_f64() / 3_600.0,
        campaign.wall.as_secs_f64(),
        options.jobs
    );
    if options.json {
        println!("{}", closing(options, campaign, &scenarios));
    }
}

fn closing(
    options: &Options,
    campaign: &Campaign,
    scenarios: &BTreeMap<&str, Figures>,
) -> serde_json::Value {
    let scenarios = scenarios.iter().map(|(name, figures)| {
        json!({
            "scenario": name,
            "runs": figures.runs,
            "failures": figures.failures,
            "virtual_s": figures.virtual_time.as_secs_f64(),
            "wall_s": figures.wall.as_secs_f64(),
        })
    });
    let failures = campaign.failures().map(|(run, failure)| {
        json!({
            "scenario": run.scenario,
            "seed": run.seed,
            "why": failure.why,
            "repeat": repeat(run),
        })
    });
    json!({
        "runs": campaign.runs.len(),
        "failures": failures.collect::<Vec<_>>(),
        "virtual_s": virtual_time(campaign.runs.iter()).as_secs_f64(),
        "wall_s": campaign.wall.as_secs_f64(),
        "jobs": options.jobs,
        "first_seed": options.seed,
        "trace": trace(campaign).to_string(),
        "scenarios": scenarios.collect::<Vec<_>>(),
    })
}

/// A hash over the traces of all runs: the same for the same options, on every machine.
fn trace(campaign: &Campaign) -> blake3::Hash {
    let mut trace = blake3::Hasher::new();
    for outcome in campaign.runs.iter().flat_map(|run| &run.outcomes) {
        trace.update(outcome.trace.as_bytes());
    }
    trace.finalize()
}
