//! The command line. Set-up commands work on files; `run` is the node; the others ask a running
//! node over its RPC, which they find through the data directory.
//!
//! Exit codes: 0 done, 1 failed, 2 usage. With `--json` the last line of the standard output is one
//! JSON value; an error is `{"error": "sentence"}`, with the `txid` of a payment that may be under way.

mod ban;
mod bar;
mod cert;
mod client;
mod doctor;
mod genesis;
mod history;
mod init;
mod log;
mod notify;
mod output;
mod passphrase;
mod peers;
mod rpc;
mod run;
mod status;
mod sync;
mod testnet;
mod wallet;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

/// What stands under the list of commands.
const HOW_TO_BEGIN: &str = "\
To try it out:           timed testnet --nodes 4
To make a masternode:    timed init --name NAME --ip ADDRESS     keys, certificate, two public files
                         timed genesis build --certs FOLDER      once, by one of all operators
                         timed genesis install --genesis FILE --certs FOLDER
                         timed run
To look at it:           timed status, peers or sync (add --watch), or the page at its RPC port
When something is wrong: timed doctor
To ask it anything:      timed rpc help

Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Between two looks with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// A TIME Coin node.
#[derive(Parser)]
#[command(
    name = "timed",
    version,
    about,
    after_help = HOW_TO_BEGIN
)]
struct Cli {
    /// Where the node's files are [default: ~/.timed]
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Show it again every 2 seconds (status, peers, sync)
    #[arg(long, global = true)]
    watch: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a node: its keys, certificate and settings
    Init(init::Arguments),
    /// Run the node in the foreground
    Run(run::Arguments),
    /// Run several masternodes on 127.0.0.1 and up, to try things out
    Testnet(testnet::Arguments),
    /// Make or install a chain's genesis
    #[command(subcommand)]
    Genesis(genesis::Command),
    /// Look at certificates, change this masternode's without an outage, take others'
    #[command(subcommand)]
    Cert(cert::Command),
    /// Show the running node: height, peers, quorum, sync, signing
    Status,
    /// Show all peers, connected or not, and why
    Peers(peers::Arguments),
    /// Show how far this node is behind, how long that takes, and whom it fetches from
    Sync,
    /// Check this node, its machine and its network, and say what to do about what is wrong
    Doctor,
    /// Ban an address for a time: it is neither taken nor dialed, and told why
    Ban(ban::Ban),
    /// Lift the ban of an address, completely
    Unban(ban::Unban),
    /// Show or change what the running node logs, until it stops
    Log(log::Arguments),
    /// Stop the running node
    Stop,
    /// Keep a key, see what it holds, send from it
    #[command(subcommand)]
    Wallet(wallet::Command),
    /// Call a method of the running node's JSON-RPC ("timed rpc help" lists them)
    Rpc(rpc::Arguments),
    /// Print what a shell needs to complete commands, such as: timed completions bash
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What every command is given.
struct Environment {
    data_dir: PathBuf,
    json: bool,
}

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    let code = dispatch(cli).unwrap_or_else(|error| {
        output::failure(&error, json);
        ExitCode::FAILURE
    });
    output::exit_code(code)
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let data_dir = match cli.data_dir {
        Some(data_dir) => data_dir,
        None => default_data_dir()?,
    };
    let context = Environment {
        data_dir,
        json: cli.json,
    };
    if cli.watch {
        return watch(&context, &cli.command);
    }
    match cli.command {
        Command::Init(arguments) => init::run(&context, arguments)?,
        Command::Run(arguments) => run::run(&context, &arguments)?,
        Command::Testnet(arguments) => return testnet::run(&context, arguments),
        Command::Genesis(command) => genesis::run(&context, command)?,
        Command::Cert(command) => cert::run(&context, command)?,
        Command::Status => status::run(&context)?,
        Command::Peers(arguments) => peers::run(&context, &arguments)?,
        Command::Sync => sync::run(&context)?,
        Command::Doctor => return doctor::run(&context),
        Command::Ban(arguments) => ban::ban(&context, &arguments)?,
        Command::Unban(arguments) => ban::unban(&context, &arguments)?,
        Command::Log(arguments) => log::run(&context, &arguments)?,
        Command::Stop => rpc::stop(&context)?,
        Command::Wallet(command) => wallet::run(&context, command)?,
        Command::Rpc(arguments) => rpc::run(&context, arguments)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "timed", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a view of the node again and again, until it is interrupted or nobody reads it. A node that
/// is away meanwhile is said and waited for.
fn watch(context: &Environment, command: &Command) -> anyhow::Result<ExitCode> {
    let show = || match command {
        Command::Status => status::run(context),
        Command::Sync => sync::run(context),
        Command::Peers(arguments) if arguments.is_view() => peers::run(context, arguments),
        _ => {
            let message = "--watch is for status, peers and sync";
            let kind = clap::error::ErrorKind::ArgumentConflict;
            Cli::command().error(kind, message).exit()
        }
    };
    loop {
        output::clear_screen();
        if let Err(error) = show() {
            output::failure(&error, context.json);
        }
        if output::is_closed() {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

fn default_data_dir() -> anyhow::Result<PathBuf> {
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let home = home.context("no home folder is known: name the node's folder with --data-dir")?;
    Ok(home.join(".timed"))
}
