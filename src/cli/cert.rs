//! `timed cert show`.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;
use timed::net::identity::inspect_certificate;
use timed::node::files::DataDir;
use timed::types::time::utc_date;

use super::{Environment, output};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Show a certificate: its pin, addresses, names and validity
    Show {
        /// The certificate [default: the node's own]
        file: Option<PathBuf>,
    },
}

pub(super) fn run(environment: &Environment, command: Command) -> anyhow::Result<()> {
    let Command::Show { file } = command;
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
