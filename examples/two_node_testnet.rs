//! Two masternodes that stay connected and agree, and a full node that catches up with them.
//!
//! `cargo run --release --example two_node_testnet [-- --seconds 30 --json]`
//!
//! 127.0.0.1 and 127.0.0.2 make their keys and certificates in a temporary folder, pin each other,
//! connect once (127.0.0.2, the higher address, dials) and produce blocks from signed transfers that
//! are submitted to them in turn. At height 20 an unpinned full node on 127.0.0.3 starts from an
//! empty folder, catches up and follows. Exits with 1 when anything is not as it must be.

#[path = "support/purse.rs"]
mod purse;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ed25519_dalek::SigningKey;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use purse::Purse;
use timed::net::Direction;
use timed::node::Node;
use timed::types::{Address, Amount, Height, PublicKey, TxId};

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
const IPS: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
const THIRD_STARTS_AT: Height = Height(20);
const TRANSACTIONS_AT_LEAST: usize = 200;
const BLOCKS_WITH_TRANSACTIONS_AT_LEAST: usize = 10;
const SETTLE: Duration = Duration::from_secs(10);
/// Transfers a second; 200 take 20 of the 30 seconds that a run lasts by default.
const TRANSFERS_PER_SECOND: u64 = 12;

#[derive(Parser)]
#[command(about = "Two masternodes and a full node on loopback addresses")]
struct Options {
    /// How long transactions are submitted and blocks produced.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(25..))]
    seconds: u64,
    /// Print the result as one JSON object in the last line.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
}

#[derive(Serialize)]
struct Outcome {
    connections_per_pair: BTreeMap<String, usize>,
    dialer_per_pair: BTreeMap<String, String>,
    reconnects: u64,
    height: BTreeMap<&'static str, u64>,
    tips_equal: bool,
    transactions_submitted: usize,
    transactions_final: usize,
    blocks_with_transactions: usize,
    first_transaction_final_ms: Option<f64>,
    finality_ms: Option<Percentiles>,
    ping_ms: BTreeMap<String, Percentiles>,
    peer_counts_true: bool,
    third_node_synced_blocks: u64,
    failures: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let outcome = match run_in_temporary_folder(&options).await {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("two_node_testnet: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    for failure in &outcome.failures {
        println!("FAILED: {failure}");
    }
    if outcome.failures.is_empty() {
        println!("all as it must be");
    }
    if options.json {
        let json = serde_json::to_string(&outcome).expect("the outcome is plain values and maps");
        println!("{json}");
    }
    if outcome.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn run_in_temporary_folder(options: &Options) -> anyhow::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    run(folder.path(), options).await
}

async fn run(root: &Path, options: &Options) -> anyhow::Result<Outcome> {
    let key = SigningKey::from_bytes(&[42; 32]);
    let alpha = support::init(root, NAMES[0], IPS[0], true)?;
    let beta = support::init(root, NAMES[1], IPS[1], true)?;
    let gamma = support::init(root, NAMES[2], IPS[2], false)?;
    let purse_address = Address::of(&PublicKey::from(&key));
    let ten = Amount::from_time(10).expect("ten is small");
    let genesis = support::build_genesis(
        root,
        &[&alpha, &beta],
        &[&alpha, &beta, &gamma],
        vec![(purse_address, ten); 400],
    )?;
    println!("genesis {}", genesis.hash());
    let nodes = vec![support::start(&alpha).await?, support::start(&beta).await?];
    let mut testnet = Testnet {
        nodes,
        seen: [Height::GENESIS; 2],
        purse: Purse::new(key, &genesis),
        transfers: BTreeMap::new(),
        blocks_with_transactions: BTreeSet::new(),
    };
    let synced_from = testnet.produce(options, &gamma).await?;
    let tips_equal = testnet.settle().await?;
    let outcome = testnet.judge(synced_from, tips_equal);
    for node in testnet.nodes {
        node.stop().await?;
    }
    Ok(outcome)
}

/// One submitted transfer.
struct Transfer {
    submitted: Instant,
    /// When each masternode had it in a final block.
    final_at: [Option<Instant>; 2],
}

struct Testnet {
    nodes: Vec<Node>,
    /// The height up to which each masternode's blocks were looked at.
    seen: [Height; 2],
    purse: Purse,
    transfers: BTreeMap<TxId, Transfer>,
    blocks_with_transactions: BTreeSet<Height>,
}

impl Testnet {
    /// Submits transfers and starts the third node; returns the height at which it started.
    async fn produce(&mut self, options: &Options, third: &Path) -> anyhow::Result<Height> {
        let start = Instant::now();
        let end = start + Duration::from_secs(options.seconds);
        let mut submit = interval(Duration::from_millis(1_000 / TRANSFERS_PER_SECOND));
        submit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut report = interval(Duration::from_secs(if options.seconds > 120 {
            30
        } else {
            5
        }));
        let mut tips = [0, 1].map(|at: usize| self.nodes[at].chain().watch_tip());
        let mut synced_from = None;
        let mut turn = 0;
        loop {
            let [first_tip, second_tip] = &mut tips;
            tokio::select! {
                biased;
                _ = tokio::time::sleep_until(end) => break,
                changed = first_tip.changed() => { changed?; self.look_at(0).await?; }
                changed = second_tip.changed() => { changed?; self.look_at(1).await?; }
                _ = submit.tick() => {
                    self.submit(turn % 2).await?;
                    turn += 1;
                }
                _ = report.tick() => self.report(start.elapsed()),
            }
            let height = self.nodes[0].chain().tip().height;
            if synced_from.is_none() && height >= THIRD_STARTS_AT {
                println!("height {height}: starting {} on {}", NAMES[2], IPS[2]);
                self.nodes.push(support::start(third).await?);
                synced_from = Some(height);
            }
        }
        synced_from.ok_or_else(|| {
            anyhow::anyhow!(
                "the masternodes reached height {} only; {THIRD_STARTS_AT} was needed",
                self.nodes[0].chain().tip().height
            )
        })
    }

    async fn submit(&mut self, node: usize) -> anyhow::Result<()> {
        let Some(transaction) = self.purse.transfer() else {
            return Ok(());
        };
        let submitted = Instant::now();
        let txid = self.nodes[node].mempool().submit(transaction).await?;
        self.transfers.insert(
            txid,
            Transfer {
                submitted,
                final_at: [None; 2],
            },
        );
        Ok(())
    }

    /// Notes the transfers in a masternode's new blocks.
    async fn look_at(&mut self, node: usize) -> anyhow::Result<()> {
        let now = Instant::now();
        let chain = self.nodes[node].chain().clone();
        while self.seen[node] < chain.tip().height {
            let height = self.seen[node].next();
            let block = chain.block(height).await?;
            let block = block.ok_or_else(|| anyhow::anyhow!("block {height} is missing"))?;
            if !block.transactions.is_empty() {
                self.blocks_with_transactions.insert(height);
            }
            for transaction in &block.transactions {
                let Some(transfer) = self.transfers.get_mut(&transaction.id()) else {
                    continue;
                };
                transfer.final_at[node].get_or_insert(now);
                if transfer.final_at.iter().all(Option::is_some) {
                    self.purse.confirm(transaction);
                }
            }
            self.seen[node] = height;
        }
        Ok(())
    }

    /// Submissions have stopped: waits until everything is final and all tips are equal; says whether
    /// they have been.
    async fn settle(&mut self) -> anyhow::Result<bool> {
        println!("submissions stopped; waiting for equal tips");
        let mut tips: Vec<_> = self
            .nodes
            .iter()
            .map(|node| node.chain().watch_tip())
            .collect();
        let settled = async {
            loop {
                self.look_at(0).await?;
                self.look_at(1).await?;
                if self.final_transfers().count() == self.transfers.len() && self.tips_equal() {
                    return anyhow::Ok(true);
                }
                let changes = tips.iter_mut().map(|tip| Box::pin(tip.changed()));
                first_of(changes.collect()).await?;
            }
        };
        match timeout(SETTLE, settled).await {
            Ok(settled) => settled,
            // What is missing is said by the judgement.
            Err(_) => Ok(false),
        }
    }

    fn tips_equal(&self) -> bool {
        let mut tips = self.nodes.iter().map(|node| {
            let tip = node.chain().tip();
            (tip.height, tip.hash, tip.state)
        });
        let first = tips.next();
        tips.all(|tip| Some(tip) == first)
    }

    fn final_transfers(&self) -> impl Iterator<Item = Duration> + '_ {
        self.transfers.values().filter_map(|transfer| {
            let last = transfer.final_at[0]?.max(transfer.final_at[1]?);
            Some(last - transfer.submitted)
        })
    }

    fn report(&self, elapsed: Duration) {
        let heights: Vec<String> = self
            .nodes
            .iter()
            .zip(NAMES)
            .map(|(node, name)| {
                let peers = node.net().peers().len();
                format!("{name} {} ({peers} peers)", node.chain().tip().height)
            })
            .collect();
        println!(
            "{:>5.0} s  height: {}  transfers: {} submitted, {} final",
            elapsed.as_secs_f64(),
            heights.join(", "),
            self.transfers.len(),
            self.final_transfers().count()
        );
    }

    fn judge(&self, synced_from: Height, tips_equal: bool) -> Outcome {
        let (connections_per_pair, dialer_per_pair, agreed) = self.pairs();
        let peers: Vec<_> = self.nodes.iter().map(|node| node.net().peers()).collect();
        let peer_counts_true = self.nodes.len() == 3
            && peers.iter().zip(IPS).all(|(peers, own)| {
                let seen: Vec<String> = peers.iter().map(|peer| peer.ip.to_string()).collect();
                let expected: Vec<&str> = IPS.into_iter().filter(|ip| *ip != own).collect();
                seen == expected
            });
        let mut finality: Vec<f64> = self.final_transfers().map(milliseconds).collect();
        let first = self
            .transfers
            .values()
            .min_by_key(|transfer| transfer.submitted);
        let first = first.and_then(|transfer| {
            let last = transfer.final_at[0]?.max(transfer.final_at[1]?);
            Some(milliseconds(last - transfer.submitted))
        });
        let third = self
            .nodes
            .get(2)
            .map(|node| node.sync().watch_status().borrow().synced_blocks);
        let mut outcome = Outcome {
            connections_per_pair,
            dialer_per_pair,
            reconnects: peers.iter().flatten().map(|peer| peer.reconnects).sum(),
            height: NAMES
                .into_iter()
                .zip(self.nodes.iter().map(|node| node.chain().tip().height.0))
                .collect(),
            tips_equal,
            transactions_submitted: self.transfers.len(),
            transactions_final: finality.len(),
            blocks_with_transactions: self.blocks_with_transactions.len(),
            first_transaction_final_ms: first,
            finality_ms: percentiles(&mut finality),
            ping_ms: self.pings(),
            peer_counts_true,
            third_node_synced_blocks: third.unwrap_or(0),
            failures: Vec::new(),
        };
        outcome.failures = failures(&outcome, agreed, synced_from);
        outcome
    }

    /// Per pair: how many connections both ends hold together, who dialed, and whether the ends
    /// agree on that.
    fn pairs(&self) -> (BTreeMap<String, usize>, BTreeMap<String, String>, bool) {
        let mut ends: BTreeMap<(&str, String), Vec<(usize, Direction)>> = BTreeMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            for peer in node.net().peers() {
                let other = peer.ip.to_string();
                let key = if IPS[at] < other.as_str() {
                    (IPS[at], other)
                } else {
                    let other = IPS
                        .into_iter()
                        .find(|ip| **ip == other)
                        .unwrap_or("unknown");
                    (other, IPS[at].to_owned())
                };
                ends.entry(key).or_default().push((at, peer.direction));
            }
        }
        let (mut counts, mut dialers, mut agreed) = (BTreeMap::new(), BTreeMap::new(), true);
        for ((low, high), ends) in ends {
            let pair = format!("{low}-{high}");
            let outbound: Vec<usize> = ends
                .iter()
                .filter(|(_, direction)| *direction == Direction::Outbound)
                .map(|(at, _)| *at)
                .collect();
            agreed &= ends.len() == 2 && outbound.len() == 1;
            if let [dialer] = outbound[..] {
                dialers.insert(pair.clone(), IPS[dialer].to_owned());
            }
            counts.insert(pair, ends.len().div_ceil(2));
        }
        (counts, dialers, agreed)
    }

    fn pings(&self) -> BTreeMap<String, Percentiles> {
        let mut pings = BTreeMap::new();
        for (node, own) in self.nodes.iter().zip(IPS) {
            for peer in node.net().peers() {
                if let Some(rtt) = peer.rtt {
                    let percentiles = Percentiles {
                        p50: rtt.p50_us as f64 / 1_000.0,
                        p99: rtt.p99_us as f64 / 1_000.0,
                    };
                    pings.insert(format!("{own}->{}", peer.ip), percentiles);
                }
            }
        }
        pings
    }
}

fn failures(outcome: &Outcome, ends_agree: bool, synced_from: Height) -> Vec<String> {
    let pairs = outcome.connections_per_pair.len();
    let synced = outcome.third_node_synced_blocks;
    let checks = [
        (
            pairs == 3 && ends_agree && outcome.connections_per_pair.values().all(|one| *one == 1),
            format!(
                "one connection for each of 3 pairs: {:?}",
                outcome.connections_per_pair
            ),
        ),
        (
            outcome
                .dialer_per_pair
                .get("127.0.0.1-127.0.0.2")
                .map(String::as_str)
                == Some(IPS[1]),
            format!(
                "the higher of the masternodes dials: {:?}",
                outcome.dialer_per_pair
            ),
        ),
        (
            outcome.reconnects == 0,
            format!("no reconnect: {}", outcome.reconnects),
        ),
        (outcome.peer_counts_true, "peer counts are true".into()),
        (
            outcome.ping_ms.len() == 6,
            format!(
                "pongs in both directions of 3 pairs: {} of 6",
                outcome.ping_ms.len()
            ),
        ),
        (
            outcome.tips_equal,
            format!("all tips equal: heights {:?}", outcome.height),
        ),
        (
            outcome.transactions_final >= TRANSACTIONS_AT_LEAST
                && outcome.transactions_final == outcome.transactions_submitted,
            format!(
                "all transfers final, at least {TRANSACTIONS_AT_LEAST}: {} of {}",
                outcome.transactions_final, outcome.transactions_submitted
            ),
        ),
        (
            outcome.blocks_with_transactions >= BLOCKS_WITH_TRANSACTIONS_AT_LEAST,
            format!(
                "at least {BLOCKS_WITH_TRANSACTIONS_AT_LEAST} blocks with transfers: {}",
                outcome.blocks_with_transactions
            ),
        ),
        (
            outcome
                .first_transaction_final_ms
                .is_some_and(|ms| ms <= 2_000.0),
            format!(
                "the first transfer final within 2 s: {:?} ms",
                outcome.first_transaction_final_ms
            ),
        ),
        (
            synced >= 20.max(synced_from.0),
            format!("the third node synced the {synced_from} blocks before it: {synced}"),
        ),
    ];
    let failed = checks.into_iter().filter(|(good, _)| !good);
    failed.map(|(_, what)| what).collect()
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Nearest-rank percentiles; `None` of nothing.
fn percentiles(values: &mut [f64]) -> Option<Percentiles> {
    values.sort_by(f64::total_cmp);
    let rank = |share: f64| {
        let at = (values.len() as f64 * share).ceil() as usize;
        values.get(at.max(1) - 1).copied()
    };
    Some(Percentiles {
        p50: rank(0.5)?,
        p99: rank(0.99)?,
    })
}

/// The first future to finish.
async fn first_of<F: Future + Unpin>(mut futures: Vec<F>) -> F::Output {
    std::future::poll_fn(move |context| {
        for future in &mut futures {
            if let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready(output);
            }
        }
        std::task::Poll::Pending
    })
    .await
}
