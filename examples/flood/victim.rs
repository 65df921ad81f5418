//! A masternode in a process of its own, so that its memory is its alone, and what it tells.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use timed::net::{NetHandle, NetTiming};
use timed::node::{Node, NodeEnvironment, NodeFiles};
use timed::types::Height;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

/// What makes this program such a process; the data directory follows.
pub const FLAG: &str = "--masternode";

/// Between two pings of a pair: often, so that a few seconds give hundreds of round trips.
const PING_INTERVAL: Duration = Duration::from_millis(100);

/// Between two looks at the peers: twice as often, so that no round trip is missed.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// What a masternode tells of itself.
#[derive(Default, Serialize, Deserialize)]
pub struct Report {
    /// Of each connected masternode.
    pub masternodes: BTreeMap<String, Pair>,
    /// Peers without a record that are connected.
    pub strangers: usize,
    /// Round trips since the last report, in microseconds.
    pub rtts_us: Vec<u64>,
    /// The slots that have a block.
    pub slots: Vec<u64>,
    /// The slot of this moment.
    pub slot_now: u64,
    /// The highest round of any height so far.
    pub highest_round: u32,
    /// Half-open handshakes: now, and the most at a time.
    pub half_open: (usize, usize),
    /// First packets answered with Retry, and those turned away.
    pub retried: u64,
    pub turned_away: u64,
    /// Arrivals that became connections, and handshakes that were refused.
    pub established: u64,
    pub refused: u64,
    /// What strangers that are connected asked for beyond their budgets.
    pub over_budget: u64,
    pub bans: usize,
}

/// A connection to another masternode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub connection: u64,
    pub reconnects: u64,
    pub pings_sent: u64,
    pub pongs_received: u64,
}

/// The process's part: runs the node and answers each line of its input with a report.
pub async fn run(folder: &Path) -> Result<()> {
    let files = NodeFiles::load(folder)?;
    let mut environment = NodeEnvironment::real(&files)?;
    environment.timing = NetTiming {
        ping_interval: PING_INTERVAL,
        ..NetTiming::RECOMMENDED
    };
    let node = Node::start(files, environment).await?;
    let rtts = Arc::new(Mutex::new(Vec::new()));
    let looking = tokio::spawn(look(node.net().clone(), rtts.clone()));
    let (asked, mut asks) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if line.is_err() || asked.blocking_send(()).is_err() {
                return;
            }
        }
    });
    let mut slots = Slots::default();
    while asks.recv().await.is_some() {
        slots.follow(&node).await?;
        let taken = std::mem::take(&mut *rtts.lock().expect("no holder panics"));
        let report = report(&node, taken, slots.seen.clone());
        println!("{}", serde_json::to_string(&report)?);
    }
    looking.abort();
    node.stop().await?;
    Ok(())
}

/// Notes every round trip to a masternode.
async fn look(net: NetHandle, rtts: Arc<Mutex<Vec<u64>>>) {
    let mut every = tokio::time::interval(LOOK_INTERVAL);
    let mut noted = BTreeMap::new();
    loop {
        every.tick().await;
        for peer in net.peers().iter().filter(|peer| peer.masternode.is_some()) {
            let newest = (peer.connection, peer.pongs_received);
            if let Some(rtt) = peer.rtt
                && noted.insert(peer.ip, newest) != Some(newest)
            {
                let mut rtts = rtts.lock().expect("no holder panics");
                rtts.push(rtt.last_us);
            }
        }
    }
}

/// The slots that have a block.
#[derive(Default)]
struct Slots {
    seen: Vec<u64>,
    up_to: Height,
}

impl Slots {
    async fn follow(&mut self, node: &Node) -> Result<()> {
        while self.up_to < node.chain().tip().height {
            let height = self.up_to.next();
            let header = node.chain().header(height).await?;
            let header = header.with_context(|| format!("block {height} is missing"))?;
            self.seen
                .push(node.chain().genesis().slot_at(header.time_ms));
            self.up_to = height;
        }
        Ok(())
    }
}

fn report(node: &Node, rtts_us: Vec<u64>, slots: Vec<u64>) -> Report {
    let (net, counts) = (node.net(), node.net().counts());
    let (mut strangers, mut over_budget) = (0, 0);
    let mut masternodes = BTreeMap::new();
    for peer in net.peers() {
        if peer.masternode.is_none() {
            strangers += 1;
            over_budget += peer.over_budget;
            continue;
        }
        let pair = Pair {
            connection: peer.connection,
            reconnects: peer.reconnects,
            pings_sent: peer.pings_sent,
            pongs_received: peer.pongs_received,
        };
        masternodes.insert(peer.ip.to_string(), pair);
    }
    let consensus = node.consensus().map(|one| one.watch_status());
    let half_open = net.half_open();
    Report {
        masternodes,
        strangers,
        rtts_us,
        slots,
        slot_now: node.chain().genesis().slot_at(now_ms()),
        highest_round: consensus.map_or(0, |status| status.borrow().highest_round.0),
        half_open: (half_open.now, half_open.most),
        retried: counts.retried,
        turned_away: counts.turned_away,
        established: counts.established.values().sum(),
        refused: counts.refused.values().sum(),
        over_budget,
        bans: net.bans().len(),
    }
}

pub fn now_ms() -> u64 {
    timed::env::WallClock::now_ms(&timed::env::SystemClock)
}

/// A masternode's process, from outside.
pub struct Victim {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Victim {
    /// Starts the node of a data directory; it ends with this value, or with this process.
    pub fn start(folder: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("its input is a pipe")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output).lines(),
        })
    }

    /// What it tells of itself now.
    pub async fn report(&mut self) -> Result<Report> {
        self.input.write_all(b"report\n").await?;
        let line = self.output.next_line().await?;
        let line = line.context("a masternode has ended; its log says why")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("a masternode has ended")
    }

    /// Ends it cleanly.
    pub async fn stop(self) -> Result<()> {
        let Self {
            mut child, input, ..
        } = self;
        drop(input);
        let status = child.wait().await?;
        anyhow::ensure!(status.success(), "a masternode ended with {status}");
        Ok(())
    }
}

/// A process's resident memory, in KiB.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let value = found.and_then(|rest| rest.split_whitespace().next());
    Ok(value.context("the process has no VmRSS")?.parse()?)
}
