//! `timed testnet`: several masternode processes on 127.0.0.1 and up, with transactions flowing and,
//! when asked, one of them ended by SIGKILL and started again. At the end it is checked that the
//! others went on meanwhile, that all agree, and that nobody signed twice.

mod network;
mod outcome;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::CommandFactory;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::{Cli, Environment, output};
use network::{Network, NodeStatus};
use outcome::{Kill, Outcome};
use traffic::Traffic;

/// With this many nodes of equal power, one can be missing.
const NODES_TO_SPARE_ONE: usize = 4;

/// How long the nodes may take to answer after they were started.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long the nodes may take at the end until all tips are equal.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// Between two looks at nodes that are to answer, agree, or have their peers again.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Between two lines of the report.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Between two transactions.
const TRAFFIC_INTERVAL: Duration = Duration::from_millis(400);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// How many masternodes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=50))]
    nodes: u8,
    /// Stop after this time and judge [default: run until Ctrl-C]
    #[arg(long)]
    seconds: Option<u64>,
    /// End one node by SIGKILL after this time, such as 10s
    #[arg(long, value_name = "TIME", value_parser = super::output::parse_duration)]
    kill_one_after: Option<Duration>,
    /// Start it again this long after it was ended
    #[arg(long, value_name = "TIME", value_parser = super::output::parse_duration, requires = "kill_one_after", default_value = "10s")]
    restart_after: Duration,
    /// Where the nodes' files are; kept, and used again when it holds a testnet [default: a temporary folder]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// The P2P port of every node; RPC is one above [default: 24200, or that of the nodes in --dir]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..65535))]
    port: Option<u16>,
}

impl Arguments {
    /// Refuses combinations that cannot work, as a usage error.
    fn check(&self) {
        let refuse = |message: &str| {
            let kind = clap::error::ErrorKind::ValueValidation;
            Cli::command().error(kind, message).exit()
        };
        let Some(kill) = self.kill_one_after else {
            return;
        };
        if usize::from(self.nodes) < NODES_TO_SPARE_ONE {
            refuse("--kill-one-after needs at least 4 nodes: fewer have no quorum without one");
        }
        let end = Duration::from_secs(self.seconds.unwrap_or(u64::MAX));
        if kill.saturating_add(self.restart_after) >= end {
            refuse("--seconds must be longer than --kill-one-after and --restart-after together");
        }
    }
}

pub(super) fn run(environment: &Environment, arguments: Arguments) -> anyhow::Result<ExitCode> {
    arguments.check();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the threads could not be started")?;
    let outcome = runtime.block_on(play(&arguments))?;
    for failure in &outcome.failures {
        output::line(format!("FAILED: {failure}"));
    }
    if outcome.failures.is_empty() {
        output::line("all as it must be");
    }
    if environment.json {
        output::json(&outcome)?;
    }
    Ok(match outcome.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

async fn play(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let temporary = tempfile::tempdir()?;
    let root = arguments.dir.clone().unwrap_or(temporary.path().to_owned());
    let network = Network::make(&root, usize::from(arguments.nodes), arguments.port)?;
    let traffic = Traffic::new(&network)?;
    output::line(format!(
        "{} masternodes on 127.0.0.1 and up, port {}, in {}",
        arguments.nodes,
        network.port(),
        root.display()
    ));
    let mut testnet = Testnet {
        network,
        traffic,
        started: Instant::now(),
        kill: None,
    };
    let played = testnet.play(arguments).await;
    testnet.network.stop_all().await;
    let failed = !played
        .as_ref()
        .is_ok_and(|outcome| outcome.failures.is_empty());
    if failed {
        let logs = match arguments.dir {
            Some(_) => root,
            None => temporary.keep(),
        };
        output::line(format!("the nodes' logs are in {}", logs.display()));
    }
    played
}

struct Testnet {
    network: Network,
    traffic: Traffic,
    started: Instant,
    kill: Option<Kill>,
}

impl Testnet {
    async fn play(&mut self, arguments: &Arguments) -> anyhow::Result<Outcome> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        self.network.start_all()?;
        self.wait_until_all_answer().await?;
        self.started = Instant::now();
        let asked = tokio::select! {
            biased;
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            ended = self.run_until_end(arguments) => ended.map(|()| false)?,
        };
        if asked {
            output::line("stopping");
        }
        self.judge().await
    }

    async fn wait_until_all_answer(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START_LIMIT;
        loop {
            self.network.check_running()?;
            let statuses = self.network.statuses().await;
            if statuses.iter().all(Option::is_some) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!(
                    "not all nodes answer {} s after their start",
                    START_LIMIT.as_secs()
                );
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Traffic, report, and the kill and restart that were asked for.
    async fn run_until_end(&mut self, arguments: &Arguments) -> anyhow::Result<()> {
        let at = |after: Option<Duration>| after.and_then(|after| self.started.checked_add(after));
        let end = at(arguments.seconds.map(Duration::from_secs));
        let kill_at = at(arguments.kill_one_after);
        let restart_at = kill_at.map(|kill| kill + arguments.restart_after);
        let mut report = every(REPORT_INTERVAL);
        let mut traffic = every(TRAFFIC_INTERVAL);
        let mut look = every(LOOK_INTERVAL);
        loop {
            let (killed, restarted) = match &self.kill {
                None => (false, false),
                Some(kill) => (true, kill.restarted.is_some()),
            };
            tokio::select! {
                biased;
                () = until(end) => return Ok(()),
                () = until(kill_at), if !killed => self.kill_one().await?,
                () = until(restart_at), if killed && !restarted => self.restart().await?,
                _ = report.tick() => self.report().await?,
                _ = traffic.tick() => self.traffic.send_one(&self.network).await,
                _ = look.tick() => self.look_at_restarted().await,
            }
        }
    }

    async fn kill_one(&mut self) -> anyhow::Result<()> {
        let node = self.network.len() - 1;
        let heights = self.heights().await;
        self.network.kill(node).await?;
        output::line(format!("{} ended by SIGKILL", self.network.name(node)));
        self.kill = Some(Kill::new(node, heights));
        Ok(())
    }

    async fn restart(&mut self) -> anyhow::Result<()> {
        let heights = self.heights().await;
        if let Some(kill) = &mut self.kill {
            self.network.start(kill.node)?;
            kill.restart(heights, Instant::now());
            output::line(format!("{} started again", self.network.name(kill.node)));
        }
        Ok(())
    }

    /// Notes when a restarted node has all its peers again.
    async fn look_at_restarted(&mut self) {
        let Some(kill) = &mut self.kill else {
            return;
        };
        if let (Some(restarted), None) = (kill.restarted, kill.peers_regained) {
            let status = self.network.status(kill.node).await;
            if status.is_some_and(|status| status.connections + 1 == self.network.len()) {
                kill.peers_regained = Some(restarted.elapsed());
            }
        }
    }

    async fn heights(&self) -> Vec<Option<u64>> {
        let statuses = self.network.statuses().await;
        statuses
            .iter()
            .map(|status| status.as_ref().map(|one| one.height))
            .collect()
    }

    async fn report(&mut self) -> anyhow::Result<()> {
        self.network.check_running()?;
        let statuses = self.network.statuses().await;
        let column = |show: fn(&NodeStatus) -> String| {
            let shown = statuses.iter().map(|status| match status {
                Some(status) => show(status),
                None => "-".into(),
            });
            shown.collect::<Vec<_>>().join(" ")
        };
        output::line(output::shorten(
            &format!(
                "{:>5} s  heights {}  peers {}  transactions {} sent",
                self.started.elapsed().as_secs(),
                column(|status| status.height.to_string()),
                column(|status| status.connections.to_string()),
                self.traffic.sent.len(),
            ),
            100,
        ));
        Ok(())
    }

    /// Waits for equal tips, then looks at everything.
    async fn judge(&mut self) -> anyhow::Result<Outcome> {
        let end = Instant::now() + SETTLE_LIMIT;
        loop {
            self.look_at_restarted().await;
            let statuses = self.network.statuses().await;
            if outcome::tips_equal(&statuses) || Instant::now() > end {
                let (finals, evidence) = tokio::join!(
                    self.traffic.count_final(&self.network),
                    self.network.evidence(),
                );
                return Ok(Outcome::judge(
                    &self.network,
                    &statuses,
                    &evidence,
                    (self.traffic.sent.len(), finals),
                    self.kill.as_ref(),
                    self.started.elapsed(),
                ));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Waits until a time; for ever without one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
