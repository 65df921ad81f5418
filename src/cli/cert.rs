//! `timed cert`: look at certificates, change this masternode's without an outage, take others'.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use timed::net::identity::inspect_certificate;
use timed::node::files::DataDir;
use timed::node::setup::{self, RotationReport, RotationStep};
use timed::types::time::utc_date;
use timed::types::{MasternodeRecord, PeerIp};

use super::client::Client;
use super::status::older_serials;
use super::{Environment, output};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Show a certificate: its pin, addresses, names and validity (shown only: the pin decides)
    Show {
        /// The certificate [default: the node's own]
        file: Option<PathBuf>,
    },
    /// Change this masternode's key and certificate without an outage: run it three times
    ///
    /// First it makes the next key and a record that names both pins: hand that record to all other
    /// masternodes. When they have installed it, the second run swaps the certificate. The third run
    /// makes a record that names the new pin only. Each run says what comes next.
    Rotate {
        /// Swap although some masternodes do not hold the new record: they will refuse this node
        #[arg(long)]
        force: bool,
    },
    /// Sign a record for another address of this masternode, before it moves there
    Move {
        /// The address at which peers will reach it
        ip: PeerIp,
        /// The port (UDP) [default: as before]
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
    },
    /// Put another masternode's new record into certs/ and in force
    Install {
        /// NAME.masternode.toml, as its operator sent it; several may be named
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Put what certs/, node.key and node.pem say now in force, without a restart (as SIGHUP does)
    Reload,
}

pub(super) fn run(environment: &Environment, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Show { file } => show(environment, file),
        Command::Rotate { force } => rotate(environment, force),
        Command::Move { ip, port } => {
            let report = setup::move_to(&environment.data_dir, ip, port)?;
            let next = format!(
                "hand these files to all other masternodes (each: timed cert install FILE). Then stop \
                 this node, set listen_ip (or advertised_ip) in timed.toml to {ip}, move the whole \
                 data directory, and start it there"
            );
            told(environment, &report, &next, None)
        }
        Command::Install { files } => install(environment, &files),
        Command::Reload => {
            let sentence: Value =
                Client::of(&environment.data_dir)?.call("reloadcerts", json!([]))?;
            if environment.json {
                return output::json(&json!({ "in_force": sentence }));
            }
            output::line(super::status::text(&sentence));
            Ok(())
        }
    }
}

fn rotate(environment: &Environment, force: bool) -> anyhow::Result<()> {
    let data_dir = &environment.data_dir;
    if setup::rotation_step(data_dir)? == RotationStep::Swap && !force {
        refuse_early_swap(data_dir)?;
    }
    let report = setup::rotate(data_dir)?;
    let next = match report.done {
        RotationStep::Announce => {
            "hand this record to all other masternodes (each: timed cert install FILE); \"timed \
             status\" names those that do not hold it yet. Then run \"timed cert rotate\" again"
        }
        RotationStep::Swap => {
            "the new certificate is in use for every new connection. Run \"timed cert rotate\" once \
             more to drop the old pin"
        }
        RotationStep::Finish => {
            "the rotation is done: hand these files to all other masternodes (each: timed cert \
             install FILE)"
        }
    };
    let reloaded = reload_if_running(data_dir);
    told(environment, &report, next, Some(reloaded))
}

/// Refuses to swap while a masternode would refuse the new certificate.
fn refuse_early_swap(data_dir: &Path) -> anyhow::Result<()> {
    let client = Client::of(data_dir)?;
    let asked = "whether the others hold the new record is known only to the running node";
    let own: Value = client.get("masternodestatus").context(asked)?;
    let list: Value = client.get("masternodelist").context(asked)?;
    let peers: Value = client.get("getpeerinfo").context(asked)?;
    let serial = own["record"]["serial"].as_u64().unwrap_or(0);
    let behind = older_serials(serial, &list, &peers);
    if behind.is_empty() {
        return Ok(());
    }
    bail!(
        "the certificate is not swapped: {} do not hold record serial {serial} and would refuse it; \
         have them install it first (or say --force)",
        behind.join(", ")
    )
}

/// What the running node says; without one, that it takes the files at its next start.
fn reload_if_running(data_dir: &Path) -> anyhow::Result<String> {
    let client = Client::of(data_dir)?;
    if client.get::<Value>("uptime").is_err() {
        return Ok("the node does not run: it takes the files when it starts".into());
    }
    let reloaded: Value = client.call("reloadcerts", json!([]))?;
    Ok(super::status::text(&reloaded))
}

fn install(environment: &Environment, files: &[PathBuf]) -> anyhow::Result<()> {
    let data_dir = &environment.data_dir;
    let records = setup::check_records(data_dir, files)?;
    let written = records
        .iter()
        .try_for_each(|record| setup::write_record(data_dir, record));
    // Also when the disk took only some of them: those are in force then, as after the next start.
    let reloaded = reload_if_running(data_dir);
    written?;
    let reloaded = reloaded?;
    if environment.json {
        let of =
            |record: &MasternodeRecord| json!({ "name": record.name, "serial": record.serial });
        let installed: Vec<Value> = records.iter().map(of).collect();
        return output::json(&json!({ "installed": installed, "in_force": reloaded }));
    }
    for record in records {
        output::line(format!(
            "record of {} with serial {}",
            record.name, record.serial
        ));
    }
    output::line(reloaded);
    Ok(())
}

fn told(
    environment: &Environment,
    report: &RotationReport,
    next: &str,
    reloaded: Option<anyhow::Result<String>>,
) -> anyhow::Result<()> {
    let reloaded = reloaded.transpose()?;
    if environment.json {
        let mut value = serde_json::to_value(report)?;
        value["next"] = json!(next);
        value["in_force"] = json!(reloaded);
        return output::json(&value);
    }
    let pins: Vec<String> = report.pins.iter().map(ToString::to_string).collect();
    let files: Vec<String> = report
        .public_files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let mut facts = vec![
        (
            "record",
            format!("{}, serial {}", report.name, report.serial),
        ),
        ("pins", pins.join(" and ")),
        ("files", files.join(", ")),
    ];
    if let Some(reloaded) = reloaded {
        facts.push(("in force", reloaded));
    }
    facts.push(("next", next.to_owned()));
    output::line(output::facts(&facts));
    Ok(())
}

fn show(environment: &Environment, file: Option<PathBuf>) -> anyhow::Result<()> {
    let file = file.unwrap_or_else(|| DataDir::new(&environment.data_dir).node_certificate());
    let shown = file.display();
    let pem = std::fs::read_to_string(&file)
        .with_context(|| format!("{shown} cannot be read (\"timed init\" makes a node's own)"))?;
    let info = inspect_certificate(&pem).with_context(|| shown.to_string())?;
    if environment.json {
        let mut value = serde_json::to_value(&info)?;
        value["file"] = json!(file);
        return output::json(&value);
    }
    let ips: Vec<String> = info.ips.iter().map(ToString::to_string).collect();
    output::line(output::facts(&[
        ("file", shown.to_string()),
        ("pin", info.pin.to_string()),
        ("addresses", ips.join(", ")),
        ("names", info.names.join(", ")),
        (
            "valid",
            format!(
                "{} to {} (the pin decides)",
                utc_date(info.not_before),
                utc_date(info.not_after)
            ),
        ),
    ]));
    Ok(())
}
