//! A pinned masternode that breaks the protocol, in every way that the protocol names: each time the
//! connection ends with `protocol_violation` and a sentence, and the others do not notice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use quinn::{ConnectionError, SendStream};
use timed::types::{BlockHash, Height, PeerIp, Round, TxId};
use timed::wire::{
    BodyHeader, CloseCode, ConsensusMessage, Hello, KeepaliveMessage, Ping, ReachSet, StreamKind,
    SyncRequest, SyncUp, TransactionsMessage, Welcome,
};
use tokio::time::timeout;

use super::*;
use crate::puppet::raw::{Attack, Session, write};
use crate::run::scenario;
use crate::world::{Plan, address};

scenarios! {
    every_violation_ends_the_connection_with_its_name,
    a_wrong_hello_is_refused_with_its_reason,
    unknown_streams_cost_nobody_a_connection,
}

/// Every way, with what the sentence must say.
const WAYS: &[(Violation, &str)] = &[
    (Violation::SecondHello, "a second Hello"),
    (Violation::LateWelcome, "an unexpected Welcome"),
    (Violation::TooManyAddresses, "more than 100 addresses"),
    (Violation::UnknownMasternodes, "names masternodes"),
    (Violation::FrameTooLong, "frame of"),
    (Violation::EmptyFrame, "empty frame"),
    (Violation::NoMessage, "on a consensus stream"),
    (Violation::TruncatedFrame, "ended inside a frame"),
    (Violation::SecondStream, "transactions"),
    (Violation::UnidirectionalSync, "unidirectional"),
    (Violation::BidirectionalKeepalive, "bidirectional"),
    (Violation::OverConfirmation, "confirmed, but only"),
    (Violation::BadRequest, "valid request"),
    (Violation::SecondRequest, "a second request"),
    (Violation::SyncOverConfirmation, "confirmed, but only"),
    (Violation::TooManyIds, "1001 ids"),
    (Violation::BytesAfterBlock, "bytes after the block"),
    (Violation::EndOfKeepalive, ""),
];

#[derive(Clone, Copy, Debug)]
enum Violation {
    SecondHello,
    LateWelcome,
    TooManyAddresses,
    UnknownMasternodes,
    FrameTooLong,
    EmptyFrame,
    NoMessage,
    TruncatedFrame,
    SecondStream,
    UnidirectionalSync,
    BidirectionalKeepalive,
    OverConfirmation,
    BadRequest,
    SecondRequest,
    SyncOverConfirmation,
    TooManyIds,
    BytesAfterBlock,
    EndOfKeepalive,
}

/// What came of each way.
type Ends = Arc<Mutex<Vec<(Violation, ConnectionError)>>>;

struct Breaker {
    ends: Ends,
    /// The way that comes next: one a session that got its Welcome.
    next: AtomicUsize,
}

impl Attack for Breaker {
    async fn attack(&self, mut session: Session) {
        let way = self.next.fetch_add(1, Ordering::Relaxed);
        let (violation, _) = WAYS[way % WAYS.len()];
        let quic = session.quic.clone();
        // Kept until the end: dropping a stream ends it.
        let _open = break_it(&mut session, violation).await;
        if let Ok(why) = timeout(10 * SECOND, quic.closed()).await {
            self.ends.lock().unwrap().push((violation, why));
            session.act();
        }
    }
}

/// Breaks the protocol; what is returned stays open.
async fn break_it(session: &mut Session, violation: Violation) -> Option<SendStream> {
    if let Some(message) = wrong_on_keepalive(session, violation) {
        write(&mut session.keepalive, StreamKind::Keepalive, &message).await?;
        return None;
    }
    match violation {
        Violation::EndOfKeepalive => {
            session.keepalive.finish().ok()?;
            None
        }
        Violation::FrameTooLong => bytes(session, &300_000u32.to_le_bytes()).await,
        Violation::EmptyFrame => bytes(session, &[0; 4]).await,
        Violation::NoMessage => bytes(session, &frame(&[0xff; 50])).await,
        Violation::TruncatedFrame => {
            let mut consensus = bytes(session, &[50, 0, 0, 0, 1]).await?;
            consensus.finish().ok()?;
            Some(consensus)
        }
        Violation::OverConfirmation => {
            // Of a stream that the victim has not opened yet.
            let confirmation = ConsensusMessage::Consumed {
                stream: 1_000_003,
                bytes: 1,
                at_us: 0,
            };
            let mut consensus = session.open(StreamKind::Consensus).await?;
            write(&mut consensus, StreamKind::Consensus, &confirmation).await?;
            Some(consensus)
        }
        Violation::SecondStream => {
            let first = session.open(StreamKind::Transactions).await?;
            let second = session.open(StreamKind::Transactions).await?;
            // Whichever the victim sees last is the one too many.
            session.quic.closed().await;
            drop(first);
            Some(second)
        }
        Violation::UnidirectionalSync => session.open(StreamKind::Sync).await,
        Violation::TooManyIds => {
            let mut transactions = session.open(StreamKind::Transactions).await?;
            let announced = TransactionsMessage::Announce(vec![TxId([1; 32]); 1_001]);
            write(&mut transactions, StreamKind::Transactions, &announced).await?;
            Some(transactions)
        }
        Violation::BytesAfterBlock => {
            let mut body = session.open(StreamKind::Proposal).await?;
            let header = BodyHeader {
                height: Height(1),
                round: Round(0),
                block: BlockHash([1; 32]),
            };
            write(&mut body, StreamKind::Proposal, &header).await?;
            let two = [frame(&[1; 100]), frame(&[1; 100])].concat();
            body.write_all(&two).await.ok()?;
            Some(body)
        }
        _ => break_sync(session, violation).await,
    }
}

fn wrong_on_keepalive(session: &Session, violation: Violation) -> Option<KeepaliveMessage> {
    Some(match violation {
        Violation::SecondHello => KeepaliveMessage::Hello(session.hello.clone()),
        Violation::LateWelcome => KeepaliveMessage::Welcome(Welcome {
            version: 1,
            pinned: true,
            record_serial: 1,
        }),
        Violation::TooManyAddresses => {
            KeepaliveMessage::Addresses(vec![(address(1).into(), 1); 101])
        }
        Violation::UnknownMasternodes => KeepaliveMessage::Ping(Ping {
            nonce: 1,
            tip_height: Height(0),
            tip_hash: BlockHash([0; 32]),
            reach: [60].into_iter().collect::<ReachSet>(),
        }),
        _ => return None,
    })
}

/// Any bytes on a consensus stream.
async fn bytes(session: &Session, bytes: &[u8]) -> Option<SendStream> {
    let mut consensus = session.open(StreamKind::Consensus).await?;
    consensus.write_all(bytes).await.ok()?;
    Some(consensus)
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes(), payload].concat()
}

async fn break_sync(session: &Session, violation: Violation) -> Option<SendStream> {
    let (mut send, _answer) = session.quic.open_bi().await.ok()?;
    if let Violation::BidirectionalKeepalive = violation {
        let kind = StreamKind::Keepalive.byte();
        send.write_all(&[kind]).await.ok()?;
        return Some(send);
    }
    send.write_all(&[StreamKind::Sync.byte()]).await.ok()?;
    let first = Height(u64::from(!matches!(violation, Violation::BadRequest)));
    let last = Height(200);
    let request = SyncUp::Request(SyncRequest::Bodies { first, last });
    write(&mut send, StreamKind::Sync, &request).await?;
    let second = match violation {
        Violation::SecondRequest => request,
        _ => SyncUp::Consumed {
            bytes: u64::MAX,
            at_us: 0,
        },
    };
    write(&mut send, StreamKind::Sync, &second).await?;
    Some(send)
}

fn every_violation_ends_the_connection_with_its_name(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        let ends = Ends::default();
        let breaker = Breaker {
            ends: ends.clone(),
            next: AtomicUsize::new(0),
        };
        world.raw_puppet(1, &[0, 2, 3], breaker);
        begin(world).await;
        // A node may refuse the puppet for a while after a violation.
        for _ in 0..12 {
            let made = goes_on(world, 60 * SECOND).await;
            assert!(made >= 7, "{made} heights");
            if world.acts(1) >= WAYS.len() as u64 + 3 {
                break;
            }
        }
        let ends = ends.lock().unwrap().clone();
        for (violation, sentence) in WAYS {
            let way = |end: &&(Violation, ConnectionError)| {
                std::mem::discriminant(&end.0) == std::mem::discriminant(violation)
            };
            let of_this_way: Vec<_> = ends.iter().filter(way).collect();
            assert!(
                !of_this_way.is_empty(),
                "{violation:?} did not end a connection"
            );
            for (_, why) in of_this_way {
                let ConnectionError::ApplicationClosed(close) = why else {
                    panic!("{violation:?} ended with {why}");
                };
                let said = String::from_utf8_lossy(&close.reason).into_owned();
                let code = CloseCode::from_number(close.error_code.into());
                assert_eq!(code, CloseCode::ProtocolViolation, "{violation:?}: {said}");
                assert!(said.contains(sentence), "{violation:?}: {said}");
            }
        }
        for node in world.honest() {
            let known = world.node(node).net().known_peers();
            let record = known.iter().find(|one| one.ip == PeerIp::from(address(1)));
            let (_, _, why) = record.unwrap().last_end.clone().unwrap();
            let named = ["protocol_violation", "banned"]
                .iter()
                .any(|code| why.contains(code));
            assert!(named, "{}: {why}", name(node));
        }
    });
}

/// Says of itself what no peer of this chain says.
struct WrongHello;

impl Attack for WrongHello {
    fn hello(&self, mut hello: Hello) -> Hello {
        match hello.instance % 3 {
            0 => hello.versions = (7, 9),
            1 => hello.magic = *b"NOPE",
            _ => hello.genesis = timed::types::GenesisHash([7; 32]),
        }
        hello
    }

    async fn attack(&self, _session: Session) {
        panic!("a wrong Hello got a Welcome");
    }
}

fn a_wrong_hello_is_refused_with_its_reason(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.raw_puppet(2, &[0, 1, 3], WrongHello);
        begin(world).await;
        let made = goes_on(world, 90 * SECOND).await;
        assert!(made >= 10, "{made} heights");
        let mut codes = Vec::new();
        for node in world.honest() {
            let refused = world.node(node).net().refused().into_iter();
            let of_puppet = refused.filter(|(_, who, ..)| *who == address(2).into());
            codes.extend(of_puppet.map(|(_, _, _, reason)| reason.code));
        }
        for code in [
            CloseCode::WrongVersion,
            CloseCode::WrongNetwork,
            CloseCode::WrongGenesis,
        ] {
            assert!(codes.contains(&code), "{codes:?}");
        }
    });
}

/// Opens streams of kinds that there are not.
struct UnknownStreams;

impl Attack for UnknownStreams {
    async fn attack(&self, mut session: Session) {
        let quic = session.quic.clone();
        let opening = async {
            for kind in 6..=255u8 {
                let Ok(mut stream) = quic.open_uni().await else {
                    return;
                };
                // Refused at once, or not yet.
                stream.write_all(&[kind]).await.ok();
                stream.finish().ok();
                session
                    .acts
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        };
        opening.await;
        session.answer_pings(600 * SECOND).await;
    }
}

fn unknown_streams_cost_nobody_a_connection(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.raw_puppet(0, &[1, 2, 3], UnknownStreams);
        begin(world).await;
        let made = goes_on(world, 60 * SECOND).await;
        assert!(made >= 8, "{made} heights");
        assert!(world.acts(0) >= 3 * 250, "{} streams", world.acts(0));
        for node in world.honest() {
            let known = world.node(node).net().known_peers();
            let record = known.iter().find(|one| one.ip == PeerIp::from(address(0)));
            let last_end = &record.unwrap().last_end;
            let harmless = last_end
                .as_ref()
                .is_none_or(|end| !end.2.contains("violation"));
            assert!(harmless, "{last_end:?}");
        }
    });
}
