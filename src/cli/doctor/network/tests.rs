use serde_json::json;
use timed::types::{Address, ConsensusKey, NodeId, Signature};

use super::super::Level;
use super::*;

fn record() -> MasternodeRecord {
    MasternodeRecord {
        name: "beta".into(),
        serial: 1,
        ip: "127.0.0.2".parse().unwrap(),
        port: 24200,
        pins: vec![NodeId([2; 32])],
        consensus_key: ConsensusKey([2; 32]),
        payout: Address([0; 32]),
        signature: Signature([0; 64]),
    }
}

#[track_caller]
fn says(finding: &Finding, level: Level, words: &str) {
    assert_eq!(finding.level, level, "{finding:?}");
    assert!(finding.sentence.contains(words), "{finding:?}");
    assert_eq!(
        finding.next.is_some(),
        level >= Level::Warning,
        "{finding:?}"
    );
}

#[test]
fn a_masternode_that_is_not_connected_has_the_reason_whichever_side_refused() {
    let entry = |code: &str, by_us: bool, reason: &str| json!({ "ip": "127.0.0.2", "last_code": code, "last_by_us": by_us, "last_reason": reason });
    let ask = |entry: Option<&Value>, answer: Answer| {
        not_connected("beta (127.0.0.2:24200)", entry, &answer, &record(), "alpha")
    };
    let refused = entry("pin_mismatch", true, "pin_mismatch: expected ab, got cd");
    let finding = ask(Some(&refused), Answer::Quic);
    says(
        &finding,
        Level::Fault,
        "because this node refused or ended it: pin_mismatch: expected ab, got cd",
    );
    assert!(finding.next.unwrap().contains("get beta's newest record"));

    let refused = entry("pin_mismatch", false, "pin_mismatch: expected ab, got cd");
    let finding = ask(Some(&refused), Answer::Quic);
    says(
        &finding,
        Level::Fault,
        "because the peer refused or ended it",
    );
    assert!(
        finding
            .next
            .unwrap()
            .contains("beta holds another record of alpha")
    );

    let lost = entry("transport_lost", true, "transport_lost: no packet came");
    says(
        &ask(Some(&lost), Answer::Silence),
        Level::Fault,
        "does not answer over UDP; last: transport_lost",
    );
    says(
        &ask(Some(&lost), Answer::Refused),
        Level::Fault,
        "nothing listens on its UDP port",
    );
    says(
        &ask(Some(&lost), Answer::Quic),
        Level::Fault,
        "though it answers over UDP",
    );

    says(
        &ask(None, Answer::Quic),
        Level::Warning,
        "not connected yet",
    );
    says(
        &ask(None, Answer::Silence),
        Level::Fault,
        "is not connected and does not answer over UDP",
    );
    let unsent = Answer::NotSent("network is unreachable".into());
    says(
        &ask(None, unsent),
        Level::Fault,
        "cannot be sent packets from here",
    );
}

#[test]
fn a_stopped_node_tells_whether_somebody_answers() {
    says(
        &unasked("beta", &Answer::Quic, &record()),
        Level::Good,
        "answers over UDP",
    );
    let finding = unasked("beta", &Answer::Silence, &record());
    says(&finding, Level::Warning, "does not answer over UDP");
    assert!(
        finding
            .next
            .unwrap()
            .contains("UDP port 24200 of 127.0.0.2")
    );
}

#[test]
fn a_connected_masternode_has_its_round_trip_time_and_may_be_slow() {
    let peer = |slow: bool| json!({ "rtt": { "last_us": 12_345 }, "slow": slow });
    says(
        &connected_finding("beta", &peer(false)),
        Level::Good,
        "round trip 12.3 ms",
    );
    says(
        &connected_finding("beta", &peer(true)),
        Level::Warning,
        "answers pings late",
    );
}

#[test]
fn the_clock_is_held_against_the_median_of_peers() {
    let clock = |offsets: &[i64]| {
        let peers: Vec<Value> = offsets
            .iter()
            .map(|ms| json!({ "clock_offset_ms": ms }))
            .collect();
        check_clock(&Value::Array(peers))
    };
    says(&clock(&[]), Level::Note, "no peer is connected");
    says(&clock(&[40, -20, 90_000]), Level::Good, "0.0 s behind");
    says(
        &clock(&[-3_000, -3_000, 0]),
        Level::Warning,
        "3.0 s ahead of",
    );
    says(&clock(&[11_000]), Level::Fault, "blocks are held back");
}

#[test]
fn reachability_is_what_connections_have_proved() {
    let network = |inward: u64, outward: u64| {
        check_reachable(
            &json!({ "established_in": inward, "established_out": outward, "listen": "127.0.0.1:24200" }),
        )
    };
    says(
        &network(0, 0),
        Level::Note,
        "no connection has been made yet",
    );
    says(
        &network(0, 2),
        Level::Note,
        "no peer has dialed this node yet",
    );
    says(
        &network(2, 0),
        Level::Good,
        "peers reach this node at 127.0.0.1:24200",
    );
    says(&network(2, 1), Level::Good, "passes both ways");
}

#[test]
fn sync_signing_quorum_and_evidence_have_sentences() {
    let sync = |height: u64, target: u64, syncing: bool| {
        check_sync(&json!({ "height": height, "target": target, "syncing": syncing }))
    };
    says(&sync(9, 9, false), Level::Good, "at the tip, height 9");
    says(
        &sync(9, 99, true),
        Level::Note,
        "90 blocks behind, and fetching",
    );
    says(&sync(9, 99, false), Level::Warning, "nobody serves them");

    let mut findings = Vec::new();
    check_consensus(&json!({ "masternode": false }), &mut findings);
    assert!(findings.is_empty());
    let well = json!({ "masternode": true, "quorum": "quorum: power 3 of 3", "evidence": 0 });
    check_consensus(&well, &mut findings);
    says(&findings[0], Level::Good, "this masternode signs");
    says(&findings[1], Level::Good, "quorum: power 3 of 3");
    let ill = json!({
        "masternode": true, "not_signing": "consensus.state is missing",
        "quorum": "no quorum: power 1 of 3, missing: beta, gamma",
        "evidence": 1, "evidence_list": ["beta signed two votes"],
    });
    findings.clear();
    check_consensus(&ill, &mut findings);
    says(
        &findings[0],
        Level::Fault,
        "signs nothing: consensus.state is missing",
    );
    says(&findings[1], Level::Fault, "missing: beta, gamma");
    says(&findings[2], Level::Warning, "beta signed two votes");
}

#[test]
fn the_own_address_is_what_peers_see() {
    let mut findings = Vec::new();
    let peers = json!([{ "ip": "127.0.0.2", "name": "beta", "observed_us_as": "127.0.0.9" }]);
    check_own_address(&Known::default(), &peers, &mut findings);
    says(
        &findings[0],
        Level::Good,
        "peers see this node at 127.0.0.9",
    );
    check_own_address(&Known::default(), &json!([]), &mut findings);
    says(&findings[1], Level::Note, "no peer is connected");
}

#[test]
fn a_masternode_that_holds_another_record_of_this_node_is_named() {
    let peers = json!([
        { "ip": "127.0.0.2", "name": "beta", "record_serial": 1 },
        { "ip": "127.0.0.3", "name": "gamma", "record_serial": 0 },
        { "ip": "127.0.0.4", "name": "delta", "record_serial": 2 },
        { "ip": "127.0.0.5", "name": null, "record_serial": 0 },
    ]);
    let finding = held_record(2, "alpha", &peers).unwrap();
    says(&finding, Level::Warning, "not all hold serial 2 of it: beta holds serial 1, gamma holds none");
    assert!(finding.next.unwrap().contains("public files of alpha"));
    assert_eq!(held_record(2, "alpha", &json!([peers[2]])), None);
}
