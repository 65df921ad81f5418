//! What is exported, and that the rules and the dashboard in `docs/monitoring/` name nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;
use crate::net::{Direction, QueueLengths, RTT_BOUNDS_US, RttHistogram, StreamBytes};
use crate::types::{BlockHash, Height, NodeId, Round, StateCommitment};
use crate::wire::{CloseCode, Role};

fn peer() -> PeerInfo {
    let mut rtt_histogram = RttHistogram::default();
    rtt_histogram.buckets[2] = 3;
    rtt_histogram.sum_us = 6_000;
    PeerInfo {
        ip: "127.0.0.2".parse().unwrap(),
        listen_port: 24200,
        node_id: NodeId([2; 32]),
        name: Some("beta".into()),
        masternode: Some(1),
        role: Role::Masternode,
        direction: Direction::Inbound,
        connection: 7,
        connected_at_ms: 0,
        agent: "timed/0".into(),
        tip_height: Height(9),
        tip_hash: BlockHash([0; 32]),
        rtt: None,
        rtt_histogram,
        last_ping_ago_ms: None,
        pings_sent: 0,
        pongs_received: 0,
        pings_received: 0,
        slow: false,
        streams: [StreamBytes {
            sent: 10,
            received: 20,
        }; 5],
        bulk_unconfirmed: 4_096,
        bulk_credit: 131_072,
        bulk_delay_us: 0,
        record_serial: None,
        queues: QueueLengths::default(),
        dropped: 1,
        over_budget: 0,
        clock_offset_ms: -250,
        observed_us_as: "127.0.0.1".parse().unwrap(),
        reconnects: 2,
    }
}

fn snapshot() -> Snapshot {
    let mut finality = Finality::default();
    finality.blocks.observe(700);
    finality.transactions.observe(1_200);
    let counts = NetCounts {
        established: BTreeMap::from([(Direction::Inbound, 5)]),
        refused: BTreeMap::from([((Direction::Outbound, CloseCode::PinMismatch), 6)]),
        ended: BTreeMap::from([(CloseCode::TransportLost, 1)]),
        ..NetCounts::default()
    };
    Snapshot {
        version: "0",
        network: "dev".into(),
        chain_id: "a \"quoted\" id".into(),
        name: Some("alpha".into()),
        masternodes: vec![
            ("alpha".into(), true),
            ("beta".into(), false),
            ("gamma".into(), false),
        ],
        peers: vec![peer()],
        counts: Arc::new(counts),
        half_open: HalfOpen::default(),
        tip: Tip {
            height: Height(8),
            hash: BlockHash([1; 32]),
            time_ms: 1_500,
            state: StateCommitment([0; 32]),
        },
        consensus: Some(ConsensusStatus {
            height: Height(9),
            round: Some(Round(1)),
            proposer: None,
            not_signing: None,
            power_present: 2,
            power_total: 3,
            missing: vec!["gamma".into()],
            evidence: 0,
            highest_round: Round(4),
            blamed: Vec::new(),
        }),
        sync: SyncStatus {
            target: Height(10),
            ..SyncStatus::default()
        },
        mempool: MempoolStats::default(),
        database_bytes: 123,
        started_at_ms: 2_000,
        finality,
        process: ProcessFacts::default(),
    }
}

#[test]
fn values_stand_under_their_names_and_labels() {
    let text = text_of(snapshot());
    for line in [
        "timed_node_info{version=\"0\",network=\"dev\",chain_id=\"a \\\"quoted\\\" id\",name=\"alpha\"} 1.0",
        "process_start_time_seconds 2.0",
        "timed_tip_height 8.0",
        "timed_tip_time_seconds 1.5",
        "timed_connections{direction=\"inbound\"} 1.0",
        "timed_connections{direction=\"outbound\"} 0.0",
        "timed_masternode_connected{name=\"beta\"} 1.0",
        "timed_masternode_connected{name=\"gamma\"} 0.0",
        "timed_connections_established_total{direction=\"inbound\"} 5",
        "timed_handshakes_refused_total{direction=\"outbound\",reason=\"pin_mismatch\"} 6",
        "timed_connections_ended_total{reason=\"transport_lost\"} 1",
        "timed_peer_rtt_seconds_count{peer=\"127.0.0.2\",name=\"beta\"} 3",
        "timed_peer_rtt_seconds_bucket{le=\"0.0025\",peer=\"127.0.0.2\",name=\"beta\"} 3",
        "timed_peer_received_bytes_total{peer=\"127.0.0.2\",name=\"beta\",stream=\"sync\"} 20",
        "timed_peer_unconfirmed_bytes{peer=\"127.0.0.2\",name=\"beta\"} 4096.0",
        "timed_peer_clock_offset_seconds{peer=\"127.0.0.2\",name=\"beta\"} -0.25",
        "timed_consensus_round 1.0",
        "timed_quorum_power_needed 3.0",
        "timed_block_finality_seconds_bucket{le=\"1.0\"} 1",
        "timed_block_finality_seconds_sum 0.7",
        "timed_transaction_finality_seconds_bucket{le=\"1.0\"} 0",
        "timed_transaction_finality_seconds_bucket{le=\"2.0\"} 1",
        "timed_transaction_finality_seconds_sum 1.2",
        "timed_sync_blocks_behind 2.0",
    ] {
        assert!(
            text.lines().any(|one| one == line),
            "{line}\nis not in\n{text}"
        );
    }
    assert!(!text.contains("timed_masternode_connected{name=\"alpha\"}"));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn names_follow_prometheus() {
    let text = text_of(snapshot());
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(
            name.starts_with("timed_") || name.starts_with("process_"),
            "{name}"
        );
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.chars().all(plain), "{name}");
        assert!(
            !name.ends_with("_total"),
            "{name}: the suffix is the encoder's"
        );
        let unit = name.ends_with("_seconds") || name.ends_with("_bytes");
        assert!(kind != "histogram" || unit, "{name} has no unit");
    }
    let helps = text.lines().filter(|line| line.starts_with("# HELP "));
    let names: Vec<&str> = helps.filter_map(|line| line.split(' ').nth(2)).collect();
    let unique: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names.len(), unique.len(), "a family is written twice");
}

#[test]
fn a_full_node_has_no_values_of_consensus_but_its_names() {
    let mut full = snapshot();
    full.consensus = None;
    full.peers.clear();
    let text = text_of(full);
    assert!(text.contains("# TYPE timed_consensus_signing gauge"));
    assert!(!text.contains("\ntimed_consensus_signing"));
    assert_eq!(exported(&text), exported(&text_of(snapshot())));
}

#[test]
fn rules_and_dashboard_name_only_what_is_exported() {
    let exported = exported(&text_of(snapshot()));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring");
    let mut named_somewhere = BTreeSet::new();
    for file in ["alerts.yml", "dashboard.json"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let named = named(&text);
        assert!(named.len() >= 8, "{file} names only {named:?}");
        for name in &named {
            assert!(
                exported.contains(name),
                "{file} names {name}, which the node does not export"
            );
        }
        named_somewhere.extend(named);
    }
    assert!(named_somewhere.contains("timed_peer_rtt_seconds_bucket"));
}

#[test]
fn the_dashboard_is_json_and_the_test_above_can_fail() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring");
    let text = std::fs::read_to_string(folder.join("dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(
        dashboard["panels"]
            .as_array()
            .is_some_and(|panels| panels.len() >= 8)
    );
    let found = named("sum(rate(timed_nothing_total[5m])) by (name) > timed_tip_height");
    let expected = ["timed_nothing_total", "timed_tip_height"];
    assert_eq!(found, expected.map(str::to_owned).into());
    assert!(!exported(&text_of(snapshot())).contains("timed_nothing_total"));
}

/// The names under which samples of the families can stand.
fn exported(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families = types.filter_map(|line| line.split_once(' '));
    let names = families.flat_map(|(name, kind)| match kind {
        "counter" => vec![format!("{name}_total")],
        "histogram" => ["bucket", "sum", "count"]
            .map(|suffix| format!("{name}_{suffix}"))
            .into(),
        _ => vec![name.to_owned()],
    });
    names.collect()
}

/// The words of a text that look like a metric of the node's.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let words = text.split(word);
    let metrics = words.filter(|word| word.starts_with("timed_") || word.starts_with("process_"));
    metrics.map(str::to_owned).collect()
}

/// The upper bounds are in the order that a histogram needs.
#[test]
fn bounds_ascend() {
    assert!(RTT_BOUNDS_US.is_sorted());
    assert!(crate::rpc::finality::BOUNDS_MS.is_sorted());
}
