//! Medians, the table, the targets, the closing JSON object.

use serde::Serialize;

use crate::measure::{Design, Run};
use crate::stats::{Lateness, Trips, median};

/// One design in one row, over all repetitions.
#[derive(Clone, Debug, Serialize)]
pub struct Result {
    /// Who.
    pub design: Design,
    /// Before bulk.
    pub idle: Trips,
    /// On the liveness channel, beside bulk.
    pub ping: Trips,
    /// Votes, beside bulk.
    pub vote: Option<Trips>,
    /// Bulk in the direction that every load has, megabits a second.
    pub mbit: f64,
    /// Its smallest and largest run.
    pub mbit_range: [f64; 2],
    /// Bulk in the other direction.
    pub mbit_back: f64,
    /// Seconds of processor time a gigabyte, on loopback.
    pub cpu_s_per_gb: Option<f64>,
    /// Packets that the link's queue dropped, all runs.
    pub dropped: u64,
}

impl Result {
    /// The medians of these runs.
    pub fn of(design: Design, runs: &[Run]) -> Self {
        let all =
            |part: fn(&Run) -> Trips| Trips::median(&runs.iter().map(part).collect::<Vec<_>>());
        let votes: Vec<Trips> = runs.iter().filter_map(|run| run.vote).collect();
        let forth = || runs.iter().map(|run| run.mbit[0]);
        Self {
            design,
            idle: all(|run| run.idle),
            ping: all(|run| run.ping),
            vote: (!votes.is_empty()).then(|| Trips::median(&votes)),
            mbit: median(forth()),
            mbit_range: [
                forth().fold(f64::INFINITY, f64::min),
                forth().fold(0.0, f64::max),
            ],
            mbit_back: median(runs.iter().map(|run| run.mbit[1])),
            cpu_s_per_gb: runs
                .iter()
                .all(|run| run.cpu_s_per_gb.is_some())
                .then(|| median(runs.iter().filter_map(|run| run.cpu_s_per_gb))),
            dropped: (runs.iter().filter_map(|run| run.link.as_ref()))
                .map(|link| link.dropped)
                .sum(),
        }
    }

    /// The higher 99th percentile of pings and votes: what comparisons are made with.
    fn worst_p99_ms(&self) -> f64 {
        let vote = self.vote.map_or(self.ping.p99_ms, |vote| vote.p99_ms);
        self.ping.p99_ms.max(vote)
    }
}

/// One row of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub name: String,
    /// The link's rate; `None` on loopback.
    pub link_mbit: Option<f64>,
    /// Whether bulk goes both ways.
    pub both_ways: bool,
    /// How often each figure was taken; medians are shown.
    pub repetitions: usize,
    /// Who was measured.
    pub results: Vec<Result>,
}

impl Row {
    fn result(&self, design: Design) -> Option<&Result> {
        self.results.iter().find(|one| one.design == design)
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("\n{}", self.name);
        println!(
            "  {:<36}{:>24}{:>24}{:>10}{:>7}{:>10}{:>9}",
            "",
            "ping p50/p99/max ms",
            "vote p50/p99/max ms",
            "Mbit/s",
            "share",
            "p99 ours",
            "idle p99"
        );
        let ours = self.result(Design::Timed).map(Result::worst_p99_ms);
        for result in &self.results {
            let share = self
                .link_mbit
                .map(|link| format!("{:.3}", result.mbit / link));
            let ratio = ours.map(|ours| format!("x {:.1}", result.ping.p99_ms / ours));
            println!(
                "  {:<36}{:>24}{:>24}{:>10.1}{:>7}{:>10}{:>9.1}",
                result.design.name(),
                trips(&result.ping),
                result.vote.as_ref().map(trips).unwrap_or_default(),
                result.mbit,
                share.unwrap_or_default(),
                ratio
                    .filter(|_| result.design != Design::Timed)
                    .unwrap_or_default(),
                result.idle.p99_ms,
            );
            if self.both_ways {
                let share = self
                    .link_mbit
                    .map_or(f64::NAN, |link| result.mbit_back / link);
                println!(
                    "  {:<84}{:>10.1}{share:>7.3}",
                    "    the other way", result.mbit_back
                );
            }
            if self.link_mbit.is_none() {
                let [least, most] = result.mbit_range;
                println!(
                    "  {:<84}{least:>10.1} to {most:.1}",
                    "    least and most of the runs"
                );
            }
            if let Some(cpu) = result.cpu_s_per_gb {
                println!(
                    "  {:<84}{cpu:>10.2}",
                    "    seconds of processor time a gigabyte"
                );
            }
            let unanswered = result.ping.unanswered + result.vote.map_or(0, |one| one.unanswered);
            if unanswered > 0 {
                println!(
                    "      {unanswered} requests had no answer when the run ended; they count with their age"
                );
            }
        }
    }
}

fn trips(trips: &Trips) -> String {
    format!(
        "{:.0} / {:.0} / {:.0}",
        trips.p50_ms, trips.p99_ms, trips.max_ms
    )
}

/// A promise, and what was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// What.
    pub name: String,
    /// The figure that it must reach, as a sentence.
    pub target: String,
    /// The figure.
    pub value: f64,
    /// Whether it does.
    pub reached: bool,
}

impl Target {
    fn at_most(name: &str, value: f64, limit: f64, unit: &str) -> Self {
        Self {
            name: name.into(),
            target: format!("at most {limit}{unit}"),
            value,
            reached: value <= limit,
        }
    }

    fn at_least(name: &str, value: f64, limit: f64, unit: &str) -> Self {
        Self {
            name: name.into(),
            target: format!("at least {limit}{unit}"),
            value,
            reached: value >= limit,
        }
    }

    /// Prints one line.
    pub fn print(&self) {
        let reached = if self.reached {
            "reached"
        } else {
            "NOT reached"
        };
        println!(
            "  {:<64}{:>10.3}   {}: {reached}",
            self.name, self.value, self.target
        );
    }
}

/// What the reference row has to show.
pub fn reference_targets(row: &Row) -> Vec<Target> {
    let Some(ours) = row.result(Design::Timed) else {
        return Vec::new();
    };
    let share = ours.mbit / row.link_mbit.unwrap_or(f64::NAN);
    let mut targets = vec![
        Target::at_most("reference link, ping p99", ours.ping.p99_ms, 60.0, " ms"),
        Target::at_least("reference link, bulk's share of the link", share, 0.93, ""),
    ];
    if let Some(vote) = ours.vote {
        let name = "reference link, vote p99";
        targets.push(Target::at_most(name, vote.p99_ms, 60.0, " ms"));
    }
    let rivals = [
        (Design::TcpFrames64Kib, 10.0),
        (Design::TcpFrames946Kb, 10.0),
        (Design::Yamux, 5.0),
        (Design::QuicPriority, 1.4),
    ];
    for (design, times) in rivals {
        if let Some(rival) = row.result(design) {
            let name = format!("p99 against {}", design.name());
            let ratio = rival.ping.p99_ms / ours.worst_p99_ms();
            targets.push(Target::at_least(&name, ratio, times, " times"));
        }
    }
    targets
}

/// What the loopback row has to show. Where others use the processors too, the second figure is
/// the one to believe.
pub fn loopback_targets(row: &Row) -> Vec<Target> {
    let (ours, bare) = (row.result(Design::Timed), row.result(Design::QuicPriority));
    let Some((ours, bare)) = ours.zip(bare) else {
        return Vec::new();
    };
    let name = "loopback, bulk against bare quinn with the same settings";
    let mut targets = vec![Target::at_least(
        name,
        ours.mbit / bare.mbit,
        0.90,
        " times",
    )];
    if let Some((ours, bare)) = ours.cpu_s_per_gb.zip(bare.cpu_s_per_gb) {
        let name = "loopback, bulk for the same processor time";
        targets.push(Target::at_least(name, bare / ours, 0.90, " times"));
    }
    targets
}

/// How exact the emulated links were.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Accuracy {
    /// Packets delivered.
    pub packets: u64,
    /// How late they were, in milliseconds.
    pub late_p50_ms: f64,
    /// The same.
    pub late_p99_ms: f64,
    /// The same.
    pub late_max_ms: f64,
    /// Packets that a device refused.
    pub refused: u64,
}

impl Accuracy {
    /// Over all runs.
    pub fn of<'a>(runs: impl Iterator<Item = &'a Run>) -> Self {
        let mut lateness = Lateness::default();
        let (mut packets, mut refused) = (0, 0);
        for link in runs.filter_map(|run| run.link.as_ref()) {
            lateness.add(&link.lateness);
            packets += link.delivered;
            refused += link.refused;
        }
        Self {
            packets,
            late_p50_ms: lateness.percentile_ms(50.0),
            late_p99_ms: lateness.percentile_ms(99.0),
            late_max_ms: lateness.longest_ms(),
            refused,
        }
    }

    /// Prints one line.
    pub fn print(&self) {
        println!(
            "\nemulated links: {} packets, late by {:.2} ms (median), {:.2} ms (p99), {:.1} ms (most); {} refused",
            self.packets, self.late_p50_ms, self.late_p99_ms, self.late_max_ms, self.refused
        );
    }
}

/// The closing object.
#[derive(Debug, Serialize)]
pub struct Outcome<'a> {
    /// Always `link`.
    pub bench: &'static str,
    /// How the ends were joined: `tun` or `relay`.
    pub joined: &'static str,
    /// Processors that this process may use.
    pub cores: usize,
    /// Seconds that it took.
    pub seconds: f64,
    /// How exact the emulated links were.
    pub accuracy: Accuracy,
    /// All rows.
    pub rows: &'a [Row],
    /// All targets that the rows speak to.
    pub targets: &'a [Target],
}
