//! `timed status`.

use serde_json::{Value, json};

use super::client::Client;
use super::{Environment, output};

/// The node's answers, as they are.
struct Status {
    chain: Value,
    network: Value,
    known: Value,
    consensus: Value,
    masternode: Value,
    masternodes: Value,
    peers: Value,
    sync: Value,
    uptime: Value,
}

pub(super) fn run(environment: &Environment) -> anyhow::Result<()> {
    let client = Client::for_view(&environment.data_dir)?;
    let status = Status {
        chain: client.get("getblockchaininfo")?,
        network: client.get("getnetworkinfo")?,
        known: client.get("getknownpeers")?,
        consensus: client.get("getconsensusinfo")?,
        masternode: client.get("masternodestatus")?,
        masternodes: client.get("masternodelist")?,
        peers: client.get("getpeerinfo")?,
        sync: client.get("getsyncinfo")?,
        uptime: client.get("uptime")?,
    };
    if environment.json {
        return output::json(&json!({
            "chain": status.chain,
            "network": status.network,
            "known_peers": status.known,
            "consensus": status.consensus,
            "record": status.masternode["record"],
            "record_older_at": status.record_older_at(),
            "sync": status.sync,
            "uptime_seconds": status.uptime,
        }));
    }
    output::line(status.describe());
    Ok(())
}

impl Status {
    fn describe(&self) -> String {
        let masternode = self.consensus["masternode"] == true;
        let kind = match self.network["name"].as_str() {
            Some(name) => format!("masternode {name}"),
            None => "full node".into(),
        };
        let up = output::duration(self.uptime.as_u64().unwrap_or(0));
        let mut facts = vec![
            (
                "node",
                format!("{kind}, {}, up {up}", text(&self.network["subversion"])),
            ),
            (
                "chain",
                format!(
                    "{} on {}",
                    text(&self.chain["chain_id"]),
                    text(&self.chain["chain"])
                ),
            ),
            ("genesis", text(&self.chain["genesis_hash"])),
            ("height", text(&self.chain["blocks"])),
            ("block", text(&self.chain["bestblockhash"])),
            ("peers", self.peers()),
            ("sync", text(&self.sync["sentence"])),
        ];
        if masternode {
            let quorum = text(&self.consensus["quorum"]);
            let quorum = quorum.strip_prefix("quorum: ").unwrap_or(&quorum);
            let quorum = match quorum.starts_with("no ") {
                true => output::red(quorum),
                false => output::green(quorum),
            };
            facts.push(("quorum", quorum));
            facts.push(("deciding", self.deciding()));
            facts.push(("signing", self.signing()));
            facts.push(("record", self.record()));
            match self.consensus["evidence"].as_u64() {
                Some(0) | None => {}
                Some(count) => facts.push((
                    "evidence",
                    format!("{count} of double signing: timed rpc getconsensusinfo"),
                )),
            }
        }
        output::facts(&facts)
    }

    fn peers(&self) -> String {
        let connected = text(&self.network["connections"]);
        let missing = list(&self.known).filter(|peer| peer["connected"] != true);
        let missing: Vec<String> = missing
            .map(|peer| match peer["name"].as_str() {
                Some(name) => format!("{name} ({})", text(&peer["ip"])),
                None => text(&peer["ip"]),
            })
            .collect();
        if missing.is_empty() {
            return format!("{connected} connected");
        }
        format!(
            "{connected} connected, not: {} (timed peers says why)",
            missing.join(", ")
        )
    }

    fn deciding(&self) -> String {
        let height = text(&self.consensus["height"]);
        match (
            &self.consensus["round"],
            self.consensus["proposer"].as_str(),
        ) {
            (Value::Null, _) => format!("height {height}: waiting for its time"),
            (round, Some(proposer)) => {
                format!("height {height}, round {round}, proposer {proposer}")
            }
            (round, None) => format!("height {height}, round {round}"),
        }
    }

    fn record_older_at(&self) -> Vec<String> {
        let serial = self.masternode["record"]["serial"].as_u64().unwrap_or(0);
        older_serials(serial, &self.masternodes, &self.peers)
    }

    fn record(&self) -> String {
        let record = &self.masternode["record"];
        let pins = match list(&record["pins"]).count() {
            2 => ", two pins: a rotation is under way",
            _ => "",
        };
        let serial = format!("serial {}{pins}", text(&record["serial"]));
        let older = self.record_older_at();
        match older.is_empty() {
            true => serial,
            false => format!("{serial}; NOT held by {}", older.join(", ")),
        }
    }

    fn signing(&self) -> String {
        match self.consensus["not_signing"].as_str() {
            None => "yes".into(),
            Some(reason) => output::red(&format!("NO: {reason}")),
        }
    }
}

/// The other masternodes that do not hold this node's record of a serial, as far as is known, each
/// with what it holds.
pub(super) fn older_serials(serial: u64, masternodes: &Value, peers: &Value) -> Vec<String> {
    let others = list(masternodes).filter(|one| one["own"] != true);
    let older = others.filter_map(|one| {
        let peer = list(peers).find(|peer| peer["name"] == one["name"]);
        let holds = match peer.map(|peer| peer["record_serial"].as_u64()) {
            Some(Some(held)) if held >= serial => return None,
            Some(Some(0)) => "holds none".into(),
            Some(Some(held)) => format!("holds {held}"),
            Some(None) => "has not told yet".into(),
            None => "not connected".to_owned(),
        };
        Some(format!("{} ({holds})", text(&one["name"])))
    });
    older.collect()
}

/// A JSON value as a person reads it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

/// The elements of a list; none of anything else.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_below_quorum_says_who_is_missing_and_why_it_does_not_sign() {
        let status = Status {
            chain: json!({ "chain_id": "timed-dev", "chain": "dev", "blocks": 7, "bestblockhash": "ab", "genesis_hash": "cd" }),
            network: json!({ "name": "alpha", "subversion": "timed/0.1.0", "connections": 0 }),
            known: json!([{ "ip": "127.0.0.2", "name": "beta", "connected": false }]),
            consensus: json!({
                "masternode": true, "height": 8, "round": 3, "proposer": "beta", "evidence": 0,
                "quorum": "no quorum: power 1 of 2, missing: beta", "not_signing": "consensus.state is missing",
            }),
            masternode: json!({ "record": { "serial": 2, "pins": ["ab", "cd"] } }),
            masternodes: json!([
                { "name": "alpha", "own": true },
                { "name": "beta", "own": false },
                { "name": "gamma", "own": false },
                { "name": "delta", "own": false },
            ]),
            peers: json!([
                { "name": "gamma", "record_serial": 1 },
                { "name": "delta", "record_serial": 2 },
            ]),
            sync: json!({ "sentence": "at the tip, height 7" }),
            uptime: json!(65),
        };
        let text = status.describe();
        for expected in [
            "masternode alpha, timed/0.1.0, up 1 min 5 s",
            "quorum    no quorum: power 1 of 2, missing: beta",
            "0 connected, not: beta (127.0.0.2)",
            "signing   NO: consensus.state is missing",
            "deciding  height 8, round 3, proposer beta",
            "sync      at the tip",
            "record    serial 2, two pins: a rotation is under way; NOT held by beta (not connected), gamma\n\
            \u{20}         (holds 1)",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn many_masternodes_that_are_away_are_all_named_within_100_columns() {
        let names: Vec<String> = (1..=12).map(|one| format!("masternode-{one}")).collect();
        let known = names
            .iter()
            .map(|name| json!({ "ip": "127.0.0.2", "name": name }));
        let masternodes = names.iter().map(|name| json!({ "name": name }));
        let missing = names.join(", ");
        let status = Status {
            chain: json!({}),
            network: json!({ "connections": 0 }),
            known: known.collect(),
            consensus: json!({
                "masternode": true,
                "quorum": format!("no quorum: power 1 of 13, missing: {missing}"),
                "not_signing": "word ".repeat(40),
            }),
            masternode: json!({ "record": { "serial": 2, "pins": [] } }),
            masternodes: masternodes.collect(),
            peers: json!([]),
            sync: json!({ "sentence": "word ".repeat(40) }),
            uptime: json!(65),
        };
        let text = status.describe();
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        assert!(text.contains(&missing), "{text}");
        for name in names {
            assert!(text.contains(&format!("{name} (127.0.0.2)")), "{text}");
            assert!(text.contains(&format!("{name} (not connected)")), "{text}");
        }
    }
}
