//! The node among its peers: clock, reachability, own address, quorum, and each masternode.

use serde_json::Value;
use timed::types::MasternodeRecord;

use super::super::client::{Client, OtherNode};
use super::super::output;
use super::super::status::{list, text};
use super::Finding;
use super::advice::{Case, next_step};
use super::files::Known;
use super::probe::{self, Answer};

/// Clocks that differ by more than this are worth a word.
const WARNING_CLOCK_MS: i64 = 2_000;

/// A fresh block may be this far ahead of the receiver's clock; beyond, it is held back.
const FAULT_CLOCK_MS: i64 = 10_000;

/// How many silent masternodes are waited for at a time.
const PROBES_AT_A_TIME: usize = 32;

/// What a running node says.
pub(super) struct Running {
    consensus: Value,
    sync: Value,
    network: Value,
    known: Value,
    peers: Value,
}

impl Running {
    /// Asks the node; `None` when none runs, and what is wrong when another one answers, or none
    /// although a process holds the data directory.
    pub(super) fn ask(client: &Client, known: &Known, held: bool) -> Result<Option<Self>, Finding> {
        let asked = || -> anyhow::Result<Self> {
            // Consensus first and peers last: no peer is given as away that consensus counts already.
            Ok(Self {
                consensus: client.get("getconsensusinfo")?,
                sync: client.get("getsyncinfo")?,
                network: client.get("getnetworkinfo")?,
                known: client.get("getknownpeers")?,
                peers: client.get("getpeerinfo")?,
            })
        };
        match asked() {
            Ok(running) => match running.is_other(known) {
                Some(other) => Err(other),
                None => Ok(Some(running)),
            },
            Err(error) if error.is::<OtherNode>() => Err(Finding::error("node", &error)),
            Err(_) if held => Err(silent(client)),
            Err(_) => Ok(None),
        }
    }

    /// Whether the node that answers listens elsewhere than these files say.
    fn is_other(&self, known: &Known) -> Option<Finding> {
        let own = known.config.as_ref()?.listen_addr().to_string();
        let answers = text(&self.network["listen"]);
        (own != answers).then(|| {
            Finding::fault(
                "node",
                format!(
                    "the node that answers listens on {answers}, and timed.toml says {own}: it is \
                     another node, or this one with settings of before"
                ),
                "give each node on this machine its own rpc_port in timed.toml; if settings were changed, restart the node",
            )
        })
    }
}

fn silent(client: &Client) -> Finding {
    Finding::fault(
        "node",
        format!(
            "a timed process holds the data directory, so it runs, but its RPC at http://{} does not answer",
            client.address()
        ),
        "wait if it is just starting or builds its database anew; otherwise see its log, and if it goes on with nothing, \
         end that process and start it again",
    )
}

pub(super) fn check(
    known: &Known,
    running: Option<&Running>,
    in_use: bool,
    findings: &mut Vec<Finding>,
) {
    match running {
        None if in_use => {}
        None => findings.push(Finding::note(
            "node",
            "it does not answer: its clock, its address as peers see it, and refusals cannot be told; \
             start it with \"timed run\" and ask again",
        )),
        Some(running) => {
            check_consensus(&running.consensus, findings);
            findings.push(check_sync(&running.sync));
            findings.push(check_clock(&running.peers));
            findings.push(check_reachable(&running.network));
            check_own_address(known, &running.peers, findings);
            check_held_record(known, &running.peers, findings);
        }
    }
    check_masternodes(known, running, findings);
}

/// Which serial of this node's record the masternodes hold.
fn check_held_record(known: &Known, peers: &Value, findings: &mut Vec<Finding>) {
    let Some(record) = own_record(known) else {
        return;
    };
    findings.extend(held_record(record.serial, &record.name, peers));
}

fn held_record(serial: u64, own: &str, peers: &Value) -> Option<Finding> {
    let about = "own record";
    let masternodes = list(peers).filter(|peer| peer["name"].is_string());
    let differing: Vec<String> = masternodes
        .filter_map(|peer| Some((peer, peer["record_serial"].as_u64()?)))
        .filter(|(_, held)| *held != serial)
        .map(|(peer, held)| match held {
            0 => format!("{} holds none", shown(peer)),
            held => format!("{} holds serial {held}", shown(peer)),
        })
        .collect();
    (!differing.is_empty()).then(|| {
        Finding::warning(
            about,
            format!("not all hold serial {serial} of it: {}", differing.join(", ")),
            format!("send the two public files of {own} in certs/ to those operators; who holds a newer one should send it here"),
        )
    })
}

fn check_consensus(consensus: &Value, findings: &mut Vec<Finding>) {
    if consensus["masternode"] != true {
        return;
    }
    findings.push(match consensus["not_signing"].as_str() {
        None => Finding::good("signing", "this masternode signs"),
        Some(reason) => Finding::fault(
            "signing",
            format!("this masternode signs nothing: {reason}"),
            "wait if it waits; if the sentence names another process with the same key, stop that one for good",
        ),
    });
    let quorum = text(&consensus["quorum"]);
    findings.push(match quorum.starts_with("no ") {
        false => Finding::good("quorum", quorum),
        true => Finding::fault(
            "quorum",
            quorum,
            "no block can be made until these are back; see below why each is not connected",
        ),
    });
    if let Some(count) = consensus["evidence"].as_u64().filter(|count| *count > 0) {
        let names: Vec<String> = list(&consensus["evidence_list"]).map(text).collect();
        findings.push(Finding::warning(
            "evidence",
            format!("{count} double signings were seen: {}", names.join("; ")),
            "the operator of that masternode must find and stop the second copy of its consensus key",
        ));
    }
}

fn check_sync(sync: &Value) -> Finding {
    let (height, target) = (number(&sync["height"]), number(&sync["target"]));
    let behind = target.saturating_sub(height);
    match (behind, sync["syncing"] == true) {
        (0..=1, _) => Finding::good("sync", format!("at the tip, height {height}")),
        (_, true) => Finding::note("sync", format!("{behind} blocks behind, and fetching them")),
        (_, false) => Finding::warning(
            "sync",
            format!("{behind} blocks behind, and nobody serves them"),
            "\"timed sync\" names the peers that were set aside, and why",
        ),
    }
}

/// The median difference: one peer's wrong clock says nothing about ours.
fn check_clock(peers: &Value) -> Finding {
    let mut offsets: Vec<i64> = list(peers)
        .filter_map(|peer| peer["clock_offset_ms"].as_i64())
        .collect();
    if offsets.is_empty() {
        return Finding::note("clock", "no peer is connected to compare it with");
    }
    offsets.sort_unstable();
    let median = offsets[offsets.len() / 2];
    let seconds = median.unsigned_abs() as f64 / 1_000.0;
    let side = if median > 0 { "behind" } else { "ahead of" };
    let sentence = format!(
        "this clock is {seconds:.1} s {side} that of its peers (median of {})",
        offsets.len()
    );
    let next = "set the clock by NTP on this machine; if others are wrong, tell their operators";
    match median.abs() {
        FAULT_CLOCK_MS.. => {
            Finding::fault("clock", format!("{sentence}: blocks are held back"), next)
        }
        WARNING_CLOCK_MS.. => Finding::warning("clock", sentence, next),
        _ => Finding::good("clock", sentence),
    }
}

fn check_reachable(network: &Value) -> Finding {
    let (inward, outward) = (
        number(&network["established_in"]),
        number(&network["established_out"]),
    );
    let listen = text(&network["listen"]);
    match (inward, outward) {
        (0, 0) => Finding::note(
            "UDP",
            "no connection has been made yet, so nothing proves that UDP passes",
        ),
        (0, _) => Finding::note(
            "UDP",
            format!(
                "packets pass outwards; no peer has dialed this node yet, so nothing proves that UDP reaches {listen} from outside \
                     (a peer with a lower address waits for this node to dial)"
            ),
        ),
        (_, 0) => Finding::good(
            "UDP",
            format!(
                "peers reach this node at {listen} ({})",
                output::count(inward, "connection")
            ),
        ),
        _ => Finding::good(
            "UDP",
            format!(
                "passes both ways: {} from peers, {outward} to peers",
                output::count(inward, "connection")
            ),
        ),
    }
}

/// Whether peers see this node at the address that its record names.
fn check_own_address(known: &Known, peers: &Value, findings: &mut Vec<Finding>) {
    let about = "own address";
    let record = own_record(known);
    let expected = record.map(|record| record.ip.to_string());
    let mut wrong: Vec<String> = Vec::new();
    let mut seen = 0;
    for peer in list(peers) {
        let observed = text(&peer["observed_us_as"]);
        seen += 1;
        if expected
            .as_ref()
            .is_some_and(|expected| *expected != observed)
        {
            wrong.push(format!("{} at {observed}", shown(peer)));
        }
    }
    findings.push(match (seen, expected) {
        (0, _) => Finding::note(about, "no peer is connected to say at which address it sees this node"),
        (_, None) => {
            let observed = list(peers).next().map(|peer| text(&peer["observed_us_as"]));
            Finding::good(about, format!("peers see this node at {}", observed.unwrap_or_default()))
        }
        (_, Some(expected)) if wrong.is_empty() => Finding::good(about, format!("peers see this node at {expected}, as its record says")),
        (_, Some(expected)) => Finding::fault(
            about,
            format!("the record says {expected}, but peers see this node elsewhere: {}", wrong.join(", ")),
            "let packets leave through the recorded address (listen_ip in timed.toml, or the router's translation), or sign a record with the right one",
        ),
    });
}

fn own_record(known: &Known) -> Option<&MasternodeRecord> {
    known.directory.as_ref()?.record(known.own?)
}

/// Each other masternode: connected, or why not and what to do.
fn check_masternodes(known: &Known, running: Option<&Running>, findings: &mut Vec<Finding>) {
    let Some(directory) = &known.directory else {
        return;
    };
    let others = directory
        .records()
        .filter(|(index, _)| Some(*index) != known.own);
    let others: Vec<&MasternodeRecord> = others.map(|(_, record)| record).collect();
    for some in others.chunks(PROBES_AT_A_TIME) {
        std::thread::scope(|scope| {
            let ask = |record| scope.spawn(move || masternode(known, running, record));
            let asked: Vec<_> = some.iter().map(|record| ask(*record)).collect();
            for one in asked {
                match one.join() {
                    Ok(finding) => findings.push(finding),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
    }
}

fn masternode(known: &Known, running: Option<&Running>, record: &MasternodeRecord) -> Finding {
    let name = &record.name;
    let place = format!("{name} ({}:{})", record.ip, record.port);
    let connected = running
        .and_then(|running| list(&running.peers).find(|peer| peer["name"].as_str() == Some(name)));
    if let Some(peer) = connected {
        return connected_finding(&place, peer);
    }
    let answer = probe::ask(record.ip.with_port(record.port));
    let Some(running) = running else {
        return unasked(&place, &answer, record);
    };
    let own = own_record(known).map_or("this node", |own| own.name.as_str());
    let ip = record.ip.to_string();
    let entry = list(&running.known).find(|one| text(&one["ip"]) == ip);
    not_connected(&place, entry, &answer, record, own)
}

fn connected_finding(place: &str, peer: &Value) -> Finding {
    let rtt = match peer["rtt"]["last_us"].as_u64() {
        Some(us) => format!(", round trip {}.{} ms", us / 1_000, us % 1_000 / 100),
        None => String::new(),
    };
    if peer["slow"] == true {
        return Finding::warning(
            "masternode",
            format!("{place} is connected, but answers pings late{rtt}"),
            "look at the load and the uplink of both machines",
        );
    }
    Finding::good("masternode", format!("{place} is connected{rtt}"))
}

/// A stopped node can only tell whether somebody is there.
fn unasked(place: &str, answer: &Answer, record: &MasternodeRecord) -> Finding {
    let about = "masternode";
    match answer {
        Answer::Quic => Finding::good(
            about,
            format!("{place} answers over UDP; whether it takes this node shows once it runs"),
        ),
        other => Finding::warning(
            about,
            format!("{place} {}", silence(other)),
            unreachable_step(record),
        ),
    }
}

/// Why a running node is not connected to a masternode.
fn not_connected(
    place: &str,
    entry: Option<&Value>,
    answer: &Answer,
    record: &MasternodeRecord,
    own: &str,
) -> Finding {
    let about = "masternode";
    let last = entry.and_then(|entry| Some((entry["last_code"].as_str()?, entry)));
    let Some((code, entry)) = last else {
        return match answer {
            Answer::Quic => Finding::warning(
                about,
                format!("{place} is not connected yet, and answers over UDP"),
                "wait: it is being dialed, or is expected to dial this node",
            ),
            other => Finding::fault(
                about,
                format!("{place} is not connected and {}", silence(other)),
                unreachable_step(record),
            ),
        };
    };
    let by_us = entry["last_by_us"] == true;
    let reason = text(&entry["last_reason"]);
    let transport = matches!(
        code,
        "transport_lost" | "handshake_timeout" | "transport_failed" | "silent"
    );
    if transport && *answer != Answer::Quic {
        let sentence = format!(
            "{place} is not connected and {}; last: {reason}",
            silence(answer)
        );
        return Finding::fault(about, sentence, unreachable_step(record));
    }
    let ip = record.ip.to_string();
    let case = Case {
        peer: &record.name,
        ip: &ip,
        port: record.port.into(),
        own,
        by_us,
    };
    let who = match (by_us, transport) {
        (_, true) => "though it answers over UDP; last:",
        (true, false) => "because this node refused or ended it:",
        (false, false) => "because the peer refused or ended it:",
    };
    Finding::fault(
        about,
        format!("{place} is not connected, {who} {reason}"),
        next_step(code, &case),
    )
}

fn silence(answer: &Answer) -> String {
    match answer {
        Answer::Quic => "answers over UDP".into(),
        Answer::Refused => "nothing listens on its UDP port".into(),
        Answer::Silence => "does not answer over UDP".into(),
        Answer::NotSent(error) => format!("cannot be sent packets from here ({error})"),
    }
}

fn unreachable_step(record: &MasternodeRecord) -> String {
    format!(
        "ask {}'s operator whether it runs, and whether UDP port {} of {} is open to this node; if it has moved, get its new record",
        record.name, record.port, record.ip
    )
}

fn shown(peer: &Value) -> String {
    peer["name"]
        .as_str()
        .map_or_else(|| text(&peer["ip"]), str::to_owned)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

#[cfg(test)]
mod tests;
