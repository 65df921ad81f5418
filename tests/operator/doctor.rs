//! `timed doctor` before a node exists, while it is stopped, while it runs, and with what is broken.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use timed::node::files::{DataDir, DataDirLock};

use super::{Done, Place, get, until};

/// The findings, and whether there was a fault.
pub(super) fn doctor(place: &Place, name: &str) -> (Value, i32) {
    let done = place.run(&format!("doctor --json --data-dir {name}"));
    (done.json(), done.code)
}

/// Whether a finding says this.
fn said(findings: &Value, words: &str) -> bool {
    let mut all = findings.as_array().unwrap().iter();
    all.any(|one| one["sentence"].as_str().unwrap().contains(words))
}

/// The first finding about something with these words.
#[track_caller]
pub(super) fn find<'a>(findings: &'a Value, about: &str, words: &str) -> &'a Value {
    let all = findings.as_array().unwrap();
    let found = all
        .iter()
        .find(|one| one["about"] == about && one["sentence"].as_str().unwrap().contains(words));
    found.unwrap_or_else(|| panic!("{about}: {words}: {findings:#}"))
}

#[track_caller]
pub(super) fn says(findings: &Value, about: &str, level: &str, words: &str) {
    let found = find(findings, about, words);
    assert_eq!(found["level"], level, "{found}");
}

#[test]
fn a_node_that_runs_is_well_and_one_that_is_missing_is_named_with_the_next_step() {
    let place = Place::with_masternodes(&[("alpha", "127.0.9.1"), ("beta", "127.0.9.2")]);
    let (stopped, code) = doctor(&place, "alpha");
    assert_eq!(code, 0, "{stopped:#}");
    says(&stopped, "settings", "good", "timed.toml is whole");
    says(&stopped, "genesis", "good", "2 masternodes");
    says(&stopped, "node key", "good", "its pin is");
    says(&stopped, "certificate", "good", "belongs to the node key");
    says(
        &stopped,
        "consensus key",
        "good",
        "readable by its owner only",
    );
    says(&stopped, "wallet key", "good", "readable by its owner only");
    says(
        &stopped,
        "own record",
        "good",
        "masternode alpha, serial 1, reached at 127.0.9.1:24200",
    );
    says(
        &stopped,
        "records",
        "good",
        "every masternode of genesis has one",
    );
    says(&stopped, "pins", "good", "no record is older");
    says(&stopped, "UDP port", "good", "127.0.9.1:24200 is free");
    says(&stopped, "TCP port", "good", "127.0.9.1:24201 is free");
    says(&stopped, "database", "note", "there is none yet");
    says(&stopped, "node", "note", "it does not answer");
    says(
        &stopped,
        "masternode",
        "warning",
        "beta (127.0.9.2:24200) nothing listens on its UDP port",
    );
    find(&stopped, "disk", "are free");
    find(&stopped, "socket buffers", "");

    let alpha = place.start("alpha");
    // Consensus counts nobody until it has read its log.
    let no_quorum = "no quorum: power 1 of 2, missing: beta";
    let alone = until("the missing one is named", || {
        let (findings, code) = doctor(&place, "alpha");
        assert_eq!(code, 1);
        said(&findings, no_quorum).then_some(findings)
    });
    says(&alone, "quorum", "fault", no_quorum);
    says(
        &alone,
        "masternode",
        "fault",
        "is not connected and nothing listens on its UDP port",
    );
    says(&alone, "clock", "note", "no peer is connected");
    says(&alone, "own address", "note", "no peer is connected");
    says(&alone, "database", "good", "in use by the running node");

    let beta = place.start("beta");
    let connected = "beta (127.0.9.2:24200) is connected";
    let both = until("nothing is wrong", || {
        let (findings, code) = doctor(&place, "alpha");
        (code == 0 && said(&findings, connected)).then_some(findings)
    });
    says(&both, "masternode", "good", connected);
    says(&both, "quorum", "good", "quorum: power 2 of 2");
    says(&both, "signing", "good", "this masternode signs");
    says(&both, "clock", "good", "that of its peers");
    says(
        &both,
        "own address",
        "good",
        "peers see this node at 127.0.9.1, as its record says",
    );
    find(&both, "UDP", "");
    find(&both, "sync", "");
    let text = place.must("doctor --data-dir alpha").stdout;
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );

    let peers = place.must("rpc --json --data-dir alpha getpeerinfo").json();
    for field in [
        "ip",
        "node_id",
        "name",
        "pinned",
        "direction",
        "connected_at_ms",
        "rtt",
        "tip_height",
        "streams",
        "queues",
        "bulk_unconfirmed",
        "bulk_credit",
        "last_ping_ago_ms",
        "reconnects",
        "last_disconnect",
    ] {
        assert!(peers[0].get(field).is_some(), "{field}: {peers:#}");
    }
    assert_eq!(peers[0]["pinned"], true);
    for rtt in ["last_us", "min_us", "p99_us"] {
        assert!(peers[0]["rtt"][rtt].is_u64(), "{rtt}: {peers:#}");
    }

    // Another node at the address where this one's RPC would be.
    let settings = std::fs::read_to_string(place.path("beta/timed.toml")).unwrap();
    let wrong = format!("rpc_ip = \"127.0.9.1\"\n{settings}");
    std::fs::write(place.path("beta/timed.toml"), wrong).unwrap();
    says(
        &doctor(&place, "beta").0,
        "node",
        "fault",
        "the node that answers at http://127.0.9.1:24201 has another secret than beta/rpc.cookie",
    );
    let done = place.run("status --data-dir beta");
    assert!(
        done.stderr.contains("it is another node"),
        "{}",
        done.stderr
    );
    std::fs::rename(place.path("beta/rpc.cookie"), place.path("kept")).unwrap();
    says(
        &doctor(&place, "beta").0,
        "node",
        "fault",
        "the node that answers listens on 127.0.9.1:24200, and timed.toml says 127.0.9.2:24200",
    );
    std::fs::rename(place.path("kept"), place.path("beta/rpc.cookie")).unwrap();
    std::fs::write(place.path("beta/timed.toml"), settings).unwrap();

    // One that is stopped is told from one that refuses.
    place.must("stop --data-dir alpha");
    assert_eq!(alpha.exit_code(), Some(0));
    let (stopped, _) = doctor(&place, "alpha");
    says(&stopped, "database", "good", "opens, belongs to this chain");
    says(
        &stopped,
        "masternode",
        "good",
        "beta (127.0.9.2:24200) answers over UDP",
    );
    place.must("stop --data-dir beta");
    assert_eq!(beta.exit_code(), Some(0));
}

#[test]
fn a_refusal_is_explained_on_both_sides() {
    let place = Place::with_masternodes(&[("alpha", "127.0.9.3"), ("beta", "127.0.9.4")]);
    // Beta's node key is another one than alpha's record of it names: made anew at the same place.
    place.must("init --data-dir other --network dev --name beta --ip 127.0.9.4");
    for file in ["node.key", "node.pem"] {
        std::fs::copy(
            place.path("other").join(file),
            place.path("beta").join(file),
        )
        .unwrap();
    }
    let (own, code) = doctor(&place, "beta");
    assert_eq!(code, 1);
    says(
        &own,
        "own record",
        "fault",
        "does not name the pin of node.key",
    );

    // As a full node it starts, and alpha refuses it.
    std::fs::rename(place.path("beta/consensus.key"), place.path("kept")).unwrap();
    let _alpha = place.start("alpha");
    let _beta = place.start_full("beta");
    let refused = until("alpha refused beta", || {
        let (findings, _) = doctor(&place, "alpha");
        findings
            .to_string()
            .contains("pin_mismatch")
            .then_some(findings)
    });
    let finding = find(
        &refused,
        "masternode",
        "because this node refused or ended it: pin_mismatch",
    );
    assert!(
        finding["next"]
            .as_str()
            .unwrap()
            .contains("get beta's newest record"),
        "{finding}"
    );
    let told = until("beta is told", || {
        let (findings, _) = doctor(&place, "beta");
        findings
            .to_string()
            .contains("pin_mismatch")
            .then_some(findings)
    });
    find(
        &told,
        "masternode",
        "because the peer refused or ended it: pin_mismatch",
    );

    let listed = place.must("peers --refused --data-dir alpha").stdout;
    assert!(listed.contains("pin_mismatch"), "{listed}");
    let rpc = "127.0.9.3:24201";
    let (_, _, metrics) = get(rpc, "/metrics", &format!("Host: {rpc}\r\n"));
    let mut lines = metrics.lines();
    let counted = lines.any(|line| {
        line.starts_with("timed_handshakes_refused_total") && line.contains("\"pin_mismatch\"")
    });
    assert!(counted, "{metrics}");
}

#[test]
fn what_is_broken_in_the_files_is_said_and_the_rest_still_checked() {
    let empty = Place::new();
    let (findings, code) = doctor(&empty, "nothing");
    assert_eq!(code, 1);
    says(
        &findings,
        "settings",
        "fault",
        "timed init --data-dir nothing",
    );
    says(&findings, "genesis", "fault", "genesis.toml is missing");
    says(&findings, "node key", "fault", "node.key");

    let place = Place::with_masternodes(&[("alpha", "127.0.9.5"), ("beta", "127.0.9.6")]);
    let mode = |name: &str, mode| {
        let path = place.path("alpha").join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("consensus.key", 0o644);
    says(
        &doctor(&place, "alpha").0,
        "consensus key",
        "fault",
        "run: chmod 600 alpha/consensus.key",
    );
    mode("consensus.key", 0o600);

    std::fs::remove_file(place.path("alpha/certs/beta.pem")).unwrap();
    std::fs::copy(
        place.path("public/alpha.pem"),
        place.path("alpha/certs/beta.pem"),
    )
    .unwrap();
    says(
        &doctor(&place, "alpha").0,
        "records",
        "warning",
        "which the record of beta does not name",
    );
    std::fs::write(place.path("alpha/certs/beta.pem"), "nothing").unwrap();
    says(
        &doctor(&place, "alpha").0,
        "records",
        "warning",
        "beta.pem: ",
    );
    std::fs::remove_file(place.path("alpha/certs/beta.masternode.toml")).unwrap();
    says(
        &doctor(&place, "alpha").0,
        "records",
        "warning",
        "no record of masternode beta",
    );
    std::fs::remove_file(place.path("alpha/certs/alpha.masternode.toml")).unwrap();
    says(
        &doctor(&place, "alpha").0,
        "own record",
        "fault",
        "alpha.masternode.toml is missing",
    );
    for name in ["alpha", "beta"] {
        for suffix in ["masternode.toml", "pem"] {
            let file = format!("{name}.{suffix}");
            let whole = place.path("public").join(&file);
            std::fs::copy(whole, place.path("alpha/certs").join(&file)).unwrap();
        }
    }

    let busy = std::net::UdpSocket::bind("127.0.9.5:24200").unwrap();
    says(
        &doctor(&place, "alpha").0,
        "UDP port",
        "fault",
        "another program has UDP port 24200",
    );
    drop(busy);

    std::fs::write(place.path("alpha/chain.redb"), "not a database").unwrap();
    let (findings, code) = doctor(&place, "alpha");
    assert_eq!(code, 1);
    says(&findings, "database", "fault", "chain.redb");
    says(
        &findings,
        "signing",
        "warning",
        "consensus.state is missing",
    );
    assert_eq!(
        std::fs::read(place.path("alpha/chain.redb")).unwrap(),
        b"not a database"
    );
    std::fs::remove_file(place.path("alpha/chain.redb")).unwrap();

    std::fs::write(place.path("alpha/pins.toml"), "nonsense").unwrap();
    says(
        &doctor(&place, "alpha").0,
        "pins",
        "fault",
        "pins.toml is damaged",
    );
    std::fs::remove_file(place.path("alpha/pins.toml")).unwrap();

    std::fs::copy(place.path("beta/node.pem"), place.path("alpha/node.pem")).unwrap();
    says(
        &doctor(&place, "alpha").0,
        "certificate",
        "fault",
        "node.key and node.pem cannot be used together",
    );
    std::fs::remove_file(place.path("alpha/node.pem")).unwrap();
    says(
        &doctor(&place, "alpha").0,
        "certificate",
        "fault",
        "node.pem cannot be read",
    );

    std::fs::copy(place.path("beta/consensus.key"), place.path("kept")).unwrap();
    place.must("init --data-dir gamma --network dev --name gamma --ip 127.0.9.7");
    std::fs::copy(
        place.path("gamma/consensus.key"),
        place.path("beta/consensus.key"),
    )
    .unwrap();
    says(
        &doctor(&place, "beta").0,
        "own record",
        "fault",
        "genesis does not name the key",
    );

    std::fs::rename(place.path("beta/consensus.key"), place.path("elsewhere")).unwrap();
    place.must("init --data-dir full --network dev --name full --ip 127.0.9.7 --full");
    place.install("full");
    says(
        &doctor(&place, "full").0,
        "consensus key",
        "note",
        "this is a full node",
    );
    std::fs::write(place.path("beta/timed.toml"), "listen_ip = 7").unwrap();
    says(&doctor(&place, "beta").0, "settings", "fault", "timed.toml");

    machine_and_wallet(&place);

    let text: Done = place.run("doctor --data-dir beta");
    assert_eq!(text.code, 1);
    assert!(text.stdout.contains("faults: "), "{}", text.stdout);
}

/// Alpha's address, its database while its process does not answer, its wallet.
fn machine_and_wallet(place: &Place) {
    let settings = std::fs::read_to_string(place.path("alpha/timed.toml")).unwrap();
    let elsewhere = settings.replace("listen_ip = \"127.0.9.5\"", "listen_ip = \"192.0.2.1\"");
    assert_ne!(settings, elsewhere);
    std::fs::write(place.path("alpha/timed.toml"), elsewhere).unwrap();
    says(
        &doctor(place, "alpha").0,
        "UDP port",
        "fault",
        "192.0.2.1 is not an address of this machine",
    );
    std::fs::write(place.path("alpha/timed.toml"), settings).unwrap();

    std::fs::write(place.path("alpha/chain.redb"), "").unwrap();
    let held = DataDirLock::take(&DataDir::new(&place.path("alpha"))).unwrap();
    let (silent, _) = doctor(place, "alpha");
    says(
        &silent,
        "node",
        "fault",
        "a timed process holds the data directory, so it runs, but its RPC at http://127.0.9.5:24201 does not answer",
    );
    says(&silent, "database", "good", "in use by the running node");
    drop(held);
    std::fs::remove_file(place.path("alpha/chain.redb")).unwrap();

    let wallet = place.path("alpha/wallet.key");
    std::fs::set_permissions(&wallet, std::fs::Permissions::from_mode(0o604)).unwrap();
    says(
        &doctor(place, "alpha").0,
        "wallet key",
        "fault",
        "run: chmod 600 alpha/wallet.key",
    );
    std::fs::remove_file(&wallet).unwrap();
    let (without, _) = doctor(place, "alpha");
    assert!(!without.to_string().contains("wallet key"), "{without:#}");
    std::fs::write(place.path("passphrase"), "a word\n").unwrap();
    place.closed("passphrase");
    place.must("wallet new --data-dir alpha --passphrase-file passphrase");
    says(
        &doctor(place, "alpha").0,
        "wallet key",
        "good",
        "encrypted, and readable by its owner only",
    );
    std::fs::write(&wallet, "nothing").unwrap();
    says(
        &doctor(place, "alpha").0,
        "wallet key",
        "fault",
        "alpha/wallet.key is not an Ed25519 key",
    );
    std::fs::remove_file(place.path("alpha/genesis.toml")).unwrap();
    says(
        &doctor(place, "alpha").0,
        "genesis",
        "fault",
        "genesis.toml is missing",
    );
}
