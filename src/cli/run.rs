//! `timed run`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use timed::node::{Node, NodeEnvironment, NodeFiles, Reindexed, reindex};
use tokio::signal::unix::{SignalKind, signal};

use super::bar::Bar;
use super::log::Log;
use super::notify::Supervisor;
use super::{Environment, output};

/// How long the runtime's threads may take to end after the node has stopped.
const THREADS_LIMIT: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Sign although consensus.state is missing or ahead; only for a network that lost all its state
    #[arg(long)]
    unsafe_sign: bool,
    /// First build the database anew from the blocks in it that prove themselves
    #[arg(long)]
    reindex: bool,
    /// Write the log as one JSON object a line
    #[arg(long)]
    log_json: bool,
    /// What to log, instead of the setting in timed.toml
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Stop when the standard input closes: whoever started the node has ended
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

pub(super) fn run(environment: &Environment, arguments: &Arguments) -> anyhow::Result<()> {
    let files = NodeFiles::load(&environment.data_dir)?;
    let bar = match arguments.log_json {
        true => Bar::hidden(),
        false => Bar::on_terminal(),
    };
    let log = Log::start(arguments.log.as_deref(), arguments.log_json, &files, &bar)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the node's threads could not be started")?;
    let result = runtime.block_on(run_node(files, environment, arguments, &log, &bar));
    runtime.shutdown_timeout(THREADS_LIMIT);
    result
}

async fn run_node(
    files: NodeFiles,
    environment: &Environment,
    arguments: &Arguments,
    log: &Arc<Log>,
    bar: &Bar,
) -> anyhow::Result<()> {
    // Taken before anything starts, so that an early signal still ends the node cleanly.
    let mut hangup = signal(SignalKind::hangup())?;
    let asked_to_stop = asked_to_stop(arguments.until_stdin_closes)?;
    tokio::pin!(asked_to_stop);
    if arguments.reindex {
        // What is dropped half-way has changed nothing: the next run begins anew.
        tokio::select! {
            biased;
            () = &mut asked_to_stop => {
                tracing::info!("stopped in the middle of the reindex, nothing was changed");
                return Ok(());
            }
            done = reindex(&files.dir, &files.genesis) => tell_reindexed(&done?),
        }
    }
    let banner = Banner::of(&files);
    let mut node_environment = NodeEnvironment::real(&files)?;
    node_environment.unsafe_sign = arguments.unsafe_sign;
    if let Some(rpc) = &mut node_environment.rpc {
        rpc.log = Some(log.clone());
    }
    let mut node = Node::start(files, node_environment).await?;
    banner.print(&node, environment)?;
    let supervisor = Supervisor::of_this_process();
    supervisor.tell(&format!("READY=1\nSTATUS={}", banner.who));
    let mut sync = node.sync().watch_status();
    let ended = loop {
        tokio::select! {
            biased;
            () = &mut asked_to_stop => break Ok(()),
            _ = hangup.recv() => {}
            ended = node.wait() => break ended,
            Ok(()) = sync.changed() => {
                bar.show(&sync.borrow_and_update());
                continue;
            }
        }
        // A hangup: the operator has changed files.
        match node.reload().await {
            Ok(in_force) => tracing::info!(%in_force, "files re-read"),
            Err(error) => tracing::error!(reason = %error, "files re-read, nothing has changed"),
        }
        log.reread(environment);
    };
    bar.clear();
    if let Err(reason) = &ended {
        tracing::error!(%reason, "the node cannot go on");
        supervisor.tell(&format!("STATUS={reason}"));
    }
    supervisor.tell("STOPPING=1");
    let stopped = node.stop().await;
    ended?;
    stopped?;
    tracing::info!("stopped");
    Ok(())
}

fn tell_reindexed(done: &Reindexed) {
    let height = done.height.0;
    match (&done.old_file, &done.stopped_by) {
        (None, _) => tracing::info!("reindex: there is no database yet"),
        (Some(old), None) => tracing::info!(
            height,
            "reindex: all blocks are sound; the old file is {}, remove it when you like",
            old.display()
        ),
        (Some(old), Some(reason)) => tracing::warn!(
            height,
            reason,
            "reindex: blocks up to here are sound, the rest is fetched from peers; the old file is \
             {}, remove it when you like",
            old.display()
        ),
    }
}

/// Waits until somebody ends this process: by a signal, which is caught from this call on, or by
/// closing the standard input where that means it.
fn asked_to_stop(stdin_means_it: bool) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stdin_closed(stdin_means_it) => {}
        }
    })
}

/// Waits until the standard input is closed; for ever when that is not asked for.
async fn stdin_closed(asked: bool) {
    if !asked {
        return std::future::pending().await;
    }
    let (closed, wait) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: one that blocks in a read would hold back the runtime's shutdown.
    std::thread::spawn(move || {
        if let Err(error) = io::copy(&mut io::stdin(), &mut io::sink()) {
            tracing::debug!(reason = %error, "the standard input cannot be read");
        }
        drop(closed);
    });
    // Nothing is ever sent: the wait ends when the thread drops its side.
    wait.await.unwrap_or_default();
}

/// What is said once the node runs.
struct Banner {
    who: String,
    listen: String,
    chain: String,
}

impl Banner {
    fn of(files: &NodeFiles) -> Self {
        let who = match files.own_record() {
            Some(record) => format!("masternode {}", record.name),
            None => "full node".into(),
        };
        Self {
            who,
            listen: files.config.listen_addr().to_string(),
            chain: format!("{} on {}", files.genesis.chain_id, files.genesis.network),
        }
    }

    fn print(&self, node: &Node, environment: &Environment) -> anyhow::Result<()> {
        let height = node.chain().tip().height;
        let rpc = node.rpc_addr();
        if environment.json {
            return output::json(&json!({
                "node": self.who,
                "chain": self.chain,
                "listen": self.listen,
                "rpc": rpc,
                "height": height,
            }));
        }
        let rpc = rpc.map_or("off".into(), |rpc| format!("http://{rpc}"));
        output::line(format!(
            "timed {}: {} of {}, height {height}\n\
             listening on {} (UDP), RPC {rpc}; stop with Ctrl-C or \"timed stop\"",
            env!("CARGO_PKG_VERSION"),
            self.who,
            self.chain,
            self.listen,
        ));
        Ok(())
    }
}
