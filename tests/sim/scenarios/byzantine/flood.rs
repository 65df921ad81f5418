//! Sends as much as its link carries, on every stream at once: pings and addresses, signed votes of
//! many rounds and votes that do not verify, bodies that nobody wants, announcements and transactions
//! that are none, requests for blocks whose answers it never confirms.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ed25519_dalek::SigningKey;
use quinn::{Connection, SendStream};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use timed::types::{BlockHash, GenesisHash, Height, Round, Signature, TxId, Vote, VoteKind};
use timed::wire::{
    BodyHeader, ConsensusMessage, KeepaliveMessage, Ping, ReachSet, StreamKind, SyncRequest,
    SyncUp, TransactionsMessage,
};

use super::*;
use crate::puppet::bogus_transaction;
use crate::puppet::raw::{Attack, Session, open, write};
use crate::run::scenario;
use crate::wire::{Link, Rate};
use crate::world::{Plan, address};

scenarios! {
    a_flood_on_every_stream_stops_nobody,
    requests_that_are_never_confirmed_do_not_starve_a_node_that_is_behind,
}

struct Flood;

/// What the parts of a flood share.
struct Victim {
    quic: Connection,
    genesis: GenesisHash,
    key: SigningKey,
    acts: Arc<AtomicU64>,
}

impl Attack for Flood {
    async fn attack(&self, mut session: Session) {
        let victim = Victim {
            quic: session.quic.clone(),
            genesis: session.genesis.hash(),
            key: session.key.clone(),
            acts: session.acts.clone(),
        };
        let random = || ChaCha20Rng::seed_from_u64(session.number);
        let consensus = open(&victim.quic, StreamKind::Consensus).await;
        let transactions = open(&victim.quic, StreamKind::Transactions).await;
        let (Some(consensus), Some(transactions)) = (consensus, transactions) else {
            return;
        };
        tokio::join!(
            pings(&mut session.keepalive),
            votes(&victim, consensus, random()),
            bodies(&victim, random()),
            junk_transactions(transactions, random()),
            requests(&victim),
        );
    }
}

async fn pings(keepalive: &mut SendStream) -> Option<()> {
    for nonce in 0.. {
        let ping = KeepaliveMessage::Ping(Ping {
            nonce,
            tip_height: Height(nonce),
            tip_hash: BlockHash([1; 32]),
            reach: ReachSet::default(),
        });
        write(keepalive, StreamKind::Keepalive, &ping).await?;
        let addresses = vec![(address(1).into(), 1); 100];
        let addresses = KeepaliveMessage::Addresses(addresses);
        write(keepalive, StreamKind::Keepalive, &addresses).await?;
    }
    None
}

/// Votes of its own for blocks that there are not, in all rounds that are taken; now and then one
/// that does not verify, and requests for bodies.
async fn votes(victim: &Victim, mut stream: SendStream, mut random: ChaCha20Rng) -> Option<()> {
    loop {
        victim.acts.fetch_add(1, Ordering::Relaxed);
        let height = Height(random.random_range(0..40));
        let (round, block) = (
            Round(random.random_range(0..12)),
            BlockHash(random.random()),
        );
        let kind = match random.random() {
            true => VoteKind::Prevote,
            false => VoteKind::Precommit,
        };
        let mut vote = Vote::sign(
            &victim.key,
            &victim.genesis,
            kind,
            height,
            round,
            Some(block),
        );
        let message = match random.random_range(0..1_000) {
            0 => {
                vote.signature = Signature([1; 64]);
                ConsensusMessage::Vote(vote)
            }
            1..500 => ConsensusMessage::GetBody { height, block },
            _ => ConsensusMessage::Vote(vote),
        };
        write(&mut stream, StreamKind::Consensus, &message).await?;
    }
}

async fn bodies(victim: &Victim, mut random: ChaCha20Rng) -> Option<()> {
    loop {
        let mut stream = open(&victim.quic, StreamKind::Proposal).await?;
        let header = BodyHeader {
            height: Height(random.random_range(1..40)),
            round: Round(0),
            block: BlockHash(random.random()),
        };
        let length = random.random_range(1..300_000);
        let mut body = vec![0; length];
        random.fill_bytes(&mut body);
        write(&mut stream, StreamKind::Proposal, &header).await?;
        // The victim may have had enough of this one.
        stream.write_all(&(length as u32).to_le_bytes()).await.ok();
        stream.write_all(&body).await.ok();
        stream.finish().ok();
    }
}

async fn junk_transactions(mut stream: SendStream, mut random: ChaCha20Rng) -> Option<()> {
    loop {
        let mut ids = || (0..1_000).map(|_| TxId(random.random())).collect();
        for message in [
            TransactionsMessage::Announce(ids()),
            TransactionsMessage::Get(ids()),
            TransactionsMessage::Bodies((0..100).map(bogus_transaction).collect()),
        ] {
            write(&mut stream, StreamKind::Transactions, &message).await?;
        }
    }
}

/// Opens as many requests as the victim takes, and reads and confirms nothing: first for headers, whose
/// long frames use up what may be unconfirmed, then for bodies, whose many frames keep their places.
async fn requests(victim: &Victim) -> Option<()> {
    let (first, last) = (Height(1), Height(100));
    let mut open = Vec::new();
    loop {
        let (mut send, answer) = victim.quic.open_bi().await.ok()?;
        let request = match open.len() {
            0..6 => SyncRequest::Headers { first, last },
            _ => SyncRequest::Bodies { first, last },
        };
        send.write_all(&[StreamKind::Sync.byte()]).await.ok()?;
        write(&mut send, StreamKind::Sync, &SyncUp::Request(request)).await?;
        victim.acts.fetch_add(1, Ordering::Relaxed);
        open.push((send, answer));
    }
}

fn a_flood_on_every_stream_stops_nobody(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        for victim in 0..3 {
            let link = Link {
                rate: Some(Rate::mbit_per_s(1, 100)),
                ..Link::CLEAN
            };
            world.wire.set_link(address(3), address(victim), link);
        }
        world.raw_puppet(3, &[0, 1, 2], Flood);
        begin(world).await;
        let made = goes_on(world, 40 * SECOND).await;
        assert!(made >= 4, "{made} heights");
        assert!(world.acts(3) >= 3_000, "{} messages", world.acts(3));
        for node in world.honest() {
            for peer in world.node(node).net().peers() {
                let flooder = peer.ip == address(3).into();
                assert!(flooder || !peer.slow, "{} - {}", name(node), peer.ip);
            }
        }
    });
}

/// Takes every place at the sync servers that it can get.
struct Hoarder;

impl Attack for Hoarder {
    async fn attack(&self, mut session: Session) {
        let victim = Victim {
            quic: session.quic.clone(),
            genesis: session.genesis.hash(),
            key: session.key.clone(),
            acts: session.acts.clone(),
        };
        tokio::join!(requests(&victim), session.answer_pings(3_600 * SECOND));
    }
}

/// Four of thirteen take all 32 places of every sync server, and the one that is behind is needed for
/// a quorum: it catches up, and the chain goes on.
fn requests_that_are_never_confirmed_do_not_starve_a_node_that_is_behind(seed: u64) {
    let plan = Plan {
        slot: SECOND,
        ..Plan::new(13)
    };
    scenario(plan, seed, async |world: &mut World| {
        begin(world).await;
        world.stop(12).await;
        world.run(150 * SECOND).await;
        let behind = world.height(4);
        assert!(behind.0 >= 110, "{behind}");
        for hoarder in 0..4 {
            world.stop(hoarder).await;
            world.raw_puppet(hoarder, &[4, 5, 6, 7, 8, 9, 10, 11], Hoarder);
        }
        world.run(30 * SECOND).await;
        for hoarder in 0..4 {
            let taken = world.acts(hoarder);
            assert!(taken >= 8 * 8, "{taken} requests");
        }
        world.start(12).await;
        world.level_within(60 * SECOND).await;
        let made = goes_on(world, 30 * SECOND).await;
        assert!(made >= 3, "{made} heights");
    });
}
