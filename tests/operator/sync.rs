//! A node that is far behind: what it says meanwhile, and that it finishes.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use timed::chain::Chain;
use timed::env::Offload;
use timed::node::formats::genesis_to_text;
use timed::store::{Backend, Store, StoreThreads};
use timed::types::Height;
use tokio::time::Instant;

use super::{LIMIT, Place};

#[path = "../../src/chain/generator.rs"]
mod generator;

use generator::{Generator, Shape};

/// Enough that a sync can be caught in the middle.
const BLOCKS: u64 = 10_000;

const OLD: &str = "127.0.8.20";

/// Two full nodes: "old" holds a chain, "new" nothing, and knows of "old".
fn old_and_new() -> Place {
    let place = Place::new();
    place.must(&format!(
        "init --data-dir old --name old --full --network dev --ip {OLD}"
    ));
    place.must(&format!(
        "init --data-dir new --name new --full --network dev --ip 127.0.8.21 --peer {OLD}:24200"
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

#[test]
fn a_node_far_behind_says_how_far_who_was_replaced_and_finishes() {
    let place = old_and_new();
    let old = place.start_full("old");
    let new = place.start_full("new");

    // In the middle, the only peer falls silent.
    sync_info(&place, |info| info["height"].as_u64() > Some(0));
    old.signal(Signal::SIGSTOP);
    let info = sync_info(&place, |info| info["syncing"] == true);
    assert_eq!(info["target"], BLOCKS);
    let height = info["height"].as_u64().unwrap();
    assert!(height < BLOCKS, "{info}");
    assert_eq!(info["behind"], BLOCKS - height);
    assert_eq!(info["peers"][0], OLD);
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
