//! A peer that asks for too much is slowed, and nothing worse.

use tokio::time::Instant;

use super::raw::{Raw, endpoint_on, open};
use super::*;
use crate::types::TxId;
use crate::wire::{
    KeepaliveMessage, Ping, ReachSet, StreamKind, TransactionsMessage, encode_frame,
};

/// A node and a full node made by hand, on a wire with virtual time.
async fn pair(plan: &Plan) -> (Node, Raw) {
    let wire = sim::clean_wire();
    let node = sim::start(plan, 1, &wire);
    let endpoint = endpoint_on(plan, 2, wire.socket(plan.address(2)));
    let raw = Raw::dial_from(endpoint, plan, 2, 1).await;
    node.connected_to(&[plan.ip(2)]).await;
    (node, raw)
}

#[tokio::test(start_paused = true)]
async fn pings_beyond_the_budget_are_answered_late_and_ban_nobody() {
    let plan = Plan::new(1, 1);
    let (node, mut raw) = pair(&plan).await;
    let start = Instant::now();
    let pings = (0..200u64).map(|nonce| {
        KeepaliveMessage::Ping(Ping {
            nonce,
            tip_height: Height(0),
            tip_hash: BlockHash([0; 32]),
            reach: ReachSet::default(),
        })
    });
    let all: Vec<u8> = pings
        .flat_map(|ping| encode_frame(StreamKind::Keepalive, &ping).unwrap())
        .collect();
    raw.keepalive.write_all(&all).await.unwrap();
    let mut pongs = Vec::new();
    while pongs.len() < 200 {
        match raw.read().await {
            KeepaliveMessage::Pong { nonce } => pongs.push((nonce, start.elapsed())),
            KeepaliveMessage::Ping(_) | KeepaliveMessage::Tip { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(pongs.iter().map(|(nonce, _)| *nonce).eq(0..200));
    // 64 at once, the other 136 at 64 a second.
    assert!(pongs[60].1 < Duration::from_millis(500), "{:?}", pongs[60]);
    let last = pongs[199].1;
    assert!((2..4).contains(&last.as_secs()), "{last:?}");
    let info = node.info(plan.ip(2));
    assert!(info.over_budget >= 130, "{}", info.over_budget);
    assert_eq!(node.net.bans(), []);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_tips_is_news_a_few_times_a_second() {
    let plan = Plan::new(1, 1);
    let (node, mut raw) = pair(&plan).await;
    let changes = node.net.watch_peers();
    let before = *changes.borrow();
    for height in 1..=60 {
        let hash = BlockHash([height as u8; 32]);
        let height = Height(height);
        raw.say(&KeepaliveMessage::Tip { height, hash }).await;
    }
    tokio::time::sleep(Duration::from_millis(900)).await;
    let news = *changes.borrow() - before;
    assert!((30..=40).contains(&news), "{news}");
    assert!(node.info(plan.ip(2)).over_budget > 0);
    assert_eq!(node.net.bans(), []);
}

#[tokio::test(start_paused = true)]
async fn announcements_beyond_the_budget_wait() {
    let plan = Plan::new(1, 1);
    let (mut node, raw) = pair(&plan).await;
    let start = Instant::now();
    let mut stream = open(&raw.quic, StreamKind::Transactions).await;
    let ids = TransactionsMessage::Announce(vec![TxId([7; 32]); 1_000]);
    let frame = encode_frame(StreamKind::Transactions, &ids).unwrap();
    let writing = tokio::spawn(async move {
        for _ in 0..100 {
            stream.write_all(&frame).await.unwrap();
        }
        stream
    });
    let mut messages = 0;
    while messages < 100 {
        if let TransactionsEvent::Message { .. } = node.transactions.recv().await.unwrap() {
            messages += 1;
        }
    }
    // 50,000 ids at once, the other 50,000 at 10,000 a second.
    let took = start.elapsed();
    assert!((4..7).contains(&took.as_secs()), "{took:?}");
    drop(writing.await.unwrap());
    assert_eq!(node.net.bans(), []);
}
