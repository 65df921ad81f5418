//! First packets with a masternode's address forged, by the thousand, on virtual time.

use tokio::time::Instant;

use super::wire::Wire;
use super::*;
use crate::net::admission::{MAX_HALF_OPEN, MAX_PER_IP};

/// First packets a second: in 20 s more than thirty times what may be half open at a time.
const PER_SECOND: u64 = 200;
const SECONDS: u64 = 20;

/// Makes first packets as QUIC's own client does, each of another connection.
pub(super) struct FirstPackets {
    client: quinn_proto::Endpoint,
    config: quinn_proto::ClientConfig,
}

impl FirstPackets {
    /// Of a client with this TLS.
    pub(super) fn of(crypto: Arc<quinn::crypto::rustls::QuicClientConfig>) -> Self {
        Self {
            client: quinn_proto::Endpoint::new(Arc::default(), None, false, Some([6; 32])),
            config: quinn_proto::ClientConfig::new(crypto),
        }
    }

    pub(super) fn next(&mut self, to: SocketAddr) -> Vec<u8> {
        let (now, config) = (Instant::now().into_std(), self.config.clone());
        let (_, mut connection) = self.client.connect(now, config, to, "timed").unwrap();
        let mut packet = Vec::new();
        let sent = connection.poll_transmit(now, 1, &mut packet);
        assert!(sent.is_some(), "a first packet can be sent at once");
        packet
    }
}

/// Forges them from a masternode's address, until it is told to stop: from the port of its node
/// and from others.
async fn forge(wire: Arc<Wire>, masternode: SocketAddr, to: SocketAddr) {
    let stranger = identity(66, fresh_ip());
    let mut packets = FirstPackets::of(tls::client_crypto(&stranger).unwrap());
    let mut due = tokio::time::interval(Duration::from_millis(1_000 / PER_SECOND));
    for number in 0..PER_SECOND * SECONDS {
        due.tick().await;
        let port = match number % 4 {
            0 => masternode.port(),
            _ => 1_024 + (number % 16) as u16,
        };
        let from = SocketAddr::new(masternode.ip(), port);
        wire.send(from, to, &packets.next(to));
    }
}

#[tokio::test(start_paused = true)]
async fn a_masternode_gets_in_while_first_packets_are_forged_from_its_address() {
    let mut plan = Plan::new(3, 0);
    plan.timing = NetTiming::RECOMMENDED;
    let (victim, forged) = (plan.address(1), plan.ip(2));
    let wire = sim::clean_wire();
    let (node, third) = (sim::start(&plan, 1, &wire), sim::start(&plan, 3, &wire));
    let masternode = sim::start(&plan, 2, &wire);
    node.connected_to(&[forged, third.ip]).await;
    third.connected_to(&[node.ip, forged]).await;
    let other = node.info(third.ip).connection;

    let flood = tokio::spawn(forge(wire.clone(), plan.address(2), victim));
    tokio::time::sleep(Duration::from_secs(5)).await;
    masternode.stop().await;
    node.connected_to(&[third.ip]).await;
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        // The budget of the masternode's address is untouched.
        assert_eq!(node.net.admission.charged(forged), 0);
    }
    assert_eq!(node.net.half_open().most, MAX_HALF_OPEN / 2);
    let retried = node.net.counts().retried;
    assert!(retried > PER_SECOND, "{retried}");

    // It starts again in the middle of the flood: the first dial gets in.
    let begun = Instant::now();
    let masternode = sim::start(&plan, 2, &wire);
    node.connected_to(&[forged, third.ip]).await;
    assert!(begun.elapsed() < plan.timing.backoff_start, "{begun:?}");
    assert!(!flood.is_finished());
    masternode.connected_to(&[node.ip, third.ip]).await;

    flood.await.unwrap();
    let half_open = node.net.half_open();
    assert!(
        half_open.most <= MAX_HALF_OPEN / 2 + MAX_PER_IP,
        "{half_open:?}"
    );
    assert_eq!(
        node.info(third.ip).connection,
        other,
        "nobody else was disturbed"
    );
    let counts = node.net.counts();
    assert_eq!((counts.turned_away, node.net.bans()), (0, vec![]));
    assert!(
        node.net.refused().iter().all(|one| one.1 != forged),
        "{:?}",
        node.net.refused()
    );
    // All that was half open ends with its time.
    tokio::time::sleep(plan.timing.handshake_timeout * 2).await;
    assert_eq!(node.net.half_open().now, 0);
}
