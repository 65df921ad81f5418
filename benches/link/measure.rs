//! One design over one link: an idle time, bulk from then on, a time to settle, and the window that
//! counts.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::time::sleep;

use crate::emulator::{LinkReport, Shape};
use crate::place::{Joined, Link};
use crate::rival_quic::{self, Quic};
use crate::session::{BLOCK_BYTES, CHUNK_BYTES, Plan, Session, Shown};
use crate::stats::{Trips, now};
use crate::{ours, rival_tcp};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Design {
    /// This crate's connection.
    Timed,
    /// One TCP+TLS stream, bulk in frames of 64 KiB.
    TcpFrames64Kib,
    /// The same, a block of 946 kB a frame.
    TcpFrames946Kb,
    /// TCP+TLS+yamux.
    Yamux,
    /// QUIC with separate streams and priority.
    QuicPriority,
    /// QUIC with all defaults.
    QuicDefaults,
}

impl Design {
    /// All, in the order in which they are shown.
    pub const ALL: [Design; 6] = [
        Design::Timed,
        Design::TcpFrames64Kib,
        Design::TcpFrames946Kb,
        Design::Yamux,
        Design::QuicPriority,
        Design::QuicDefaults,
    ];

    /// How it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Design::Timed => "timed",
            Design::TcpFrames64Kib => "one TCP+TLS stream, 64 KiB frames",
            Design::TcpFrames946Kb => "one TCP+TLS stream, 946 kB frames",
            Design::Yamux => "TCP+TLS+yamux, 4 streams",
            Design::QuicPriority => "quinn, separate streams, priority",
            Design::QuicDefaults => "quinn, all defaults, 16 streams",
        }
    }

    /// Whether it can be measured without the kernel's TCP seeing the link.
    pub fn runs(self, joined: Joined) -> bool {
        let tcp = [
            Design::TcpFrames64Kib,
            Design::TcpFrames946Kb,
            Design::Yamux,
        ];
        joined == Joined::Tun || !tcp.contains(&self)
    }

    async fn open(self, link: &Link, plan: Plan) -> anyhow::Result<Session> {
        match self {
            Design::Timed => ours::open(link, plan).await,
            Design::TcpFrames64Kib => rival_tcp::open_one_stream(link, plan, CHUNK_BYTES).await,
            Design::TcpFrames946Kb => rival_tcp::open_one_stream(link, plan, BLOCK_BYTES).await,
            Design::Yamux => rival_tcp::open_yamux(link, plan).await,
            Design::QuicPriority => rival_quic::open(link, plan, Quic::Priority).await,
            Design::QuicDefaults => rival_quic::open(link, plan, Quic::Defaults).await,
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long each part of a run takes.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Requests only.
    pub idle: Duration,
    /// Bulk flows, and nothing is counted yet.
    pub settle: Duration,
    /// What counts.
    pub window: Duration,
    /// How long the last requests of the window are waited for.
    pub patience: Duration,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// How the ends are joined.
    pub joined: Joined,
    /// The link; unused on loopback.
    pub shape: Shape,
    /// What flows.
    pub plan: Plan,
    /// How long.
    pub times: Times,
}

/// What a run has shown.
pub struct Run {
    /// Before bulk.
    pub idle: Trips,
    /// On the liveness channel, beside bulk.
    pub ping: Trips,
    /// Votes, beside bulk.
    pub vote: Option<Trips>,
    /// Bulk received at end 0 and at end 1, megabits a second.
    pub mbit: [f64; 2],
    /// Seconds of processor time that a gigabyte of bulk took, both ends and the kernel's part
    /// together; `None` where that cannot be told, or includes an emulator or another run.
    pub cpu_s_per_gb: Option<f64>,
    /// Seconds since bulk began, and milliseconds of the ping sent then.
    pub trace: Vec<(f64, f64)>,
    /// What the link did; `None` on loopback.
    pub link: Option<LinkReport>,
}

/// Measures one design.
pub async fn run(design: Design, setting: Setting, seed: u64) -> anyhow::Result<Run> {
    let link = Link::open(setting.joined, setting.shape, seed)?;
    let opened = design.open(&link, setting.plan).await;
    let session = opened.with_context(|| format!("connecting: {}", design.name()))?;
    let (shown, mut tasks) = (session.shown, session.tasks);
    let run = tokio::select! {
        run = observe(&shown, setting.times) => run,
        ended = tasks.join_next() => {
            let ended = ended.context("a session has tasks")?;
            let why = ended.context("a task of a session panicked")?;
            why.and(Err(anyhow::anyhow!("a task of a session ended")))
        }
    };
    tasks.shutdown().await;
    let link = link.finish().context("the emulated link")?;
    let run = run.with_context(|| format!("measuring: {}", design.name()))?;
    let cpu_s_per_gb = run.cpu_s_per_gb.filter(|_| link.is_none());
    Ok(Run {
        link,
        cpu_s_per_gb,
        ..run
    })
}

/// Seconds of processor time that this process has taken, of user and of system.
fn processor_time() -> Option<f64> {
    /// `USER_HZ`: the same on every Linux.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).take(2);
    let mut ticks = || times.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_A_SECOND)
}

async fn observe(shown: &Shown, times: Times) -> anyhow::Result<Run> {
    let idle_from = now();
    sleep(times.idle).await;
    let began = now();
    shown.go.send_replace(true);
    // What was sent just before the beginning may still meet the first bulk.
    let idle = shown.ping.between(idle_from, began - times.idle / 4);
    sleep(times.settle).await;
    let (from, before, cpu_before) = (now(), (shown.received)(), processor_time());
    sleep(times.window).await;
    let (to, after, cpu_after) = (now(), (shown.received)(), processor_time());
    let all_answered = || {
        let votes = shown.vote.as_ref();
        shown.ping.all_answered(to) && votes.is_none_or(|votes| votes.all_answered(to))
    };
    while !all_answered() && now() < to + times.patience {
        // Bulk goes on, so that the last requests meet what the others met.
        sleep(LOOK_EVERY).await;
    }
    let mbit = [0, 1].map(|end| {
        let bits = (after[end] - before[end]) as f64 * 8.0;
        bits / (to - from).as_secs_f64() / 1e6
    });
    let bytes: u64 = [0, 1].iter().map(|end| after[*end] - before[*end]).sum();
    let cpu = cpu_before.zip(cpu_after);
    let cpu_s_per_gb = cpu.map(|(before, after)| (after - before) / (bytes as f64 / 1e9));
    Ok(Run {
        idle,
        ping: shown.ping.between(from, to),
        vote: shown.vote.as_ref().map(|votes| votes.between(from, to)),
        mbit,
        cpu_s_per_gb,
        trace: shown.ping.trace(began),
        link: None,
    })
}
