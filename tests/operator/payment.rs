//! A payment whose outcome is not known: it is never said without its id, and nobody is told to send
//! it again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use super::{Done, Place, until};

/// Where a program that stands for alpha's node answers.
const STAND_IN: &str = "127.0.8.62:24201";

/// Masternodes of a chain on which alpha's wallet owns 50 TIME, and that wallet's address.
fn with_coins(masternodes: &[(&str, &str)]) -> (Place, String) {
    let place = Place::new();
    std::fs::create_dir(place.path("public")).unwrap();
    for (name, ip) in masternodes {
        place.must(&format!(
            "init --data-dir {name} --network dev --name {name} --ip {ip}"
        ));
        place.share(name, "public");
    }
    let address = "wallet address --data-dir alpha --network dev";
    let address = place.must(address).stdout.trim().to_owned();
    place.must(&format!(
        "genesis build --certs public --network dev --output genesis.toml --allocate {address}=50"
    ));
    masternodes.iter().for_each(|(name, _)| place.install(name));
    (place, address)
}

/// The command failed, with the id in its sentence and in its JSON, and the way to ask for it.
#[track_caller]
fn names_the_id(done: &Done, words: &str) -> String {
    assert_eq!(done.code, 1, "{}{}", done.stdout, done.stderr);
    let told = done.json();
    let txid = told["txid"].as_str().unwrap_or_else(|| panic!("{told}"));
    let sentence = told["error"].as_str().unwrap();
    assert!(sentence.contains(words), "{told}");
    let ask = format!("ask with timed rpc gettransactionfinality {txid}");
    assert!(sentence.contains(&ask), "{told}");
    let last = done.stderr.lines().last();
    assert_eq!(last, Some(format!("timed: {sentence}").as_str()));
    txid.to_owned()
}

#[test]
fn a_payment_that_waits_when_the_node_stops_is_named() {
    let (place, address) = with_coins(&[("alpha", "127.0.8.60"), ("beta", "127.0.8.61")]);
    // Without beta there is no quorum, so the payment stays in the mempool.
    let node = place.start("alpha");
    let send = format!("wallet send --data-dir alpha --json {address} 5");
    let (done, waiting) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| place.run(&send));
        let waiting = until("the payment is in the mempool", || {
            let waiting = place.must("rpc getrawmempool --data-dir alpha --json");
            waiting.json().get(0).cloned()
        });
        place.must("stop --data-dir alpha");
        (sending.join().unwrap(), waiting)
    });
    let named = names_the_id(&done, "was handed in; whether it is final is not known");
    // Said before the wait, for whoever interrupts it.
    let first = done.stderr.lines().next();
    let said = format!("timed: {named} is handed in; waiting until it is final");
    assert_eq!(first, Some(said.as_str()));
    assert_eq!(Value::from(named), waiting);
    assert!(
        done.stderr.contains("the node is stopping"),
        "{}",
        done.stderr
    );
    assert_eq!(node.exit_code(), Some(0));
}

#[test]
fn a_payment_whose_answer_is_lost_is_named() {
    let (place, address) = with_coins(&[("alpha", "127.0.8.62")]);
    let listener = TcpListener::bind(STAND_IN).unwrap();
    std::thread::spawn(move || while answer_one(&listener) {});
    let send = |amount: u64| {
        place.run(&format!(
            "wallet send --data-dir alpha --json --fee 1 {address} {amount}"
        ))
    };
    for (amount, words) in [
        (1, "may have been handed in"),
        (2, "the node does not know it any more"),
        (3, "32 calls are waiting already"),
    ] {
        names_the_id(&send(amount), words);
    }
    // Only this one was certainly not taken.
    let refused = send(4);
    refused.failed_with("sendrawtransaction: it pays too little");
    assert_eq!(refused.json()["txid"], Value::Null);
}

/// Answers one call as a node would that owns one output, and that fails in another way each time it
/// is given a transaction; false once there is nobody to answer.
fn answer_one(listener: &TcpListener) -> bool {
    static SENT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let Ok((mut stream, _)) = listener.accept() else {
        return false;
    };
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    for line in reader.by_ref().lines().map_while(Result::ok) {
        if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let call: Value = serde_json::from_slice(&body).unwrap();
    let order = std::sync::atomic::Ordering::SeqCst;
    let method = call["method"].as_str().unwrap();
    let error = |message: &str| json!({ "error": { "code": -32002, "message": message } });
    let sent = match method {
        "sendrawtransaction" => SENT.fetch_add(1, order) + 1,
        _ => SENT.load(order),
    };
    let answer = match (method, sent) {
        ("getaddressutxos", _) => json!({ "result": { "utxos": [
            { "txid": "11".repeat(32), "index": 0, "amount": "50.00000000", "spent_by": null }
        ] } }),
        // The connection ends without an answer.
        ("sendrawtransaction", 1) => return true,
        ("sendrawtransaction", 4) => error("it pays too little"),
        ("sendrawtransaction", _) => json!({ "result": "22".repeat(32) }),
        ("waittransactionfinality", 2) => json!({ "result": { "status": "unknown" } }),
        _ => error("32 calls are waiting already; ask again later"),
    };
    let text = answer.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all((head + &text).as_bytes()).unwrap();
    true
}
