//! Every method that a running node lists, with what it must not be given.

use serde_json::{Value, json};

use timed::rpc::Cookie;

use super::{Place, post, post_with, until};

const ADDRESS: &str = "127.0.8.3:24201";

/// Name and parameters of every method, as `help` lists them.
fn methods() -> Vec<(String, Vec<String>)> {
    let help = call("help", json!([]));
    let lines = help["result"].as_str().unwrap().lines();
    let parse = |line: &str| {
        let (name, rest) = line.split_once('(').unwrap();
        let (params, sentence) = rest.split_once("): ").unwrap();
        assert!(sentence.len() > 10, "{line}");
        let params = params.split(", ").filter(|param| !param.is_empty());
        (name.to_owned(), params.map(str::to_owned).collect())
    };
    lines.map(parse).collect()
}

fn call(method: &str, params: Value) -> Value {
    call_with("", method, params)
}

/// The same with further headers, such as the cookie's.
fn call_with(headers: &str, method: &str, params: Value) -> Value {
    let request = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    let (_, body) = post_with(ADDRESS, headers, &request.to_string());
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["id"], 7, "{answer}");
    answer
}

#[track_caller]
fn code(answer: &Value) -> i64 {
    let error = &answer["error"];
    let sentence = error["message"].as_str().unwrap();
    assert!(!sentence.is_empty() && !sentence.contains('\n'), "{answer}");
    error["code"].as_i64().unwrap()
}

#[test]
fn bad_input_to_every_method_gets_a_code_and_a_sentence_and_changes_nothing() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.3")]);
    let node = place.start("alpha");
    let methods = methods();
    assert!(methods.len() >= 20, "{methods:?}");
    let cookie = std::fs::read_to_string(place.path("alpha/rpc.cookie")).unwrap();
    let cookie = Cookie::from_file(&cookie).unwrap();
    let cookie = format!("Authorization: {}\r\n", *cookie.authorization());
    // What bad input could have changed.
    let state = || {
        let asked = [
            "getrawmempool",
            "listbanned",
            "masternodelist",
            "getknownpeers",
            "logging",
        ];
        asked.map(|method| call_with(&cookie, method, json!([]))["result"].clone())
    };
    let before = state();
    for (name, params) in &methods {
        let surplus = vec![json!(1); params.len() + 1];
        if code(&call(name, json!({ "no such": 1 }))) == -32001 {
            // Nothing about parameters is said to those who may not call it.
            assert_eq!(code(&call(name, json!(surplus))), -32001, "{name}");
        }
        let call = |params: Value| code(&call_with(&cookie, name, params));
        assert_eq!(call(json!({ "no such": 1 })), -32602, "{name}");
        assert_eq!(call(json!(surplus)), -32602, "{name}");
        assert_eq!(call(json!("text")), -32600, "{name}");
        for param in params {
            for wrong in [json!({}), json!([[]]), json!(-1.5)] {
                let error = call(json!({ param: wrong }));
                assert_eq!(error, -32602, "{name}({param}: {wrong})");
            }
        }
        // Each is explained by itself too.
        let help = call_with("", "help", json!([name]));
        assert!(help["result"].as_str().unwrap().starts_with(name), "{help}");
    }
    for (name, params, expected) in [
        ("sendrawtransaction", json!(["xyz"]), -22),
        ("sendrawtransaction", json!(["00"]), -22),
        ("setban", json!(["127.0.0.9", "twist"]), -32602),
        ("setban", json!(["127.0.0.9", "add", 1, true]), -32602),
        ("setban", json!(["127.0.0.9", "remove"]), -30),
        ("setban", json!(["10.0.0.0/8", "add"]), -30),
        ("setban", json!(["nonsense", "remove"]), -30),
        ("forgetpin", json!(["nonsense"]), -30),
        ("disconnectnode", json!(["127.0.0.9"]), -29),
        ("disconnectnode", json!(["127.0.0.9:24200"]), -29),
        ("disconnectnode", json!(["nonsense"]), -29),
        ("getblockhash", json!([1_000_000]), -8),
        ("getblock", json!([1_000_000]), -8),
        ("getblock", json!(["ab".repeat(32), true]), -5),
        ("getblock", json!([1, 3]), -32602),
        ("getrawtransaction", json!(["ab".repeat(32)]), -5),
        ("getrawtransaction", json!(["ab".repeat(32), 1]), -5),
        ("getaddressbalance", json!(["dtime1nonsense"]), -5),
        ("estimatesmartfee", json!([0]), -32602),
        ("estimatesmartfee", json!([101]), -32602),
        ("loglevel", json!(["loud"]), -32602),
        ("logging", json!([["nets"]]), -32602),
    ] {
        let answer = call_with(&cookie, name, params.clone());
        assert_eq!(code(&answer), expected, "{name}{params}: {answer}");
    }
    for (name, params, words) in [
        (
            "setban",
            json!(["nonsense", "add"]),
            "\"nonsense\" is not an IP address",
        ),
        (
            "disconnectnode",
            json!(["nonsense"]),
            "\"nonsense\" is not an IP address",
        ),
        ("disconnectnode", json!(["127.0.0.9:24200"]), "127.0.0.9"),
        (
            "sendrawtransaction",
            json!(["00"]),
            "malformed Transaction: at least 1 more byte is missing",
        ),
    ] {
        let answer = call_with(&cookie, name, params);
        let sentence = answer["error"]["message"].as_str().unwrap();
        assert!(sentence.contains(words), "{sentence}");
    }
    assert_eq!(state(), before);

    assert_eq!(code(&call("nonsense", json!([]))), -32601);
    assert_eq!(code(&call("help", json!(["nonsense"]))), -32601);

    let (_, answer) = post(ADDRESS, "{");
    assert!(answer.contains("-32700"), "{answer}");
    let (status, answer) = post(ADDRESS, r#"{"jsonrpc":"2.0","method":"uptime"}"#);
    assert_eq!((status, answer.as_str()), (204, ""), "a notification");
    let batch = r#"[{"id":1,"method":"getblockcount"},{"method":"uptime"},{"id":2,"method":"x"}]"#;
    let answers: Value = serde_json::from_str(&post(ADDRESS, batch).1).unwrap();
    assert_eq!(answers.as_array().unwrap().len(), 2);
    assert_eq!(answers[1]["error"]["code"], -32601);

    // It still runs, and the commands print the same errors as sentences.
    let done = place.run("rpc --data-dir alpha getblockhash nonsense");
    assert_eq!(done.code, 1);
    assert!(
        done.stderr.contains("parameter \"height\""),
        "{}",
        done.stderr
    );
    place.must("stop --data-dir alpha");
    assert_eq!(node.exit_code(), Some(0));
}

#[test]
fn bitcoins_ways_to_ask_are_understood() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.40")]);
    let _node = place.start("alpha");
    let rpc = |arguments: &str| {
        place
            .must(&format!("rpc --data-dir alpha --json {arguments}"))
            .json()
    };
    until("a block", || {
        (rpc("getblockcount").as_u64() > Some(0)).then_some(())
    });
    let hash = rpc("getblockhash 1");
    let hash = hash.as_str().unwrap();
    for verbose in ["", "1", "2", "true"] {
        let block = rpc(&format!("getblock {hash} {verbose}"));
        assert_eq!(block["height"], 1, "{verbose}: {block}");
    }
    for bare in ["0", "false"] {
        let block = rpc(&format!("getblock {hash} {bare}"));
        assert!(block.is_string(), "{bare}: {block}");
    }
    let named =
        json!({ "id": 1, "method": "getblock", "params": { "blockhash": hash, "verbose": false } });
    let (_, answer) = post("127.0.8.40:24201", &named.to_string());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["result"], rpc(&format!("getblock {hash} 0")));
}

#[test]
fn an_output_that_a_waiting_transaction_spends_or_makes_is_told_when_asked_for() {
    // Beta never runs: nothing becomes final, so that what is sent waits.
    let place = Place::with_masternodes(&[("alpha", "127.0.8.41"), ("beta", "127.0.8.42")]);
    let own = place.must("wallet address --data-dir alpha").stdout;
    let own = own.trim();
    place.must(&format!(
        "genesis build --certs public --network dev --output funded.toml --allocate {own}=50"
    ));
    std::fs::remove_file(place.path("alpha/genesis.toml")).unwrap();
    place.must("genesis install --data-dir alpha --genesis funded.toml --certs public");
    let _node = place.start("alpha");
    let rpc = |arguments: &str| {
        place
            .must(&format!("rpc --data-dir alpha --json {arguments}"))
            .json()
    };
    let held = &rpc(&format!("getaddressutxos {own}"))["utxos"][0];
    let spent = format!("{} {}", held["txid"].as_str().unwrap(), held["index"]);
    let sent = place.must(&format!(
        "wallet send --data-dir alpha --json --no-wait {own} 12.5"
    ));
    let made = format!("{} 0", sent.json()["txid"].as_str().unwrap());
    assert_eq!(rpc(&format!("gettxout {spent}"))["amount"], "50.00000000");
    assert_eq!(rpc(&format!("gettxout {spent} true")), Value::Null);
    assert_eq!(rpc(&format!("gettxout {made} false")), Value::Null);
    assert_eq!(rpc(&format!("gettxout {made} true"))["address"], own);
    let taken_apart = rpc(&format!(
        "getrawtransaction {} 1",
        sent.json()["txid"].as_str().unwrap()
    ));
    assert_eq!(taken_apart["height"], Value::Null);
    assert!(taken_apart["outputs"].is_array(), "{taken_apart}");
}

#[test]
fn what_is_logged_changes_while_the_node_runs() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.10")]);
    let _node = place.start("alpha");
    let log = |arguments: &str| {
        place
            .must(&format!("log --data-dir alpha --json {arguments}"))
            .json()
    };
    assert_eq!(log("")["log"], "info");
    assert_eq!(log("warn,timed::rpc=debug")["log"], "warn,timed::rpc=debug");
    let parts = |arguments: &str| {
        let done = place.must(&format!("rpc --data-dir alpha --json logging {arguments}"));
        done.json()
    };
    assert_eq!(
        (&parts("")["rpc"], &parts("")["net"]),
        (&true.into(), &false.into())
    );
    assert_eq!(parts(r#"["net"] ["rpc"]"#)["net"], true);
    assert_eq!(log("")["log"], "warn,timed::net=debug");
    log("debug");
    let all_but_one = parts(r#"[] ["net"]"#);
    assert_eq!(
        (&all_but_one["net"], &all_but_one["sync"]),
        (&false.into(), &true.into())
    );
    log("warn,timed::net=debug");
    let refused = place.run("log --data-dir alpha loud");
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("write for example info"),
        "{}",
        refused.stderr
    );
    assert_eq!(log("")["log"], "warn,timed::net=debug");
    let written = || std::fs::read_to_string(place.path("alpha.log")).unwrap();
    assert!(
        written().contains("the operator changed what is logged"),
        "{}",
        written()
    );
    place.must("stop --data-dir alpha");
    assert!(
        !written().contains("asked to stop over the RPC"),
        "an info message after warn"
    );
}

#[test]
fn a_watched_view_is_shown_again_and_waits_for_a_node_that_is_away() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let place = Place::with_masternodes(&[("alpha", "127.0.8.4")]);
    let program = env!("CARGO_BIN_EXE_timed");
    let mut watching = Command::new(program)
        .args(["peers", "--watch", "--json", "--data-dir", "alpha"])
        .current_dir(place.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert!(
        next()["error"]
            .as_str()
            .unwrap()
            .contains("the node is not running")
    );
    let _node = place.start("alpha");
    until("the node answers", || {
        next()["connected"].is_array().then_some(())
    });
    assert!(next()["connected"].is_array());
    watching.kill().unwrap();
    watching.wait().unwrap();

    // Once nobody reads it, it ends.
    for json in ["", "--json"] {
        let piped = format!("{program} status --watch {json} --data-dir alpha | head -n 1");
        let mut shell = Command::new("/bin/sh");
        let shell = shell.args(["-c", &piped]).current_dir(place.path(""));
        assert!(!shell.output().unwrap().stdout.is_empty());
    }

    let done = place.run("stop --watch --data-dir alpha");
    assert_eq!(done.code, 2, "{}", done.stderr);
    assert!(place.must("completions bash").stdout.contains("doctor"));
    let help = place.must("--help").stdout;
    assert!(
        help.contains("timed init --name NAME --ip ADDRESS"),
        "{help}"
    );
    assert!(
        help.lines().all(|line| line.chars().count() <= 100),
        "{help}"
    );
}
