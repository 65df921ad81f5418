//! One pair of nodes on one link.

use super::*;

/// Measures bulk one way or both ways over a link that is alike both ways.
fn row(
    (mbit, round_trip_ms, queue): (u64, u64, usize),
    both_ways: bool,
    seconds: (u64, u64),
) -> Figures {
    row_on(link(mbit, round_trip_ms, queue), mbit, both_ways, seconds)
}

fn row_on(way: Link, mbit: u64, both_ways: bool, (settle_s, window_s): (u64, u64)) -> Figures {
    virtually(async move {
        let (settle, window) = (Duration::from_secs(settle_s), Duration::from_secs(window_s));
        // A slow link is not to be loaded with pings.
        let pair = Pair::start(way, window.max(Duration::from_secs(400 / mbit))).await;
        let figures = measure(&pair, both_ways, mbit * 125_000, settle, window).await;
        let Link {
            delay,
            jitter,
            rate,
            ..
        } = way;
        let queue = rate.map_or(0, |rate| rate.queue_packets);
        println!(
            "{mbit} Mbit/s, {delay:?} and up to {jitter:?} each way, {queue} packets, after {settle_s} s: {figures:?}"
        );
        figures
    })
}

/// The round trip of an idle link, 20 ms, and the time of four packets.
fn allowed(mbit: u64, round_trip_ms: u64) -> Duration {
    let packets = Duration::from_micros(4 * 1_480 * 8 / mbit);
    Duration::from_millis(round_trip_ms + 20) + packets
}

#[test]
fn the_reference_link_one_way() {
    let figures = row((20, 40, 100), false, (2, 10));
    figures.assert(Duration::from_millis(60), 0.93);
}

#[test]
fn the_reference_link_both_ways() {
    let figures = row((20, 40, 100), true, (5, 10));
    figures.assert(Duration::from_millis(75), 0.88);
    assert!(figures.bulk[1] >= 0.88, "{figures:?}");
}

#[test]
fn a_slow_link() {
    let figures = row((2, 40, 100), false, (5, 40));
    figures.assert(allowed(2, 40), 0.90);
}

#[test]
fn a_fast_link() {
    let figures = row((100, 40, 100), false, (3, 3));
    figures.assert(allowed(100, 40), 0.90);
}

#[test]
fn a_local_link() {
    let figures = row((1_000, 5, 1_000), false, (1, 2));
    figures.assert(allowed(1_000, 5), 0.90);
}

#[test]
fn a_long_link() {
    // The last 1,024 pings are those of the window, as in the other rows.
    let figures = row((20, 200, 100), false, (5, 21));
    figures.assert(Duration::from_micros(222_400), 0.90);
}

/// The least round trip of the handshake is not forgotten while the path is as it was then.
#[test]
fn after_a_minute_votes_are_as_fast() {
    let slow = row((2, 40, 100), false, (70, 40));
    slow.assert(allowed(2, 40), 0.90);
    let both_ways = row((20, 40, 100), true, (70, 10));
    both_ways.assert(Duration::from_millis(77), 0.86);
    assert!(both_ways.bulk[1] >= 0.86, "{both_ways:?}");
}

/// Each packet is late by chance, each way, by up to so much: what that delays is no queue. An idle link has a
/// p99 near its round trip and twice the jitter; beside bulk half the jitter more is allowed.
#[test]
fn a_link_with_jitter() {
    // With more jitter it is chance how soon the looks find that it is no queue.
    for (jitter_ms, least) in [(5, 0.90), (10, 0.85), (15, 0.50), (20, 0.50)] {
        let way = Link {
            jitter: Duration::from_millis(jitter_ms),
            ..link(20, 40, 100)
        };
        // The first look at the queue is within 8 s.
        let figures = row_on(way, 20, false, (10, 30));
        let most = Duration::from_millis(60 + 5 * jitter_ms / 2);
        figures.assert(most, least);
    }
}

#[test]
fn the_requests_of_one_peer_share_its_bound() {
    virtually(async {
        let pair = Pair::start(link(20, 40, 100), Duration::from_secs(4)).await;
        let counts = pair.other.download(pair.one.ip, 4);
        sleep(Duration::from_secs(4)).await;
        let parts: Vec<f64> = (counts.iter())
            .map(|one| one.load(Ordering::Relaxed) as f64)
            .collect();
        println!("four requests: {parts:?}");
        assert!(fairness(&parts) >= 0.98, "{parts:?}");
    });
}

#[test]
fn a_block_body_goes_before_sync() {
    virtually(async {
        let pair = Pair::start(link(20, 40, 100), Duration::from_secs(4)).await;
        let Pair { one, other, .. } = &pair;
        other.download(one.ip, 4);
        sleep(Duration::from_secs(2)).await;
        let header = crate::wire::BodyHeader {
            height: Height(1),
            round: Round(0),
            block: BlockHash([1; 32]),
        };
        let sent = Instant::now();
        one.net
            .send_body(other.ip, header, Arc::new(vec![7; 4_000_000]))
            .unwrap();
        while other.bodies.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        println!("a block of 4 MB beside sync: {:?}", sent.elapsed());
        // The link alone takes 1.68 s.
        assert!(
            sent.elapsed() <= Duration::from_millis(2_200),
            "{:?}",
            sent.elapsed()
        );
    });
}

#[test]
fn a_deep_queue() {
    let figures = row((20, 40, 1_000), false, (2, 10));
    figures.assert(Duration::from_millis(65), 0.90);
}

/// 1 % of the packets are lost. Plain QUIC carries the same small messages beside its bulk: each has its own
/// chance to be lost, and each loss makes QUIC's congestion window smaller.
#[test]
fn a_lossy_link_carries_what_plain_quic_carries() {
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for seed in 0..8 {
        let (part, p99) = lossy_sync(seed);
        assert!(p99 <= Duration::from_millis(140), "seed {seed}: {p99:?}");
        ours.push(part);
        plain.push(lossy_plain(seed));
    }
    let [(our_mean, our_spread), (plain_mean, plain_spread)] =
        [&ours, &plain].map(|parts| mean_and_spread(parts));
    println!(
        "1 % loss: {our_mean:.3} +- {our_spread:.3}, plain QUIC {plain_mean:.3} +- {plain_spread:.3}"
    );
    // How far two means of eight may be apart by chance, in 997 of 1,000 cases.
    let chance = 3.0 * (our_spread.hypot(plain_spread) / 8f64.sqrt());
    assert!(our_mean >= plain_mean - chance, "{ours:?} {plain:?}");
    assert!(our_mean >= 0.9 * plain_mean, "{ours:?} {plain:?}");
}

fn mean_and_spread(parts: &[f64]) -> (f64, f64) {
    let count = parts.len() as f64;
    let mean = parts.iter().sum::<f64>() / count;
    let squares: f64 = parts.iter().map(|part| (part - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}

const LOSSY_FOR: Duration = Duration::from_secs(30);

/// What a sync has of the link, and the p99 of votes. Pings are rare, for plain QUIC has none.
fn lossy_sync(seed: u8) -> (f64, Duration) {
    virtually(async move {
        let mut plan = Plan::new(2, 0);
        plan.timing = NetTiming::RECOMMENDED;
        let way = Link {
            loss: 100,
            ..link(20, 40, 100)
        };
        let pair = Pair::start_with(plan, way, seed).await;
        let settle = Duration::from_secs(2);
        let figures = measure(&pair, false, 2_500_000, settle, LOSSY_FOR).await;
        (figures.bulk[0], figures.vote_p99)
    })
}

fn lossy_plain(seed: u8) -> f64 {
    virtually(async move {
        let plan = Plan::new(2, 0);
        let wire = Wire::start(Link::CLEAN, Entropy::from_seed([seed; 32]), |_| {});
        let way = Link {
            loss: 100,
            ..link(20, 40, 100)
        };
        wire.set_link(plan.address(1), plan.address(2), way);
        wire.set_link(plan.address(2), plan.address(1), way);
        let received = plain_flow(&plan, &wire, 1, 2, Some(VOTE_EVERY)).await;
        sleep(Duration::from_secs(2)).await;
        let before = received.load(Ordering::Relaxed);
        sleep(LOSSY_FOR).await;
        let bytes = received.load(Ordering::Relaxed) - before;
        bytes as f64 / (LOSSY_FOR.as_secs_f64() * 2_500_000.0)
    })
}
