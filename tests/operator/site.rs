//! What a browser and Prometheus get from a running node.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;

use serde_json::Value;

use super::{Place, get, open, until};

/// The header that a browser sends.
fn host(address: &str) -> String {
    format!("Host: {address}\r\n")
}

/// The next event of a stream: its name and its data.
fn next_event(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut name = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        let line = line.trim_end();
        if let Some(event) = line.strip_prefix("event: ") {
            name = Some(event.to_owned());
        } else if let (Some(data), Some(name)) = (line.strip_prefix("data: "), &name) {
            return Some((name.clone(), serde_json::from_str(data).unwrap()));
        }
    }
}

fn event_named(stream: &mut BufReader<TcpStream>, wanted: &str) -> Value {
    loop {
        let (name, data) = next_event(stream).unwrap();
        if name == wanted {
            return data;
        }
    }
}

/// A page's connection, with the head of the answer read.
fn listen(address: &str) -> Result<BufReader<TcpStream>, String> {
    let mut stream = BufReader::new(open(address, "/events", &host(address)));
    let mut first = String::new();
    stream.read_line(&mut first).unwrap();
    match first.contains(" 200 ") {
        true => Ok(stream),
        false => Err(first),
    }
}

#[test]
fn a_running_node_serves_metrics_and_a_live_page() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.1")]);
    let node = place.start("alpha");
    let (address, host) = ("127.0.8.1:24201", host("127.0.8.1:24201"));

    // Consensus tells who it reaches a moment after the start.
    let (head, metrics) = until("the own power is present", || {
        let (status, head, metrics) = get(address, "/metrics", &host);
        assert_eq!(status, 200);
        let present = metrics.contains("\ntimed_quorum_power_present 1.0");
        present.then_some((head, metrics))
    });
    assert!(
        head.contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    for name in [
        "timed_node_info{",
        "timed_tip_height ",
        "timed_consensus_signing 1.0",
        "timed_quorum_power_present 1.0",
        "timed_database_bytes ",
        "timed_mempool_transactions 0.0",
    ] {
        assert!(
            metrics.lines().any(|line| line.starts_with(name)),
            "{name}: {metrics}"
        );
    }
    if cfg!(target_os = "linux") {
        assert!(metrics.contains("\nprocess_resident_memory_bytes "));
        assert!(metrics.contains("\nprocess_cpu_seconds_total "));
    }

    let (status, head, page) = get(address, "/", &host);
    assert_eq!(status, 200);
    assert!(
        head.contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    assert!(page.contains("EventSource"));
    for path in ["/", "/events", "/metrics", "/health"] {
        for foreign in [
            "Host: example.org:24201\r\n".to_owned(),
            format!("{host}Origin: http://example.org\r\n"),
        ] {
            assert_eq!(get(address, path, &foreign).0, 403, "{path} {foreign}");
        }
    }
    assert_eq!(get(address, "/nothing", &host).0, 404);

    let mut events = listen(address).unwrap();
    assert!(event_named(&mut events, "history").is_array());
    let first = event_named(&mut events, "state");
    assert_eq!(first["network"]["name"], "alpha");
    assert_eq!(first["masternodes"][0]["own"], true);
    for part in [
        "chain",
        "peers",
        "known",
        "consensus",
        "sync",
        "mempool",
        "blocks",
    ] {
        assert!(!first[part].is_null(), "{part}: {first}");
    }
    // Slots of 5 s: a block comes, with the names of those who signed it.
    let block = until("a block", || {
        let state = event_named(&mut events, "state");
        state["blocks"].get(0).cloned()
    });
    assert_eq!(block["certificate"]["signers"][0], "alpha");
    let sample = event_named(&mut events, "sample");
    assert_eq!(sample["sent"].as_array().unwrap().len(), 5);
    let finality = "timed_block_finality_seconds_count ";
    let metrics = get(address, "/metrics", &host).2;
    let line = metrics
        .lines()
        .find(|line| line.starts_with(finality))
        .unwrap();
    assert_ne!(line.trim_start_matches(finality), "0", "{line}");

    place.must("stop --data-dir alpha");
    while next_event(&mut events).is_some() {}
    assert_eq!(node.exit_code(), Some(0));
}

#[test]
fn no_more_than_eight_pages_are_served_and_a_closed_one_frees_its_place() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.2")]);
    let _node = place.start("alpha");
    let (address, host) = ("127.0.8.2:24201", host("127.0.8.2:24201"));
    let mut pages: Vec<_> = (0..8).map(|_| listen(address).unwrap()).collect();
    assert!(listen(address).unwrap_err().contains(" 503 "));
    // Others are answered meanwhile.
    assert_eq!(get(address, "/health", &host).0, 200);
    drop(pages.pop());
    // The node sees that the page is gone when it next sends to it.
    let kept = pages.first_mut().unwrap();
    until("a place is free", || {
        assert!(next_event(kept).is_some());
        listen(address).ok()
    });
}
