//! How fast a node catches up, where its time goes, and what it holds on to meanwhile.
//!
//! `cargo bench --bench sync` prints a line for each part; `-- --quick` is short; `-- --json` ends
//! with one JSON object; `-- --only a,b` runs some parts. `docs/sync.md` explains the parts.

mod child;
mod machine;
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

struct Bench {
    quick: bool,
    only: Option<String>,
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
        only: value("--only"),
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
        let folder = tempfile::tempdir().context("a folder for the chains")?;
        let folder = folder.path();
        if self.wants("a") {
            let blocks = self.length(10_000, 100_000);
            self.one_peer("a", folder, EMPTY, blocks).await?;
        }
        if self.wants("b") {
            let blocks = self.length(30, 500);
            self.one_peer("b", folder, FULL, blocks).await?;
        }
        if self.wants("c") {
            self.beside_bad_peers(folder).await?;
        }
        if self.wants("d") {
            self.delays(folder).await?;
        }
        if self.wants("e") {
            let blocks = self.length(10_000, 1_000_000);
            let source = self.source("e", folder, EMPTY, blocks).await?;
            let memory = child::memory(&source, folder, EMPTY).await?;
            self.say("e", memory);
            source.close().await;
        }
        if self.wants("f") {
            let blocks = self.length(2_000, 20_000);
            let kills = self.length(10, 50);
            let source = self.source("f", folder, SMALL, blocks).await?;
            let killed = child::kills(&source, folder, SMALL, kills).await?;
            self.say("f", killed);
            source.close().await;
        }
        Ok(())
    }

    fn wants(&self, part: &str) -> bool {
        let only = self.only.as_deref();
        only.is_none_or(|only| only.split(',').any(|one| one == part))
    }

    fn length(&self, quick: u64, full: u64) -> u64 {
        if self.quick { quick } else { full }
    }

    async fn source(&self, part: &str, folder: &Path, shape: Shape, blocks: u64) -> Result<Stored> {
        Stored::generated(&folder.join(format!("{part}.redb")), shape, blocks).await
    }

    async fn one_peer(
        &mut self,
        part: &str,
        folder: &Path,
        shape: Shape,
        blocks: u64,
    ) -> Result<()> {
        let source = self.source(part, folder, shape, blocks).await?;
        let stages = stages::measure(&source, folder, blocks).await?;
        let rate = whole::rate(&source, folder, &[Conduct::Honest]).await?;
        let (slowest, alone) = stages.slowest();
        let result = json!({
            "blocks": blocks, "blocks_per_s": rate.round(), "slowest_stage": slowest,
            "of_slowest": ratio(rate, alone), "stages_blocks_per_s": stages.json(),
        });
        self.say(part, result);
        source.close().await;
        Ok(())
    }

    async fn beside_bad_peers(&mut self, folder: &Path) -> Result<()> {
        let blocks = self.length(2_000, 20_000);
        let source = self.source("c", folder, SMALL, blocks).await?;
        let alone = whole::rate(&source, folder, &[Conduct::Honest]).await?;
        let slow = Conduct::Slow(Duration::from_millis(100));
        // The lowest address is asked first.
        let all = [Conduct::Stalls, slow, Conduct::Lies, Conduct::Honest];
        let beside = whole::rate(&source, folder, &all).await?;
        let result = json!({
            "blocks": blocks, "honest_alone_blocks_per_s": alone.round(),
            "beside_three_bad_blocks_per_s": beside.round(), "ratio": ratio(beside, alone),
        });
        self.say("c", result);
        source.close().await;
        Ok(())
    }

    async fn delays(&mut self, folder: &Path) -> Result<()> {
        let blocks = self.length(10_000, 100_000);
        let source = self.source("d", folder, EMPTY, blocks).await?;
        let empty = whole::empty(folder, &source).await?;
        let idle = whole::delays(&empty, None, folder).await?;
        let busy = whole::delays(&empty, Some(&source), folder).await?;
        let ms = |one: Duration| (one.as_secs_f64() * 1e5).round() / 100.0;
        let result = json!({
            "blocks": blocks, "ping_p99_idle_ms": ms(idle.ping), "ping_p99_ms": ms(busy.ping),
            "rpc_p99_idle_ms": ms(idle.rpc), "rpc_p99_ms": ms(busy.rpc),
        });
        self.say("d", result);
        empty.close().await;
        source.close().await;
        Ok(())
    }

    fn say(&mut self, part: &str, result: Value) {
        println!("{part}: {result}");
        self.results.insert(part.into(), result);
    }
}

fn ratio(one: f64, other: f64) -> f64 {
    (one / other * 100.0).round() / 100.0
}
