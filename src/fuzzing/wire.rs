//! Messages of each stream, and streams of frames.

use std::fmt::Debug;
use std::sync::LazyLock;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{canonical, round_trip};
use crate::ledger::fixture::genesis_with_powers;
use crate::ledger::{BLOCK_OVERHEAD_BYTES, Rules, check_form};
use crate::types::block::transactions_root;
use crate::types::{Block, Genesis, Signature, Transaction, ValidatorSet};
use crate::wire::close::MAX_DETAIL_BYTES;
use crate::wire::frame::FRAME_HEADER_BYTES;
use crate::wire::{
    BodyHeader, CloseReason, ConsensusMessage, KeepaliveMessage, ReachSet, StreamKind, SyncRequest,
    SyncResponse, SyncUp, TransactionsMessage, decode_answer, decode_frame, encode_answer,
    encode_frame, frame_length,
};

static CHAIN: LazyLock<(Genesis, ValidatorSet)> = LazyLock::new(|| {
    let genesis = genesis_with_powers(&[1, 2, 4]);
    let validators = ValidatorSet::from_genesis(&genesis);
    (genesis, validators)
});

/// Hello, Welcome, pings, tips, addresses; and the reason of a close.
pub fn keepalive(input: &[u8]) {
    if let Some(KeepaliveMessage::Ping(ping)) = message(StreamKind::Keepalive, input) {
        reach_set(&ping.reach);
    }
    if let Some((code, detail)) = input.split_first_chunk() {
        close_reason(u64::from_le_bytes(*code), detail);
    }
}

/// A set that is in its one form is the one made of its members.
fn reach_set(set: &ReachSet) {
    for count in [0, 7, 8, 1_000] {
        if set.is_valid(count) {
            let members = (0..count).filter(|index| set.contains(*index));
            assert_eq!(members.collect::<ReachSet>(), *set);
        }
    }
}

/// What a peer gives as its reason becomes one short line, and stays it when it is passed on.
fn close_reason(code: u64, detail: &[u8]) {
    let reason = CloseReason::from_wire(code, detail);
    assert!(reason.detail.len() <= MAX_DETAIL_BYTES);
    assert!(!reason.to_string().contains(char::is_control));
    let again = CloseReason::from_wire(reason.code as u64, reason.detail.as_bytes());
    assert_eq!(again, reason);
}

/// Votes, proposals, certificates, and what asks for bodies.
pub fn consensus(input: &[u8]) {
    let (genesis, validators) = &*CHAIN;
    let genesis = genesis.hash();
    match message(StreamKind::Consensus, input) {
        Some(ConsensusMessage::Vote(vote)) => drop(vote.verify(&genesis)),
        Some(ConsensusMessage::Proposal(proposal)) => drop(proposal.verify(&genesis)),
        Some(ConsensusMessage::Polka(polka)) => drop(polka.verify(validators, &genesis)),
        Some(ConsensusMessage::Round(round)) => drop(round.verify(validators, &genesis)),
        Some(ConsensusMessage::Commit(commit)) => drop(commit.verify(validators, &genesis)),
        Some(ConsensusMessage::GetBody { .. } | ConsensusMessage::Consumed { .. }) | None => {}
    }
}

/// The two frames of a proposal stream: which body, and the block.
pub fn proposal(input: &[u8]) {
    message::<BodyHeader>(StreamKind::Proposal, input);
    if let Some(block) = canonical::<Block>(input) {
        let size = block.transactions.iter().map(Transaction::encoded_bytes);
        assert_eq!(BLOCK_OVERHEAD_BYTES + size.sum::<usize>(), input.len());
        assert_eq!(block.hash(), block.header.hash());
        let root = transactions_root(&block.transactions);
        if let Some((_, fewer)) = block.transactions.split_last() {
            assert_ne!(transactions_root(fewer), root);
        }
    }
}

/// Announcements, requests and bodies of transactions; and a transaction alone, as RPC takes it.
pub fn transactions(input: &[u8]) {
    if let Some(TransactionsMessage::Bodies(bodies)) = message(StreamKind::Transactions, input) {
        bodies.iter().for_each(transaction);
    }
    if let Some(alone) = canonical(input) {
        transaction(&alone);
    }
}

/// Size, id and outputs are what the encoding says; keys and signatures change no id.
fn transaction(transaction: &Transaction) {
    assert_eq!(
        round_trip(transaction).len(),
        transaction.encoded_bytes(),
        "{transaction:?}"
    );
    assert_eq!(transaction.created().count(), transaction.outputs.len());
    let rules = Rules::of(&CHAIN.0);
    let form = check_form(transaction, &rules);
    let mut resigned = transaction.clone();
    for input in &mut resigned.inputs {
        input.signature = Signature([0xff; 64]);
    }
    assert_eq!(resigned.id(), transaction.id());
    assert_eq!(check_form(&resigned, &rules), form);
}

/// Both directions of a sync stream.
pub fn sync(input: &[u8]) {
    if let Some(SyncUp::Request(request)) = message(StreamKind::Sync, input)
        && request.is_valid()
    {
        let (first, last) = request.range();
        assert!(1 <= first.0 && first <= last && last.0 - first.0 < 256);
    }
    message::<SyncRequest>(StreamKind::Sync, input);
    let response = message::<SyncResponse>(StreamKind::Sync, input);
    assert_eq!(decode_answer(input.to_vec().into()).ok(), response);
    if let Some(response) = &response
        && input.len() <= StreamKind::Sync.max_frame_bytes()
    {
        let pieces = encode_answer(response).expect("its payload is within the limit");
        let frame: Vec<u8> = pieces.flatten().collect();
        assert_eq!(&frame[FRAME_HEADER_BYTES..], input);
    }
}

/// A whole stream: the byte of its kind, then frames. A kind that is not known stands for the
/// answering half of a sync stream, which has no such byte.
pub fn frames(input: &[u8]) {
    let Some((byte, mut rest)) = input.split_first() else {
        return;
    };
    let kind = StreamKind::from_byte(*byte);
    let decode: fn(StreamKind, &[u8]) -> bool = match kind {
        Some(StreamKind::Keepalive) => decodes::<KeepaliveMessage>,
        Some(StreamKind::Consensus) => decodes::<ConsensusMessage>,
        Some(StreamKind::Proposal) => decodes::<BodyHeader>,
        Some(StreamKind::Transactions) => decodes::<TransactionsMessage>,
        Some(StreamKind::Sync) => decodes::<SyncUp>,
        None => decodes::<SyncResponse>,
    };
    let kind = kind.unwrap_or(StreamKind::Sync);
    while let Some((header, after)) = rest.split_first_chunk() {
        // The reader ends the connection at the first frame that is none, or waits for the rest.
        let Ok(length) = frame_length(kind, *header) else {
            return;
        };
        assert!((1..=kind.max_frame_bytes()).contains(&length));
        let Some((payload, after)) = after.split_at_checked(length) else {
            return;
        };
        if !decode(kind, payload) {
            return;
        }
        rest = after;
    }
}

fn decodes<T>(kind: StreamKind, payload: &[u8]) -> bool
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    message::<T>(kind, payload).is_some()
}

/// The message that a payload is, whose frame is then the header and this very payload.
fn message<T>(kind: StreamKind, payload: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let message: T = decode_frame(kind, payload).ok()?;
    if payload.len() <= kind.max_frame_bytes() {
        let frame = encode_frame(kind, &message).expect("its payload is within the limit");
        let (header, again) = frame.split_at(FRAME_HEADER_BYTES);
        assert_eq!(again, payload);
        let header = header.try_into().expect("the header has its length");
        assert_eq!(frame_length(kind, header), Ok(payload.len()));
    }
    assert_eq!(canonical::<T>(payload).as_ref(), Some(&message));
    Some(message)
}
