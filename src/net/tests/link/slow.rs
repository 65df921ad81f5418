//! Transfers that take long, and ends in the middle of one.

use super::*;
use crate::wire::CloseCode;

/// A peer must not be dropped because blocks take minutes each.
#[test]
fn an_hour_at_8_kib_a_second() {
    virtually(async {
        let mut plan = Plan::new(2, 0);
        plan.timing = NetTiming::RECOMMENDED;
        let way = Link {
            rate: Some(Rate {
                bytes_per_s: 8 * 1024,
                queue_packets: 100,
            }),
            ..Link::CLEAN
        };
        let Pair { one, other, .. } = &Pair::start_with(plan, way, 0).await;
        let connection = other.info(one.ip).connection;
        let began = Instant::now();
        let request = SyncRequest::Bodies {
            first: Height(1),
            last: Height(256),
        };
        let mut answer = other.net.request_sync(one.ip, request).await.unwrap();
        for _ in 0..25 {
            let block = answer.next_payload().await.unwrap().unwrap();
            assert_eq!(block.len(), BLOCK_BYTES);
        }
        let (lasted, p99) = (began.elapsed(), other.ping_p99(one.ip));
        println!(
            "25 blocks at 8 KiB/s: {lasted:?}, ping p99 {p99:?} and {:?}",
            one.ping_p99(other.ip)
        );
        assert!(lasted <= Duration::from_secs(3_600), "{lasted:?}");
        assert_eq!(other.info(one.ip).connection, connection);
        assert!(p99 <= Duration::from_millis(1_500), "{p99:?}");
        assert!(one.ping_p99(other.ip) <= Duration::from_millis(1_500));
    });
}

/// Both the sender and the receiver of bulk tell their reason, on a full link that loses packets.
#[test]
fn a_close_in_the_middle_of_a_transfer_tells_its_reason() {
    for seed in 0..20 {
        let (closer, told) = virtually(async move {
            let mut plan = Plan::new(2, 0);
            plan.timing = NetTiming {
                backoff_start: Duration::from_secs(60),
                ..NetTiming::RECOMMENDED
            };
            let way = Link {
                loss: 200,
                ..link(20, 40, 100)
            };
            let pair = Pair::start_with(plan, way, seed).await;
            let Pair { one, other, .. } = &pair;
            other.download(one.ip, 4);
            sleep(Duration::from_secs(2)).await;
            let reason = CloseReason::new(CloseCode::ShuttingDown, "in the middle of a block");
            let (closer, left) = if seed % 2 == 0 {
                (one, other)
            } else {
                (other, one)
            };
            closer.net.disconnect(left.ip, reason).unwrap();
            while !left.net.peers().is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
            let known = left.net.known_peers();
            let known = known
                .into_iter()
                .find(|known| known.ip == closer.ip)
                .unwrap();
            (closer.ip, known.last_end.unwrap().2)
        });
        println!("seed {seed}: {told}");
        assert!(
            told.contains("in the middle of a block"),
            "seed {seed}, {closer}: {told}"
        );
    }
}
