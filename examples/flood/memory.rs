//! What one connection takes of a node's memory, before and after it is authenticated.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::prepare;
use crate::stranger::Target;
use crate::victim::{Report, Victim, resident_kib};

/// Half-open handshakes: TLS is completed and no Hello said. The node takes 256.
const HALF_OPEN: usize = 250;
/// Established connections that do nothing but answer QUIC.
const ESTABLISHED: usize = 500;
/// How many handshakes are under way at a time.
const AT_ONCE: usize = 16;

/// Measures both against a masternode of its own.
pub async fn measure(root: &Path) -> Result<Value> {
    let (folders, target) = prepare(root, 1)?;
    let config = folders[0].join("timed.toml");
    let text = std::fs::read_to_string(&config)?;
    let room = text.replace("max_unpinned = 64", "max_unpinned = 1200");
    ensure!(room != text, "timed.toml has no max_unpinned of 64");
    std::fs::write(&config, room)?;
    let mut victim = Victim::start(&folders[0])?;
    victim.report().await?;

    let before = resident_kib(victim.pid()?)?;
    let held = establish(target, ESTABLISHED).await?;
    until(&mut victim, "all are established", |report| {
        report.strangers == ESTABLISHED
    })
    .await?;
    let established = resident_kib(victim.pid()?)?.saturating_sub(before);
    drop(held);
    victim.stop().await?;

    // Another process: what an allocator has once taken it uses again.
    let mut victim = Victim::start(&folders[0])?;
    victim.report().await?;
    let before = resident_kib(victim.pid()?)?;
    let mut held = Vec::new();
    for number in 0..HALF_OPEN {
        held.push(target.handshake(address(80, number)).await?);
    }
    until(&mut victim, "all are half-open", |report| {
        report.half_open.0 == HALF_OPEN
    })
    .await?;
    let half_open = resident_kib(victim.pid()?)?.saturating_sub(before);
    drop(held);
    victim.stop().await?;
    let each = |kib: u64, count: usize| (kib as f64 / count as f64 * 10.0).round() / 10.0;
    let outcome = json!({
        "half_open": { "count": HALF_OPEN, "kib_each": each(half_open, HALF_OPEN) },
        "established": { "count": ESTABLISHED, "kib_each": each(established, ESTABLISHED) },
    });
    println!("{outcome:#}");
    Ok(outcome)
}

async fn establish(target: Target, count: usize) -> Result<Vec<crate::stranger::Stranger>> {
    let mut held = Vec::new();
    for first in (0..count).step_by(AT_ONCE) {
        let tasks: Vec<_> = (first..count.min(first + AT_ONCE))
            .map(|number| tokio::spawn(async move { target.connect(address(10, number)).await }))
            .collect();
        for task in tasks {
            held.push(task.await?.context("a peer is not welcome")?);
        }
    }
    Ok(held)
}

/// One of each network.
fn address(from: u8, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, from, number as u8, 1 + (number >> 8) as u8)
}

async fn until(victim: &mut Victim, what: &str, met: impl Fn(&Report) -> bool) -> Result<()> {
    let start = Instant::now();
    loop {
        let report = victim.report().await?;
        if met(&report) {
            return Ok(());
        }
        ensure!(
            start.elapsed() < Duration::from_secs(30),
            "not within 30 s: {what}; {} strangers, {:?} half-open",
            report.strangers,
            report.half_open
        );
        sleep(Duration::from_millis(20)).await;
    }
}
