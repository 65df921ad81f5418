//! `timed peers`.

use serde_json::{Value, json};

use super::client::Client;
use super::status::{list, text};
use super::{Environment, output};
use timed::env::{SystemClock, WallClock};
use timed::types::PeerIp;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    /// Show only who was refused in the last hour, and why
    #[arg(long)]
    refused: bool,
    /// Show also how much bulk may be under way to each peer, and the delay that it causes
    #[arg(long)]
    verbose: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Arguments {
    /// Whether it only shows.
    pub(super) fn is_view(&self) -> bool {
        self.command.is_none()
    }
}

#[derive(clap::Subcommand)]
enum Command {
    /// Forget the key that a configured peer had at its first contact: its next key is trusted
    Forget {
        /// The peer's address
        ip: PeerIp,
    },
}

pub(super) fn run(environment: &Environment, arguments: &Arguments) -> anyhow::Result<()> {
    let client = Client::for_view(&environment.data_dir)?;
    match arguments.command {
        Some(Command::Forget { ip }) => forget(environment, &client, ip),
        None if arguments.refused => refusals(environment, &client),
        None => show(environment, &client, arguments.verbose),
    }
}

fn forget(environment: &Environment, client: &Client, ip: PeerIp) -> anyhow::Result<()> {
    let had = client.call("forgetpin", json!([ip]))? == json!(true);
    if environment.json {
        return output::json(&json!({ "ip": ip, "had_pin": had }));
    }
    output::line(match had {
        true => format!("the pin of {ip} is forgotten: its next key is trusted"),
        false => format!("{ip} had no first-use pin"),
    });
    Ok(())
}

fn refusals(environment: &Environment, client: &Client) -> anyhow::Result<()> {
    let network: Value = client.get("getnetworkinfo")?;
    if environment.json {
        return output::json(&network["refused"]);
    }
    let rows = refused_rows(&network["refused"], usize::MAX, SystemClock.now_ms());
    output::line(match rows.is_empty() {
        true => "nobody was refused in the last hour".into(),
        false => output::table(&REFUSED, &rows, output::red),
    });
    Ok(())
}

const REFUSED: [&str; 4] = ["REFUSED", "DIR", "AGO", "WHY"];

fn refused_rows(refused: &Value, most: usize, now_ms: u64) -> Vec<Vec<String>> {
    let shown = list(refused).take(most).map(|one| {
        vec![
            text(&one["ip"]),
            text(&one["direction"]),
            ago(&one["time_ms"], now_ms),
            format!("{}: {}", text(&one["code"]), text(&one["reason"])),
        ]
    });
    shown.collect()
}

fn show(environment: &Environment, client: &Client, verbose: bool) -> anyhow::Result<()> {
    let connected: Value = client.get("getpeerinfo")?;
    let known: Value = client.get("getknownpeers")?;
    let network: Value = client.get("getnetworkinfo")?;
    let banned: Value = client.get("listbanned")?;
    if environment.json {
        return output::json(&json!({
            "connected": connected,
            "known": known,
            "refused": network["refused"],
            "banned": banned,
        }));
    }
    output::line(describe(
        &connected,
        &known,
        &network["refused"],
        &banned,
        SystemClock.now_ms(),
    ));
    if verbose {
        output::line(describe_bulk(&connected));
    }
    Ok(())
}

/// Block bodies and sync answers under way to each peer.
fn describe_bulk(connected: &Value) -> String {
    let rows: Vec<Vec<String>> = list(connected)
        .map(|peer| {
            let bytes = |key| output::bytes(peer[key].as_u64().unwrap_or(0));
            let delay_us = peer["bulk_delay_us"].as_u64().unwrap_or(0);
            vec![
                text(&peer["ip"]),
                text(&peer["name"]),
                bytes("bulk_credit"),
                bytes("bulk_unconfirmed"),
                format!("{}.{}", delay_us / 1_000, delay_us % 1_000 / 100),
            ]
        })
        .collect();
    output::table(
        &["IP", "NAME", "BULK CREDIT", "UNDER WAY", "QUEUE ms"],
        &rows,
        output::green,
    )
}

fn describe(
    connected: &Value,
    known: &Value,
    refused: &Value,
    banned: &Value,
    now_ms: u64,
) -> String {
    let header = [
        "IP", "NAME", "DIR", "SINCE", "RTT ms", "TIP", "SENT", "RECEIVED", "NOTE",
    ];
    let rows: Vec<Vec<String>> = list(connected).map(|peer| row(peer, now_ms)).collect();
    let mut parts = vec![match rows.is_empty() {
        true => "no peer is connected".into(),
        false => output::table(&header, &rows, output::green),
    }];
    let missing = list(known).filter(|peer| peer["connected"] != true);
    let missing: Vec<Vec<String>> = missing
        .map(|peer| {
            vec![
                text(&peer["ip"]),
                text(&peer["name"]),
                text(&peer["explanation"]),
            ]
        })
        .collect();
    if !missing.is_empty() {
        parts.push(output::table(
            &["NOT CONNECTED", "NAME", "WHY"],
            &missing,
            output::yellow,
        ));
    }
    let refused = refused_rows(refused, 10, now_ms);
    if !refused.is_empty() {
        parts.push(output::table(&REFUSED, &refused, output::red));
    }
    let banned: Vec<Vec<String>> = list(banned)
        .map(|ban| {
            let left = ban["time_remaining"].as_u64().unwrap_or(0);
            vec![
                text(&ban["address"]),
                output::duration(left),
                text(&ban["by"]),
                text(&ban["reason"]),
            ]
        })
        .collect();
    if !banned.is_empty() {
        parts.push(output::table(
            &["BANNED", "FOR", "BY", "WHY"],
            &banned,
            output::red,
        ));
        parts.push("\"timed unban IP\" lifts a ban".into());
    }
    parts.join("\n\n")
}

fn row(peer: &Value, now_ms: u64) -> Vec<String> {
    let direction = match peer["direction"].as_str() {
        Some("inbound") => "in",
        _ => "out",
    };
    let rtt = match peer["rtt"]["last_us"].as_u64() {
        Some(us) => format!("{}.{}", us / 1_000, us % 1_000 / 100),
        None => "-".into(),
    };
    let total = |key| output::bytes(peer[key].as_u64().unwrap_or(0));
    let mut notes = Vec::new();
    if peer["slow"] == true {
        notes.push("slow".to_owned());
    }
    if let Some(reconnects) = peer["reconnects"].as_u64().filter(|count| *count > 0) {
        notes.push(format!("reconnects {reconnects}"));
    }
    vec![
        text(&peer["ip"]),
        text(&peer["name"]),
        direction.into(),
        ago(&peer["connected_at_ms"], now_ms),
        rtt,
        text(&peer["tip_height"]),
        total("bytes_sent"),
        total("bytes_received"),
        notes.join(", "),
    ]
}

fn ago(time_ms: &Value, now_ms: u64) -> String {
    let then = time_ms.as_u64().unwrap_or(now_ms);
    output::duration(now_ms.saturating_sub(then) / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_is_shown_by_peer() {
        let connected = json!([{
            "ip": "127.0.0.2", "name": "beta", "bulk_credit": 125_000, "bulk_unconfirmed": 16_000,
            "bulk_delay_us": 9_870,
        }]);
        let shown = describe_bulk(&connected);
        assert!(shown.contains("9.8"), "{shown}");
        assert!(shown.contains("125 kB"), "{shown}");
    }

    #[test]
    fn connected_and_missing_peers_are_shown_within_100_columns() {
        let connected = json!([{
            "ip": "127.0.0.2", "name": "beta", "direction": "outbound", "connected_at_ms": 1_000,
            "rtt": { "last_us": 1_234 }, "tip_height": 9, "bytes_sent": 10, "bytes_received": 20_000,
            "slow": true, "reconnects": 0,
        }]);
        let hash = "270ce7a222a1".repeat(5) + "abcd";
        let why = format!(
            "dialed again in 9 s; last: wrong_genesis: 127.77.1.2 has genesis {hash}, this node {hash}"
        );
        let known = json!([
            { "ip": "127.0.0.2", "name": "beta", "connected": true, "explanation": "connected" },
            { "ip": "127.0.0.3", "name": null, "connected": false, "explanation": why },
        ]);
        let banned = json!([
            { "address": "127.0.0.9", "time_remaining": 61, "by": "operator", "reason": "a test" },
        ]);
        let refused = json!([
            { "ip": "127.0.0.4", "direction": "inbound", "time_ms": 1_000, "code": "pin_mismatch", "reason": why },
        ]);
        let shown = describe(&connected, &known, &refused, &banned, 62_000);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(
            lines[1].contains("127.0.0.2  beta  out  1 min 1 s  1.2"),
            "{shown}"
        );
        assert!(lines[1].ends_with("20 kB     slow"), "{shown}");
        assert!(
            lines[4].starts_with("127.0.0.3      -     dialed again in 9 s; last: wrong_genesis:"),
            "{shown}"
        );
        // Whoever compares has both, twice: of the peer that is away and of the one refused.
        assert_eq!(shown.matches(&hash).count(), 4, "{shown}");
        assert!(
            shown.contains("127.0.0.9  1 min 1 s  operator  a test"),
            "{shown}"
        );
        assert!(lines.iter().all(|line| line.chars().count() <= 100));
    }
}
