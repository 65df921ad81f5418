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

#[test]
fn the_reference_link_one_way() {
    let figures = row((20, 40, 100), 0, false, (2, 10));
    assert!(figures.ping_p99 <= Duration::from_millis(60), "{figures:?}");
    assert!(figures.vote_p99 <= Duration::from_millis(60), "{figures:?}");
    assert!(figures.bulk[0] >= 0.93, "{figures:?}");
}
