//! Does a block transfer that takes all of a link leave pings and votes alone? This crate's own
//! connection code and its rivals, over the same emulated link, in the same run.
//!
//! `cargo bench --bench link [-- --quick] [--json] [--plot FILE]`
//!
//! With the right to make network namespaces and TUN devices, the kernel's own TCP is measured too;
//! without it UDP goes through a relay and the TCP designs are left out. Figures are medians of
//! three runs, on loopback of seven. No timing makes it fail: it exits with 1 only when something could
//! not be measured.

mod cases;
mod emulator;
mod measure;
mod node;
mod ours;
mod place;
mod plot;
mod report;
mod rival_quic;
mod rival_tcp;
mod session;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tokio::task::JoinSet;

use cases::{Case, Kind, cases};
use measure::{Design, Run};
use place::Joined;
use report::{Accuracy, Outcome, Row, Target};
use session::Load;
use stats::now;

/// As the node has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Of a row, where it says nothing else.
const REPETITIONS: usize = 3;
const SEED: u64 = 4;
/// The highest is -20, others have 0.
const PRIORITY: i32 = -10;

#[derive(Parser)]
#[command(
    name = "link",
    about = "Pings and votes beside bulk, here and with rivals"
)]
struct Options {
    /// Only the reference link, in less than a minute.
    #[arg(long)]
    quick: bool,
    /// Print the result as one JSON object in the last line.
    #[arg(long)]
    json: bool,
    /// Write a picture of ping round trips while a sync starts.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Measure as if there were no right to make devices.
    #[arg(long)]
    relay: bool,
    /// Only these rows, by a part of their name.
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // Before any other thread, which inherits it: what else the machine does shall not be measured.
    if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
        println!(
            "with the priority of any other program ({error}): busy neighbours show in the figures"
        );
    }
    match measure_all(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("link: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn measure_all(options: &Options) -> anyhow::Result<()> {
    let began = now();
    let joined = choose(options);
    let mut measured = Measured::default();
    let wanted = |case: &Case| (options.only.as_ref()).is_none_or(|part| case.name.contains(part));
    for case in cases(options.quick, joined).into_iter().filter(wanted) {
        measured.case(&case).await?;
    }
    let accuracy = Accuracy::of(measured.runs.iter());
    accuracy.print();
    println!("\ntargets");
    measured.targets.iter().for_each(Target::print);
    let took = now() - began;
    println!("\n{:.0} s", took.as_secs_f64());
    if let Some(path) = &options.plot {
        measured.plot(path)?;
    }
    if options.json {
        let outcome = Outcome {
            bench: "link",
            joined: if joined == Joined::Tun {
                "tun"
            } else {
                "relay"
            },
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            seconds: took.as_secs_f64(),
            accuracy,
            rows: &measured.rows,
            targets: &measured.targets,
        };
        println!("{}", serde_json::to_string(&outcome)?);
    }
    Ok(())
}

fn choose(options: &Options) -> Joined {
    let (joined, why) = match options.relay {
        true => (Joined::Relay, None),
        false => Joined::best(),
    };
    match (joined, why) {
        (Joined::Tun, _) => println!("two network namespaces, TUN devices between them"),
        (_, why) => {
            let why = why.map_or("as asked".into(), |error| error.to_string());
            println!("no TUN device ({why}): UDP through a relay, and nothing over TCP");
        }
    }
    joined
}

/// Everything so far.
#[derive(Default)]
struct Measured {
    rows: Vec<Row>,
    targets: Vec<Target>,
    runs: Vec<Run>,
    lines: Vec<plot::Line>,
}

impl Measured {
    async fn case(&mut self, case: &Case) -> anyhow::Result<()> {
        eprintln!("measuring: {}", case.name);
        let mut results = Vec::new();
        for (design, runs) in measure_case(case).await? {
            results.push(report::Result::of(design, &runs));
            if case.kind == Kind::Reference {
                let trace = runs.first().map(|run| run.trace.clone());
                let trace = trace.unwrap_or_default();
                self.lines.push(plot::Line { design, trace });
            }
            self.runs.extend(runs);
        }
        let loopback = case.kind == Kind::Loopback;
        let row = Row {
            name: case.name.into(),
            link_mbit: (!loopback).then_some(case.setting.shape.mbit),
            both_ways: case.setting.plan.load == Load::BothWays,
            repetitions: case.repetitions,
            results,
        };
        row.print();
        self.targets.extend(match case.kind {
            Kind::Reference => report::reference_targets(&row),
            Kind::Loopback => report::loopback_targets(&row),
            Kind::Further => Vec::new(),
        });
        self.rows.push(row);
        Ok(())
    }

    fn plot(&self, path: &PathBuf) -> anyhow::Result<()> {
        let title = "Ping round trips while a sync starts: 20 Mbit/s, 40 ms, queue of 100 packets";
        let svg = plot::svg(title, &self.lines, -1.0, 6.0);
        std::fs::write(path, svg).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
        Ok(())
    }
}

/// All repetitions of all designs, interleaved, so that a busy minute of the machine meets all.
async fn measure_case(case: &Case) -> anyhow::Result<Vec<(Design, Vec<Run>)>> {
    let setting = case.setting;
    let mut measured: Vec<(Design, Vec<Run>)> =
        case.designs.iter().map(|one| (*one, Vec::new())).collect();
    let mut lanes = JoinSet::new();
    for lane in 0..case.at_once {
        let designs = case.designs.clone();
        let repetitions = case.repetitions / case.at_once;
        lanes.spawn(async move {
            let mut runs = Vec::new();
            for repetition in 0..repetitions {
                for turn in 0..designs.len() {
                    // Lanes begin with different designs, so that no two load the machine alike.
                    let design = designs[(turn + 2 * lane) % designs.len()];
                    let seed = SEED + (lane * repetitions + repetition) as u64;
                    runs.push((design, measure::run(design, setting, seed).await?));
                }
            }
            anyhow::Ok(runs)
        });
    }
    while let Some(runs) = lanes.join_next().await {
        for (design, run) in runs?? {
            let place = measured.iter_mut().find(|(one, _)| *one == design);
            place.context("a design of the case")?.1.push(run);
        }
    }
    Ok(measured)
}
