//! Golden bytes of every message, frame, stream kind and close code, and what is no message.
//!
//! Layouts are written as in [`crate::types::golden`].

use std::fmt::Debug;

use bytes::Bytes;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::PIECE_BYTES;
use super::*;
use crate::types::codec::{self, CodecError};
use crate::types::golden::*;
use crate::types::{BlockHash, EncodedBody, GenesisHash, Height, Round, TxId};

/// A message of each kind of stream and its frame's payload.
pub(crate) fn samples() -> Vec<Sample> {
    let kinds = [
        keepalive_samples(),
        consensus_samples(),
        proposal_samples(),
        transactions_samples(),
        sync_up_samples(),
        sync_down_samples(),
    ];
    kinds.into_iter().flatten().collect()
}

/// A message's frame, its expected payload, and what decoding any payload of its stream gives.
pub(crate) struct Sample {
    pub(crate) kind: StreamKind,
    pub(crate) name: String,
    pub(crate) frame: Vec<u8>,
    payload: String,
    decode: fn(StreamKind, &[u8]) -> Result<Vec<u8>, FrameError>,
}

fn sample<T>(kind: StreamKind, message: T, payload: &str) -> Sample
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let frame = encode_frame(kind, &message).unwrap();
    let back: T = decode_frame(kind, &frame[4..]).unwrap();
    assert_eq!(back, message);
    Sample {
        kind,
        name: format!("{message:?}"),
        frame,
        payload: layout(payload),
        decode: |kind, bytes| decode_frame::<T>(kind, bytes).map(|value| codec::encode(&value)),
    }
}

fn keepalive_samples() -> Vec<Sample> {
    let ip = "10.1.2.3".parse().unwrap();
    let hello = Hello {
        magic: *b"DTIM",
        versions: (1, 2),
        genesis: GenesisHash([0xaa; 32]),
        role: Role::Full,
        listen_port: 24200,
        tip_height: Height(7),
        tip_hash: BlockHash([0xbb; 32]),
        observed: ip,
        agent: "timed/1".into(),
        clock_ms: 3,
        instance: 4,
    };
    let welcome = Welcome {
        version: 1,
        pinned: true,
        record_serial: 5,
    };
    let ping = Ping {
        nonce: 6,
        tip_height: Height(7),
        tip_hash: BlockHash([0xbb; 32]),
        reach: [0, 9].into_iter().collect(),
    };
    let tip = KeepaliveMessage::Tip {
        height: Height(7),
        hash: BlockHash([0xbb; 32]),
    };
    let kind = StreamKind::Keepalive;
    vec![
        sample(
            kind,
            KeepaliveMessage::Hello(hello),
            r#"00000000 "DTIM" 0100 0200 aa*32 01000000 885e 0700000000000000 bb*32
               00000000 0a010203 0700000000000000 "timed/1" 0300000000000000 0400000000000000"#,
        ),
        sample(
            kind,
            KeepaliveMessage::Welcome(welcome),
            "01000000 0100 01 0500000000000000",
        ),
        sample(
            kind,
            KeepaliveMessage::Ping(ping),
            "02000000 0600000000000000 0700000000000000 bb*32 0200000000000000 01 02",
        ),
        sample(
            kind,
            KeepaliveMessage::Pong { nonce: 6 },
            "03000000 0600000000000000",
        ),
        sample(kind, tip, "04000000 0700000000000000 bb*32"),
        sample(
            kind,
            KeepaliveMessage::Addresses(vec![(ip, 24200)]),
            "05000000 0100000000000000 00000000 0a010203 885e",
        ),
        sample(
            kind,
            KeepaliveMessage::Record { serial: 3 },
            "06000000 0300000000000000",
        ),
    ]
}

fn consensus_samples() -> Vec<Sample> {
    let kind = StreamKind::Consensus;
    let one = |message, payload: String| sample::<ConsensusMessage>(kind, message, &payload);
    let get = ConsensusMessage::GetBody {
        height: Height(7),
        block: BlockHash([0xbb; 32]),
    };
    let consumed = ConsensusMessage::Consumed {
        stream: 10,
        bytes: 65_536,
        at_us: 1_000_000,
    };
    vec![
        one(
            ConsensusMessage::Vote(sample_vote()),
            format!("00000000 {VOTE_LAYOUT}"),
        ),
        one(
            ConsensusMessage::Proposal(sample_proposal()),
            format!("01000000 {PROPOSAL_LAYOUT}"),
        ),
        one(
            ConsensusMessage::Polka(sample_polka()),
            format!("02000000 {CERTIFICATE_LAYOUT}"),
        ),
        one(
            ConsensusMessage::Round(sample_round()),
            format!("03000000 {ROUND_LAYOUT}"),
        ),
        one(
            ConsensusMessage::Commit(sample_commit()),
            format!("04000000 {CERTIFICATE_LAYOUT}"),
        ),
        one(get, "05000000 0700000000000000 bb*32".into()),
        one(
            consumed,
            "06000000 0a00000000000000 0000010000000000 40420f0000000000".into(),
        ),
    ]
}

fn proposal_samples() -> Vec<Sample> {
    let header = BodyHeader {
        height: Height(7),
        round: Round(2),
        block: BlockHash([0xbb; 32]),
    };
    let layout = "0700000000000000 02000000 bb*32";
    vec![sample(StreamKind::Proposal, header, layout)]
}

fn transactions_samples() -> Vec<Sample> {
    let kind = StreamKind::Transactions;
    let ids = || vec![TxId([1; 32]), TxId([2; 32])];
    vec![
        sample(
            kind,
            TransactionsMessage::Announce(ids()),
            "00000000 0200000000000000 01*32 02*32",
        ),
        sample(
            kind,
            TransactionsMessage::Get(ids()),
            "01000000 0200000000000000 01*32 02*32",
        ),
        sample(
            kind,
            TransactionsMessage::Bodies(vec![sample_transaction()]),
            &format!("02000000 0100000000000000 {TRANSACTION_LAYOUT}"),
        ),
    ]
}

fn sync_up_samples() -> Vec<Sample> {
    let kind = StreamKind::Sync;
    let (first, last) = (Height(257), Height(512));
    vec![
        sample(
            kind,
            SyncUp::Request(SyncRequest::Headers { first, last }),
            "00000000 00000000 0101000000000000 0002000000000000",
        ),
        sample(
            kind,
            SyncUp::Request(SyncRequest::Bodies { first, last }),
            "00000000 01000000 0101000000000000 0002000000000000",
        ),
        sample(
            kind,
            SyncUp::Consumed {
                bytes: 65_536,
                at_us: 1_000_000,
            },
            "01000000 0000010000000000 40420f0000000000",
        ),
    ]
}

fn sync_down_samples() -> Vec<Sample> {
    let kind = StreamKind::Sync;
    vec![
        sample(
            kind,
            SyncResponse::Headers(vec![sample_header()]),
            &format!("00000000 0100000000000000 {HEADER_LAYOUT}"),
        ),
        sample(
            kind,
            SyncResponse::Certificate(sample_commit()),
            &format!("01000000 {CERTIFICATE_LAYOUT}"),
        ),
        sample(
            kind,
            SyncResponse::Body(EncodedBody::of(&[sample_transaction()])),
            &format!("02000000 0100000000000000 {TRANSACTION_LAYOUT}"),
        ),
        sample(
            kind,
            SyncResponse::NotHeld { tip: Height(7) },
            "03000000 0700000000000000",
        ),
    ]
}

#[test]
fn answers_of_sync_have_the_bytes_of_any_message() {
    for sample in sync_down_samples() {
        let payload = hex::decode(&sample.payload).unwrap();
        let answer = decode_answer(payload.clone().into()).unwrap();
        let same = decode_frame(StreamKind::Sync, &payload);
        assert_eq!(same.as_ref(), Ok(&answer), "{}", sample.name);
        let pieces: Vec<Bytes> = encode_answer(&answer).unwrap().collect();
        assert_eq!(pieces.concat(), sample.frame, "{}", sample.name);
    }
    let trailing = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    assert!(decode_answer(trailing.to_vec().into()).is_err());
}

#[test]
fn a_large_block_is_sent_in_pieces_of_one_frame() {
    let answer = SyncResponse::Body(EncodedBody::of(&vec![sample_transaction(); 2_000]));
    let pieces: Vec<Bytes> = encode_answer(&answer).unwrap().collect();
    let frame = encode_frame(StreamKind::Sync, &answer).unwrap();
    assert!(pieces.concat() == frame);
    assert!(pieces.len() > 3);
    assert!((pieces.iter()).all(|piece| (1..=PIECE_BYTES).contains(&piece.len())));
    assert_eq!(decode_answer(frame[4..].to_vec().into()), Ok(answer));
    let answer = SyncResponse::Body(EncodedBody::of(&vec![sample_transaction(); 30_000]));
    assert!(matches!(
        encode_answer(&answer),
        Err(FrameError::TooLong { .. })
    ));
}

#[test]
fn every_message_has_its_bytes_behind_a_little_endian_length() {
    for sample in samples() {
        let length = (sample.payload.len() as u32 / 2).to_le_bytes();
        let expected = hex::encode(length) + &sample.payload;
        assert_eq!(hex::encode(&sample.frame), expected, "{}", sample.name);
        let header = sample.frame[..4].try_into().unwrap();
        let length = frame_length(sample.kind, header).unwrap();
        assert_eq!(length, sample.frame.len() - 4);
    }
}

#[test]
fn stream_kinds() {
    let expected = [
        ("keepalive", 1, 40, 16_384),
        ("consensus", 2, 30, 262_144),
        ("proposal", 3, 20, 4_000_000),
        ("transactions", 4, 10, 1_048_576),
        ("sync", 5, 0, 4_262_144),
    ];
    let kinds = StreamKind::ALL.map(|kind| {
        let (byte, most) = (kind.byte(), kind.max_frame_bytes());
        assert_eq!(StreamKind::from_byte(byte), Some(kind));
        (kind.name(), byte, kind.priority(), most)
    });
    assert_eq!(kinds, expected);
    let unknown = (0..=255).filter(|byte| StreamKind::from_byte(*byte).is_none());
    assert_eq!(unknown.count(), 251);
}

#[test]
fn close_codes() {
    let expected = [
        "unknown",
        "shutting_down",
        "duplicate",
        "self",
        "wrong_network",
        "wrong_genesis",
        "wrong_version",
        "pin_mismatch",
        "ip_taken",
        "banned",
        "full",
        "unpinned_refused",
        "protocol_violation",
        "silent",
        "operator",
        "newer_instance",
        "handshake_timeout",
        "internal",
        "unknown",
    ];
    for (number, name) in (0..).zip(expected) {
        assert_eq!(CloseCode::from_number(number).name(), name, "{number}");
    }
    for never_sent in [1001, 1005, u64::MAX] {
        assert_eq!(CloseCode::from_number(never_sent), CloseCode::Unknown);
    }
}

#[test]
fn the_protocol_page_lists_kinds_and_codes() {
    let page = include_str!("../../docs/protocol.md");
    for kind in StreamKind::ALL {
        let row = format!("\n| {} | {} |", kind.byte(), kind.name());
        assert!(page.contains(&row), "{row}");
    }
    let codes = (1..1_000).map(CloseCode::from_number);
    for code in codes.filter(|code| *code != CloseCode::Unknown) {
        let row = format!("\n| {} | `{}` |", code as u32, code.name());
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
fn a_reason_is_cut_and_made_plain() {
    let reason = CloseReason::from_wire(4, b"a\nb\xffc");
    assert_eq!(reason.to_string(), "wrong_network: a b\u{fffd}c");
    let long = CloseReason::new(CloseCode::Full, "\u{e9}".repeat(200));
    assert!(long.detail.len() <= close::MAX_DETAIL_BYTES);
    let long = CloseReason::from_wire(4, &[0xff; 1_000]);
    assert!(long.detail.len() <= close::MAX_DETAIL_BYTES);
}

#[test]
fn a_frame_over_its_limit_or_empty_is_refused_before_it_is_read() {
    for kind in StreamKind::ALL {
        let most = kind.max_frame_bytes();
        let header = |length: usize| (length as u32).to_le_bytes();
        assert_eq!(frame_length(kind, header(most)), Ok(most));
        let length = most + 1;
        let too_long = Err(FrameError::TooLong { kind, length });
        assert_eq!(frame_length(kind, header(length)), too_long);
        assert!(frame_length(kind, [0xff; 4]).is_err());
        assert_eq!(frame_length(kind, [0; 4]), Err(FrameError::Empty { kind }));
    }
}

#[test]
fn a_message_over_its_limit_is_not_sent() {
    let ids = vec![TxId([0; 32]); 40_000];
    let frame = encode_frame(StreamKind::Transactions, &TransactionsMessage::Get(ids));
    assert!(matches!(frame, Err(FrameError::TooLong { .. })));
}

#[test]
fn truncated_and_trailing_bytes_are_refused() {
    for sample in samples() {
        let payload = &sample.frame[4..];
        for cut in 0..payload.len() {
            let result = (sample.decode)(sample.kind, &payload[..cut]);
            assert!(result.is_err(), "{} cut to {cut}", sample.name);
        }
        let mut longer = payload.to_vec();
        longer.push(0);
        let Err(FrameError::Codec { source, .. }) = (sample.decode)(sample.kind, &longer) else {
            panic!("{} with a byte more", sample.name);
        };
        assert!(matches!(source, CodecError::TrailingBytes { extra: 1, .. }));
    }
}

#[test]
fn what_this_version_does_not_know_is_refused() {
    let refused = |kind, decode: fn(StreamKind, &[u8]) -> bool, text: &str| {
        let bytes = hex::decode(layout(text)).unwrap();
        assert!(!decode(kind, &bytes), "{text}");
    };
    fn decodes<T: Serialize + DeserializeOwned>(kind: StreamKind, bytes: &[u8]) -> bool {
        decode_frame::<T>(kind, bytes).is_ok()
    }
    let keepalive = StreamKind::Keepalive;
    // The variant after the last one, in each enum.
    refused(keepalive, decodes::<KeepaliveMessage>, "07000000 00*8");
    refused(
        StreamKind::Consensus,
        decodes::<ConsensusMessage>,
        "07000000 00*64",
    );
    refused(
        StreamKind::Transactions,
        decodes::<TransactionsMessage>,
        "03000000 00*8",
    );
    refused(StreamKind::Sync, decodes::<SyncUp>, "02000000 00*8");
    refused(StreamKind::Sync, decodes::<SyncRequest>, "02000000 00*16");
    refused(StreamKind::Sync, decodes::<SyncResponse>, "04000000 00*8");
    // A truth value that is neither 0 nor 1.
    refused(keepalive, decodes::<Welcome>, "0100 02 0500000000000000");
    // An option that is neither absent nor present.
    let vote = VOTE_LAYOUT.replace(" 01 bb*32", " 02 bb*32");
    refused(StreamKind::Consensus, decodes::<crate::types::Vote>, &vote);
    // A length that the bytes do not hold.
    refused(
        StreamKind::Transactions,
        decodes::<TransactionsMessage>,
        "00000000 ff*8 01*32",
    );
}

proptest! {
    /// Any bytes, and any damage to good bytes: either refused, or the one encoding of a message.
    #[test]
    fn decoding_never_panics_and_what_it_takes_is_canonical(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        at in any::<prop::sample::Index>(),
        byte: u8,
        cut in any::<prop::sample::Index>(),
    ) {
        for sample in samples() {
            let good = &sample.frame[4..];
            let mut damaged = good.to_vec();
            damaged[at.index(good.len())] = byte;
            let mut spliced = good[..cut.index(good.len())].to_vec();
            spliced.extend(&bytes);
            let mut tagged = good[..4.min(good.len())].to_vec();
            tagged.extend(&bytes);
            for candidate in [&bytes, &damaged, &spliced, &tagged] {
                if let Ok(again) = (sample.decode)(sample.kind, candidate) {
                    prop_assert_eq!(&again, candidate);
                }
            }
        }
    }
}
