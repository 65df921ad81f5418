//! The node as a service: what systemd is told, how it is stopped, and the unit itself.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{LIMIT, Place, Running};

#[test]
fn systemd_hears_when_the_node_is_ready_and_when_it_stops() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.11")]);
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let next = || {
        let mut told = [0; 512];
        let length = socket.recv(&mut told).unwrap();
        String::from_utf8(told[..length].to_vec()).unwrap()
    };
    let child = Command::new(env!("CARGO_BIN_EXE_timed"))
        .args(["run", "--data-dir", "alpha", "--log-json"])
        .current_dir(place.path(""))
        .env("NOTIFY_SOCKET", place.path("notify"))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(place.path("alpha.log")).unwrap())
        .spawn()
        .unwrap();
    let node = Running(child);
    assert_eq!(next(), "READY=1\nSTATUS=masternode alpha");
    // What it says is true: it answers.
    place.must("status --data-dir alpha");
    node.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(next(), "STOPPING=1");
    assert_eq!(node.exit_code(), Some(0));
    let log = std::fs::read_to_string(place.path("alpha.log")).unwrap();
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["level"].is_string(), "{line}");
    }
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let place = Place::new();
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/timed.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let stop = timed::node::STOP_LIMIT;
    assert!(stop < Duration::from_secs(15) && unit.contains("TimeoutStopSec=15s"));
    // The program is not installed on every machine that tests.
    let here = unit.replace("/usr/local/bin/timed", env!("CARGO_BIN_EXE_timed"));
    assert_ne!(here, unit);
    std::fs::write(place.path("timed.service"), here).unwrap();
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(place.path("timed.service"))
        .output();
    let Ok(verified) = verified else {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}
