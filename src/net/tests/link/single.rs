//! One pair of nodes on one link.

use super::*;

/// Measures bulk one way or both ways over a link that is alike both ways.
fn row(
    (mbit, round_trip_ms, queue): (u64, u64, usize),
    loss: u32,
    both_ways: bool,
    (settle_s, window_s): (u64, u64),
) -> Figures {
    virtually(async move {
        let (settle, window) = (Duration::from_secs(settle_s), Duration::from_secs(window_s));
        let way = Link {
            loss,
            ..link(mbit, round_trip_ms, queue)
        };
        let pair = Pair::start(way, way, window).await;
        let figures = measure(&pair, both_ways, mbit * 125_000, settle, window).await;
        println!("{mbit} Mbit/s, {round_trip_ms} ms, {queue} packets, loss {loss}: {figures:?}");
        println!("{:?}", pair.one.info(pair.other.ip));
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
    let figures = row((20, 40, 100), 0, false, (2, 10));
    figures.assert(Duration::from_millis(60), 0.93);
}

#[test]
fn the_reference_link_both_ways() {
    let figures = row((20, 40, 100), 0, true, (5, 10));
    figures.assert(Duration::from_millis(75), 0.88);
    assert!(figures.bulk[1] >= 0.88, "{figures:?}");
}

#[test]
fn a_slow_link() {
    let figures = row((2, 40, 100), 0, false, (5, 10));
    figures.assert(allowed(2, 40), 0.90);
}

#[test]
fn a_fast_link() {
    let figures = row((100, 40, 100), 0, false, (3, 3));
    figures.assert(allowed(100, 40), 0.90);
}

#[test]
fn a_local_link() {
    let figures = row((1_000, 5, 1_000), 0, false, (1, 1));
    figures.assert(allowed(1_000, 5), 0.90);
}

#[test]
fn a_long_link() {
    let figures = row((20, 200, 100), 0, false, (5, 10));
    figures.assert(allowed(20, 200), 0.90);
}

#[test]
fn a_deep_queue() {
    let figures = row((20, 40, 1_000), 0, false, (2, 10));
    figures.assert(Duration::from_millis(65), 0.90);
}

#[test]
fn a_lossy_link() {
    let figures = row((20, 40, 100), 100, false, (2, 10));
    assert!(figures.ping_p99 <= Duration::from_millis(140), "{figures:?}");
    assert!(figures.vote_p99 <= Duration::from_millis(140), "{figures:?}");
}
