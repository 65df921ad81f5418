//! What keeps a node from running, as the doctor tells it.

use nix::sys::signal::Signal;

use super::Place;
use super::doctor::{doctor, find, says};

#[test]
fn a_node_that_hangs_is_not_taken_for_one_that_is_stopped() {
    let place = Place::with_masternodes(&[("alpha", "127.0.9.41")]);
    let node = place.start("alpha");
    node.signal(Signal::SIGSTOP);
    let (hanging, code) = doctor(&place, "alpha");
    let views =
        ["status", "peers", "sync"].map(|view| place.run(&format!("{view} --data-dir alpha")));
    node.signal(Signal::SIGCONT);
    assert_eq!(code, 1);
    let finding = find(
        &hanging,
        "node",
        "so it runs, but its RPC at http://127.0.9.41:24201 does not answer",
    );
    assert_eq!(finding["level"], "fault");
    let next = finding["next"].as_str().unwrap();
    assert!(next.contains("end that process"), "{next}");
    for about in ["UDP port", "TCP port", "is not running", "timed run"] {
        assert!(!hanging.to_string().contains(about), "{hanging:#}");
    }
    for view in views {
        view.failed_with("http://127.0.9.41:24201 did not answer within 5 seconds");
    }
    place.must("stop --data-dir alpha");
    assert_eq!(node.exit_code(), Some(0));
}

/// What a start refuses with a sentence, the doctor finds; and nobody is told before that the node runs.
#[track_caller]
fn refused_and_found(place: &Place, about: &str, at_start: &str, found: &str) {
    let started = place.run("run --data-dir alpha");
    started.failed_with(at_start);
    assert_eq!(started.stdout, "", "told that it runs");
    let (findings, code) = doctor(place, "alpha");
    assert_eq!(code, 1, "{findings:#}");
    says(&findings, about, "fault", found);
}

#[test]
fn whatever_stops_a_start_is_found_before() {
    let place = Place::with_masternodes(&[("alpha", "127.0.9.42"), ("beta", "127.0.9.43")]);
    let key = place.path("alpha/consensus.key");
    std::fs::rename(&key, place.path("kept")).unwrap();
    let lost = "alpha/consensus.key is missing, but node.key is the one of masternode alpha";
    refused_and_found(&place, "consensus key", lost, lost);
    let (findings, _) = doctor(&place, "alpha");
    assert!(!findings.to_string().contains("full node"), "{findings:#}");
    std::fs::rename(place.path("kept"), &key).unwrap();

    place.edit("alpha/timed.toml", "log = \"info\"", "log = \"loud\"");
    let loud = "log in alpha/timed.toml: \"loud\" is not a log filter";
    refused_and_found(&place, "settings", loud, loud);
    place.edit("alpha/timed.toml", "log = \"loud\"", "log = \"info\"");

    let busy = std::net::TcpListener::bind("127.0.9.42:24201").unwrap();
    refused_and_found(
        &place,
        "TCP port",
        "TCP port 24201 of 127.0.9.42 is in use",
        "another program has TCP port 24201 of 127.0.9.42",
    );
    drop(busy);

    let state = place.path("alpha/consensus.state");
    std::fs::create_dir(&state).unwrap();
    let no_file = "alpha/consensus.state cannot be read: Is a directory (os error 21)";
    refused_and_found(&place, "signing", no_file, no_file);
    std::fs::remove_dir(&state).unwrap();
    std::fs::write(&state, "nonsense").unwrap();
    let damaged = "alpha/consensus.state is damaged (it does not have five lines)";
    refused_and_found(&place, "signing", damaged, damaged);
    let other = "timed consensus state v1\ngenesis ab\nkey cd\nheight 1\nentries 0\n";
    std::fs::write(&state, other).unwrap();
    let foreign = "alpha/consensus.state is of genesis ab, but this node runs";
    refused_and_found(&place, "signing", foreign, foreign);
    std::fs::remove_file(&state).unwrap();

    let (findings, code) = doctor(&place, "alpha");
    assert_eq!(code, 0, "{findings:#}");
}
