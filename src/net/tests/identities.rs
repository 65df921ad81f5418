//! The matrix of identities: who is not what it should be is refused with the reason, which both
//! sides have, in the list that `timed peers --refused` shows and in the counts that metrics show.

use quinn::crypto::rustls::QuicClientConfig;
use rustls::sign::CertifiedKey;

use super::raw::{Raw, endpoint, hello, open};
use super::*;
use crate::net::tls::tests::{NoCertificate, p256_for_tls, rsa_for_tls, strange_client};
use crate::wire::{CloseCode, KeepaliveMessage, StreamKind};

/// Dials node 1 with somebody's TLS from the planned address of another, and gives the reasons that
/// the dialer and the node have. The node must have counted just this one.
async fn refused(plan: &Plan, from: u8, crypto: Arc<QuicClientConfig>) -> [CloseReason; 2] {
    let node = plan.start(1);
    let endpoint = endpoint(plan, from);
    let client = quinn::ClientConfig::new(crypto);
    let connecting = endpoint.connect_with(client, plan.address(1), "timed");
    let end = match connecting.unwrap().await {
        Err(error) => error,
        // The dialer has finished TLS before the node has looked at what it sent last.
        Ok(quic) => quic.closed().await,
    };
    let here = node.refused_with(plan.ip(from)).await;
    let counts = node.net.counts();
    let counted = counts.refused.get(&(Direction::Inbound, here.code));
    assert_eq!(counted, Some(&1), "{counts:?}");
    assert_eq!((node.net.bans(), node.net.peers().len()), (vec![], 0));
    node.stop().await;
    [tls::explain(&end), here]
}

fn as_identity(identity: &Identity) -> Arc<QuicClientConfig> {
    tls::client_crypto(identity).unwrap()
}

#[tokio::test]
async fn whom_tls_refuses_is_shown_and_counted_on_both_sides() {
    let plan = Plan::new(1, 1);
    let own = identity(2, plan.ip(2)).for_tls();
    let mut unsigned = own.clone();
    let mut der = unsigned.cert[0].to_vec();
    *der.last_mut().unwrap() ^= 1;
    unsigned.cert = vec![der.into()];
    let another = identity(3, plan.ip(2)).for_tls();
    let stolen = CertifiedKey::new(own.cert.clone(), another.key);
    let with = |key| tls::client_crypto_with(key).unwrap();
    let no_certificate = "showed no Ed25519 certificate";
    let cases = [
        (
            strange_client(|config| {
                config.client_auth_cert_resolver = Arc::new(NoCertificate);
            }),
            no_certificate,
        ),
        (with(p256_for_tls()), no_certificate),
        (with(rsa_for_tls()), no_certificate),
        (
            with(unsigned),
            "the certificate is not signed by its own key",
        ),
        (with(stolen), "it does not hold the key of its certificate"),
        (
            strange_client(|config| config.alpn_protocols = vec![b"timed/2".to_vec()]),
            "it does not speak timed/1",
        ),
    ];
    for (crypto, sentence) in cases {
        plan.freed(1).await;
        plan.freed(2).await;
        let [there, here] = refused(&plan, 2, crypto).await;
        for (reason, who) in [(there, "the peer refused"), (here, "this node refused")] {
            assert_eq!(reason.code, CloseCode::TlsRefused, "{reason}");
            assert!(reason.detail.starts_with(who), "{reason}");
            assert!(reason.detail.contains(sentence), "{sentence:?} in {reason}");
        }
    }
}

#[tokio::test]
async fn a_key_at_the_wrong_address_is_shown_and_counted_on_both_sides() {
    let plan = Plan::new(2, 1);
    let own = identity(1, plan.ip(1));
    let masternode = identity(2, plan.ip(2));
    let stranger = identity(50, plan.ip(2));
    let cases = [
        // A recorded address with another key; its key from another address; the node's own key.
        (2, &stranger, CloseCode::PinMismatch, stranger.node_id()),
        (3, &masternode, CloseCode::PinMismatch, masternode.node_id()),
        (3, &own, CloseCode::SelfConnection, own.node_id()),
    ];
    for (from, identity, code, pin) in cases {
        for seed in [1, from] {
            plan.freed(seed).await;
        }
        let [there, here] = refused(&plan, from, as_identity(identity)).await;
        assert_eq!(there, here, "both have the same sentence");
        assert_eq!(here.code, code, "{here}");
        if code == CloseCode::PinMismatch {
            assert!(here.detail.contains(&pin.to_string()), "{here}");
        }
    }
}

#[tokio::test]
async fn an_address_that_holds_a_connection_with_another_key_is_shown_and_counted() {
    let plan = Plan::new(1, 1);
    let node = plan.start(1);
    let _first = Raw::dial(&plan, 2, 1).await;
    node.connected_to(&[plan.ip(2)]).await;
    let socket = bind_udp(plan.ip(2).with_port(0), &TokioRuntime as &dyn Runtime).unwrap();
    let other = raw::endpoint_on(&plan, 2, socket);
    let crypto = as_identity(&identity(77, plan.ip(2)));
    let client = quinn::ClientConfig::new(crypto);
    let connecting = other.connect_with(client, plan.address(1), "timed");
    let quic = connecting.unwrap().await.unwrap();
    let raw = Raw::greet((other, quic), hello(&plan, 2, plan.ip(1))).await;
    let there = raw.closed().await;
    assert_eq!(there.code, CloseCode::IpTaken, "{there}");
    assert_eq!(node.refused_with(plan.ip(2)).await, there);
    let counts = node.net.counts();
    let counted = counts
        .refused
        .get(&(Direction::Inbound, CloseCode::IpTaken));
    assert_eq!(counted, Some(&1));
}

/// What ends an established connection is no refusal: it stands with the peer and in the counts.
#[tokio::test]
async fn a_second_hello_or_a_consensus_stream_is_shown_and_counted_on_both_sides() {
    for second_hello in [true, false] {
        let plan = Plan::new(1, 1);
        let node = plan.start(1);
        let mut raw = Raw::dial(&plan, 2, 1).await;
        node.connected_to(&[plan.ip(2)]).await;
        let _stream = match second_hello {
            true => {
                let again = KeepaliveMessage::Hello(hello(&plan, 2, plan.ip(1)));
                raw.say(&again).await;
                None
            }
            false => Some(open(&raw.quic, StreamKind::Consensus).await),
        };
        let there = raw.closed().await;
        assert_eq!(there.code, CloseCode::ProtocolViolation, "{there}");
        node.connected_to(&[]).await;
        let known = node.net.known_peers();
        let shown = known.iter().find(|one| one.ip == plan.ip(2)).unwrap();
        let end = &shown.last_end.as_ref().unwrap().2;
        assert!(end.contains(&there.detail), "{end}");
        let counts = node.net.counts();
        assert_eq!(counts.ended.get(&CloseCode::ProtocolViolation), Some(&1));
        assert!(node.net.bans()[0].reason.contains(&there.detail));
    }
}

/// TLS refuses some first packets as soon as it reads them: that may be forged in anybody's name.
#[tokio::test(start_paused = true)]
async fn a_first_packet_that_tls_refuses_is_not_held_against_its_address() {
    let plan = Plan::new(2, 0);
    let wire = sim::clean_wire();
    let node = sim::start(&plan, 1, &wire);
    let crypto = strange_client(|config| config.alpn_protocols = vec![b"h3".to_vec()]);
    let mut packets = super::flood::FirstPackets::of(crypto);
    for _ in 0..50 {
        wire.send(
            plan.address(2),
            plan.address(1),
            &packets.next(plan.address(1)),
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = node.net.refused();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let detail = &refused[0].3.detail;
    assert!(detail.ends_with("(the address is not proved)"), "{detail}");
    let counts = node.net.counts();
    let counted = counts
        .refused
        .get(&(Direction::Inbound, CloseCode::TlsRefused));
    assert_eq!(counted, Some(&50));
    let known = node.net.known_peers();
    let of_masternode = known.iter().find(|one| one.ip == plan.ip(2)).unwrap();
    let last = of_masternode.last_refusal.as_ref();
    assert!(last.is_none_or(|(_, direction, _)| *direction == Direction::Outbound));
}
