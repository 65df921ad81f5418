//! Masternodes on loopback addresses under a flood, and what it does to them.
//!
//! `cargo run --release --example flood [-- --seconds 20 --json]`
//!
//! Three masternodes, each a process of its own, make blocks: first undisturbed, then while one of
//! them is offered 10,000 first packets a second from many addresses (the other masternodes' among
//! them), 300 handshakes a second with valid certificates that nobody has pinned, and 64 peers that
//! each break one limit as fast as they are let; and then once more. All masternodes must stay
//! connected, lose no pong, ping as before, miss no slot and need no second round; the flooded one's
//! memory must stay within its budget, and the system must have it back after each flood.
//! Exits with 1 when anything is not as it must be.
//!
//! `--memory` measures instead what one connection takes, half-open and established.

mod breakers;
mod handshakes;
mod initials;
mod memory;
mod stranger;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other examples use other parts of it")]
mod support;
mod victim;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use breakers::Conduct;
use initials::Initials;
use stranger::Target;
use victim::{Report, Victim, resident_kib};

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
const IPS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(127, 0, 19, 1),
    Ipv4Addr::new(127, 0, 19, 2),
    Ipv4Addr::new(127, 0, 19, 3),
];
const PORT: u16 = 24_200;

/// How much slower than before the slowest hundredth of the pings may be.
const MORE_PING_MS: f64 = 50.0;
/// What peers without a record may make the flooded node hold: the windows of 64 that are welcome
/// and of 256 half-open ones (docs/threat-model.md).
const GROWTH_BUDGET_MIB: f64 = 1_024.0;
/// How long a flood's connections may stay: idle ones end after 30 s.
const RETURN_LIMIT: Duration = Duration::from_secs(45);
/// What may stay of the memory that it took: bans, counts by address, pages of code that nothing used
/// before, and the allocator's pages that something small still lies in.
const KEPT_MIB: f64 = 12.0;
/// How long the rest may take: the allocator gives pages back that were free for about 10 s.
const MEMORY_RETURN_LIMIT: Duration = Duration::from_secs(90);
/// How much nicer than the masternodes the peers that flood them are.
const GIVE_WAY: i32 = 10;
/// How long the start may take.
const START_LIMIT: Duration = Duration::from_secs(30);

/// As the node has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(about = "Masternodes under a flood")]
struct Options {
    /// How long each of the two floods lasts.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
    /// How long the masternodes are watched before it.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(5..=600))]
    quiet_seconds: u64,
    /// First packets a second.
    #[arg(long, default_value_t = 10_000)]
    initials: u64,
    /// Handshakes a second; 0 for none.
    #[arg(long, default_value_t = 300)]
    handshakes: u64,
    /// Peers that break a limit.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u8).range(0..=100))]
    breakers: u8,
    /// Measure what one connection takes, instead of flooding.
    #[arg(long)]
    memory: bool,
    /// Print the result as one JSON object in the last line.
    #[arg(long)]
    json: bool,
    /// Run the masternode of this data directory: for the processes that this program starts.
    #[arg(long, hide = true)]
    masternode: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "error".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    match run(&options).await {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("flood: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked for; gives what was not as it must be.
async fn run(options: &Options) -> Result<Vec<String>> {
    if let Some(folder) = &options.masternode {
        victim::run(folder).await?;
        return Ok(Vec::new());
    }
    let root = tempfile::tempdir()?;
    let (outcome, failures) = if options.memory {
        (memory::measure(root.path()).await?, Vec::new())
    } else {
        flood(root.path(), options).await?
    };
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    if failures.is_empty() {
        println!("all as it must be");
    }
    if options.json {
        println!("{outcome}");
    }
    Ok(failures)
}

/// Makes the masternodes of a chain: their folders, and whom to flood.
fn prepare(root: &Path, count: usize) -> Result<(Vec<PathBuf>, Target)> {
    let made = NAMES.iter().zip(IPS).take(count);
    let folders = made
        .map(|(name, ip)| support::init(root, name, &ip.to_string(), true))
        .collect::<Result<Vec<_>>>()?;
    let all: Vec<&PathBuf> = folders.iter().collect();
    let genesis = support::build_genesis(root, &all, &all, Vec::new())?;
    let target = Target {
        address: SocketAddr::new(IPS[0].into(), PORT),
        genesis: genesis.hash(),
    };
    Ok((folders, target))
}

/// What one phase showed.
struct Phase {
    reports: Vec<Report>,
    rtts_ms: Vec<f64>,
}

impl Phase {
    async fn end(victims: &mut [Victim]) -> Result<Self> {
        let (mut reports, mut rtts_ms) = (Vec::new(), Vec::new());
        for victim in victims {
            let mut report = victim.report().await?;
            let taken = std::mem::take(&mut report.rtts_us).into_iter();
            rtts_ms.extend(taken.map(|us| us as f64 / 1_000.0));
            reports.push(report);
        }
        rtts_ms.sort_by(f64::total_cmp);
        Ok(Self { reports, rtts_ms })
    }

    /// A percentile of the round trips by nearest rank; infinite without any.
    fn ping_ms(&self, percent: usize) -> f64 {
        let rank = (self.rtts_ms.len() * percent).div_ceil(100).max(1);
        self.rtts_ms.get(rank - 1).copied().unwrap_or(f64::INFINITY)
    }

    fn connected(&self) -> bool {
        self.reports
            .iter()
            .all(|report| report.masternodes.len() == NAMES.len() - 1)
    }

    /// Pings that have no pong yet.
    fn unanswered(&self) -> u64 {
        let pairs = self.reports.iter().flat_map(|one| one.masternodes.values());
        pairs
            .map(|pair| pair.pings_sent - pair.pongs_received)
            .sum()
    }

    fn pings(&self) -> Value {
        json!({ "count": self.rtts_ms.len(), "p50": self.ping_ms(50), "p99": self.ping_ms(99) })
    }
}

async fn flood(root: &Path, options: &Options) -> Result<(Value, Vec<String>)> {
    let (folders, target) = prepare(root, NAMES.len())?;
    let mut victims = folders
        .iter()
        .map(|folder| Victim::start(folder))
        .collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    while !Phase::end(&mut victims).await?.connected() {
        ensure!(started.elapsed() < START_LIMIT, "they did not all connect");
        sleep(Duration::from_millis(200)).await;
    }
    println!(
        "{} masternodes are connected; {} is watched undisturbed for {} s",
        NAMES.len(),
        NAMES[0],
        options.quiet_seconds
    );
    let begin = Phase::end(&mut victims).await?;
    sleep(Duration::from_secs(options.quiet_seconds)).await;
    let quiet = Phase::end(&mut victims).await?;
    let before_mib = resident_mib(&victims[0])?;

    let first = Flood::send(options, target, &mut victims, before_mib).await?;
    let second = Flood::send(options, target, &mut victims, before_mib).await?;
    // One slot more, so that the last of the flood has its block, and pongs their time.
    sleep(Duration::from_secs(6)).await;
    let waiting = Instant::now();
    let mut end = Phase::end(&mut victims).await?;
    while end.unanswered() > 0 && waiting.elapsed() < RETURN_LIMIT {
        sleep(Duration::from_millis(7)).await;
        end = Phase::end(&mut victims).await?;
    }
    let watched = Watched {
        begin,
        quiet,
        before_mib,
        floods: [first, second],
        end,
    };
    let (missed, failures) = watched.judge();
    let outcome = json!({
        "quiet": { "ping_ms": watched.quiet.pings(), "memory_mib": before_mib },
        "first_flood": watched.floods[0].shown(&watched.quiet.reports[0]),
        "second_flood": watched.floods[1].shown(&watched.floods[0].phase.reports[0]),
        "pings_unanswered": watched.end.unanswered(),
        "slots_missed": missed,
        "highest_round": watched.highest_round(),
        "failures": failures,
    });
    println!("{outcome:#}");
    for victim in victims {
        victim.stop().await?;
    }
    Ok((outcome, failures))
}

fn resident_mib(victim: &Victim) -> Result<f64> {
    Ok(resident_kib(victim.pid()?)? as f64 / 1_024.0)
}

/// One flood and what it did.
struct Flood {
    offered: Value,
    dropped_by_kernel: u64,
    phase: Phase,
    peak_mib: f64,
    gone_after_s: f64,
    /// When the memory had gone too, or its time was over.
    after_mib: f64,
    returned_after_s: f64,
}

impl Flood {
    /// Floods the first of the masternodes, and waits until its connections and what they took of a
    /// quiet node's memory are gone.
    async fn send(
        options: &Options,
        target: Target,
        victims: &mut [Victim],
        quiet_mib: f64,
    ) -> Result<Self> {
        let initials = Initials::new(target.address, &IPS[1..])?;
        let dropped_before = initials::dropped_by_kernel(target.address)?;
        println!("a flood begins, for {} s", options.seconds);
        let (offered, peak_kib) = offer(options, target, initials, &mut victims[0]).await?;
        let phase = Phase::end(victims).await?;
        let dropped = initials::dropped_by_kernel(target.address)? - dropped_before;

        println!("the flood is over; its connections and its memory must go");
        let over = Instant::now();
        loop {
            // The pings of this time belong to no flood.
            let report = Phase::end(victims).await?.reports.swap_remove(0);
            if report.strangers == 0 && report.half_open.0 == 0 {
                break;
            }
            ensure!(
                over.elapsed() < RETURN_LIMIT,
                "{} strangers and {} half-open handshakes did not go",
                report.strangers,
                report.half_open.0
            );
            sleep(Duration::from_millis(500)).await;
        }
        let gone_after_s = over.elapsed().as_secs_f64();
        let mut after_mib = resident_mib(&victims[0])?;
        while after_mib > quiet_mib + KEPT_MIB && over.elapsed() < MEMORY_RETURN_LIMIT {
            sleep(Duration::from_millis(500)).await;
            after_mib = resident_mib(&victims[0])?;
        }
        let returned_after_s = over.elapsed().as_secs_f64();
        Phase::end(victims).await?;
        Ok(Self {
            offered,
            dropped_by_kernel: dropped,
            phase,
            peak_mib: peak_kib as f64 / 1_024.0,
            gone_after_s,
            after_mib,
            returned_after_s,
        })
    }

    /// What it did since the report before.
    fn shown(&self, before: &Report) -> Value {
        let last = &self.phase.reports[0];
        json!({
            "offered": self.offered,
            "packets_dropped_by_kernel": self.dropped_by_kernel,
            "retried": last.retried - before.retried,
            "turned_away": last.turned_away - before.turned_away,
            "established": last.established - before.established,
            "refused": last.refused - before.refused,
            "half_open_most": last.half_open.1,
            "strangers_at_end": last.strangers,
            "over_budget_at_end": last.over_budget,
            "bans": last.bans,
            "ping_ms": self.phase.pings(),
            "memory_mib": { "peak": self.peak_mib, "after": self.after_mib },
            "connections_gone_after_s": self.gone_after_s,
            "memory_returned_after_s": self.returned_after_s,
        })
    }
}

/// The flood itself; gives the rates that were reached, and the peak of the victim's memory.
async fn offer(
    options: &Options,
    target: Target,
    initials: Initials,
    victim: &mut Victim,
) -> Result<(Value, u64)> {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let runtime = beside()?;
    let handle = runtime.handle();
    let stop_packets = Arc::new(AtomicBool::new(false));
    let packets = initials.send(target.address, options.initials, stop_packets.clone());
    let shaken = Arc::new(handshakes::Tally::default());
    if options.handshakes > 0 {
        tasks.spawn_on(
            handshakes::run(target, options.handshakes, shaken.clone(), stop.clone()),
            handle,
        );
    }
    let tallies: Vec<Arc<breakers::Tally>> = Conduct::ALL.iter().map(|_| Arc::default()).collect();
    for number in 0..options.breakers {
        let kind = usize::from(number) % Conduct::ALL.len();
        let tally = Arc::clone(&tallies[kind]);
        tasks.spawn_on(
            breakers::run(number, Conduct::ALL[kind], target, tally, stop.clone()),
            handle,
        );
    }
    let (start, mut peak_kib) = (Instant::now(), 0);
    let (pid, mut look) = (victim.pid()?, interval(Duration::from_millis(100)));
    while start.elapsed() < Duration::from_secs(options.seconds) {
        look.tick().await;
        peak_kib = peak_kib.max(resident_kib(pid)?);
    }
    let lasted = start.elapsed().as_secs_f64();
    stop.cancel();
    stop_packets.store(true, Ordering::Relaxed);
    tasks.close();
    tasks.wait().await;
    runtime.shutdown_background();
    // It ends with its next burst.
    let sent = packets.join();
    let sent = sent
        .ok()
        .context("the thread that sends packets failed")??;
    let breakers = Conduct::ALL.iter().zip(&tallies);
    let breakers: Map<_, _> = breakers
        .map(|(conduct, tally)| (format!("{conduct:?}"), tally.shown()))
        .collect();
    let offered = json!({
        "initials_per_s": (sent.packets as f64 / sent.seconds).round(),
        "handshakes": shaken.shown(lasted),
        "breakers": breakers,
    });
    Ok((offered, peak_kib))
}

/// Where peers run that are elsewhere in truth: what they compute must not take the processors from
/// the masternodes, so their threads give way.
fn beside() -> Result<Runtime> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    threads.worker_threads(2).enable_all().on_thread_start(|| {
        if let Err(error) = rustix::process::nice(GIVE_WAY) {
            eprintln!("a thread of the flood keeps its priority: {error}");
        }
    });
    Ok(threads.build()?)
}

/// All that was seen.
struct Watched {
    begin: Phase,
    quiet: Phase,
    before_mib: f64,
    floods: [Flood; 2],
    end: Phase,
}

impl Watched {
    fn highest_round(&self) -> Option<u32> {
        let reports = self.end.reports.iter();
        reports.map(|one| one.highest_round).max()
    }

    /// The slots without a block, and all that is not as it must be.
    fn judge(&self) -> (usize, Vec<String>) {
        let ids = |phase: &Phase| -> Vec<_> {
            let pairs = phase.reports.iter().flat_map(|one| &one.masternodes);
            pairs
                .map(|(ip, pair)| (ip.clone(), pair.connection, pair.reconnects))
                .collect()
        };
        let [first, second] = &self.floods;
        let last = &self.end.reports[0];
        let slots = self.begin.reports[0].slot_now + 1..last.slot_now;
        let missed = slots.filter(|slot| !last.slots.contains(slot)).count();
        let kept = [&first.phase, &second.phase, &self.end]
            .iter()
            .all(|phase| phase.connected() && ids(phase) == ids(&self.begin));
        let pings = [&self.quiet, &first.phase, &second.phase].map(|phase| phase.ping_ms(99));
        let growth_mib = first.peak_mib.max(second.peak_mib) - self.before_mib;
        let kept_mib = first.after_mib.max(second.after_mib) - self.before_mib;
        let checks = [
            (
                kept,
                "all masternodes stay connected, by the same connections".to_owned(),
            ),
            (
                self.end.unanswered() == 0,
                format!("no pong is lost: {} are", self.end.unanswered()),
            ),
            (
                pings[1].max(pings[2]) <= pings[0] + MORE_PING_MS,
                format!(
                    "p99 of the pings at most {MORE_PING_MS} ms above the quiet {:.1} ms: {:.1} and {:.1} ms",
                    pings[0], pings[1], pings[2]
                ),
            ),
            (missed == 0, format!("no slot without a block: {missed}")),
            (
                self.highest_round() == Some(0),
                format!("no round above 0: {:?}", self.highest_round()),
            ),
            (
                growth_mib <= GROWTH_BUDGET_MIB,
                format!("memory grows by at most {GROWTH_BUDGET_MIB} MiB: {growth_mib:.0} MiB"),
            ),
            (
                kept_mib <= KEPT_MIB,
                format!(
                    "all but {KEPT_MIB} MiB is given back within {} s: {kept_mib:.0} MiB is not",
                    MEMORY_RETURN_LIMIT.as_secs()
                ),
            ),
        ];
        let failed = checks.into_iter().filter(|(good, _)| !good);
        (missed, failed.map(|(_, what)| what).collect())
    }
}
