//! The command line. Set-up commands work on files; `run` is the node; the others ask a running
//! node over its RPC, which they find through the data directory.
//!
//! Exit codes: 0 done, 1 failed, 2 usage. With `--json` the last line of the standard output is one
//! JSON value; an error is `{"error": "sentence"}`.

mod ban;
mod cert;
mod client;
mod genesis;
mod init;
mod output;
mod peers;
mod rpc;
mod run;
mod status;
mod testnet;
mod wallet;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// A TIME Coin node.
#[derive(Parser)]
#[command(name = "timed", version, about, disable_help_subcommand = true)]
struct Cli {
    /// Where the node's files are [default: ~/.timed]
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
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
    /// Ban an address for a time: it is neither taken nor dialed, and told why
    Ban(ban::Ban),
    /// Lift the ban of an address, completely
    Unban(ban::Unban),
    /// Stop the running node
    Stop,
    /// Keep a key, see what it holds, send from it
    #[command(subcommand)]
    Wallet(wallet::Command),
    /// Call a method of the running node's JSON-RPC ("timed rpc help" lists them)
    Rpc(rpc::Arguments),
}

/// What every command is given.
struct Environment {
    data_dir: PathBuf,
    json: bool,
}

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            output::failure(&error, json);
            ExitCode::FAILURE
        }
    }
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
    match cli.command {
        Command::Init(arguments) => init::run(&context, arguments)?,
        Command::Run(arguments) => run::run(&context, &arguments)?,
        Command::Testnet(arguments) => return testnet::run(&context, arguments),
        Command::Genesis(command) => genesis::run(&context, command)?,
        Command::Cert(command) => cert::run(&context, command)?,
        Command::Status => status::run(&context)?,
        Command::Peers(arguments) => peers::run(&context, &arguments)?,
        Command::Ban(arguments) => ban::ban(&context, &arguments)?,
        Command::Unban(arguments) => ban::unban(&context, &arguments)?,
        Command::Stop => rpc::stop(&context)?,
        Command::Wallet(command) => wallet::run(&context, command)?,
        Command::Rpc(arguments) => rpc::run(&context, arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn default_data_dir() -> anyhow::Result<PathBuf> {
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let home = home.context("no home folder is known: name the node's folder with --data-dir")?;
    Ok(home.join(".timed"))
}
