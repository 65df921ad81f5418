//! Campaigns: every scenario of `tests/sim` with many seeds, on all cores. See `docs/simulation.md`.
//!
//! ```sh
//! cargo test --release --test campaign -- --runs 1000 --minutes 60
//! cargo test --release --test campaign -- --scenario random_faults --seed 17
//! ```
//!
//! The modules of the simulation are those of `tests/sim`.

#![expect(clippy::unwrap_used, reason = "this is a test, helpers included")]

#[path = "../sim/check.rs"]
mod check;
#[path = "../sim/disk.rs"]
mod disk;
#[path = "../sim/journal.rs"]
mod journal;
mod options;
mod pool;
#[path = "../sim/power.rs"]
mod power;
#[path = "../sim/puppet/mod.rs"]
mod puppet;
mod report;
#[path = "../sim/run.rs"]
#[allow(dead_code, reason = "the suite's tests use other parts of it")]
mod run;
#[path = "../sim/scenarios/mod.rs"]
#[allow(dead_code, reason = "some stories are tests of the suite only")]
#[allow(unused_imports, reason = "what only those tests use")]
mod scenarios;
#[path = "../sim/signatures.rs"]
mod signatures;
#[path = "../sim/wire.rs"]
mod wire;
#[path = "../sim/world/mod.rs"]
#[allow(dead_code, reason = "some stories are tests of the suite only")]
mod world;

use std::process::ExitCode;

use options::{Options, Wanted};

/// Each of the largest stories is run many times.
const FULL_SIZES: bool = false;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Wanted::Campaign(options)) => options,
        Ok(Wanted::Nothing) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let chosen = choose(&options);
    if chosen.is_empty() {
        eprintln!("no scenario is called so; there are:");
        for scenario in scenarios::all() {
            eprintln!("  {}", report::short_name(&scenario));
        }
        return ExitCode::from(2);
    }
    let campaign = pool::run(&options, &chosen);
    report::print(&options, &campaign);
    match campaign.failures().next() {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    }
}

/// The scenarios whose name contains what is asked for.
fn choose(options: &Options) -> Vec<scenarios::Scenario> {
    let mut chosen = scenarios::all();
    if let Some(name) = &options.scenario {
        chosen.retain(|scenario| scenario.name.contains(name.as_str()));
    }
    chosen
}
