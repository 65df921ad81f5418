//! How fast a node catches up, where its time goes, and what it holds on to meanwhile.
//!
//! `cargo bench --bench sync` prints a line for each part; `-- --quick` is short; `-- --json` ends
//! with one JSON object; `-- --only a,b` runs some parts; `-- --blocks N` makes them shorter or longer;
//! `-- --prepare` only makes their chains, which are kept below `target/tmp`. `docs/sync.md` explains
//! the parts.

mod child;
mod machine;
mod network;
mod node;
mod peers;
mod shared;
mod stages;
mod whole;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use machine::Stored;
use peers::Conduct;
use shared::Shape;

/// As the node has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EMPTY: Shape = Shape {
    validators: 4,
    transactions: 0,
};

const FULL: Shape = Shape {
    validators: 4,
    transactions: 1_000,
};

/// Beside peers of no use: small bodies, so that both headers and bodies are asked of all.
const SMALL: Shape = Shape {
    validators: 4,
    transactions: 20,
};

/// Large blocks: the first requests take them for small ones.
const LARGE: Shape = Shape {
    validators: 4,
    transactions: 10_000,
};

/// The parts, with their chains: how many blocks with `--quick`, and without.
const PARTS: [(&str, Shape, u64, u64); 7] = [
    ("a", EMPTY, 10_000, 100_000),
    ("b", FULL, 30, 500),
    ("c", SMALL, 2_000, 20_000),
    ("d", EMPTY, 10_000, 100_000),
    ("e", EMPTY, 10_000, 1_000_000),
    ("f", SMALL, 2_000, 20_000),
    ("g", LARGE, 4, 150),
];

struct Bench {
    quick: bool,
    /// Only makes the chains.
    prepare: bool,
    only: Option<String>,
    /// Instead of the lengths of the parts.
    blocks: Option<u64>,
    results: Map<String, Value>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|one| one == name);
    let value = |name: &str| {
        let at = arguments.iter().position(|one| one == name)?;
        arguments.get(at + 1).cloned()
    };
    let runtime = tokio::runtime::Runtime::new()?;
    if arguments.first().is_some_and(|first| first == child::FLAG) {
        return runtime.block_on(child::run(&arguments[1..]));
    }
    let mut bench = Bench {
        quick: has("--quick"),
        prepare: has("--prepare"),
        only: value("--only"),
        blocks: value("--blocks").map(|blocks| blocks.parse()).transpose()?,
        results: Map::new(),
    };
    runtime.block_on(bench.run())?;
    if has("--json") {
        println!("{}", Value::Object(bench.results));
    }
    Ok(())
}

impl Bench {
    async fn run(&mut self) -> Result<()> {
        // Chains take longer to make than to sync, so they are kept.
        let chains = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sync-chains");
        std::fs::create_dir_all(&chains)?;
        for (part, shape, quick, full) in PARTS {
            if !self.wants(part) {
                continue;
            }
            let length = if self.quick { quick } else { full };
            let blocks = self.blocks.unwrap_or(length);
            let source = Stored::generated(&chains, shape, blocks).await?;
            if !self.prepare {
                let folder = tempfile::tempdir_in(&chains).context("a folder for the nodes")?;
                let result = self.part(part, shape, &source, folder.path()).await?;
                println!("{part}: {result}");
                self.results.insert(part.into(), result);
            }
            source.close().await;
        }
        Ok(())
    }

    fn wants(&self, part: &str) -> bool {
        let only = self.only.as_deref();
        only.is_none_or(|only| only.split(',').any(|one| one == part))
    }

    async fn part(
        &self,
        part: &str,
        shape: Shape,
        source: &Stored,
        folder: &Path,
    ) -> Result<Value> {
        match part {
            "a" | "b" => one_peer(source, folder).await,
            "c" => beside_bad_peers(source, folder).await,
            "d" => delays(source, folder).await,
            "e" | "g" => child::memory(source, folder, shape).await,
            "f" => {
                let kills = if self.quick { 5 } else { 50 };
                child::kills(source, folder, shape, kills).await
            }
            _ => unreachable!("no other parts"),
        }
    }
}

async fn one_peer(source: &Stored, folder: &Path) -> Result<Value> {
    let blocks = source.chain.tip().height.0;
    let stages = stages::measure(source, folder, blocks).await?;
    let rate = whole::rate(source, folder, &[Conduct::Honest]).await?;
    let (slowest, alone) = stages.slowest();
    let cores = std::thread::available_parallelism()?.get();
    let bound = stages.bound_of(cores);
    Ok(json!({
        "blocks": blocks, "blocks_per_s": rate.round(), "slowest_stage": slowest,
        "of_slowest": ratio(rate, alone), "cores": cores, "of_all_on_these_cores": ratio(rate, bound),
        "stages_blocks_per_s": stages.json(),
    }))
}

async fn beside_bad_peers(source: &Stored, folder: &Path) -> Result<Value> {
    let alone = whole::rate(source, folder, &[Conduct::Honest]).await?;
    let slow = Conduct::Slow(Duration::from_millis(100));
    // The lowest address is asked first.
    let all = [Conduct::Stalls, slow, Conduct::Lies, Conduct::Honest];
    let beside = whole::rate(source, folder, &all).await?;
    Ok(json!({
        "blocks": source.chain.tip().height, "honest_alone_blocks_per_s": alone.round(),
        "beside_three_bad_blocks_per_s": beside.round(), "ratio": ratio(beside, alone),
    }))
}

async fn delays(source: &Stored, folder: &Path) -> Result<Value> {
    let empty = whole::empty(folder, source).await?;
    let idle = whole::delays(&empty, None, folder).await?;
    let busy = whole::delays(&empty, Some(source), folder).await?;
    empty.close().await;
    let ms = |one: Duration| (one.as_secs_f64() * 1e5).round() / 100.0;
    Ok(json!({
        "blocks": source.chain.tip().height, "blocks_per_s": busy.blocks_per_s.round(),
        "ping_p99_idle_ms": ms(idle.ping), "ping_p99_ms": ms(busy.ping),
        "rpc_p99_idle_ms": ms(idle.rpc), "rpc_p99_ms": ms(busy.rpc),
    }))
}

fn ratio(one: f64, other: f64) -> f64 {
    (one / other * 100.0).round() / 100.0
}
