//! Peers that each break one limit as fast as they are let.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use quinn::{Connection, RecvStream, VarInt};
use rand::RngExt;
use serde_json::{Value, json};
use timed::types::{
    Address, Amount, BlockHash, Height, OutPoint, PeerIp, PublicKey, Signature, Transaction, TxId,
    TxInput, TxOutput,
};
use timed::wire::messages::MAX_TRANSACTION_IDS;
use timed::wire::{
    KeepaliveMessage, Ping, ReachSet, StreamKind, SyncRequest, SyncUp, TransactionsMessage,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::stranger::{Stranger, Target, frame, open};

/// What a peer does too much of.
#[derive(Clone, Copy, Debug)]
pub enum Conduct {
    Pings,
    PingsUnread,
    Tips,
    Addresses,
    Announcements,
    Requests,
    Transactions,
    Sync,
    SyncUnread,
    SyncUnfinished,
    UnknownStreams,
    Reconnecting,
    OversizeFrame,
    NoMessage,
    SecondHello,
    ConsensusStream,
}

impl Conduct {
    pub const ALL: [Conduct; 16] = [
        Conduct::Pings,
        Conduct::PingsUnread,
        Conduct::Tips,
        Conduct::Addresses,
        Conduct::Announcements,
        Conduct::Requests,
        Conduct::Transactions,
        Conduct::Sync,
        Conduct::SyncUnread,
        Conduct::SyncUnfinished,
        Conduct::UnknownStreams,
        Conduct::Reconnecting,
        Conduct::OversizeFrame,
        Conduct::NoMessage,
        Conduct::SecondHello,
        Conduct::ConsensusStream,
    ];

    /// Whether it bans the address that it comes from.
    fn is_fault(self) -> bool {
        matches!(
            self,
            Conduct::OversizeFrame
                | Conduct::NoMessage
                | Conduct::SecondHello
                | Conduct::ConsensusStream
        )
    }
}

/// How much of it there was.
#[derive(Default)]
pub struct Tally {
    connections: AtomicU64,
    failed: AtomicU64,
    done: AtomicU64,
}

impl Tally {
    pub fn shown(&self) -> Value {
        json!({
            "connections": self.connections.load(Ordering::Relaxed),
            "not_connected": self.failed.load(Ordering::Relaxed),
            "done": self.done.load(Ordering::Relaxed),
        })
    }

    fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }
}

/// One peer: connects, misbehaves until it is thrown out, and comes again. One that was banned
/// comes again from another address, in a network of its own.
pub async fn run(
    number: u8,
    conduct: Conduct,
    target: Target,
    tally: Arc<Tally>,
    stop: CancellationToken,
) {
    let mut ip = address(number);
    let work = async {
        loop {
            match target.connect(ip).await {
                Ok(stranger) => {
                    tally.connections.fetch_add(1, Ordering::Relaxed);
                    // It ends by being thrown out, which is no news.
                    let _thrown_out = misbehave(conduct, stranger, &tally).await;
                    if conduct.is_fault() {
                        ip = address(number);
                    }
                }
                Err(_) => {
                    tally.failed.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

fn address(number: u8) -> Ipv4Addr {
    let mut random = rand::rng();
    Ipv4Addr::new(
        127,
        100 + number,
        random.random(),
        random.random_range(1..255),
    )
}

async fn misbehave(conduct: Conduct, stranger: Stranger, tally: &Tally) -> Result<()> {
    let Stranger {
        quic,
        mut keepalive,
        from_keepalive,
        hello,
        endpoint: _endpoint,
    } = stranger;
    let _readers = match conduct {
        Conduct::PingsUnread => JoinSet::new(),
        _ => drain(quic.clone(), from_keepalive),
    };
    let on_keepalive = |message: &KeepaliveMessage| frame(StreamKind::Keepalive, message);
    let hash = BlockHash([7; 32]);
    let repeated = match conduct {
        Conduct::Pings | Conduct::PingsUnread => on_keepalive(&KeepaliveMessage::Ping(Ping {
            nonce: 7,
            tip_height: Height(0),
            tip_hash: hash,
            reach: ReachSet::default(),
        })),
        Conduct::Tips => on_keepalive(&KeepaliveMessage::Tip {
            height: Height(7),
            hash,
        }),
        Conduct::Addresses => on_keepalive(&KeepaliveMessage::Addresses(addresses())),
        Conduct::OversizeFrame => vec![0xff; 8],
        Conduct::NoMessage => vec![1, 0, 0, 0, 0xee],
        Conduct::SecondHello => on_keepalive(&KeepaliveMessage::Hello(hello)),
        Conduct::ConsensusStream => {
            let mut stream = open(&quic, StreamKind::Consensus.byte()).await?;
            return repeat(&mut stream, &[1, 0, 0, 0, 0], tally).await;
        }
        Conduct::Announcements | Conduct::Requests | Conduct::Transactions => {
            let mut stream = open(&quic, StreamKind::Transactions.byte()).await?;
            let message = frame(StreamKind::Transactions, &too_much(conduct));
            return repeat(&mut stream, &message, tally).await;
        }
        Conduct::Sync | Conduct::SyncUnread | Conduct::SyncUnfinished => {
            return ask(conduct, &quic, tally).await;
        }
        Conduct::UnknownStreams => loop {
            let mut stream = open(&quic, 200).await?;
            // It is stopped by the other side at some point.
            let _stopped = stream.write_all(&[0; 1_024]).await;
            tally.add(1);
        },
        Conduct::Reconnecting => {
            tally.add(1);
            return Ok(());
        }
    };
    repeat(&mut keepalive, &repeated, tally).await
}

async fn repeat(stream: &mut quinn::SendStream, message: &[u8], tally: &Tally) -> Result<()> {
    loop {
        stream.write_all(message).await?;
        tally.add(1);
    }
}

fn too_much(conduct: Conduct) -> TransactionsMessage {
    let ids = (0..MAX_TRANSACTION_IDS).map(|_| TxId(rand::rng().random()));
    match conduct {
        Conduct::Announcements => TransactionsMessage::Announce(ids.collect()),
        Conduct::Requests => TransactionsMessage::Get(ids.collect()),
        _ => TransactionsMessage::Bodies(ids.take(100).map(worthless).collect()),
    }
}

/// A transaction in its right form that spends what there is not, with a signature of nobody.
fn worthless(txid: TxId) -> Transaction {
    Transaction {
        version: timed::types::transaction::TRANSACTION_VERSION,
        inputs: vec![TxInput {
            outpoint: OutPoint { txid, index: 0 },
            public_key: PublicKey([7; 32]),
            signature: Signature([7; 64]),
        }],
        outputs: vec![TxOutput {
            amount: Amount(1),
            address: Address([7; 32]),
        }],
    }
}

fn addresses() -> Vec<(PeerIp, u16)> {
    (0..100)
        .map(|low| {
            (
                PeerIp::from(std::net::IpAddr::from([127, 99, 99, low])),
                24_200,
            )
        })
        .collect()
}

/// Sync requests: all answers read, none read, or the requests never finished.
async fn ask(conduct: Conduct, quic: &Connection, tally: &Tally) -> Result<()> {
    let (first, last) = (Height(1), Height(1));
    let request = SyncUp::Request(SyncRequest::Headers { first, last });
    let mut request = frame(StreamKind::Sync, &request);
    request.insert(0, StreamKind::Sync.byte());
    if matches!(conduct, Conduct::SyncUnfinished) {
        request.truncate(3);
    }
    let mut held = VecDeque::new();
    loop {
        let opened = tokio::time::timeout(Duration::from_millis(100), quic.open_bi()).await;
        let Ok(opened) = opened else {
            // All that may be open are: some room, and on.
            held.pop_front();
            continue;
        };
        let (mut send, mut recv) = opened?;
        send.write_all(&request).await?;
        tally.add(1);
        if matches!(conduct, Conduct::Sync) {
            send.finish()?;
            let _rest = recv.read_to_end(1 << 20).await;
        } else {
            held.push_back(Unfinished(send, recv));
        }
    }
}

/// Streams that are given up, not finished, when they are dropped.
struct Unfinished(quinn::SendStream, RecvStream);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Either half may be over already.
        let _over = self.0.reset(VarInt::from_u32(0));
        let _over = self.1.stop(VarInt::from_u32(0));
    }
}

/// Reads and forgets whatever the node sends.
fn drain(quic: Connection, from_keepalive: RecvStream) -> JoinSet<()> {
    let mut readers = JoinSet::new();
    readers.spawn(async move {
        let mut streams = JoinSet::new();
        streams.spawn(read_all(from_keepalive));
        while let Ok(stream) = quic.accept_uni().await {
            streams.spawn(read_all(stream));
        }
    });
    readers
}

async fn read_all(mut stream: RecvStream) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(Some(_)) = stream.read(&mut buffer).await {}
}
