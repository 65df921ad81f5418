//! Bans: who gets one, what it does, and that it goes completely.

use super::raw::{Raw, hello, open};
use super::*;
use crate::types::{Ban, BannedBy, GenesisHash};
use crate::wire::{KeepaliveMessage, StreamKind};

const HOUR_MS: u64 = 3_600_000;

fn by_operator(ip: PeerIp, for_ms: u64) -> Ban {
    let now_ms = crate::env::WallClock::now_ms(&SystemClock);
    let times = (now_ms, now_ms + for_ms);
    Ban::new(ip, times, BannedBy::Operator, "it was asked for")
}

#[tokio::test]
async fn a_ban_ends_the_connection_is_told_and_lifting_it_leaves_nothing() {
    let plan = Plan::new(2, 0);
    let (node, other) = (plan.start(1), plan.start(2));
    node.connected_to(&[other.ip]).await;
    other.connected_to(&[node.ip]).await;

    node.net.ban(by_operator(other.ip, HOUR_MS)).await.unwrap();
    node.connected_to(&[]).await;
    let reason = other.refused_as(node.ip, CloseCode::Banned).await;
    assert!(reason.detail.contains("it was asked for"), "{reason}");
    assert!(reason.detail.contains(" UTC by the operator"), "{reason}");
    let known = node.net.known_peers();
    let shown = known.iter().find(|one| one.ip == other.ip).unwrap();
    assert!(shown.explanation.contains("is banned until"), "{shown:?}");
    assert!(shown.explanation.contains("timed unban"), "{shown:?}");

    assert_eq!(node.net.unban(Some(other.ip)).await.unwrap().0, 1);
    node.connected_to(&[other.ip]).await;
    other.connected_to(&[node.ip]).await;
    assert_eq!(node.net.bans(), []);
    assert_eq!(node.net.unban(Some(other.ip)).await.unwrap().0, 0);
}

#[tokio::test]
async fn a_banned_address_is_told_once_and_then_turned_away_by_its_first_packet() {
    let plan = Plan::new(1, 1);
    let node = plan.start(1);
    node.net
        .ban(by_operator(plan.ip(2), HOUR_MS))
        .await
        .unwrap();
    let (_endpoint, quic) = Raw::connect(&plan, 2, 1).await;
    let told = tls::explain(&quic.closed().await);
    assert_eq!(told.code, CloseCode::Banned, "{told}");
    drop((_endpoint, quic));
    plan.freed(2).await;
    let endpoint = raw::endpoint(&plan, 2);
    let crypto = tls::client_crypto(&identity(2, plan.ip(2))).unwrap();
    let client = quinn::ClientConfig::new(crypto);
    let again = endpoint.connect_with(client, plan.address(1), "timed");
    let refused = tls::explain(&again.unwrap().await.unwrap_err());
    assert_eq!(refused.detail, "the peer takes no connection now");
}

/// Whoever keeps its Hello back on one connection and earns a ban on another is banned on both.
#[tokio::test]
async fn a_ban_holds_for_a_handshake_that_began_before_it() {
    let plan = Plan::new(1, 1);
    let node = plan.start(1);
    let mut raw = Raw::meet(Raw::connect(&plan, 2, 1).await).await;
    node.net
        .ban(by_operator(plan.ip(2), HOUR_MS))
        .await
        .unwrap();
    let hello = KeepaliveMessage::Hello(hello(&plan, 2, plan.ip(1)));
    raw.say(&hello).await;
    let told = raw.closed().await;
    assert_eq!(told.code, CloseCode::Banned, "{told}");
    assert!(told.detail.contains("it was asked for"), "{told}");
    assert_eq!(node.refused_with(plan.ip(2)).await, told);
    assert!(node.net.peers().is_empty());
}

#[tokio::test]
async fn a_node_does_not_ban_itself_nor_what_is_no_address() {
    let plan = Plan::new(1, 0);
    let node = plan.start(1);
    let own = node.net.ban(by_operator(node.ip, HOUR_MS)).await;
    assert_eq!(own, Err(BanError::Own(node.ip)));
    let nobody: PeerIp = "0.0.0.0".parse().unwrap();
    let unusable = node.net.ban(by_operator(nobody, HOUR_MS)).await;
    assert_eq!(unusable, Err(BanError::Unusable(nobody)));
}

/// Every row of the table in `faults`: the name, and how to commit it.
#[tokio::test]
async fn bytes_that_cannot_be_honest_ban_their_address_with_the_reason() {
    for fault in ["frame_length", "encoding", "message"] {
        let plan = Plan::new(1, 1);
        let node = plan.start(1);
        let mut raw = Raw::dial(&plan, 2, 1).await;
        node.connected_to(&[plan.ip(2)]).await;
        match fault {
            "frame_length" => raw.keepalive.write_all(&[0xff; 4]).await.unwrap(),
            "encoding" => raw.keepalive.write_all(&[1, 0, 0, 0, 0xee]).await.unwrap(),
            _ => {
                let second = KeepaliveMessage::Hello(hello(&plan, 2, plan.ip(1)));
                raw.say(&second).await;
            }
        }
        assert_eq!(raw.closed().await.code, CloseCode::ProtocolViolation);
        node.connected_to(&[]).await;
        let bans = node.net.bans();
        assert_eq!(bans.len(), 1, "{fault}");
        assert_eq!((bans[0].ip, bans[0].by), (plan.ip(2), BannedBy::Fault));
        assert_eq!(bans[0].until_ms - bans[0].since_ms, HOUR_MS);
        assert!(bans[0].reason.starts_with(fault), "{}", bans[0].reason);
    }
}

#[tokio::test]
async fn a_fault_keeps_a_masternode_away_for_no_more_than_a_minute() {
    let mut plan = Plan::new(2, 0);
    plan.timing.dial_grace = Duration::from_secs(600);
    let node = plan.start(1);
    let mut raw = Raw::dial(&plan, 2, 1).await;
    node.connected_to(&[plan.ip(2)]).await;
    raw.keepalive.write_all(&[0; 4]).await.unwrap();
    raw.closed().await;
    node.connected_to(&[]).await;
    let bans = node.net.bans();
    assert_eq!(bans[0].until_ms - bans[0].since_ms, 60_000);
}

#[tokio::test]
async fn a_fault_in_the_handshake_bans_too() {
    let plan = Plan::new(1, 1);
    let node = plan.start(1);
    let (_endpoint, quic) = Raw::connect(&plan, 2, 1).await;
    let mut stream = open(&quic, StreamKind::Keepalive).await;
    stream.write_all(&[0; 4]).await.unwrap();
    let closed = tls::explain(&quic.closed().await);
    assert_eq!(closed.code, CloseCode::ProtocolViolation);
    node.refused_with(plan.ip(2)).await;
    assert_eq!(node.net.bans()[0].ip, plan.ip(2));
}

#[tokio::test]
async fn what_friends_do_too_bans_nobody() {
    for mishap in ["a frame cut short", "no request", "another chain"] {
        let plan = Plan::new(1, 1);
        let node = plan.start(1);
        if mishap == "another chain" {
            let mut hello = hello(&plan, 2, plan.ip(1));
            hello.genesis = GenesisHash([9; 32]);
            let raw = Raw::greet(Raw::connect(&plan, 2, 1).await, hello).await;
            assert_eq!(raw.closed().await.code, CloseCode::WrongGenesis);
        } else {
            let mut raw = Raw::dial(&plan, 2, 1).await;
            node.connected_to(&[plan.ip(2)]).await;
            if mishap == "no request" {
                let (mut send, _recv) = raw.quic.open_bi().await.unwrap();
                send.write_all(&[StreamKind::Sync.byte()]).await.unwrap();
                send.finish().unwrap();
            } else {
                raw.keepalive.write_all(&[9, 0, 0, 0, 1]).await.unwrap();
                raw.keepalive.finish().unwrap();
            }
            // A stream that ends early closes the connection, which is all.
            assert_eq!(raw.closed().await.code, CloseCode::ProtocolViolation);
        }
        node.connected_to(&[]).await;
        assert_eq!(node.net.bans(), [], "{mishap}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ban_is_over_by_itself() {
    let plan = Plan::new(2, 0);
    let wire = sim::clean_wire();
    let node = sim::start(&plan, 1, &wire);
    let other = sim::start(&plan, 2, &wire);
    node.connected_to(&[other.ip]).await;
    let start_ms = 1_795_000_000_000;
    let ban = Ban::new(
        other.ip,
        (start_ms, start_ms + 60_000),
        BannedBy::Fault,
        "message: a test",
    );
    node.net.ban(ban).await.unwrap();
    node.connected_to(&[]).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(node.net.peers().is_empty() && other.net.peers().is_empty());
    tokio::time::sleep(Duration::from_secs(15)).await;
    node.connected_to(&[other.ip]).await;
    assert_eq!(node.net.bans(), []);
}
