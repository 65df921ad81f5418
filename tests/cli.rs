//! The commands as an operator runs them: what needs no running node, and every refusal.
#![expect(clippy::unwrap_used, reason = "a step that fails must fail its test")]

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use std::fmt::Display;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use support::Place;
use timed::node::files::{DataDir, DataDirLock};
use tokio::time::Instant;

/// A masternode `alpha` in the folder `a` at an address with a chain of its own, ready to run.
fn with_masternode(ip: &str) -> Place {
    let place = Place::new();
    place.must(&format!(
        "init --data-dir a --network dev --name alpha --ip {ip}"
    ));
    place.must("genesis build --certs a/certs --network dev --output genesis.toml");
    place.must("genesis install --data-dir a --genesis genesis.toml --certs a/certs");
    place
}

#[test]
fn a_masternode_alone_runs_pays_and_stops() {
    let place = Place::new();
    place.must("init --data-dir a --network dev --name alpha --ip 127.0.7.3");
    let own = place
        .must("wallet address --data-dir a --network dev")
        .stdout;
    let own = own.trim();
    place.must(&format!(
        "genesis build --certs a/certs --network dev --allocate {own}=50"
    ));
    place.must("genesis install --data-dir a --genesis genesis.toml --certs a/certs");
    place.must("init --data-dir b --network dev --name beta --ip 127.0.7.4");
    let other = place
        .must("wallet address --data-dir b --network dev")
        .stdout;
    let other = other.trim();

    let node = place.start_as("a", "masternode alpha");
    place
        .run("run --data-dir a")
        .failed_with("is in use by another timed process");
    let sent = place
        .must(&format!("wallet send --data-dir a --json {other} 12.5"))
        .json();
    assert_eq!(sent["status"], "final");
    let balance = place
        .must(&format!("wallet balance --data-dir a --json {other}"))
        .json();
    assert_eq!(balance["balance"], "12.50000000");
    place
        .run(&format!("wallet send --data-dir a {other} 1000000"))
        .failed_with("not enough: ");

    let status = place.must("status --data-dir a --json").json();
    assert!(status["chain"]["blocks"].as_u64() >= sent["height"].as_u64());
    assert_eq!(status["consensus"]["evidence"], 0);
    let text = place.must("status --data-dir a").stdout;
    assert!(text.contains("quorum    power 1 of 1"), "{text}");
    assert!(text.contains("signing   yes"), "{text}");
    let peers = place.must("peers --data-dir a").stdout;
    assert!(peers.starts_with("no peer is connected"), "{peers}");
    let block = place
        .must(&format!("rpc --data-dir a getblock {}", sent["height"]))
        .stdout;
    assert!(block.contains(sent["txid"].as_str().unwrap()), "{block}");
    place
        .run("rpc --data-dir a getblock 999999999")
        .failed_with("no block at height 999999999");

    // A ban outlives the process, is shown with its reason, and never hits the node itself.
    place
        .run("ban --data-dir a 127.0.7.3")
        .failed_with("this node's own address");
    place.must("ban --data-dir a 127.0.7.9 --for 2h --reason a-test");
    let stopped = place.must("stop --data-dir a").stdout;
    assert_eq!(stopped, "stopped\n");
    assert_eq!(node.exit_code(), Some(0));

    // Another genesis than the stored chain's is refused, and the chain left as it is: with its own
    // it goes on where it stopped.
    place.must("genesis build --certs a/certs --network dev --chain-id other --output other.toml");
    std::fs::copy(place.path("other.toml"), place.path("a/genesis.toml")).unwrap();
    place.run("run --data-dir a").failed_with("chain.redb");
    std::fs::copy(place.path("genesis.toml"), place.path("a/genesis.toml")).unwrap();
    let node = place.start_as("a", "masternode alpha");
    let again = place.must("rpc --data-dir a --json getblockcount").json();
    assert!(again.as_u64() >= sent["height"].as_u64());
    let peers = place.must("peers --data-dir a").stdout;
    let ban = peers.lines().find(|line| line.starts_with("127.0.7.9"));
    let ban = ban.unwrap_or_else(|| panic!("{peers}"));
    assert!(ban.ends_with("  operator  a-test"), "{ban}");
    // By a clock that does not wait for the test.
    assert!(
        ban.contains("  1 h ") || ban.contains("  2 h 0 min"),
        "{ban}"
    );
    place.must("unban --data-dir a 127.0.7.9");
    let banned = place.must("rpc --data-dir a --json listbanned").json();
    assert_eq!(banned, Value::Array(Vec::new()));
    place
        .run("unban --data-dir a 127.0.7.9")
        .failed_with("127.0.7.9 is not banned");
    place.must("stop --data-dir a");
    assert_eq!(node.exit_code(), Some(0));

    // A damaged database is refused and not replaced.
    let database = place.path("a/chain.redb");
    std::fs::write(&database, "not a database").unwrap();
    place.run("run --data-dir a").failed_with("chain.redb");
    assert!(std::fs::read(&database).unwrap() == b"not a database");
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    let place = Place::new();
    for wrong in [
        "",
        "nonsense",
        "init",
        "init --name alpha --ip 127.0.0.1:24000",
        "init --name alpha --ip 127.0.0.1 --network moon",
        "testnet --nodes 0",
        "testnet --nodes 3 --seconds 60 --kill-one-after 10s",
        "testnet --nodes 4 --seconds 20 --kill-one-after 10s --restart-after 10s",
        "testnet --restart-after 10h",
    ] {
        assert_eq!(place.run(wrong).code, 2, "{wrong}");
    }
    assert!(place.must("--help").stdout.contains("testnet"));
    assert!(place.must("--version").stdout.starts_with("timed "));
    assert_eq!(std::fs::read_dir(place.path(".")).unwrap().count(), 0);
}

#[test]
fn a_node_is_made_and_shown_and_never_overwritten() {
    let place = Place::new();
    let init = "init --data-dir a --network dev --name alpha --ip 127.0.0.1";
    let done = place.must(init);
    assert!(
        done.stdout.contains("masternode alpha on dev"),
        "{}",
        done.stdout
    );
    let key = std::fs::read_to_string(place.path("a/node.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!done.stdout.contains(secret));

    let shown = place.must("cert show --data-dir a --json").json();
    assert!(done.stdout.contains(shown["pin"].as_str().unwrap()));
    assert_eq!(shown["ips"][0], "127.0.0.1");
    let text = place.must("cert show a/certs/alpha.pem").stdout;
    assert!(text.contains(shown["pin"].as_str().unwrap()), "{text}");

    let again = place.run(&format!("{init} --json"));
    again.failed_with("would overwrite");
    assert!(
        again.json()["error"]
            .as_str()
            .unwrap()
            .contains("a/node.key")
    );
    assert_eq!(
        std::fs::read_to_string(place.path("a/node.key")).unwrap(),
        key
    );
}

#[test]
fn a_chain_of_two_masternodes_is_built_and_installed() {
    let place = Place::new();
    std::fs::create_dir(place.path("shared")).unwrap();
    for (name, ip) in [("alpha", "127.0.0.1"), ("beta", "127.0.0.2")] {
        let init = format!("init --json --data-dir {name} --network dev --name {name} --ip {ip}");
        let report = place.must(&init).json();
        for file in report["public_files"].as_array().unwrap() {
            let file = place.path(file.as_str().unwrap());
            std::fs::copy(&file, place.path("shared").join(file.file_name().unwrap())).unwrap();
        }
    }
    let address = place
        .must("wallet address --data-dir alpha --network dev")
        .stdout;
    let build = format!(
        "genesis build --json --certs shared --network dev --power beta=2 --allocate {}=12.5",
        address.trim()
    );
    let report = place.must(&build).json();
    assert_eq!(report["total_power"], 3);
    assert_eq!(report["allocated"], "12.50000000");
    place
        .run(&build)
        .failed_with("would overwrite genesis.toml");
    for name in ["alpha", "beta"] {
        place.must(&format!(
            "genesis install --data-dir {name} --genesis genesis.toml --certs shared"
        ));
        let certs = std::fs::read_dir(place.path(name).join("certs")).unwrap();
        assert_eq!(certs.count(), 4);
    }
    assert_eq!(
        place.must("wallet address --data-dir alpha").stdout,
        address
    );

    std::fs::copy(
        place.path("shared/alpha.pem"),
        place.path("shared/beta.pem"),
    )
    .unwrap();
    place
        .run("genesis build --certs shared --network dev --output other.toml")
        .failed_with("shared/beta.pem has the pin");
    place
        .run("genesis build --certs shared --network dev --output other.toml --power beta=much")
        .failed_with("--power beta=much");
    assert!(!place.path("other.toml").exists());
}

#[test]
fn commands_without_a_node_say_what_to_do() {
    let place = Place::new();
    place.run("status").failed_with("timed init --data-dir");
    place.run("run").failed_with("timed.toml is missing");
    place.run("wallet balance").failed_with("timed wallet new");
    place
        .run("cert show")
        .failed_with("node.pem cannot be read");

    place.must("init --data-dir a --network dev --name alpha --ip 127.0.0.1 --port 24290");
    for command in ["status", "peers", "stop", "rpc getblockcount"] {
        let done = place.run(&format!("{command} --data-dir a"));
        done.failed_with("the node is not running: no answer at http://127.0.0.1:24291");
        done.failed_with("start it with: timed run --data-dir a");
    }
    place
        .run("run --data-dir a")
        .failed_with("a/genesis.toml is missing");
}

#[test]
fn a_wallet_key_is_made_once() {
    let place = Place::new();
    place.must("init --data-dir f --network test --name full --ip 127.0.0.1 --full");
    let made = place.must("wallet new --data-dir f --network test").stdout;
    assert!(made.starts_with("ttime1"), "{made}");
    place
        .run("wallet new --data-dir f --network test")
        .failed_with("is not overwritten");
    let mode = std::fs::metadata(place.path("f/wallet.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn bad_settings_and_keys_stop_a_start_with_one_sentence() {
    let place = with_masternode("127.0.7.1");
    place.edit(
        "a/timed.toml",
        "max_unpinned = 64",
        "max_unpinned = 64\nmax_peers = 8",
    );
    place
        .run("run --data-dir a")
        .failed_with("unknown field `max_peers`");
    place.edit("a/timed.toml", "\nmax_peers = 8", "");

    let key = place.path("a/consensus.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    place
        .run("run --data-dir a")
        .failed_with("run: chmod 600 a/consensus.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();

    std::fs::rename(&key, place.path("kept")).unwrap();
    place
        .run("run --data-dir a")
        .failed_with("a/consensus.key is missing");
    std::fs::rename(place.path("kept"), &key).unwrap();

    place
        .run("run --data-dir a --log =")
        .failed_with("is not a log filter");

    place.edit("a/certs/alpha.masternode.toml", "serial = 1", "serial = 2");
    place
        .run("run --data-dir a")
        .failed_with("not signed by its consensus key");
}

/// A socket or lock that a test has closed lives on for a moment in a child that another test is just
/// starting.
fn until_free<T, E: Display>(take: impl Fn() -> Result<T, E>) {
    let start = Instant::now();
    while let Err(error) = take() {
        assert!(start.elapsed() < Duration::from_secs(10), "{error}");
    }
}

#[test]
fn a_busy_directory_port_or_a_foreign_address_stops_a_start() {
    let place = with_masternode("127.0.7.2");
    let folder = DataDir::new(&place.path("a"));
    let held = DataDirLock::take(&folder).unwrap();
    place
        .run("run --data-dir a")
        .failed_with("a is in use by another timed process");
    drop(held);
    until_free(|| DataDirLock::take(&folder));

    let busy = UdpSocket::bind("127.0.7.2:24200").unwrap();
    place
        .run("run --data-dir a")
        .failed_with("UDP port 24200 of 127.0.7.2 is in use");
    drop(busy);
    until_free(|| UdpSocket::bind("127.0.7.2:24200"));

    let busy = TcpListener::bind("127.0.7.2:24201").unwrap();
    place
        .run("run --data-dir a")
        .failed_with("TCP port 24201 of 127.0.7.2 is in use");
    drop(busy);
    until_free(|| TcpListener::bind("127.0.7.2:24201"));

    // An address for documentation, which no machine has.
    place.edit(
        "a/timed.toml",
        "listen_ip = \"127.0.7.2\"",
        "listen_ip = \"192.0.2.1\"",
    );
    place
        .run("run --data-dir a")
        .failed_with("192.0.2.1 is not an address of this machine");
    assert!(!Path::new(&place.path("a/chain.redb")).exists());
}
