//! A database that is built anew, and an operator who does not wait for it.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::sync::{BLOCKS, old_and_new};
use super::{Place, Running, until};

fn run_reindex(place: &Place) -> Running {
    let node = Command::new(env!("CARGO_BIN_EXE_timed"))
        .args(["run", "--reindex", "--data-dir", "old"])
        .current_dir(place.path(""))
        .spawn();
    Running(node.unwrap())
}

#[test]
fn a_reindex_ends_at_a_signal_and_changes_nothing() {
    let place = old_and_new("127.0.8.73", "127.0.8.74");
    let replaced = place.path("old/chain.redb.damaged");
    let mut node = run_reindex(&place);
    until("the new file is begun", || {
        assert_eq!(node.0.try_wait().unwrap(), None);
        place.path("old/chain.redb.new").exists().then_some(())
    });
    let asked = Instant::now();
    node.signal(Signal::SIGTERM);
    assert_eq!(node.exit_code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert!(!replaced.exists());

    // The next one begins anew, whatever was left, and finds all that there was.
    let node = run_reindex(&place);
    let height = until("the node answers", || {
        let done = place.run("rpc getblockcount --data-dir old --json");
        (done.code == 0).then(|| done.json())
    });
    assert_eq!(height, BLOCKS);
    assert!(replaced.exists());
    node.signal(Signal::SIGINT);
    assert_eq!(node.exit_code(), Some(0));
}
