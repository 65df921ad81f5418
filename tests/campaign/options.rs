//! The command line. What `cargo test` passes to every test program is understood and ignored.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

pub const USAGE: &str = "\
options of a campaign:
  --runs N         so many runs in all, over the scenarios in turn
  --minutes M      begin no run after so many minutes
  --scenario NAME  only the scenarios whose name contains this
  --seed N         the first seed; each further round of the scenarios takes the next (1)
  --jobs N         so many runs at a time (one for each core)
  --json           a closing line with the figures";

/// Without arguments, as plain `cargo test` runs it: some seconds.
const SHORT: (&str, usize) = ("random_faults", 2);

/// Options of the test harness that take a value.
const WITH_VALUE: &[&str] = &[
    "--skip",
    "--test-threads",
    "--format",
    "--color",
    "--logfile",
    "--shuffle-seed",
    "-Z",
];

/// How this program is called when it is a test among others.
const NAME: &str = "campaign";

/// What the command line asks for.
pub enum Wanted {
    Campaign(Options),
    /// A filter of `cargo test` that is not for this program, or a list of the tests in it.
    Nothing,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// `None` for as many as there is time for.
    pub runs: Option<usize>,
    pub time: Option<Duration>,
    pub scenario: Option<String>,
    pub seed: u64,
    pub jobs: usize,
    pub json: bool,
}

pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut options = Options {
        runs: None,
        time: None,
        scenario: None,
        seed: 1,
        jobs: available_parallelism().map_or(1, NonZeroUsize::get),
        json: false,
    };
    let mut seed = None;
    let mut filters = Vec::new();
    let mut arguments = arguments.flat_map(split);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--runs" => options.runs = Some(number(&argument, value()?)?),
            "--minutes" => {
                let minutes: u64 = number(&argument, value()?)?;
                options.time = Some(Duration::from_secs(minutes * 60));
            }
            "--scenario" => options.scenario = Some(value()?),
            "--seed" => seed = Some(number(&argument, value()?)?),
            "--jobs" => options.jobs = number::<NonZeroUsize>(&argument, value()?)?.get(),
            "--json" => options.json = true,
            "--list" => return Ok(Wanted::Nothing),
            harness if WITH_VALUE.contains(&harness) => drop(value()?),
            harness if harness.starts_with('-') => {}
            filter => filters.push(filter.to_owned()),
        }
    }
    if !(filters.is_empty() || filters.iter().any(|filter| NAME.contains(filter.as_str()))) {
        return Ok(Wanted::Nothing);
    }
    if options.runs.is_none() && options.time.is_none() {
        match (&options.scenario, seed) {
            (None, None) => {
                options.scenario = Some(SHORT.0.into());
                options.runs = Some(SHORT.1);
            }
            // One seed of each.
            _ => options.runs = Some(0),
        }
    }
    options.seed = seed.unwrap_or(options.seed);
    Ok(Wanted::Campaign(options))
}

/// `--option=value` as two.
fn split(argument: String) -> Vec<String> {
    match argument.split_once('=') {
        Some((option, value)) if option.starts_with("--") => vec![option.into(), value.into()],
        _ => vec![argument],
    }
}

fn number<T: std::str::FromStr>(option: &str, value: String) -> Result<T, String> {
    let number = value.parse();
    number.map_err(|_| format!("{option} needs a number, not {value:?}"))
}
