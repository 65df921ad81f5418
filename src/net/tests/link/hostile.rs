//! Readers that stop, and peers that grant what they will never take.

use quinn::{TransportConfig, VarInt};

use super::*;
use crate::wire::SyncUp;

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

/// What a peer says that its clock shows, when it shows so many microseconds.
type Lie = fn(u64) -> u64;

const LIES: [(&str, Lie); 4] = [
    ("the truth", |us| us),
    ("one moment for ever", |_| u64::MAX / 2),
    ("backwards", |us| u64::MAX - 2 * us),
    ("anything", |us| us.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
];

/// Reads one answer without end and confirms it at once, with a clock of its own.
async fn consume(quic: quinn::Connection, lie: Lie, began: Instant, read: Arc<AtomicU64>) {
    let (mut send, mut recv) = quic.open_bi().await.unwrap();
    let request = SyncRequest::Bodies {
        first: Height(1),
        last: Height(256),
    };
    let mut bytes = vec![StreamKind::Sync.byte()];
    bytes.extend(encode_frame(StreamKind::Sync, &SyncUp::Request(request)).unwrap());
    send.write_all(&bytes).await.unwrap();
    let mut consumed = 0;
    while let Ok(Some(chunk)) = recv.read_chunk(64 * 1024, true).await {
        consumed += chunk.bytes.len() as u64;
        read.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
        let told = SyncUp::Consumed {
            bytes: consumed,
            at_us: lie(began.elapsed().as_micros() as u64),
        };
        let frame = encode_frame(StreamKind::Sync, &told).unwrap();
        if send.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// What a download has of an uplink of 20 Mbit/s, and the p99 of votes to another peer beside it. Without
/// a lie, a plain QUIC stream of another program takes its place.
fn beside_a_liar(lie: Option<Lie>) -> (f64, Duration) {
    virtually(async move {
        let mut plan = Plan::new(5, 0);
        plan.timing = NetTiming::RECOMMENDED;
        let wire = sim::clean_wire();
        wire.share_uplink(
            &[plan.address(1), plan.address(4)],
            Rate::mbit_per_s(20, 100),
        );
        let node = Host::start(&plan, 1, &wire);
        let honest = Host::start(&plan, 2, &wire);
        honest.connected_to(1).await;
        let read = match lie {
            None => plain_flow(&plan, &wire, 4, 5, None).await,
            Some(lie) => {
                let endpoint = raw::endpoint_on(&plan, 3, wire.socket(plan.address(3)));
                let windows = TransportConfig::default();
                let quic = Raw::connect_from(endpoint, &plan, 3, 1, windows).await;
                let mut peer = Raw::welcomed(quic, &plan, 3, 1).await;
                let (read, began) = (Arc::<AtomicU64>::default(), Instant::now());
                for _ in 0..4 {
                    tokio::spawn(consume(peer.quic.clone(), lie, began, read.clone()));
                }
                tokio::spawn(async move { peer.answer_pings().await });
                read
            }
        };
        sleep(Duration::from_secs(2)).await;
        node.vote(honest.ip, VOTE_EVERY);
        let before = read.load(Ordering::Relaxed);
        sleep(Duration::from_secs(20)).await;
        let bytes = read.load(Ordering::Relaxed) - before;
        (bytes as f64 / (20.0 * 2_500_000.0), node.vote_p99())
    })
}

/// A clock that lies takes nothing that QUIC's congestion control alone would not take: the queue that it
/// makes on the uplink is as another program's.
#[test]
fn a_peer_that_lies_about_its_clock_gets_what_plain_quic_gets() {
    let (plain, plain_p99) = beside_a_liar(None);
    println!("plain QUIC: {plain:.3}, votes to another peer p99 {plain_p99:?}");
    for (what, lie) in LIES {
        let (part, p99) = beside_a_liar(Some(lie));
        println!("a clock that says {what}: {part:.3}, votes to another peer p99 {p99:?}");
        assert!(part <= plain + 0.02, "{what}: {part} {plain}");
        assert!(
            p99 <= plain_p99 + Duration::from_millis(10),
            "{what}: {p99:?}"
        );
    }
}
