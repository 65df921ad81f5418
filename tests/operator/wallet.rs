//! What a wallet tells of its past.

use super::Place;

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
    let earned = loop {
        let entries = place.must("wallet history --data-dir alpha --json").json();
        if let Some(first) = entries.get(0) {
            break first.clone();
        }
    };
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
