//! The way out of `bincode`: `wincode`, which is maintained, writes and reads the same bytes.
//!
//! It has no serde support, and its derive makes `unsafe` code, which this crate forbids. So each
//! type is written as the tuple of its fields, made of the shapes that `wincode` knows by itself:
//! integers, arrays, texts, lists, options, tuples and IP addresses. An enum is its number, four
//! bytes, before its fields.

use std::fmt::Debug;
use std::net::IpAddr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wincode::config::DefaultConfig;
use wincode::{SchemaRead, SchemaWrite};

use super::messages::*;
use crate::types::codec;
use crate::types::genesis::sample_genesis;
use crate::types::golden::*;
use crate::types::*;

/// Both encoders write the same bytes for a value and its tuple, and each reads what the other wrote.
fn same<T, M>(value: &T, tuple: M)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
    M: SchemaWrite<DefaultConfig, Src = M> + PartialEq + Debug,
    M: for<'de> SchemaRead<'de, DefaultConfig, Dst = M>,
{
    let ours = codec::encode(value);
    let theirs = wincode::serialize(&tuple).unwrap();
    assert_eq!(hex::encode(&theirs), hex::encode(&ours), "{value:?}");
    assert_eq!(wincode::deserialize::<M>(&ours).unwrap(), tuple);
    assert_eq!(codec::decode::<T>(&theirs).as_ref(), Ok(value));
}

type Bytes = [u8; 32];
type Signed = (Bytes, [u8; 64]);
type Certificate = (u64, u32, Bytes, Vec<Signed>);

const BLOCK: Bytes = [0xbb; 32];
const SIGNED: Signed = ([5; 32], [4; 64]);

type HeaderTuple = (u16, u64, u64, Bytes, Bytes, Bytes, Bytes, Bytes);

fn header() -> HeaderTuple {
    let [parent, proposer, root, state, validators] = [4, 5, 6, 7, 8].map(|byte| [byte; 32]);
    (1, 2, 3, parent, proposer, root, state, validators)
}

type TransactionTuple = (u16, Vec<((Bytes, u32), Bytes, [u8; 64])>, Vec<(u64, Bytes)>);

fn transaction() -> TransactionTuple {
    let input = (([1; 32], 2), [3; 32], [4; 64]);
    (1, vec![input], vec![(5, [6; 32])])
}

fn certificate() -> Certificate {
    (7, 2, BLOCK, vec![SIGNED])
}

/// Kind, height, round, block, voter, signature.
fn vote() -> (u32, u64, u32, Option<Bytes>, Bytes, [u8; 64]) {
    (1, 7, 2, Some(BLOCK), SIGNED.0, SIGNED.1)
}

fn proposal() -> (u64, u32, Bytes, Option<u32>, Bytes, [u8; 64]) {
    (7, 2, BLOCK, Some(1), SIGNED.0, SIGNED.1)
}

#[test]
fn blocks_and_transactions() {
    same(&sample_transaction(), transaction());
    same(&sample_header(), header());
    let block = Block {
        header: sample_header(),
        transactions: vec![sample_transaction(); 3],
    };
    same(&block, (header(), vec![transaction(); 3]));
    same(&block.transactions, vec![transaction(); 3]);
    same(&sample_transaction().outputs[0], (5u64, [6u8; 32]));
    let tip = Tip {
        height: Height(2),
        hash: BlockHash([4; 32]),
        time_ms: 3,
        state: StateCommitment([7; 32]),
    };
    same(&tip, (2u64, [4u8; 32], 3u64, [7u8; 32]));
}

#[test]
fn votes_and_certificates() {
    same(&sample_vote(), vote());
    same(&sample_proposal(), proposal());
    same(&sample_commit(), certificate());
    same(&sample_polka(), certificate());
    let none: Option<Bytes> = None;
    let votes = vec![(0u32, none, SIGNED.0, SIGNED.1)];
    same(&sample_round(), (7u64, 2u32, false, votes));
}

#[test]
fn addresses_bans_and_records() {
    for text in ["10.1.2.3", "2001:db8::1"] {
        let (ip, plain): (PeerIp, IpAddr) = (text.parse().unwrap(), text.parse().unwrap());
        same(&ip, plain);
        same(&(ip, 24_200u16), (plain, 24_200u16));
        let ban = Ban::new(ip, (1, 2), BannedBy::Fault, "zu gro\u{df}");
        same(&ban, (plain, 1u64, 2u64, 1u32, "zu gro\u{df}".to_string()));
        let record = MasternodeRecord {
            name: "alpha".into(),
            serial: 3,
            ip,
            port: 24_200,
            pins: vec![NodeId([1; 32]), NodeId([2; 32])],
            consensus_key: ConsensusKey([3; 32]),
            payout: Address([4; 32]),
            signature: Signature([4; 64]),
        };
        let pins = vec![[1u8; 32], [2; 32]];
        let (name, key, payout) = ("alpha".to_string(), [3u8; 32], [4u8; 32]);
        same(
            &record,
            (name, 3u64, plain, 24_200u16, pins, key, payout, SIGNED.1),
        );
    }
}

#[test]
fn a_genesis() {
    let genesis = sample_genesis();
    let masternodes: Vec<(String, Bytes, u64, Bytes)> = genesis
        .masternodes
        .iter()
        .map(|one| {
            let name = one.name.clone();
            (name, one.consensus_key.0, one.power, one.payout.0)
        })
        .collect();
    let allocations: Vec<(Bytes, u64)> = genesis
        .allocations
        .iter()
        .map(|one| (one.address.0, one.amount.0))
        .collect();
    let timeouts = (3_000u64, 1_000u64, 500u64, 10_000u64);
    let tuple = (
        "sample".to_string(),
        2u32,
        1_000_000u64,
        5_000u64,
        250u64,
        4_000_000u32,
        1_000u64,
        20u32,
        timeouts,
        masternodes,
        allocations,
    );
    same(&genesis, tuple);
}

#[test]
fn messages_of_the_keepalive_stream() {
    let (ip, plain): (PeerIp, IpAddr) = ("10.1.2.3".parse().unwrap(), [10, 1, 2, 3].into());
    let hello = Hello {
        magic: *b"DTIM",
        versions: (1, 2),
        genesis: GenesisHash([0xaa; 32]),
        role: Role::Full,
        listen_port: 24_200,
        tip_height: Height(7),
        tip_hash: BlockHash(BLOCK),
        observed: ip,
        agent: "timed/1".into(),
        clock_ms: 3,
        instance: 4,
    };
    let tuple = (
        *b"DTIM",
        (1u16, 2u16),
        [0xaau8; 32],
        1u32,
        24_200u16,
        7u64,
        BLOCK,
        plain,
        "timed/1".to_string(),
        3u64,
        4u64,
    );
    same(&KeepaliveMessage::Hello(hello), (0u32, tuple));
    let welcome = Welcome {
        version: 1,
        pinned: true,
        record_serial: 5,
    };
    same(
        &KeepaliveMessage::Welcome(welcome),
        (1u32, (1u16, true, 5u64)),
    );
    let ping = Ping {
        nonce: 6,
        tip_height: Height(7),
        tip_hash: BlockHash(BLOCK),
        reach: [0, 9].into_iter().collect(),
    };
    same(
        &KeepaliveMessage::Ping(ping),
        (2u32, (6u64, 7u64, BLOCK, vec![1u8, 2])),
    );
    same(&KeepaliveMessage::Pong { nonce: 6 }, (3u32, 6u64));
    let tip = KeepaliveMessage::Tip {
        height: Height(7),
        hash: BlockHash(BLOCK),
    };
    same(&tip, (4u32, 7u64, BLOCK));
    let addresses = KeepaliveMessage::Addresses(vec![(ip, 24_200)]);
    same(&addresses, (5u32, vec![(plain, 24_200u16)]));
    same(&KeepaliveMessage::Record { serial: 3 }, (6u32, 3u64));
}

#[test]
fn messages_of_the_other_streams() {
    same(&ConsensusMessage::Vote(sample_vote()), (0u32, vote()));
    same(
        &ConsensusMessage::Proposal(sample_proposal()),
        (1u32, proposal()),
    );
    same(
        &ConsensusMessage::Commit(sample_commit()),
        (4u32, certificate()),
    );
    let get = ConsensusMessage::GetBody {
        height: Height(7),
        block: BlockHash(BLOCK),
    };
    same(&get, (5u32, 7u64, BLOCK));
    let header_of_body = BodyHeader {
        height: Height(7),
        round: Round(2),
        block: BlockHash(BLOCK),
    };
    same(&header_of_body, (7u64, 2u32, BLOCK));
    let ids = TransactionsMessage::Get(vec![TxId([1; 32]); 2]);
    same(&ids, (1u32, vec![[1u8; 32]; 2]));
    let bodies = TransactionsMessage::Bodies(vec![sample_transaction()]);
    same(&bodies, (2u32, vec![transaction()]));
    let (first, last) = (Height(257), Height(512));
    let request = SyncUp::Request(SyncRequest::Bodies { first, last });
    same(&request, (0u32, (1u32, 257u64, 512u64)));
    same(&SyncUp::Consumed { bytes: 9, at_us: 7 }, (1u32, 9u64, 7u64));
    let headers = SyncResponse::Headers(vec![sample_header(); 2]);
    same(&headers, (0u32, vec![header(); 2]));
    same(
        &SyncResponse::Certificate(sample_commit()),
        (1u32, certificate()),
    );
    same(&SyncResponse::NotHeld { tip: Height(3) }, (3u32, 3u64));
}
