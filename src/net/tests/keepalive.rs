//! Liveness: pings both ways, tips, reach, silence.

use super::raw::Raw;
use super::*;
use crate::wire::{CloseCode, KeepaliveMessage};

/// The old network never answered pings on connections that it had dialed itself.
#[tokio::test]
async fn pongs_come_on_outbound_and_on_inbound_connections() {
    let mut plan = Plan::new(2, 0);
    plan.timing.ping_interval = Duration::from_millis(20);
    let (low, high) = (plan.start(1), plan.start(2));
    for (node, peer, direction) in [
        (&low, &high, Direction::Inbound),
        (&high, &low, Direction::Outbound),
    ] {
        node.connected_to(&[peer.ip]).await;
        let peers = node
            .until("five pongs and five pings", |peers| {
                peers[0].pongs_received >= 5 && peers[0].pings_received >= 5
            })
            .await;
        assert_eq!(peers[0].direction, direction);
        assert!(peers[0].rtt.unwrap().p99_us > 0);
        assert!(peers[0].pings_sent >= peers[0].pongs_received);
    }
}

/// Three missed pings at 30 s closed every connection of the old network after 90 s.
#[tokio::test(start_paused = true)]
async fn nothing_cycles_after_90_seconds_or_in_an_hour() {
    let mut plan = Plan::new(2, 0);
    plan.timing = NetTiming::RECOMMENDED;
    let wire = sim::clean_wire();
    let (low, high) = (sim::start(&plan, 1, &wire), sim::start(&plan, 2, &wire));
    low.connected_to(&[high.ip]).await;
    high.connected_to(&[low.ip]).await;
    for after in [90, 3_510] {
        tokio::time::sleep(Duration::from_secs(after)).await;
        for (node, peer) in [(&low, &high), (&high, &low)] {
            let info = node.info(peer.ip);
            assert_eq!((info.connection, info.reconnects), (1, 0));
            assert!(!info.slow);
            assert!(info.pings_sent - info.pongs_received <= 1);
            let rtt = info.rtt.unwrap();
            assert!((40_000..45_000).contains(&rtt.p99_us), "{rtt:?}");
        }
    }
    assert!(low.info(high.ip).pongs_received >= 720);
}

#[tokio::test(start_paused = true)]
async fn a_dead_path_ends_the_connection_after_the_idle_timeout_with_a_reason() {
    let mut plan = Plan::new(2, 0);
    plan.timing = NetTiming::RECOMMENDED;
    let wire = sim::clean_wire();
    let (low, high) = (sim::start(&plan, 1, &wire), sim::start(&plan, 2, &wire));
    low.connected_to(&[high.ip]).await;
    high.connected_to(&[low.ip]).await;
    wire.part(&[plan.address(1)], &[plan.address(2)]);
    high.until("disconnected", |peers| peers.is_empty()).await;
    let known = &high.net.known_peers()[0];
    assert!(
        known.explanation.contains("transport_lost"),
        "{}",
        known.explanation
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(
        high.net.known_peers()[0].failures >= 5,
        "it goes on dialing"
    );
    wire.heal();
    high.connected_to(&[low.ip]).await;
    assert_eq!(high.info(low.ip).reconnects, 1);
    assert_eq!(low.connected_to(&[high.ip]).await[0].reconnects, 1);
}

/// A connection whose pings are all unanswered may send no further one. Its end must be told all the
/// same, or the next connection of the peer could never be announced.
#[tokio::test(start_paused = true)]
async fn consensus_hears_at_once_of_a_dead_path_and_of_the_next_connection() {
    let mut plan = Plan::new(2, 0);
    plan.timing = NetTiming::RECOMMENDED;
    let wire = sim::clean_wire();
    let (low, mut high) = (sim::start(&plan, 1, &wire), sim::start(&plan, 2, &wire));
    let mut next = async || loop {
        let received = tokio::time::timeout(Duration::from_secs(1), high.consensus.recv()).await;
        match received.expect("an event at once").unwrap() {
            ConsensusEvent::Reach { .. } => {}
            ConsensusEvent::Connected { .. } => return "connected",
            ConsensusEvent::Disconnected { .. } => return "disconnected",
            other => panic!("{other:?}"),
        }
    };
    for _ in 0..2 {
        wire.heal();
        low.connected_to(&[plan.ip(2)]).await;
        assert_eq!(next().await, "connected");
        wire.part(&[plan.address(1)], &[plan.address(2)]);
        let known = || high.net.known_peers().remove(0).connected;
        while known() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(next().await, "disconnected");
    }
}

#[tokio::test]
async fn a_new_tip_is_told_at_once_and_the_newest_wins() {
    let mut plan = Plan::new(2, 0);
    plan.timing.ping_interval = Duration::from_secs(600);
    let (low, high) = (plan.start(1), plan.start(2));
    low.connected_to(&[high.ip]).await;
    high.connected_to(&[low.ip]).await;
    for height in 1..=100 {
        high.tip.send_replace(tip(height));
    }
    low.until("the newest tip", |peers| {
        peers
            .first()
            .is_some_and(|peer| peer.tip_height == Height(100))
    })
    .await;
    assert_eq!(low.info(high.ip).tip_hash, BlockHash([100; 32]));
}

#[tokio::test]
async fn consensus_hears_whom_a_masternode_reaches_only_when_that_changes() {
    let mut plan = Plan::new(3, 0);
    plan.timing.ping_interval = Duration::from_millis(50);
    let (mut one, two) = (plan.start(1), plan.start(2));
    let peer = two.ip;
    let mut next = async || {
        let received = tokio::time::timeout(PATIENCE, one.consensus.recv()).await;
        received.unwrap().unwrap()
    };
    assert!(matches!(
        next().await,
        ConsensusEvent::Connected { masternode: 1, .. }
    ));
    let reach = |event: ConsensusEvent| match event {
        ConsensusEvent::Reach { peer, reach } => (peer, reach),
        other => panic!("{other:?}"),
    };
    let mut last = reach(next().await);
    while !last.1.contains(0) {
        last = reach(next().await);
    }
    assert_eq!(last.0, peer);
    assert!(last.1.contains(1) && !last.1.contains(2));
    let three = plan.start(3);
    loop {
        match next().await {
            ConsensusEvent::Reach { peer: from, reach } if from == peer => {
                assert_ne!(reach, last.1, "told again without a change");
                assert!(reach.contains(2));
                break;
            }
            ConsensusEvent::Reach { .. } | ConsensusEvent::Connected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    drop(three);
}

#[tokio::test]
async fn sixty_seconds_without_application_bytes_end_a_connection() {
    let mut plan = Plan::new(1, 1);
    plan.timing.silence_limit = Duration::from_millis(300);
    let node = plan.start(1);
    let raw = Raw::dial(&plan, 2, 1).await;
    // QUIC itself stays alive; the application behind it is dead.
    let reason = raw.closed().await;
    assert_eq!(reason.code, CloseCode::Silent);
    node.until("disconnected", |peers| peers.is_empty()).await;
    let known = &node.net.known_peers()[0];
    let (_, direction, why) = known.last_end.as_ref().unwrap();
    assert_eq!(*direction, Direction::Inbound);
    assert!(why.contains("silent: no application bytes"), "{why}");
}

#[tokio::test]
async fn a_late_pong_makes_a_peer_slow_and_closes_nothing() {
    let mut plan = Plan::new(1, 1);
    plan.timing.ping_interval = Duration::from_millis(50);
    plan.timing.slow_after = Duration::from_millis(20);
    let node = plan.start(1);
    let mut raw = Raw::dial(&plan, 2, 1).await;
    let mut nonces = Vec::new();
    while nonces.len() < 5 {
        if let KeepaliveMessage::Ping(ping) = raw.read().await {
            nonces.push(ping.nonce);
        }
    }
    node.until("slow", |peers| peers[0].slow).await;
    tokio::time::sleep(2 * plan.timing.slow_after).await;
    for nonce in nonces {
        raw.say(&KeepaliveMessage::Pong { nonce }).await;
    }
    let peers = node
        .until("late pongs", |peers| peers[0].pongs_received >= 5)
        .await;
    assert!(peers[0].slow);
    let answering = tokio::spawn(async move { raw.answer_pings().await });
    node.until("no longer slow", |peers| !peers[0].slow).await;
    node.stop().await;
    assert_eq!(answering.await.unwrap().code, CloseCode::ShuttingDown);
}
