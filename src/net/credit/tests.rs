use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const PACKET: u64 = 1_400;

/// A sender that always has more, on a link of its own with an endless queue.
struct Road {
    bytes_per_s: f64,
    base: Duration,
    credit: Credit,
    began: Instant,
    now: Instant,
    /// Packets under way: when each is confirmed, and its round trip.
    flying: VecDeque<(Instant, Duration)>,
    free_at: Instant,
    rtt: Option<Duration>,
}

impl Road {
    fn new(mbit: f64, base_ms: u64) -> Self {
        let now = Instant::now();
        Self {
            bytes_per_s: mbit * 125_000.0,
            base: Duration::from_millis(base_ms),
            credit: Credit::new(16 << 20, now, 0),
            began: now,
            now,
            flying: VecDeque::new(),
            free_at: now,
            rtt: None,
        }
    }

    /// Runs for a while: what was carried, of the link's rate, and the mean queueing delay.
    fn run(&mut self, seconds: u64) -> (f64, Duration) {
        let (start, end) = (self.now, self.now + Duration::from_secs(seconds));
        let (mut carried, mut queued) = (0, Duration::ZERO);
        while self.now < end {
            self.write();
            let (at, rtt) = self
                .flying
                .pop_front()
                .expect("the bound is at least a packet");
            self.now = at;
            let smoothed = self.rtt.map_or(rtt, |old| (old * 7 + rtt) / 8);
            self.rtt = Some(smoothed);
            let path = Path {
                rtt: smoothed,
                window: 64 << 20,
                packet: PACKET,
            };
            self.credit.confirmed(at, PACKET, path, true, false);
            carried += PACKET;
            queued += rtt.saturating_sub(self.base) / 1_000;
        }
        let packets = (carried / PACKET) as u32;
        let time = self.now.duration_since(start).as_secs_f64();
        (
            carried as f64 / (time * self.bytes_per_s),
            queued / packets * 1_000,
        )
    }

    fn write(&mut self) {
        while (self.flying.len() as u64 + 1) * PACKET <= self.credit.bytes().max(PACKET) {
            let sending = Duration::from_secs_f64(PACKET as f64 / self.bytes_per_s);
            self.free_at = self.free_at.max(self.now) + sending;
            let confirmed = self.free_at + self.base;
            let rtt = confirmed.duration_since(self.now);
            self.flying.push_back((confirmed, rtt));
        }
    }
}

#[test]
fn a_link_of_its_own_is_filled_and_its_queue_kept_short() {
    for (mbit, base_ms) in [
        (20.0, 40),
        (2.0, 40),
        (100.0, 40),
        (1_000.0, 5),
        (20.0, 200),
    ] {
        let mut road = Road::new(mbit, base_ms);
        road.run(5);
        let (carried, delay) = road.run(10);
        assert!(carried >= 0.93, "{mbit} Mbit/s, {base_ms} ms: {carried}");
        // The time of two packets is longer than the 10 ms on the slowest.
        assert!(
            delay <= Duration::from_millis(20),
            "{mbit} Mbit/s, {base_ms} ms: {delay:?}"
        );
    }
}

#[test]
fn a_path_that_becomes_longer_is_believed_in_the_end() {
    let mut road = Road::new(20.0, 40);
    road.run(30);
    road.base = Duration::from_millis(120);
    road.run(240);
    let (carried, delay) = road.run(10);
    assert!(carried >= 0.9, "{carried}");
    assert!(delay <= Duration::from_millis(15), "{delay:?}");
}

#[test]
fn an_hour_of_bulk_does_not_hide_the_base_delay() {
    let mut road = Road::new(5.0, 40);
    road.run(3_600);
    let (carried, delay) = road.run(10);
    assert!(carried >= 0.95, "{carried}");
    assert!(delay <= Duration::from_millis(15), "{delay:?}");
}

#[test]
fn what_the_sender_does_not_use_does_not_grow() {
    let mut credit = Credit::new(16 << 20, Instant::now(), 0);
    let mut now = Instant::now();
    for _ in 0..1_000 {
        now += Duration::from_millis(40);
        let path = Path {
            rtt: Duration::from_millis(40),
            window: 1 << 20,
            packet: PACKET,
        };
        credit.confirmed(now, 10_000, path, false, false);
    }
    assert_eq!(credit.bytes(), START_BYTES);
}

#[test]
fn after_a_pause_it_starts_anew() {
    let mut road = Road::new(100.0, 40);
    road.run(5);
    assert!(road.credit.bytes() > 10 * START_BYTES);
    road.credit.resume(road.now + PAUSE / 2);
    assert!(road.credit.bytes() > 10 * START_BYTES);
    road.credit.resume(road.now + PAUSE * 2);
    assert_eq!(road.credit.bytes(), START_BYTES);
    assert!(road.began < road.now);
}

proptest! {
    /// Whatever the peer confirms and QUIC measures.
    #[test]
    fn the_bound_stays_between_a_packet_and_its_limit(
        max in PACKET..1 << 24,
        steps in proptest::collection::vec(
            (1u64..2_000_000, 0u64..5_000, 0u64..3_000, 0u64..10_000_000, any::<bool>(), any::<bool>()),
            1..200,
        ),
    ) {
        let mut now = Instant::now();
        let mut credit = Credit::new(max, now, 0);
        for (bytes, wait_ms, rtt_ms, window, limited, both_ways) in steps {
            now += Duration::from_millis(wait_ms);
            let path = Path { rtt: Duration::from_millis(rtt_ms), window, packet: PACKET };
            credit.confirmed(now, bytes, path, limited, both_ways);
            prop_assert!((PACKET..=max).contains(&credit.bytes()), "{}", credit.bytes());
        }
    }
}
