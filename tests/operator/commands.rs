//! Bad input to every command: a sentence, a code, and nothing changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use timed::node::files::{DataDir, DataDirLock};

use super::{Done, Place};

/// A command, its exit code, and words of its sentence. 1: it failed. 2: it was written wrongly.
type Row = (&'static str, i32, &'static str);

/// While no node runs; `alpha` is one, `nothing` is not there.
const STOPPED: &[Row] = &[
    ("", 2, "Usage: timed"),
    ("nonsense", 2, "unrecognized subcommand"),
    (
        "init --name Bad! --ip 127.0.0.9 --network dev --data-dir new",
        1,
        "is not allowed: use 1 to 32",
    ),
    ("init --name new --ip nonsense", 2, "'--ip <IP>'"),
    (
        "init --name new --ip 127.0.0.9 --network moon",
        2,
        "'--network <NETWORK>'",
    ),
    (
        "init --name new --ip 127.0.0.9 --port 0",
        2,
        "'--port <PORT>'",
    ),
    (
        "init --name new --ip 127.0.0.9 --network dev --payout x --data-dir new",
        1,
        "address",
    ),
    (
        "init --name alpha --ip 127.0.8.12 --network dev --data-dir alpha",
        1,
        "alpha",
    ),
    (
        "init --name new --ip 127.0.0.9 --network dev --port 65535 --data-dir new",
        1,
        "port 65535 leaves no port above it for the RPC: name one with --rpc-port",
    ),
    (
        "init --name new --ip 127.0.0.9 --network dev --peer 0.0.0.0:0 --data-dir new",
        1,
        "peers = \"0.0.0.0:0\" cannot be used",
    ),
    ("run --data-dir nothing", 1, "make a node there with"),
    ("run --data-dir alpha --log loud", 1, "is not a log filter"),
    ("testnet --nodes 0", 2, "'--nodes <NODES>'"),
    (
        "genesis build --certs nothing --network dev --output new.toml",
        1,
        "nothing",
    ),
    (
        "genesis build --certs public --network dev --output genesis.toml",
        1,
        "genesis.toml",
    ),
    (
        "genesis build --certs public --network dev --output new.toml --power x",
        1,
        "write NAME=POWER",
    ),
    (
        "genesis build --certs public --network dev --output new.toml --power nobody=2",
        1,
        "nobody",
    ),
    (
        "genesis build --certs public --network dev --output new.toml --allocate x=1",
        1,
        "address",
    ),
    (
        "genesis build --certs public --network main --output new.toml",
        1,
        "the record is for the dev network",
    ),
    (
        "genesis install --genesis nothing --certs public --data-dir alpha",
        1,
        "nothing",
    ),
    (
        "genesis install --genesis genesis.toml --certs nothing --data-dir alpha",
        1,
        "nothing",
    ),
    ("cert show nothing.pem", 1, "nothing.pem cannot be read"),
    ("cert show genesis.toml", 1, "genesis.toml"),
    ("cert rotate --data-dir nothing", 1, "nothing"),
    ("cert move nonsense", 2, "<IP>"),
    ("cert move 0.0.0.0 --data-dir alpha", 1, "0.0.0.0"),
    (
        "cert install nothing.toml --data-dir alpha",
        1,
        "nothing.toml",
    ),
    (
        "cert install genesis.toml --data-dir alpha",
        1,
        "genesis.toml",
    ),
    ("cert reload --data-dir alpha", 1, "the node is not running"),
    ("status --data-dir alpha", 1, "the node is not running"),
    ("status --data-dir nothing", 1, "make a node there with"),
    ("peers --data-dir alpha", 1, "the node is not running"),
    ("peers forget nonsense", 2, "<IP>"),
    (
        "peers forget 127.0.0.9 --data-dir alpha",
        1,
        "the node is not running",
    ),
    ("doctor surplus", 2, "unexpected argument"),
    ("sync --surplus", 2, "error: "),
    ("ban nonsense", 2, "<IP>"),
    ("ban 127.0.0.9 --for 1w", 2, "write a time like"),
    (
        "ban 127.0.0.9 --data-dir alpha",
        1,
        "the node is not running",
    ),
    ("unban nonsense", 2, "<IP>"),
    (
        "unban 127.0.0.9 --data-dir alpha",
        1,
        "the node is not running",
    ),
    ("log info --data-dir alpha", 1, "the node is not running"),
    ("stop --data-dir alpha", 1, "the node is not running"),
    ("wallet new --data-dir alpha", 1, "it is not overwritten"),
    ("wallet address --data-dir nothing", 1, "make a key with"),
    (
        "wallet balance --data-dir alpha",
        1,
        "the node is not running",
    ),
    ("wallet send x 1 --data-dir alpha", 1, "address"),
    ("wallet send x -1 --data-dir alpha", 2, "error: "),
    (
        "wallet send x 1.123456789 --data-dir alpha",
        2,
        "is not an amount of TIME",
    ),
    ("wallet history --blocks many", 2, "'--blocks <BLOCKS>'"),
    ("wallet history nonsense --data-dir alpha", 1, "address"),
    (
        "wallet passphrase --remove --data-dir alpha",
        1,
        "has no passphrase",
    ),
    ("rpc", 2, "<METHOD>"),
    ("rpc uptime --data-dir alpha", 1, "the node is not running"),
    ("completions nonsense", 2, "<SHELL>"),
];

/// While alpha runs.
const RUNNING: &[Row] = &[
    (
        "run --data-dir alpha",
        1,
        "is in use by another timed process",
    ),
    ("rpc nonsense --data-dir alpha", 1, "no method \"nonsense\""),
    (
        "rpc getblockhash x --data-dir alpha",
        1,
        "parameter \"height\"",
    ),
    (
        "rpc uptime 1 --data-dir alpha",
        1,
        "1 parameters are too many",
    ),
    ("log loud --data-dir alpha", 1, "is not a log filter"),
    (
        "unban 127.0.0.9 --data-dir alpha",
        1,
        "127.0.0.9 is not banned",
    ),
    ("wallet balance nonsense --data-dir alpha", 1, "address"),
    (
        "wallet send {address} 0 --data-dir alpha",
        1,
        "cannot be sent",
    ),
    (
        "wallet send {address} 99999999 --data-dir alpha",
        1,
        "not enough",
    ),
    (
        "wallet send {address} 1 --fee-rate 99999999999 --data-dir alpha",
        1,
        "not enough",
    ),
];

#[track_caller]
fn check(place: &Place, (arguments, code, words): &Row, address: &str) -> Done {
    let arguments = arguments.replace("{address}", address);
    let done = place.run(&arguments);
    let said = &done.stderr;
    assert_eq!(done.code, *code, "{arguments}: {said}{}", done.stdout);
    assert!(
        said.contains(words),
        "{arguments}: {words:?} is not in {said}"
    );
    for never in ["panicked", "RUST_BACKTRACE", "stack backtrace", "Error {"] {
        assert!(!said.contains(never), "{arguments}: {said}");
    }
    if *code == 1 {
        assert!(
            said.starts_with("timed: ") && said.lines().count() == 1,
            "{arguments}: {said}"
        );
        let json = place.run(&format!("{arguments} --json"));
        assert_eq!(json.code, 1, "{arguments} --json");
        assert!(
            json.json()["error"].as_str().unwrap().contains(words),
            "{}",
            json.stdout
        );
    }
    done
}

/// Every file below a folder, with what is in it.
pub(super) fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn bad_input_to_every_command_gets_a_sentence_and_a_code_and_changes_nothing() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.12")]);
    // Made by whoever uses the folder first.
    drop(DataDirLock::take(&DataDir::new(&place.path("alpha"))).unwrap());
    let before = contents(&place.path(""));
    for row in STOPPED {
        check(&place, row, "");
    }
    let after = contents(&place.path(""));
    let names = |all: &BTreeMap<PathBuf, Vec<u8>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    assert!(after == before, "a file has changed");

    let address = place.must("wallet address --data-dir alpha").stdout;
    let node = place.start("alpha");
    for row in RUNNING {
        check(&place, row, address.trim());
    }
    assert_eq!(
        place
            .must("rpc getrawmempool --data-dir alpha --json")
            .json(),
        serde_json::json!([])
    );
    place.must("stop --data-dir alpha");
    assert_eq!(node.exit_code(), Some(0));
}

#[test]
fn an_output_that_cannot_be_written_is_a_failure() {
    let place = Place::new();
    place.must("init --data-dir a --network dev --name alpha --ip 127.0.8.12");
    for arguments in ["cert show --data-dir a", "cert show --data-dir a --json"] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_timed"))
            .args(arguments.split(' '))
            .current_dir(place.path(""))
            .stdout(full)
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(1), "{arguments}");
        assert_eq!(
            String::from_utf8(done.stderr).unwrap(),
            "timed: the standard output cannot be written: No space left on device (os error 28)\n"
        );
    }
}

#[test]
fn an_error_says_its_cause_once() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.12")]);
    place.must("init --data-dir i3 --full --network dev --name i3 --ip 127.0.8.13");
    std::fs::remove_dir(place.path("i3/certs")).unwrap();
    std::fs::write(place.path("i3/certs"), "").unwrap();
    let arguments = "genesis install --genesis genesis.toml --certs public --data-dir i3";
    let sentence = "i3/certs/alpha.masternode.toml: Not a directory (os error 20)";
    assert_eq!(place.run(arguments).stderr, format!("timed: {sentence}\n"));
    let json = place.run(&format!("{arguments} --json")).json();
    assert_eq!(json["error"], sentence);
}

/// A command without a row above fails here.
#[test]
fn every_command_of_the_help_is_tried() {
    let place = Place::new();
    let mut tried = BTreeSet::new();
    for (arguments, ..) in STOPPED {
        let words: Vec<&str> = arguments.split(' ').collect();
        tried.insert(words[0].to_owned());
        tried.insert(words[..words.len().min(2)].join(" "));
    }
    for command in listed(&place, "") {
        let below = listed(&place, &command);
        assert!(tried.contains(&command), "{command}");
        for one in below {
            assert!(
                tried.contains(&format!("{command} {one}")),
                "{command} {one}"
            );
        }
    }
}

/// The commands that a help text lists.
fn listed(place: &Place, command: &str) -> Vec<String> {
    let help = place.must(format!("{command} --help").trim()).stdout;
    let Some((_, commands)) = help.split_once("Commands:\n") else {
        return Vec::new();
    };
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        // Of clap, and in every list.
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}
