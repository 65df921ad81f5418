//! Handshakes at a rate, each from another address with a key that nobody has seen: as far as the
//! Welcome or the refusal, and away.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::stranger::Target;

/// Handshakes under way at a time; beyond, those that are due are not begun, and counted.
const UNDER_WAY: usize = 512;

/// What became of them.
#[derive(Default)]
pub struct Tally {
    begun: AtomicU64,
    not_begun: AtomicU64,
    /// TLS was completed.
    completed: AtomicU64,
}

impl Tally {
    pub fn shown(&self, seconds: f64) -> Value {
        let rate = |count: &AtomicU64| (count.load(Ordering::Relaxed) as f64 / seconds).round();
        json!({
            "begun_per_s": rate(&self.begun),
            "not_begun_per_s": rate(&self.not_begun),
            "tls_completed_per_s": rate(&self.completed),
        })
    }
}

/// Begins so many a second until it is told to stop.
pub async fn run(target: Target, per_second: u64, tally: Arc<Tally>, stop: CancellationToken) {
    let mut due = interval(Duration::from_micros(1_000_000 / per_second.max(1)));
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let tasks = TaskTracker::new();
    while stop.run_until_cancelled(due.tick()).await.is_some() {
        let Ok(place) = room.clone().try_acquire_owned() else {
            tally.not_begun.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        tally.begun.fetch_add(1, Ordering::Relaxed);
        let (tally, stop) = (tally.clone(), stop.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(one(target, &tally)).await;
            drop(place);
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn one(target: Target, tally: &Tally) {
    // Refusals are what the node is there for; it counts them itself.
    if let Ok((_endpoint, quic)) = target.handshake(address()).await {
        tally.completed.fetch_add(1, Ordering::Relaxed);
        let _refused = target.greet(quic).await;
    }
}

fn address() -> Ipv4Addr {
    let mut random = rand::rng();
    let (network, host) = (random.random_range(1..=90), random.random_range(1..255));
    Ipv4Addr::new(127, network, random.random(), host)
}
