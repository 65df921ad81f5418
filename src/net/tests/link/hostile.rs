//! Readers that stop, and peers that grant what they will never take.

use quinn::{TransportConfig, VarInt};

use super::*;
use crate::wire::{SyncUp, encode_frame};

/// Sixteen answers that nobody reads, by a peer that grants all the windows that there are.
#[test]
fn sixteen_readers_that_stop_delay_no_ping_and_are_given_up() {
    virtually(async {
        let mut plan = Plan::new(2, 0);
        plan.timing = often(Duration::from_secs(10));
        let wire = sim::clean_wire();
        let way = link(20, 40, 100);
        wire.set_link(plan.address(1), plan.address(2), way);
        wire.set_link(plan.address(2), plan.address(1), way);
        let node = Host::start(&plan, 1, &wire);
        let mut windows = TransportConfig::default();
        windows
            .stream_receive_window(VarInt::MAX)
            .receive_window(VarInt::MAX);
        let endpoint = raw::endpoint_on(&plan, 2, wire.socket(plan.address(2)));
        let quic = Raw::connect_from(endpoint, &plan, 2, 1, windows).await;
        let mut peer = Raw::welcomed(quic, &plan, 2, 1).await;
        let (quic, ip) = (peer.quic.clone(), plan.ip(2));
        tokio::spawn(async move { peer.answer_pings().await });
        sleep(Duration::from_secs(11)).await;
        let idle = node.ping_p99(ip);
        let mut open = Vec::new();
        for _ in 0..16 {
            let (mut send, recv) = quic.open_bi().await.unwrap();
            let request = SyncRequest::Bodies {
                first: Height(1),
                last: Height(256),
            };
            let mut bytes = vec![StreamKind::Sync.byte()];
            bytes.extend(encode_frame(StreamKind::Sync, &SyncUp::Request(request)).unwrap());
            send.write_all(&bytes).await.unwrap();
            open.push((send, recv));
        }
        sleep(Duration::from_secs(11)).await;
        let stalled = node.info(ip);
        let full = node.ping_p99(ip);
        println!("16 readers that stop: idle p99 {idle:?}, stalled {full:?}");
        assert!(full <= idle.mul_f64(1.1), "{idle:?} {full:?}");
        assert!(stalled.bulk_unconfirmed <= 16 * 1024, "{stalled:?}");
        // Four are answered at a time, each until it has stood still for 20 s.
        sleep(Duration::from_secs(75)).await;
        for (_, recv) in &mut open {
            let given_up = recv.received_reset().await.unwrap();
            assert_eq!(given_up, Some(crate::net::frames::ABANDONED));
        }
        let after = node.info(ip);
        assert_eq!(after.bulk_unconfirmed, 0);
        let unanswered = after.pings_sent - after.pongs_received;
        assert!(unanswered <= 6, "{after:?}");
        assert!(node.ping_p99(ip) <= idle.mul_f64(1.1));
    });
}
