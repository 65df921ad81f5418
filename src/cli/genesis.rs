//! `timed genesis build` and `timed genesis install`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::json;
use timed::node::setup::{self, GenesisOptions, GenesisReport};
use timed::types::{Address, Amount, Network};

use super::{Environment, output};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a chain's genesis from the masternodes' public files
    Build(BuildArguments),
    /// Copy a chain's genesis, records and certificates into the data directory
    Install(InstallArguments),
}

#[derive(clap::Args)]
pub(super) struct BuildArguments {
    /// The folder with NAME.masternode.toml and NAME.pem of every masternode
    #[arg(long, value_name = "FOLDER")]
    certs: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "genesis.toml")]
    output: PathBuf,
    /// main, test or dev
    #[arg(long, default_value = "main")]
    network: Network,
    /// The chain's name [default: timed-NETWORK]
    #[arg(long)]
    chain_id: Option<String>,
    /// A masternode's voting power [default: 1]; may be repeated
    #[arg(long, value_name = "NAME=POWER")]
    power: Vec<String>,
    /// An output that exists before the first block; may be repeated
    #[arg(long, value_name = "ADDRESS=AMOUNT")]
    allocate: Vec<String>,
    /// When the chain starts, in Unix milliseconds [default: now]
    #[arg(long)]
    time_ms: Option<u64>,
    /// How often a block is made when nothing waits [default: 600000, dev 5000]
    #[arg(long)]
    slot_ms: Option<u64>,
    /// The shortest time between two blocks
    #[arg(long)]
    min_block_interval_ms: Option<u64>,
    /// The largest block, in bytes
    #[arg(long)]
    max_block_bytes: Option<u32>,
    /// The lowest fee for 1000 bytes, in TIME
    #[arg(long)]
    min_fee_per_kb: Option<Amount>,
    /// The uplink that every masternode has at least, in Mbit/s
    #[arg(long)]
    uplink_mbit: Option<u32>,
}

#[derive(clap::Args)]
pub(super) struct InstallArguments {
    /// The chain's genesis file
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// The folder with the masternodes' public files
    #[arg(long, value_name = "FOLDER")]
    certs: PathBuf,
}

pub(super) fn run(environment: &Environment, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Build(arguments) => build(environment, arguments),
        Command::Install(arguments) => install(environment, &arguments),
    }
}

fn build(environment: &Environment, arguments: BuildArguments) -> anyhow::Result<()> {
    let network = arguments.network;
    let defaults = GenesisOptions::of(network);
    let report = setup::build_genesis(&GenesisOptions {
        folder: arguments.certs,
        output: arguments.output,
        chain_id: arguments.chain_id.unwrap_or(defaults.chain_id),
        network,
        powers: powers(&arguments.power)?,
        allocations: arguments
            .allocate
            .iter()
            .map(|text| allocation(text, network))
            .collect::<anyhow::Result<_>>()?,
        time_ms: arguments.time_ms,
        slot_ms: arguments.slot_ms.unwrap_or(defaults.slot_ms),
        min_block_interval_ms: arguments
            .min_block_interval_ms
            .unwrap_or(defaults.min_block_interval_ms),
        max_block_bytes: arguments
            .max_block_bytes
            .unwrap_or(defaults.max_block_bytes),
        min_fee_per_kb: arguments.min_fee_per_kb.unwrap_or(defaults.min_fee_per_kb),
        uplink_mbit: arguments.uplink_mbit.unwrap_or(defaults.uplink_mbit),
        timeouts: defaults.timeouts,
    })?;
    if environment.json {
        return output::json(&report);
    }
    output::line(describe(&report));
    Ok(())
}

fn powers(given: &[String]) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut powers = BTreeMap::new();
    for text in given {
        let (name, power) = text
            .split_once('=')
            .with_context(|| format!("--power {text}: write NAME=POWER"))?;
        let power = power
            .parse()
            .with_context(|| format!("--power {text}: the power must be a whole number"))?;
        if powers.insert(name.to_owned(), power).is_some() {
            bail!("--power {text}: the power of {name} is given twice");
        }
    }
    Ok(powers)
}

fn allocation(text: &str, network: Network) -> anyhow::Result<(Address, Amount)> {
    let (address, amount) = text
        .split_once('=')
        .with_context(|| format!("--allocate {text}: write ADDRESS=AMOUNT"))?;
    Ok((Address::parse(address, network)?, amount.parse()?))
}

fn describe(report: &GenesisReport) -> String {
    let powers = report
        .powers
        .iter()
        .map(|(name, power)| format!("{name} {power}"));
    output::facts(&[
        ("file", report.path.display().to_string()),
        ("hash", report.hash.to_string()),
        (
            "chain",
            format!("{} on {}", report.chain_id, report.network),
        ),
        (
            "power",
            format!(
                "{} in all: {}",
                report.total_power,
                powers.collect::<Vec<_>>().join(", ")
            ),
        ),
        ("allocated", format!("{} TIME", report.allocated)),
        (
            "",
            "Every node needs this file unchanged: timed genesis install".into(),
        ),
    ])
}

fn install(environment: &Environment, arguments: &InstallArguments) -> anyhow::Result<()> {
    let data_dir = &environment.data_dir;
    setup::install_chain(data_dir, &arguments.genesis, &arguments.certs)?;
    if environment.json {
        return output::json(&json!({ "installed": data_dir }));
    }
    output::line(format!(
        "installed in {0}; start the node with: timed run --data-dir {0}",
        data_dir.display()
    ));
    Ok(())
}
