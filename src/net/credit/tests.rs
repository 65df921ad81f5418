use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const PACKET: u64 = 1_400;

/// Senders that always have more, on one link with an endless queue.
struct Road {
    bytes_per_s: f64,
    base: Duration,
    /// What the way back takes.
    back: Duration,
    /// The receivers' clock gains so many microseconds in a second, or loses them.
    gains: i64,
    /// At the start of each tenth of a second the machine does nothing for so long.
    pause: Duration,
    /// Added to each way, uniform from zero to this; packets stay in order.
    jitter: Duration,
    random: u64,
    began: Instant,
    now: Instant,
    flows: Vec<Flow>,
    /// Packets under way, in the order of their confirmation.
    flying: VecDeque<Packet>,
    free_at: Instant,
    /// When the newest packet is read, and confirmed.
    newest: (Instant, Instant),
}

struct Flow {
    /// Another program has none, but a window.
    credit: Option<Credit>,
    window: u64,
    /// Bytes that it has to send.
    left: u64,
    flying: u64,
    smoothed: Option<Duration>,
    carried: u64,
}

struct Packet {
    flow: usize,
    written: Instant,
    read: Instant,
    confirmed: Instant,
}

impl Road {
    fn new(mbit: f64, base_ms: u64) -> Self {
        let now = Instant::now();
        let mut road = Self {
            bytes_per_s: mbit * 125_000.0,
            base: Duration::from_millis(base_ms),
            back: Duration::ZERO,
            gains: 0,
            pause: Duration::ZERO,
            jitter: Duration::ZERO,
            random: 1,
            began: now,
            now,
            flows: Vec::new(),
            flying: VecDeque::new(),
            free_at: now,
            newest: (now, now),
        };
        road.join();
        road
    }

    /// One more sender, from now on. All share the time of day.
    fn join(&mut self) {
        let now_ms = self.now.duration_since(self.began).as_millis() as u64;
        let credit = Credit::new(16 << 20, self.now, now_ms);
        self.flow(Some(credit), 64 << 20);
    }

    fn flow(&mut self, credit: Option<Credit>, window: u64) {
        self.flows.push(Flow {
            credit,
            window,
            left: u64::MAX,
            flying: 0,
            smoothed: None,
            carried: 0,
        });
    }

    fn credit(&mut self) -> &mut Credit {
        self.flows[0].credit.as_mut().unwrap()
    }

    /// Runs for a while: what all and each have carried, of the link's rate, and the mean delay in
    /// the queue.
    fn run(&mut self, seconds: u64) -> (f64, Vec<f64>, Duration) {
        let (start, end) = (self.now, self.now + Duration::from_secs(seconds));
        let (mut packets, mut queued) = (0, Duration::ZERO);
        for flow in &mut self.flows {
            flow.carried = 0;
        }
        while self.now < end {
            queued += self.step().expect("the bound is at least a packet");
            packets += 1;
        }
        let could = self.now.duration_since(start).as_secs_f64() * self.bytes_per_s;
        let parts = self.flows.iter().map(|one| one.carried as f64 / could);
        let parts: Vec<f64> = parts.collect();
        (parts.iter().sum(), parts, queued / packets)
    }

    /// One body of 4 MB after a pause in which nothing but pings was sent: how long it takes, and the mean
    /// delay in the queue.
    fn body(&mut self, pause: Duration) -> (Duration, Duration) {
        self.now += pause;
        let (base, back, start) = (self.base, self.back, self.now);
        let flow = &mut self.flows[0];
        flow.left = 4_000_000;
        flow.smoothed = Some(base + back);
        self.credit().resume(start);
        let (mut packets, mut queued) = (0, Duration::ZERO);
        while let Some(delay) = self.step() {
            queued += delay;
            packets += 1;
        }
        (self.now.duration_since(start), queued / packets)
    }

    /// Until the next packet is confirmed: how long it was in the queue. `None` when all is.
    fn step(&mut self) -> Option<Duration> {
        self.write();
        let packet = self.flying.pop_front()?;
        let way = packet.read.duration_since(packet.written);
        let queued = way.saturating_sub(self.base);
        self.now = packet.confirmed;
        self.confirm(packet);
        Some(queued)
    }

    fn confirm(&mut self, packet: Packet) {
        let flow = &mut self.flows[packet.flow];
        flow.flying -= PACKET;
        flow.carried += PACKET;
        let rtt = packet.confirmed.duration_since(packet.written);
        let smoothed = flow.smoothed.map_or(rtt, |old| (old * 7 + rtt) / 8);
        flow.smoothed = Some(smoothed);
        let path = Path {
            rtt: smoothed,
            // From the time when the link was idle.
            least_rtt: self.base,
            window: flow.window,
            packet: PACKET,
        };
        let us = |at: Instant| at.duration_since(self.began).as_micros() as i64;
        let seconds = packet.read.duration_since(self.began).as_secs_f64();
        let read_us = us(packet.read) + (self.gains as f64 * seconds) as i64 + 7_000_000;
        let confirmed = Confirmed {
            bytes: PACKET,
            way_us: read_us - us(packet.written),
            back_us: us(packet.confirmed) - read_us,
            limited: flow.left >= PACKET,
        };
        if let Some(credit) = &mut flow.credit {
            credit.confirmed(packet.confirmed, confirmed, path);
        }
    }

    fn write(&mut self) {
        let (jitter, random) = (self.jitter, &mut self.random);
        for (at, flow) in self.flows.iter_mut().enumerate() {
            let bound = flow.credit.as_ref().map_or(flow.window, Credit::bytes);
            while flow.flying + PACKET <= bound.max(PACKET) && flow.left >= PACKET {
                flow.flying += PACKET;
                flow.left -= PACKET;
                let sending = Duration::from_secs_f64(PACKET as f64 / self.bytes_per_s);
                self.free_at = self.free_at.max(self.now) + sending;
                let there = self.base + jitter.mul_f64(uniform(random));
                let mut read = (self.free_at + there).max(self.newest.0);
                let tenth = Duration::from_millis(100).as_micros();
                let into = (read + self.back).duration_since(self.began).as_micros() % tenth;
                read += (self.pause).saturating_sub(Duration::from_micros(into as u64));
                let back = self.back + jitter.mul_f64(uniform(random));
                let confirmed = (read + back).max(self.newest.1);
                self.newest = (read, confirmed);
                self.flying.push_back(Packet {
                    flow: at,
                    written: self.now,
                    read,
                    confirmed,
                });
            }
        }
    }
}

/// From zero to one: a linear congruential generator.
fn uniform(state: &mut u64) -> f64 {
    *state =
        (state.wrapping_mul(6_364_136_223_846_793_005)).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 11) as f64 / (1u64 << 53) as f64
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
        // A long link is filled in fifty round trips.
        road.run((base_ms / 20).max(5));
        let (carried, _, delay) = road.run(10);
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
    let (carried, _, delay) = road.run(10);
    assert!(carried >= 0.9, "{carried}");
    assert!(delay <= Duration::from_millis(15), "{delay:?}");
}

/// By more than the target, and by less than what a look takes for another program's queue as well.
#[test]
fn a_path_that_becomes_a_little_longer_is_believed_after_four_looks_at_most() {
    for mbit in [20.0, 100.0] {
        for longer_ms in [9, 11, 12, 13, 14] {
            let mut road = Road::new(mbit, 40);
            road.run(10);
            road.base += Duration::from_millis(longer_ms);
            road.run(34);
            let (carried, _, delay) = road.run(10);
            let what = format!("{mbit} Mbit/s, +{longer_ms} ms: {carried} {delay:?}");
            assert!(carried >= 0.9, "{what}");
            assert!(delay <= Duration::from_millis(15), "{what}");
        }
    }
}

#[test]
fn an_hour_of_bulk_does_not_hide_the_base_delay() {
    let mut road = Road::new(5.0, 40);
    road.run(3_600);
    let (carried, _, delay) = road.run(10);
    assert!(carried >= 0.95, "{carried}");
    assert!(delay <= Duration::from_millis(15), "{delay:?}");
}

#[test]
fn a_queue_on_the_way_back_costs_nothing() {
    let mut road = Road::new(20.0, 40);
    road.run(5);
    road.back = Duration::from_millis(60);
    let (carried, _, delay) = road.run(20);
    assert!(carried >= 0.93, "{carried}");
    assert!(delay <= Duration::from_millis(15), "{delay:?}");
}

/// Delay that comes and goes by itself is no queue. A look tells it from one, the first within 8 s.
#[test]
fn jitter_is_not_taken_for_a_queue() {
    for (jitter_ms, least) in [(5, 0.95), (10, 0.93), (15, 0.85), (20, 0.8)] {
        let mut road = Road::new(20.0, 40);
        road.jitter = Duration::from_millis(jitter_ms);
        road.run(10);
        let (carried, ..) = road.run(40);
        assert!(carried >= least, "{jitter_ms} ms: {carried}");
    }
}

/// What is more than a clock of a computer is off, in parts in a million.
const DRIFT: i64 = 100;

#[test]
fn clocks_that_do_not_run_alike_are_no_matter() {
    for gains in [0, DRIFT, -DRIFT] {
        let mut road = Road::new(20.0, 40);
        road.gains = gains;
        road.run(60);
        let (carried, _, delay) = road.run(300);
        assert!(carried >= 0.93, "{gains}: {carried}");
        // What a clock loses within the history hides as much of the queue.
        let hidden = Duration::from_millis(if gains < 0 { 6 } else { 0 });
        let most = Duration::from_millis(15) + hidden;
        assert!(delay <= most, "{gains}: {delay:?}");
    }
}

/// At the tip a masternode sends bulk when it proposes.
#[test]
fn what_the_clocks_do_between_two_bodies_is_no_matter() {
    for gains in [0, 5, DRIFT, -5, -DRIFT] {
        let mut road = Road::new(20.0, 40);
        road.gains = gains;
        for body in 0..20 {
            let (took, delay) = road.body(Duration::from_secs(600));
            let what = format!("{gains}, body {body}: {took:?} {delay:?}");
            assert!(took <= Duration::from_millis(2_000), "{what}");
            assert!(delay <= Duration::from_millis(15), "{what}");
        }
    }
}

#[test]
fn a_path_that_becomes_longer_between_two_bodies_is_believed_at_once() {
    for longer_ms in [11, 14, 20, 40] {
        let mut road = Road::new(20.0, 40);
        for _ in 0..3 {
            road.body(Duration::from_secs(600));
        }
        road.base += Duration::from_millis(longer_ms);
        for body in 0..8 {
            let (took, delay) = road.body(Duration::from_secs(600));
            let what = format!("+{longer_ms} ms, body {body}: {took:?} {delay:?}");
            assert!(took <= Duration::from_millis(3_000), "{what}");
            assert!(delay <= Duration::from_millis(15), "{what}");
        }
    }
}

#[test]
fn a_busy_machine_is_not_taken_for_a_queue() {
    let mut road = Road::new(1_000.0, 1);
    road.pause = Duration::from_millis(25);
    road.run(5);
    let (carried, ..) = road.run(10);
    // The bound allows for the target, but a pause is longer: what is left is 0.75 and a part.
    assert!(carried >= 0.75, "{carried}");
}

#[test]
fn late_comers_and_early_ones_share_alike() {
    let mut road = Road::new(20.0, 40);
    for _ in 1..4 {
        road.run(7);
        road.join();
    }
    road.run(20);
    let (carried, parts, delay) = road.run(30);
    assert!(carried >= 0.93, "{carried}");
    assert!(delay <= Duration::from_millis(20), "{delay:?}");
    for part in &parts {
        assert!((0.15..0.35).contains(part), "{parts:?}");
    }
}

#[test]
fn beside_another_program_it_takes_what_congestion_control_gives_and_yields_again_after() {
    let mut road = Road::new(20.0, 40);
    road.run(5);
    let window = 150_000;
    road.flows[0].window = window;
    road.flow(None, window);
    road.run(20);
    let (_, parts, _) = road.run(20);
    assert!(parts[0] >= 0.3, "{parts:?}");
    // The program has ended.
    road.flows[1].window = 0;
    road.run(20);
    let (carried, parts, delay) = road.run(20);
    assert!(parts[0] >= 0.9, "{carried} {parts:?}");
    assert!(delay <= Duration::from_millis(15), "{delay:?}");
}

/// How many of the bounds follow QUIC's congestion window.
fn competing(road: &Road) -> usize {
    let credits = road.flows.iter().filter_map(|one| one.credit.as_ref());
    credits
        .filter(|one| matches!(one.phase, Phase::Competing))
        .count()
}

#[test]
fn two_that_competed_yield_again_after() {
    let mut road = Road::new(20.0, 40);
    road.join();
    road.run(20);
    for flow in &mut road.flows {
        flow.window = 100_000;
    }
    road.flow(None, 250_000);
    road.run(20);
    assert_eq!(competing(&road), 2);
    road.flows[2].window = 0;
    road.run(17);
    let (carried, parts, delay) = road.run(20);
    assert_eq!(competing(&road), 0);
    assert!(
        delay <= Duration::from_millis(15),
        "{carried} {parts:?} {delay:?}"
    );
}

/// So many that the least bound of each is too much together: the queue stays, whatever one does.
#[test]
fn a_crowd_at_its_least_bounds_is_no_other_program() {
    for every_s in [0, 3] {
        let mut road = Road::new(2.0, 40);
        for _ in 1..8 {
            if every_s > 0 {
                road.run(every_s);
            }
            road.join();
        }
        for _ in 0..30 {
            road.run(1);
            assert_eq!(competing(&road), 0);
        }
        let (_, parts, delay) = road.run(10);
        assert!(delay <= Duration::from_millis(150), "{delay:?}");
        assert!(parts.iter().all(|one| *one >= 0.06), "{parts:?}");
    }
}

#[test]
fn what_the_sender_does_not_use_does_not_grow() {
    let mut credit = Credit::new(16 << 20, Instant::now(), 0);
    let mut now = Instant::now();
    for _ in 0..1_000 {
        now += Duration::from_millis(40);
        let path = Path {
            rtt: Duration::from_millis(40),
            least_rtt: Duration::from_millis(40),
            window: 1 << 20,
            packet: PACKET,
        };
        let confirmed = Confirmed {
            bytes: 10_000,
            way_us: 0,
            back_us: 0,
            limited: false,
        };
        credit.confirmed(now, confirmed, path);
    }
    assert_eq!(credit.bytes(), START_BYTES);
}

#[test]
fn after_a_pause_it_starts_anew() {
    let mut road = Road::new(100.0, 40);
    road.run(5);
    let now = road.now;
    assert!(road.credit().bytes() > 10 * START_BYTES);
    road.credit().resume(now + PAUSE / 2);
    assert!(road.credit().bytes() > 10 * START_BYTES);
    road.credit().resume(now + PAUSE * 2);
    assert_eq!(road.credit().bytes(), START_BYTES);
}

proptest! {
    /// Whatever the peer confirms and QUIC measures.
    #[test]
    fn the_bound_stays_between_a_packet_and_its_limit(
        max in PACKET..1 << 24,
        steps in proptest::collection::vec(
            (1u64..2_000_000, 0u64..5_000, 0u64..3_000, 0u64..10_000_000, any::<bool>(), any::<i64>()),
            1..200,
        ),
    ) {
        let mut now = Instant::now();
        let mut credit = Credit::new(max, now, 0);
        for (bytes, wait_ms, rtt_ms, window, limited, way_us) in steps {
            now += Duration::from_millis(wait_ms);
            let rtt = Duration::from_millis(rtt_ms);
            let path = Path { rtt, least_rtt: rtt, window, packet: PACKET };
            credit.confirmed(now, Confirmed { bytes, way_us, back_us: way_us.wrapping_neg(), limited }, path);
            prop_assert!((PACKET..=max).contains(&credit.bytes()), "{}", credit.bytes());
        }
    }
}
