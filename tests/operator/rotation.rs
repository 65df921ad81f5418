//! Certificates that change, machines that move, and old folders put back, beside running nodes.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Place, until};

/// Who is connected to a node, by name: the connection and the key.
type Connected = BTreeMap<String, (u64, String)>;

fn connected(place: &Place, node: &str) -> Connected {
    let peers = place
        .must(&format!("rpc --data-dir {node} --json getpeerinfo"))
        .json();
    let peers = peers.as_array().unwrap().iter();
    peers
        .map(|peer| {
            let key = peer["node_id"].as_str().unwrap().to_owned();
            let name = peer["name"].as_str().unwrap().to_owned();
            (name, (peer["connection"].as_u64().unwrap(), key))
        })
        .collect()
}

#[track_caller]
fn until_connected(place: &Place, node: &str, others: &[&str]) -> Connected {
    until(&format!("{node} connected to {others:?}"), || {
        let now = connected(place, node);
        now.keys().eq(others).then_some(now)
    })
}

/// What `timed status` says of a node's own record.
fn record(place: &Place, node: &str) -> String {
    let status = place.must(&format!("status --data-dir {node}")).stdout;
    let line = status
        .lines()
        .find(|line| line.trim_start().starts_with("record"));
    line.unwrap_or_else(|| panic!("{status}")).to_owned()
}

#[track_caller]
fn until_record(place: &Place, node: &str, what: &str, met: impl Fn(&str) -> bool) {
    until(what, || met(&record(place, node)).then_some(()));
}

fn pins(done: &Value) -> Vec<String> {
    let pins = done["pins"].as_array().unwrap().iter();
    pins.map(|pin| pin.as_str().unwrap().to_owned()).collect()
}

/// Gives a node another's record by hand: in force with the next reload.
fn copy_record(place: &Place, of: &str, to: &str) {
    let file = format!("certs/{of}.masternode.toml");
    std::fs::copy(place.path(of).join(&file), place.path(to).join(&file)).unwrap();
}

#[test]
fn a_certificate_is_rotated_by_commands_and_an_old_folder_is_refused() {
    let place = Place::with_masternodes(&[
        ("alpha", "127.0.10.1"),
        ("beta", "127.0.10.2"),
        ("gamma", "127.0.10.3"),
    ]);
    let alpha = place.start("alpha");
    let beta = place.start("beta");
    let _gamma = place.start("gamma");
    let by_alpha = until_connected(&place, "alpha", &["beta", "gamma"]);
    let by_beta = until_connected(&place, "beta", &["alpha", "gamma"]);
    let by_gamma = until_connected(&place, "gamma", &["alpha", "beta"]);

    // A record with both pins; who does not hold it is named, and the swap waits for them.
    let announced = place.must("cert --data-dir gamma rotate --json").json();
    let named = pins(&announced);
    let [old, new] = &named[..] else {
        panic!("{announced}");
    };
    until_record(&place, "gamma", "both are named", |said| {
        said.contains("NOT held by alpha (holds 1), beta (holds 1)")
    });
    place
        .run("cert --data-dir gamma rotate")
        .failed_with("not swapped: alpha (holds 1), beta (holds 1) do not hold record serial 2");
    place.must("cert --data-dir alpha install gamma/certs/gamma.masternode.toml");
    until_record(&place, "gamma", "one is named", |said| {
        said.contains("NOT held by beta (holds 1)")
    });
    copy_record(&place, "gamma", "beta");
    beta.signal(Signal::SIGHUP);
    until_record(&place, "gamma", "nobody is named", |said| {
        said.contains("serial 2, two pins") && !said.contains("NOT")
    });

    // The swap touches no connection; what is made from then on has the new key.
    place.must("cert --data-dir gamma rotate");
    assert_eq!(connected(&place, "alpha"), by_alpha);
    assert_eq!(connected(&place, "beta"), by_beta);
    assert_eq!(connected(&place, "gamma"), by_gamma);
    place.must("rpc --data-dir alpha disconnectnode 127.0.10.3");
    let renewed = until("gamma's new key", || {
        let now = connected(&place, "alpha");
        now.get("gamma")
            .is_some_and(|(_, key)| key == new)
            .then_some(now)
    });
    assert_eq!(renewed["beta"], by_alpha["beta"]);
    assert_eq!(connected(&place, "beta"), by_beta);
    assert_eq!(&by_beta["gamma"].1, old);

    // The old pin goes, and with it the connection that was made with it, alone.
    place.must("cert --data-dir gamma rotate");
    place.must("cert --data-dir alpha install gamma/certs/gamma.masternode.toml");
    copy_record(&place, "gamma", "beta");
    place.must("cert --data-dir beta reload");
    until("beta has the new key", || {
        let now = connected(&place, "beta");
        now.get("gamma").filter(|(_, key)| key == new).cloned()
    });
    assert_eq!(connected(&place, "alpha"), renewed);
    assert_eq!(connected(&place, "beta")["alpha"], by_beta["alpha"]);

    // The folder of before the rotation is refused beside the running node, and at a start.
    let current = place.path("alpha/certs/gamma.masternode.toml");
    let kept = std::fs::read(&current).unwrap();
    std::fs::copy(place.path("public/gamma.masternode.toml"), &current).unwrap();
    let refused = place.run("cert --data-dir alpha reload");
    refused.failed_with("serial 1");
    refused.failed_with("serial 3");
    assert_eq!(connected(&place, "alpha"), renewed);
    place.must("stop --data-dir alpha");
    assert_eq!(alpha.exit_code(), Some(0));
    let refused = place.run("run --data-dir alpha");
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("serial 1") && refused.stderr.contains("serial 3"));
    std::fs::write(&current, kept).unwrap();
    let _alpha = place.start("alpha");
    until_connected(&place, "alpha", &["beta", "gamma"]);
}

#[test]
fn a_masternode_moves_by_commands() {
    let place = Place::with_masternodes(&[("alpha", "127.0.10.5"), ("beta", "127.0.10.6")]);
    let _alpha = place.start("alpha");
    let beta = place.start("beta");
    let before = until_connected(&place, "alpha", &["beta"]);
    until_connected(&place, "beta", &["alpha"]);
    place.must("cert --data-dir beta move 127.0.10.7");
    place.must("cert --data-dir alpha install beta/certs/beta.masternode.toml");
    assert_eq!(connected(&place, "alpha"), before, "it has not moved yet");

    place.must("stop --data-dir beta");
    assert_eq!(beta.exit_code(), Some(0));
    place.edit("beta/timed.toml", "127.0.10.6", "127.0.10.7");
    let _beta = place.start("beta");
    let after = until("a new connection with beta", || {
        let now = connected(&place, "alpha");
        let new = now.get("beta")?.0 != before["beta"].0;
        new.then_some(now)
    });
    assert_eq!(after["beta"].1, before["beta"].1, "the key is the same");
    let peers = place.must("rpc --data-dir alpha --json getpeerinfo").json();
    assert_eq!(peers[0]["ip"], "127.0.10.7");
}
