//! A sync in a process of its own: killed in the middle, or watched for the memory that it takes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use timed::net::NetTiming;
use timed::types::Height;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::machine::{Stored, memory_mb, next_address};
use crate::node::{self, Place};
use crate::peers::{Conduct, Peer};
use crate::shared::{Generator, Shape};

/// What makes this program such a process.
pub const FLAG: &str = "--child";

/// How many lines of progress a child prints at most.
const LINES: u64 = 200;

/// The child's part: `--child FOLDER OWN PEER VALIDATORS TRANSACTIONS HEIGHT`.
pub async fn run(arguments: &[String]) -> Result<()> {
    let [folder, own, peer, validators, transactions, height] = arguments else {
        bail!("{FLAG} takes six values");
    };
    let shape = Shape {
        validators: validators.parse()?,
        transactions: transactions.parse()?,
    };
    let goal = Height(height.parse()?);
    let place = Place {
        folder: Path::new(folder),
        address: own.parse()?,
        peers: vec![peer.parse()?],
        timing: NetTiming::RECOMMENDED,
    };
    let genesis = Generator::new(shape).genesis().clone();
    let node = node::start(&genesis, &place).await?;
    let mut tip = node.chain().watch_tip();
    let mut next = 0;
    loop {
        let now = *tip.borrow_and_update();
        if now.height.0 >= next || now.height >= goal {
            let resident = memory_mb("VmRSS")?;
            let line = json!({ "height": now.height, "state": now.state, "rss_mb": resident });
            println!("{line}");
            next = now.height.0 + goal.0.div_ceil(LINES);
        }
        if now.height >= goal {
            break;
        }
        tip.changed().await?;
    }
    println!("{}", json!({ "peak_rss_mb": memory_mb("VmHWM")? }));
    node.stop().await?;
    Ok(())
}

struct Syncing {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Syncing {
    fn start(
        folder: &Path,
        own: SocketAddr,
        peer: SocketAddr,
        shape: Shape,
        goal: Height,
    ) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .arg(folder)
            .args([own.to_string(), peer.to_string()])
            .args([shape.validators, shape.transactions].map(|one| one.to_string()))
            .arg(goal.0.to_string())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = child.stdout.take().context("its output is a pipe")?;
        let lines = BufReader::new(lines).lines();
        Ok(Self { child, lines })
    }

    /// The next line; `None` at the end.
    async fn next(&mut self) -> Result<Option<Value>> {
        let line = self.lines.next_line().await?;
        Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
    }
}

/// Memory during one sync: the samples' middle and end, and the peak.
pub async fn memory(source: &Stored, folder: &Path, shape: Shape) -> Result<Value> {
    let peer = serve(source)?;
    let (own, address) = (folder.join("child"), next_address());
    let goal = source.chain.tip().height;
    let mut syncing = Syncing::start(&own, address, peer.address, shape, goal)?;
    let (mut samples, mut peak) = (Vec::new(), Value::Null);
    while let Some(line) = syncing.next().await? {
        samples.extend(line["rss_mb"].as_f64());
        if !line["peak_rss_mb"].is_null() {
            peak = line["peak_rss_mb"].clone();
        }
    }
    ensure!(syncing.child.wait().await?.success(), "the child failed");
    peer.stop().await;
    std::fs::remove_dir_all(&own)?;
    let middle = samples.get(samples.len() / 2);
    Ok(json!({
        "blocks": goal, "peak_mb": peak, "middle_mb": middle, "end_mb": samples.last(),
    }))
}

/// Kills a syncing process so many times, each time a part further, and lets the last one finish.
pub async fn kills(source: &Stored, folder: &Path, shape: Shape, kills: u64) -> Result<Value> {
    let peer = serve(source)?;
    let (own, address) = (folder.join("killed"), next_address());
    let tip = source.chain.tip();
    let mut killed = 0;
    for count in 1..=kills {
        let at = tip.height.0 * count / (kills + 1);
        let mut syncing = Syncing::start(&own, address, peer.address, shape, tip.height)?;
        loop {
            let line = syncing.next().await?.context("the child ended early")?;
            let height = line["height"].as_u64().context("a line names a height")?;
            if height >= at {
                killed += u64::from(height < tip.height.0);
                break;
            }
        }
        syncing.child.kill().await?;
    }
    let mut syncing = Syncing::start(&own, address, peer.address, shape, tip.height)?;
    let mut state = Value::Null;
    while let Some(line) = syncing.next().await? {
        if !line["state"].is_null() {
            state = line["state"].clone();
        }
    }
    ensure!(syncing.child.wait().await?.success(), "the child failed");
    ensure!(state == json!(tip.state), "the state differs");
    peer.stop().await;
    std::fs::remove_dir_all(&own)?;
    Ok(
        json!({ "blocks": tip.height, "kills": kills, "before_the_end": killed, "same_state": true }),
    )
}

fn serve(source: &Stored) -> Result<Peer> {
    Peer::start(
        &source.chain,
        next_address(),
        Conduct::Honest,
        NetTiming::RECOMMENDED,
        &[],
    )
}
