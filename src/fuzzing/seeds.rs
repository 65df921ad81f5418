//! The committed seeds that are made: from the values of the golden tests, and by hand.

use base64::Engine as _;
use ed25519_dalek::SigningKey;

use crate::config::Config;
use crate::ledger::LtHash;
use crate::ledger::fixture::genesis_with_powers;
use crate::net::Identity;
use crate::node::formats::{genesis_to_text, record_to_text};
use crate::types::genesis::sample_genesis;
use crate::types::golden::{sample_commit, sample_header, sample_transaction};
use crate::types::{
    Address, Amount, Ban, BannedBy, Block, BlockHash, ConsensusKey, GenesisHash, Height,
    MasternodeRecord, Network, NodeId, PeerIp, Round, Signature, StateCommitment, Tip, TxOutput,
    Vote, VoteKind, codec,
};
use crate::wire::golden::samples;
use crate::wire::{ConsensusMessage, StreamKind, SyncResponse, decode_frame};

/// One file.
pub(super) struct Seed {
    pub(super) target: &'static str,
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// All of them.
pub(super) fn made() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, bytes: Vec<u8>| {
        let name = name.into();
        seeds.push(Seed {
            target,
            name,
            bytes,
        });
    };
    messages(&mut add);
    rows(&mut add);
    files(&mut add);
    own_files(&mut add);
    requests(&mut add);
    by_hand(&mut add);
    seeds
}

type Add<'a> = &'a mut dyn FnMut(&'static str, &str, Vec<u8>);

fn messages(add: Add<'_>) {
    let mut streams: Vec<(&str, Vec<u8>)> = Vec::new();
    for (number, sample) in samples().into_iter().enumerate() {
        let payload = &sample.frame[4..];
        let answer = decode_frame::<SyncResponse>(sample.kind, payload).is_ok();
        let (target, stream, byte) = match sample.kind {
            StreamKind::Keepalive => ("keepalive", "keepalive", 1),
            StreamKind::Consensus => ("consensus", "consensus", 2),
            StreamKind::Proposal => ("proposal", "proposal", 3),
            StreamKind::Transactions => ("transactions", "transactions", 4),
            StreamKind::Sync if answer => ("sync", "answer", 0),
            StreamKind::Sync => ("sync", "sync", 5),
        };
        let word = |c: char| !c.is_ascii_alphanumeric();
        let name = sample.name.split(word).next().unwrap_or_default();
        add(
            target,
            &format!("{number:02}-{}", name.to_lowercase()),
            payload.to_vec(),
        );
        match streams.iter_mut().find(|(name, _)| *name == stream) {
            Some((_, bytes)) => bytes.extend(&sample.frame),
            None => streams.push((stream, [&[byte], sample.frame.as_slice()].concat())),
        }
    }
    for (name, bytes) in streams {
        add("frames", name, bytes);
    }
    add("proposal", "block", codec::encode(&block()));
    add(
        "transactions",
        "alone",
        codec::encode(&sample_transaction()),
    );
    // A vote that verifies on the chain of the target.
    let genesis = genesis_with_powers(&[1, 2, 4]).hash();
    let (key, kind) = (SigningKey::from_bytes(&[1; 32]), VoteKind::Prevote);
    let vote = Vote::sign(&key, &genesis, kind, Height(1), Round(0), None);
    let vote = codec::encode(&ConsensusMessage::Vote(vote));
    add("consensus", "signed-vote", vote);
}

fn block() -> Block {
    Block {
        header: sample_header(),
        transactions: vec![sample_transaction(); 2],
    }
}

fn rows(add: Add<'_>) {
    let ip: PeerIp = "10.1.2.3".parse().unwrap();
    let tip = Tip {
        height: Height(2),
        hash: BlockHash([4; 32]),
        time_ms: 3,
        state: StateCommitment([7; 32]),
    };
    let output = TxOutput {
        amount: Amount(5),
        address: Address([6; 32]),
    };
    let ban = Ban::new(ip, (1, 2), BannedBy::Fault, "a frame of 0 bytes");
    let rows = [
        ("tip", codec::encode(&tip)),
        ("header", codec::encode(&sample_header())),
        ("body", codec::encode(&block().transactions)),
        ("certificate", codec::encode(&sample_commit())),
        ("output", codec::encode(&output)),
        ("peer", codec::encode(&(ip, 24_200u16))),
        ("ban", codec::encode(&ban)),
        ("block", codec::encode(&block())),
        ("set", LtHash::empty().to_bytes()),
        ("log", vec![7; 40]),
        ("key", vec![8; 68]),
    ];
    for ((name, row), table) in rows.into_iter().zip(0u8..) {
        add("rows", name, [&[table], row.as_slice()].concat());
    }
}

fn files(add: Add<'_>) {
    let mut config = Config::new(Network::Dev, "127.0.0.2".parse().unwrap());
    add("config", "new", config.to_text().into());
    config.advertised_ip = Some("10.1.2.3".parse().unwrap());
    config.rpc_ip = Some("127.0.0.9".parse().unwrap());
    config.peers = vec!["10.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
    add("config", "all-keys", config.to_text().into());
    config.log = "info,[{peer=\"a\\b\"}]=debug\n".into();
    add("config", "log-with-quotes", config.to_text().into());

    add("genesis", "two", genesis_to_text(&sample_genesis()).into());
    let weighted = genesis_with_powers(&[6, 4, 2]);
    add("genesis", "weighted", genesis_to_text(&weighted).into());

    let mut record = record("alpha");
    add("record", "one-pin", record_to_text(&record).into());
    record.pins.push(NodeId([3; 32]));
    record.ip = "2001:db8::1".parse().unwrap();
    let key = SigningKey::from_bytes(&[1; 32]);
    let record = record.signed(&key, Network::Dev);
    add("record", "two-pins", record_to_text(&record).into());
}

fn record(name: &str) -> MasternodeRecord {
    MasternodeRecord {
        name: name.into(),
        serial: 3,
        ip: "127.0.0.1".parse().unwrap(),
        port: 24_200,
        pins: vec![NodeId([4; 32])],
        consensus_key: ConsensusKey([0; 32]),
        payout: Address([2; 32]),
        signature: Signature([0; 64]),
    }
    .signed(&SigningKey::from_bytes(&[1; 32]), Network::Dev)
}

/// What the node writes for itself.
fn own_files(add: Add<'_>) {
    let pin = NodeId([5; 32]);
    let first_use = format!("version = 1\n\n[[first_use]]\nip = \"10.0.0.2\"\npin = \"{pin}\"\n");
    let key = record("alpha").consensus_key;
    let seen = format!(
        "version = 1\n\n[[record]]\nname = \"alpha\"\nconsensus_key = \"{key}\"\nserial = 2\n\
         ip = \"127.0.0.1\"\nport = 24200\npins = [\"{pin}\"]\ncontent = \"00\"\n"
    );
    add("pins", "empty", "version = 1\n".into());
    add("pins", "seen", seen.into());
    add("pins", "first-use", first_use.into());

    let (genesis, key) = (GenesisHash([1; 32]), ConsensusKey([2; 32]));
    let state =
        format!("timed consensus state v1\ngenesis {genesis}\nkey {key}\nheight 7\nentries 12\n");
    add("consensus_state", "proven", state.clone().into());
    add(
        "consensus_state",
        "unproven",
        format!("{state}unproven\n").into(),
    );

    let mut log = Vec::new();
    for (number, entry) in crate::consensus::fuzzing::samples().into_iter().enumerate() {
        add("wal", &format!("entry-{number}"), entry.clone());
        // The last two are evidence, which is no part of a log.
        if number < 7 {
            log.extend((entry.len() as u16).to_le_bytes());
            log.extend(entry);
        }
    }
    add("wal", "log", log);

    let identity = Identity::create(&[7; 32], "10.1.2.3".parse().unwrap(), "alpha", 1_000).unwrap();
    let pem = identity.certificate_pem();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(base64)
        .unwrap();
    // Without the outer header, and the algorithm and signature that come last.
    let signed = der[3..der.len() - 74].to_vec();
    add("tls_certificate", "whole", der);
    add("tls_certificate", "signed-part", signed);
}

fn requests(add: Add<'_>) {
    let (hash, hex) = (
        "ab".repeat(32),
        hex::encode(codec::encode(&sample_transaction())),
    );
    let requests = [
        (
            "none",
            r#"{"jsonrpc":"2.0","method":"getblockcount","id":1}"#.into(),
        ),
        (
            "number",
            r#"{"method":"getblockhash","params":[7],"id":"a"}"#.into(),
        ),
        ("notification", r#"{"method":"stop"}"#.into()),
        (
            "batch",
            r#"[{"method":"uptime","id":1},{"method":"nope","id":null},5]"#.into(),
        ),
        (
            "hash",
            format!(r#"{{"method":"getblock","params":["{hash}",2],"id":2}}"#),
        ),
        (
            "names",
            format!(r#"{{"method":"gettxout","params":{{"txid":"{hash}","index":0}},"id":3}}"#),
        ),
        (
            "ban",
            r#"{"method":"setban","params":["10.0.0.1","add",60,true,"a reason"],"id":4}"#.into(),
        ),
        (
            "transaction",
            format!(r#"{{"method":"sendrawtransaction","params":["{hex}"],"id":5}}"#),
        ),
    ];
    for (name, text) in requests {
        add("jsonrpc", name, text.into());
    }
}

fn by_hand(add: Add<'_>) {
    let address = Address([9; 32]).to_text(Network::Dev);
    for (name, text) in [
        ("amount", "12.50000001"),
        ("address", &address),
        ("ip", "::ffff:10.0.0.1"),
        ("id", &"0a".repeat(32)),
    ] {
        add("text", name, text.into());
    }
    for (kind, name) in ["commit", "polka", "round", "skip"].into_iter().enumerate() {
        // In order; then every validator, with nothing wrong.
        let mut input = vec![kind as u8, 1];
        input.extend((0..5u8).flat_map(|signer| [signer, 0]));
        add("certificates", name, input);
    }
    for (genesis, name) in ["ordinary", "tight", "rich"].into_iter().enumerate() {
        // Two transactions of one input and two outputs, one slot later, then one that spends them.
        let pay = [0, 3, 1, 0, 2, 5, 0, 0, 0];
        let end = [1, 0, 0, 0, 2, 5];
        let blocks = [&[2][..], &pay, &pay, &end, &[1], &pay, &end].concat();
        add(
            "ledger",
            name,
            [&[genesis as u8], blocks.as_slice()].concat(),
        );
    }
}
