//! Every refusal has a reason, on both sides.

use quinn::TransportConfig;

use super::raw::{Raw, endpoint, endpoint_on, hello};
use super::*;
use crate::types::GenesisHash;
use crate::wire::KeepaliveMessage;

/// Both nodes dial; gives the reasons that the two have.
async fn both_refuse(one: &Node, other: &Node) -> [CloseReason; 2] {
    let reasons = [
        one.refused_with(other.ip).await,
        other.refused_with(one.ip).await,
    ];
    assert!(one.net.peers().is_empty() && other.net.peers().is_empty());
    reasons
}

#[tokio::test]
async fn another_genesis_is_refused_and_both_sides_show_both_hashes() {
    let plan = Plan::new(2, 0);
    let mut config = plan.config(2);
    config.genesis = GenesisHash([0xee; 32]);
    let (low, high) = (plan.start(1), plan.start_with(2, config));
    for reason in both_refuse(&low, &high).await {
        assert_eq!(reason.code, CloseCode::WrongGenesis);
        let both = [plan.genesis.hash().to_string(), "ee".repeat(32)];
        assert!(
            both.iter().all(|hash| reason.detail.contains(hash)),
            "{reason}"
        );
    }
    let known = &low.net.known_peers()[0];
    assert!(
        known.explanation.contains("wrong_genesis"),
        "{}",
        known.explanation
    );
}

/// A wrong port may lead to a node of another chain on the same machine.
#[tokio::test(start_paused = true)]
async fn a_configured_address_is_not_pinned_to_a_key_of_another_chain() {
    let plan = Plan::new(1, 1);
    let wire = sim::clean_wire();
    let mut config = plan.config(1);
    config.configured_peers = vec![plan.address(2)];
    let node = sim::start_with(&plan, 1, config, &wire);
    let mut elsewhere = plan.config(2);
    elsewhere.network = Network::Test;
    let other_key = identity(50, plan.ip(2));
    let wrong = sim::start_as(&plan, 2, elsewhere, other_key, &wire);
    for reason in both_refuse(&node, &wrong).await {
        assert_eq!(reason.code, CloseCode::WrongNetwork, "{reason}");
    }
    wrong.stop().await;
    let right = sim::start(&plan, 2, &wire);
    node.connected_to(&[right.ip]).await;
    // Its own key is pinned now.
    right.stop().await;
    let _impostor = sim::start_as(&plan, 2, plan.config(2), identity(51, plan.ip(2)), &wire);
    node.until("a refusal of another key", |_| {
        let refused = node.net.refused();
        refused
            .iter()
            .any(|one| one.3.code == CloseCode::PinMismatch)
    })
    .await;
    assert!(node.net.peers().is_empty());
}

#[tokio::test]
async fn another_network_is_refused_on_both_sides() {
    let plan = Plan::new(2, 0);
    let mut config = plan.config(2);
    config.network = Network::Test;
    let (low, high) = (plan.start(1), plan.start_with(2, config));
    for reason in both_refuse(&low, &high).await {
        assert_eq!(reason.code, CloseCode::WrongNetwork, "{reason}");
    }
}

#[tokio::test]
async fn a_key_that_is_not_the_pinned_one_is_refused_and_both_sides_show_both_pins() {
    let plan = Plan::new(2, 0);
    // The acceptor finds out about the dialer, then the dialer about the acceptor.
    for (impostor, honest) in [(2, 1), (1, 2)] {
        let wrong = identity(50, plan.ip(impostor));
        let (expected, got) = (
            plan.records[usize::from(impostor) - 1].pins[0],
            wrong.node_id(),
        );
        let bad = plan.start_as(impostor, plan.config(impostor), wrong, plan.directory());
        let good = plan.start(honest);
        for reason in both_refuse(&good, &bad).await {
            assert_eq!(reason.code, CloseCode::PinMismatch, "{reason}");
            assert!(reason.detail.contains(&expected.to_string()), "{reason}");
            assert!(reason.detail.contains(&got.to_string()), "{reason}");
        }
        good.stop().await;
        bad.stop().await;
        plan.freed(1).await;
        plan.freed(2).await;
    }
}

#[tokio::test]
async fn peers_without_a_record_are_refused_when_the_operator_wants_none() {
    let plan = Plan::new(1, 1);
    let mut config = plan.config(1);
    config.accept_unpinned = false;
    let (masternode, full) = (plan.start_with(1, config), plan.start(2));
    for reason in both_refuse(&masternode, &full).await {
        assert_eq!(reason.code, CloseCode::UnpinnedRefused, "{reason}");
    }
}

#[tokio::test]
async fn when_all_slots_are_taken_the_next_is_told_so() {
    let plan = Plan::new(1, 2);
    let mut config = plan.config(1);
    config.max_unpinned = 1;
    let node = plan.start_with(1, config);
    let first = plan.start(2);
    first.connected_to(&[node.ip]).await;
    let second = plan.start(3);
    second.refused_as(node.ip, CloseCode::Full).await;
    node.refused_as(second.ip, CloseCode::Full).await;
    node.connected_to(&[first.ip]).await;
}

#[tokio::test]
async fn two_full_nodes_behind_one_address_are_told_why_the_second_is_refused() {
    let plan = Plan::new(1, 1);
    let node = plan.start(1);
    let first = plan.start(2);
    first.connected_to(&[node.ip]).await;
    let mut same_address = Plan::new(1, 1);
    same_address.genesis = plan.genesis.clone();
    same_address.records = plan.records.clone();
    same_address.addresses = vec![plan.address(1), plan.ip(2).with_port(0)];
    let other = identity(77, plan.ip(2));
    let second = same_address.start_as(2, same_address.config(2), other, plan.directory());
    let reason = second.refused_as(node.ip, CloseCode::IpTaken).await;
    assert!(reason.detail.contains("behind one address"), "{reason}");
    node.connected_to(&[first.ip]).await;
}

#[tokio::test]
async fn no_common_protocol_version_is_refused_with_the_versions_named() {
    let plan = Plan::new(1, 1);
    let node = plan.start(1);
    let mut ours = hello(&plan, 2, plan.ip(1));
    ours.versions = (7, 9);
    let raw = Raw::greet(Raw::connect(&plan, 2, 1).await, ours).await;
    let reason = raw.closed().await;
    assert_eq!(reason.code, CloseCode::WrongVersion);
    assert!(reason.detail.contains("7 to 9"), "{reason}");
    assert_eq!(node.refused_with(plan.ip(2)).await, reason);
}

#[tokio::test(start_paused = true)]
async fn a_dialer_is_not_connected_before_the_welcome() {
    let mut plan = Plan::new(2, 0);
    plan.timing.dial_grace = Duration::ZERO;
    let wire = sim::clean_wire();
    let listening = endpoint_on(&plan, 1, wire.socket(plan.address(1)));
    let node = sim::start(&plan, 2, &wire);
    let quic = listening.accept().await.unwrap().await.unwrap();
    let mut raw = Raw::greet((listening, quic), hello(&plan, 1, plan.ip(2))).await;
    assert!(matches!(raw.read().await, KeepaliveMessage::Hello(_)));
    assert!(node.net.peers().is_empty());
    let reason = raw.closed().await;
    assert_eq!(reason.code, CloseCode::HandshakeTimeout, "{reason}");
    let said = node.refused_as(plan.ip(1), reason.code).await;
    assert_eq!(said, reason);
    assert!(node.net.peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dialer_that_says_nothing_is_let_go() {
    let plan = Plan::new(1, 1);
    let wire = sim::clean_wire();
    let node = sim::start(&plan, 1, &wire);
    let dialer = endpoint_on(&plan, 2, wire.socket(plan.address(2)));
    let (_dialer, quic) = Raw::connect_from(dialer, &plan, 2, 1, TransportConfig::default()).await;
    let closed = tls::explain(&quic.closed().await);
    assert_eq!(closed.code, CloseCode::HandshakeTimeout);
    assert_eq!(node.refused_with(plan.ip(2)).await, closed);
}

#[tokio::test]
async fn a_flood_of_half_open_handshakes_is_bounded_and_others_still_get_in() {
    use crate::net::admission::{MAX_HALF_OPEN, MAX_PER_IP};
    let mut plan = Plan::new(2, 2);
    plan.timing.handshake_timeout = PATIENCE;
    let node = plan.start(1);
    let flooding = endpoint(&plan, 3);
    let crypto = tls::client_crypto(&identity(3, plan.ip(3))).unwrap();
    let dial = || {
        let client = quinn::ClientConfig::new(crypto.clone());
        (flooding.connect_with(client, plan.address(1), "timed")).unwrap()
    };
    let mut held = Vec::new();
    // Up to half of the bound no address is proved, then a few more of an address that is.
    for _ in 0..MAX_HALF_OPEN / 2 + MAX_PER_IP {
        held.push(dial().await.unwrap());
    }
    let refused = tls::explain(&dial().await.unwrap_err());
    assert_eq!(refused.detail, "the peer takes no connection now");
    let (masternode, full) = (plan.start(2), plan.start(4));
    node.connected_to(&[masternode.ip, full.ip]).await;
    drop(held);
}

/// The source address of a first packet may be forged: nothing is said of it to the operator.
#[tokio::test(start_paused = true)]
async fn an_arrival_that_never_answers_is_no_refusal() {
    let mut plan = Plan::new(1, 1);
    plan.timing.handshake_timeout = Duration::from_secs(5);
    let wire = sim::clean_wire();
    let (node, full) = (sim::start(&plan, 1, &wire), sim::start(&plan, 2, &wire));
    tokio::time::sleep(Duration::from_millis(5)).await;
    // The first packet is on its way; every answer to it is lost.
    wire.part(&[plan.address(1)], &[plan.address(2)]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(node.net.peers().is_empty());
    assert_eq!(node.net.refused(), []);
    full.refused_as(node.ip, CloseCode::HandshakeTimeout).await;
}
