//! A wallet: its passphrase, its fees, and what it tells of its past.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::{Done, Place, get, until};

/// A command that must fail with these words, on one line and with nothing of the passphrases.
#[track_caller]
fn refused(place: &Place, arguments: &str, words: &str) -> Done {
    let done = place.run(arguments);
    assert_eq!(done.code, 1, "{arguments}: {}", done.stdout);
    assert!(done.stderr.contains(words), "{arguments}: {}", done.stderr);
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    assert!(!done.stderr.contains("horse"), "{}", done.stderr);
    done
}

/// The first entry of alpha's history, once there is one: the first slot's reward.
fn first_entry(place: &Place) -> Value {
    until("the first slot's reward", || {
        let entries = place.must("wallet history --data-dir alpha --json").json();
        entries.get(0).cloned()
    })
}

#[test]
fn a_passphrase_guards_sending_and_nothing_is_lost_on_the_way() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.8")]);
    for (file, content) in [
        ("first", "correct horse\n"),
        ("second", "horse two"),
        ("empty", "\n"),
    ] {
        std::fs::write(place.path(file), content).unwrap();
        place.closed(file);
    }
    let wallet = || std::fs::read_to_string(place.path("alpha/wallet.key")).unwrap();
    let clear = wallet();
    let address = place.must("wallet address --data-dir alpha").stdout;
    let passphrase = "wallet passphrase --data-dir alpha";

    // Without a terminal or a file there is nobody to ask.
    refused(&place, passphrase, "name a file with it");
    refused(
        &place,
        &format!("{passphrase} --remove"),
        "has no passphrase",
    );
    refused(
        &place,
        &format!("{passphrase} --new-passphrase-file empty"),
        "a passphrase has 1 to 1024 bytes",
    );
    refused(
        &place,
        &format!("{passphrase} --new-passphrase-file no"),
        "no cannot be read",
    );
    assert_eq!(wallet(), clear);

    let set = place.must(&format!("{passphrase} --new-passphrase-file first --json"));
    assert_eq!(set.json()["encrypted"], true);
    let encrypted = wallet();
    assert!(encrypted.contains("BEGIN ENCRYPTED PRIVATE KEY"));
    assert_eq!(
        place.must("wallet address --data-dir alpha").stdout,
        address
    );
    let mode = std::fs::metadata(place.path("alpha/wallet.key")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    refused(
        &place,
        &format!("{passphrase} --passphrase-file second --new-passphrase-file first"),
        "the passphrase does not open",
    );
    refused(
        &place,
        &format!("{passphrase} --passphrase-file first --new-passphrase-file first"),
        "cannot come from the same place",
    );
    assert_eq!(wallet(), encrypted);

    let _node = place.start("alpha");
    first_entry(&place);
    let send = format!("wallet send --data-dir alpha --json {} 1", address.trim());
    refused(&place, &send, "name a file with it");
    refused(
        &place,
        &format!("{send} --passphrase-file second"),
        "does not open",
    );
    let sent = place
        .must(&format!("{send} --passphrase-file first"))
        .json();
    assert_eq!(sent["status"], "final", "{sent}");

    place.must(&format!(
        "{passphrase} --passphrase-file first --new-passphrase-file second"
    ));
    refused(
        &place,
        &format!("{send} --passphrase-file first"),
        "does not open",
    );
    place.must(&format!("{passphrase} --passphrase-file second --remove"));
    assert_eq!(wallet(), clear);
    refused(
        &place,
        "wallet new --data-dir alpha --encrypt",
        "it is not overwritten",
    );
}

#[test]
fn a_fee_is_the_lowest_a_rate_or_an_amount() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.9")]);
    let address = place.must("wallet address --data-dir alpha").stdout;
    let address = address.trim();
    let _node = place.start("alpha");
    first_entry(&place);
    let send = |options: &str| {
        let command = format!("wallet send --data-dir alpha --json {address} 1 {options}");
        let sent = place.must(&command).json();
        assert_eq!(sent["status"], "final", "{sent}");
        sent["fee"]
            .as_str()
            .unwrap()
            .replace('.', "")
            .parse::<u64>()
            .unwrap()
    };
    // One input or several: the size, and with it the fee, differs little.
    let lowest = send("--priority low");
    assert!(lowest > 0);
    // Nothing waits, so nobody is outbid.
    let high = send("--priority high");
    assert!(high < 2 * lowest && lowest < 2 * high, "{lowest} {high}");
    assert_eq!(send("--fee 0.5"), 50_000_000);
    let rate = place
        .must("rpc --data-dir alpha --json estimatesmartfee 3")
        .json();
    assert_eq!(rate["blocks"], 3);
    // So many TIME for 1000 bytes: the sizes that both fees tell are alike.
    let (bytes, paid) = (
        lowest * 1_000 / units(&rate["feerate"]),
        send("--fee-rate 1"),
    );
    let bytes_paid = paid / 100_000;
    assert!(
        bytes_paid < 2 * bytes && bytes < 2 * bytes_paid,
        "{bytes} {bytes_paid}"
    );
    let done = place.run(&format!(
        "wallet send --data-dir alpha {address} 1 --fee 1 --priority low"
    ));
    assert_eq!(done.code, 2, "{}", done.stderr);
    refused(
        &place,
        "rpc --data-dir alpha estimatesmartfee 0",
        "conf_target must be 1 to 100 blocks",
    );

    // Each was measured from its submission to its block.
    let host = "Host: 127.0.8.9:24201\r\n";
    let count = "timed_transaction_finality_seconds_count 4";
    until("four are counted", || {
        let metrics = get("127.0.8.9:24201", "/metrics", host).2;
        metrics.contains(count).then_some(())
    });
}

/// An amount in its smallest units.
fn units(amount: &Value) -> u64 {
    amount.as_str().unwrap().replace('.', "").parse().unwrap()
}

#[test]
fn history_tells_what_was_received_sent_and_earned() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.5")]);
    place.must("init --data-dir other --network dev --name other --ip 127.0.8.6");
    let other = place
        .must("wallet address --data-dir other --network dev")
        .stdout;
    let other = other.trim();
    let _node = place.start("alpha");
    // The first slot's reward is what there is to spend.
    let earned = first_entry(&place);
    assert_eq!(earned["kind"], "reward", "{earned}");
    let sent = place
        .must(&format!("wallet send --data-dir alpha --json {other} 12.5"))
        .json();
    assert_eq!(sent["status"], "final");

    let entries = place.must("wallet history --data-dir alpha --json").json();
    let entries = entries.as_array().unwrap();
    let of = |kind: &str| entries.iter().find(|entry| entry["kind"] == kind);
    let paid = of("sent").unwrap();
    assert_eq!(paid["amount"], "12.50000000");
    assert_eq!(paid["txid"], sent["txid"]);
    assert_eq!(paid["to"], other);
    assert_eq!(of("reward_and_fees").unwrap()["height"], sent["height"]);
    let theirs = place
        .must(&format!("wallet history --data-dir alpha --json {other}"))
        .json();
    assert_eq!(theirs.as_array().unwrap().len(), 1);
    assert_eq!(theirs[0]["kind"], "received");

    let text = place.must("wallet history --data-dir alpha").stdout;
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    assert!(text.contains("12.50000000"), "{text}");
}
