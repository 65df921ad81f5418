//! A node that is far behind: what it says meanwhile, and that it finishes.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use timed::chain::Chain;
use timed::env::Offload;
use timed::node::formats::genesis_to_text;
use timed::store::{Backend, Store, StoreThreads};
use timed::types::Height;
use tokio::time::Instant;

use super::{LIMIT, Place, Running, until};

#[path = "../../src/chain/generator.rs"]
mod generator;

use generator::{Generator, Shape};

/// Enough that a sync can be caught in the middle.
pub(super) const BLOCKS: u64 = 10_000;

const OLD: &str = "127.0.8.20";

/// Two full nodes: "old" holds a chain, "new" nothing, and knows of "old".
pub(super) fn old_and_new(old: &str, new: &str) -> Place {
    let place = Place::new();
    place.must(&format!(
        "init --data-dir old --name old --full --network dev --ip {old}"
    ));
    place.must(&format!(
        "init --data-dir new --name new --full --network dev --ip {new} --peer {old}:24200"
    ));
    let shape = Shape {
        validators: 2,
        transactions: 0,
    };
    let mut chain = Generator::new(shape);
    let text = genesis_to_text(chain.genesis());
    for name in ["old", "new"] {
        std::fs::write(place.path(name).join("genesis.toml"), &text).unwrap();
    }
    let backend = Backend::File(place.path("old").join("chain.redb"));
    let genesis = chain.genesis().clone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(backend, genesis.clone(), StoreThreads::Own).unwrap();
        let stored = Chain::open(genesis, store.clone(), Offload::Threads).await;
        let stored = stored.unwrap();
        chain.write(&stored, Height(BLOCKS)).await.unwrap();
        drop(stored);
        store.close().await;
    });
    place
}

/// What "new" says of its sync, once it is as wanted.
fn sync_info(place: &Place, wanted: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let info = place.must("sync --data-dir new --json").json();
        if wanted(&info) {
            return info;
        }
        assert!(start.elapsed() < LIMIT, "{info}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Stops "old" in the middle of the sync, and gives what "new" says while it waits for it.
///
/// "old" stands still whenever "new" is looked at, and runs for an instant in between: so the sync is
/// in its middle when it is seen there, however slow the machine is.
fn silenced_in_the_middle(place: &Place, old: &Running) -> Value {
    let start = Instant::now();
    loop {
        old.signal(Signal::SIGSTOP);
        let info = place.must("sync --data-dir new --json").json();
        if info["height"].as_u64() > Some(0) {
            break;
        }
        assert!(start.elapsed() < LIMIT, "{info}");
        old.signal(Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(20));
    }
    // What had come may have to be committed before more is asked for.
    sync_info(place, |info| info["peers"][0] == OLD)
}

#[test]
fn a_node_far_behind_says_how_far_who_was_replaced_and_finishes() {
    let place = old_and_new(OLD, "127.0.8.21");
    let old = place.start_full("old");
    let new = place.start_full("new");

    let info = silenced_in_the_middle(&place, &old);
    assert_eq!(info["syncing"], true);
    assert_eq!(info["target"], BLOCKS);
    let height = info["height"].as_u64().unwrap();
    assert!(height < BLOCKS, "{info}");
    assert_eq!(info["behind"], BLOCKS - height);
    let sentence = info["sentence"].as_str().unwrap();
    assert!(sentence.contains("blocks at height"), "{info}");
    assert!(sentence.contains(&format!("fetching from {OLD}")), "{info}");
    let shown = place.must("sync --data-dir new").stdout;
    assert!(shown.contains(&format!("of {BLOCKS}\n")), "{shown}");
    assert!(shown.lines().all(|line| line.len() <= 100), "{shown}");
    let status = place.must("status --data-dir new").stdout;
    assert!(status.contains("behind by "), "{status}");

    // It is given up, which is said, and asked again later.
    let replaced = format!("{OLD} replaced: no progress for 20 s");
    let info = sync_info(&place, |info| {
        info["sentence"].as_str().unwrap().contains(&replaced)
    });
    assert_eq!(info["set_aside"][0][0], OLD);
    old.signal(Signal::SIGCONT);
    let info = sync_info(&place, |info| info["height"] == BLOCKS);
    assert_eq!(info["synced_blocks"], BLOCKS);
    let info = sync_info(&place, |info| info["syncing"] == false);
    assert_eq!(info["behind"], 0);
    assert_eq!(info["seconds_left"], Value::Null);
    let shown = place.must("sync --data-dir new").stdout;
    assert!(shown.contains("no, it is at the tip"), "{shown}");
    assert!(shown.contains("no progress for 20 s"), "{shown}");

    // Without a terminal the log tells of the progress, with fields.
    place.must("stop --data-dir new");
    assert_eq!(new.exit_code(), Some(0));
    let log = std::fs::read_to_string(place.path("new.log")).unwrap();
    let progress = log
        .lines()
        .find(|line| line.contains("timed::sync::progress"));
    let progress = progress.unwrap_or_else(|| panic!("{log}"));
    assert!(
        progress.contains(&format!("target={BLOCKS} behind=")),
        "{progress}"
    );
    assert!(log.contains("sync: peer set aside for a while"), "{log}");
    assert!(log.contains("blocks in "), "{log}");
}

/// The end of a terminal at which a person sits, and the one for a program.
fn terminal() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let program = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap());
    let size = Winsize {
        ws_row: 24,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let program = program.unwrap();
    tcsetwinsize(&program, size).unwrap();
    (File::from(person), program)
}

#[test]
fn a_terminal_shows_a_bar_that_goes_when_the_node_has_caught_up() {
    let place = old_and_new("127.0.8.22", "127.0.8.23");
    let _old = place.start_full("old");
    let (mut person, program) = terminal();
    let mut new = Command::new(env!("CARGO_BIN_EXE_timed"))
        .args(["run", "--data-dir", "new"])
        .current_dir(place.path(""))
        .env("TERM", "xterm")
        .stdout(Stdio::null())
        .stderr(program)
        .spawn()
        .unwrap();
    let reading = std::thread::spawn(move || {
        let (mut text, mut part) = (Vec::new(), [0; 4096]);
        // A terminal whose program has gone reads as an error.
        while let Ok(length @ 1..) = person.read(&mut part) {
            text.extend_from_slice(&part[..length]);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    until("the node answers", || {
        let done = place.run("sync --data-dir new --json");
        (done.code == 0).then_some(())
    });
    sync_info(&place, |info| info["height"] == BLOCKS);
    sync_info(&place, |info| info["syncing"] == false);
    place.must("stop --data-dir new");
    assert_eq!(new.wait().unwrap().code(), Some(0));

    let shown = reading.join().unwrap();
    let lines: Vec<&str> = shown.split(['\r', '\n']).collect();
    let bars: Vec<&&str> = lines.iter().filter(|line| line.contains("] ")).collect();
    let moving = |line: &&&str| line.contains('>') && line.contains("fetching from 127.0.8.22");
    assert!(bars.iter().any(moving), "{shown}");
    let last = lines
        .iter()
        .rposition(|line| line.contains("fetching from"));
    let stopped = lines.iter().rposition(|line| line.contains("stopped"));
    assert!(last < stopped, "{shown}");
}
