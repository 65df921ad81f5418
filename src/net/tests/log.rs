//! What strangers can have written into the log.

use std::fmt::Write;
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::raw::{Raw, open};
use super::*;
use crate::types::{Ban, BannedBy};
use crate::wire::{CloseCode, StreamKind};

/// The lines of this thread at `info` and above, while the guard lives.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn start() -> (Self, DefaultGuard) {
        let lines = Self::default();
        let registry = tracing_subscriber::registry().with(lines.clone());
        (lines, tracing::subscriber::set_default(registry))
    }

    /// How many lines have all these parts.
    fn with(&self, parts: &[&str]) -> usize {
        let lines = self.0.lock().unwrap();
        let found = lines
            .iter()
            .filter(|line| parts.iter().all(|part| line.contains(part)));
        found.count()
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= Level::INFO {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?};", field.name()).unwrap();
    }
}

#[tokio::test]
async fn a_stranger_that_calls_itself_a_masternode_writes_one_warning_a_connection() {
    let plan = Plan::new(2, 0);
    let alone = MasternodeDirectory::new(&plan.genesis, plan.records[..1].to_vec()).unwrap();
    let (lines, _guard) = Lines::start();
    let node = plan.start_as(1, plan.config(1), identity(1, plan.ip(1)), alone);
    let raw = Raw::dial(&plan, 2, 1).await;
    for kind in [StreamKind::Consensus, StreamKind::Proposal].repeat(10) {
        let stream = open(&raw.quic, kind).await;
        let code = stream.stopped().await.unwrap();
        assert_eq!(code, Some(crate::net::frames::NOT_ALLOWED));
    }
    node.connected_to(&[plan.ip(2)]).await;
    assert_eq!(lines.with(&["WARN", "consensus stream refused"]), 1);
}

#[tokio::test(start_paused = true)]
async fn strangers_that_come_again_and_again_write_so_many_lines_a_minute_and_masternodes_all() {
    const ROUNDS: usize = 200;
    let mut plan = Plan::new(2, 1);
    plan.timing.backoff_limit = Duration::from_millis(50);
    let (lines, _guard) = Lines::start();
    let wire = sim::clean_wire();
    let node = sim::start(&plan, 1, &wire);
    let (masternode, stranger) = (sim::start(&plan, 2, &wire), sim::start(&plan, 3, &wire));
    let both = [masternode.ip, stranger.ip];
    let started = tokio::time::Instant::now();
    for _ in 0..ROUNDS {
        for peer in node.connected_to(&both).await {
            let again = CloseReason::new(CloseCode::Operator, "once more");
            node.net.disconnect(peer.ip, again).unwrap();
        }
        node.connected_to(&[]).await;
    }
    // As many minutes of the clock as the rounds can have touched.
    let minutes = started.elapsed().as_secs() as usize / 60 + 2;
    for event in [" message=connected", " message=disconnected"] {
        let of = |peer: &Node| {
            let ip = format!(" peer.ip={};", peer.ip);
            lines.with(&[event, &ip, " direction=Inbound"])
        };
        assert_eq!(of(&masternode), ROUNDS, "{event}");
        assert!(of(&stranger) <= 60 * minutes, "{event}: {}", of(&stranger));
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_that_earn_bans_write_so_many_lines_a_minute_and_an_operator_all() {
    const ADDRESSES: u8 = 200;
    let plan = Plan::new(1, 0);
    let (lines, _guard) = Lines::start();
    let node = sim::start(&plan, 1, &sim::clean_wire());
    let mut written = Vec::new();
    for by in [BannedBy::Fault, BannedBy::Operator] {
        let before = lines.with(&["WARN", "banned;"]);
        for last in 0..ADDRESSES {
            let ip = std::net::IpAddr::from([10, 0, 0, last]).into();
            let ban = Ban::new(ip, (0, u64::MAX), by, "a test");
            node.net.ban(ban).await.unwrap();
        }
        assert_eq!(node.net.bans().len(), usize::from(ADDRESSES));
        written.push(lines.with(&["WARN", "banned;"]) - before);
    }
    // The 200 of one look may touch two minutes of the clock.
    assert!((60..=120).contains(&written[0]), "{written:?}");
    assert_eq!(written[1], usize::from(ADDRESSES));
}
