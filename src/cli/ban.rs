//! `timed ban` and `timed unban`.

use std::time::Duration;

use serde_json::{Value, json};
use timed::types::PeerIp;

use super::client::Client;
use super::output::parse_duration;
use super::{Environment, output};

#[derive(clap::Args)]
pub(super) struct Ban {
    /// The address; a masternode's too, which then has no direct connection to this node
    ip: PeerIp,
    /// How long, such as 30m, 24h or 7d
    #[arg(long = "for", value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    duration: Duration,
    /// Why; shown to you and told to the peer
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    reason: String,
}

#[derive(clap::Args)]
pub(super) struct Unban {
    /// The address; it is connected again as if nothing had been
    ip: PeerIp,
}

pub(super) fn ban(environment: &Environment, arguments: &Ban) -> anyhow::Result<()> {
    // Bans count in seconds; part of one is one.
    let seconds = arguments.duration.as_millis().div_ceil(1_000).max(1) as u64;
    let client = Client::of(&environment.data_dir)?;
    let params = json!([arguments.ip, "add", seconds, false, arguments.reason]);
    client.call("setban", params)?;
    if environment.json {
        return output::json(&json!({ "banned": arguments.ip, "seconds": seconds }));
    }
    let ip = arguments.ip;
    let time = output::duration(seconds);
    output::line(format!(
        "{ip} is banned for {time}; \"timed unban {ip}\" lifts it"
    ));
    let masternodes: Value = client.get("masternodelist")?;
    let masternode = super::status::list(&masternodes).find(|one| one["ip"] == json!(ip));
    if let Some(name) = masternode.and_then(|one| one["name"].as_str()) {
        output::line(format!(
            "WARNING: {ip} is masternode {name}: its votes reach this node through others only"
        ));
    }
    Ok(())
}

pub(super) fn unban(environment: &Environment, arguments: &Unban) -> anyhow::Result<()> {
    let client = Client::of(&environment.data_dir)?;
    client.call("setban", json!([arguments.ip, "remove"]))?;
    if environment.json {
        return output::json(&json!({ "unbanned": arguments.ip }));
    }
    output::line(format!("the ban of {} is lifted", arguments.ip));
    Ok(())
}
