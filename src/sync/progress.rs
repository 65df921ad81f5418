//! How fast a node catches up, how long it still takes, and how that is said. Pure: the time is an
//! argument.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::SyncStatus;
use crate::types::{Height, PeerIp, time};

/// The rate is that of so long: long enough for a few commits of large blocks, short enough to
/// follow a peer that becomes slow.
const WINDOW: Duration = Duration::from_secs(20);

/// Sooner than this there is no rate: connections begin slowly.
const SETTLED: Duration = Duration::from_secs(1);

/// Heights closer together than this are one sample; so there are at most 41.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// How many peers that were replaced a sentence names.
const MAX_NAMED: usize = 3;

/// The heights of late.
#[derive(Debug)]
pub(super) struct Pace {
    /// Oldest first, never empty; the first may be older than the window, the others are not.
    samples: VecDeque<(Instant, Height)>,
}

impl Pace {
    pub(super) fn new(now: Instant, height: Height) -> Self {
        Self {
            samples: VecDeque::from([(now, height)]),
        }
    }

    /// The tip is at this height.
    pub(super) fn note(&mut self, now: Instant, height: Height) {
        let newest = self.samples.back();
        if newest.is_none_or(|(at, _)| now.duration_since(*at) >= SAMPLE_INTERVAL) {
            self.samples.push_back((now, height));
        }
        while let Some((second, _)) = self.samples.get(1)
            && now.duration_since(*second) >= WINDOW
        {
            self.samples.pop_front();
        }
    }

    /// Blocks a second up to this height; `None` as long as it is too early to say.
    pub(super) fn blocks_per_s(&self, now: Instant, height: Height) -> Option<f64> {
        let (since, from) = self.samples.front()?;
        let passed = now.duration_since(*since);
        (passed >= SETTLED).then(|| (height.0 - from.0) as f64 / passed.as_secs_f64())
    }
}

/// How long so many blocks take; `None` when nothing moves.
pub(super) fn seconds_left(behind: u64, blocks_per_s: f64) -> Option<u64> {
    (blocks_per_s > 0.0).then(|| (behind as f64 / blocks_per_s).ceil() as u64)
}

impl SyncStatus {
    /// How many blocks are known to be missing.
    pub fn behind(&self) -> u64 {
        self.target.0.saturating_sub(self.height.0)
    }

    /// How far behind, for how long, whom it fetches from and who was replaced: one line.
    pub fn sentence(&self) -> String {
        let mut text = match self.behind() {
            0 if self.set_aside.is_empty() => format!("at the tip, height {}", self.height),
            0 => format!(
                "at height {}, no peer that can be asked has more",
                self.height
            ),
            behind => self.catching_up(behind),
        };
        let newest = self.set_aside.iter().rev().take(MAX_NAMED);
        for (peer, reason) in newest {
            text += &format!("; {peer} replaced: {reason}");
        }
        text
    }

    fn catching_up(&self, behind: u64) -> String {
        let blocks = if behind == 1 { "block" } else { "blocks" };
        let mut text = format!("behind by {behind} {blocks} at height {}", self.height);
        if let Some(rate) = self.blocks_per_s {
            text += &match self.seconds_left {
                Some(seconds) => {
                    let left = time::span(seconds);
                    format!(", about {left} left at {rate} blocks/s")
                }
                None => ", nothing arrives".into(),
            };
        }
        text += &match self.peers.as_slice() {
            [] => ", fetching from nobody".into(),
            peers => format!(", fetching from {}", named(peers)),
        };
        text
    }
}

/// Peers in one line.
pub(super) fn named(peers: &[PeerIp]) -> String {
    let names: Vec<String> = peers.iter().map(PeerIp::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(last: u8) -> PeerIp {
        std::net::IpAddr::from([127, 0, 0, last]).into()
    }

    fn after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_rate_is_that_of_the_last_20_seconds() {
        let start = Instant::now();
        let mut pace = Pace::new(start, Height(100));
        assert_eq!(pace.blocks_per_s(after(start, 0.9), Height(200)), None);
        // 100 blocks a second for 30 s, then 10.
        let mut height = 100;
        for second in 1..=60 {
            height += if second <= 30 { 100 } else { 10 };
            pace.note(after(start, f64::from(second)), Height(height));
            let rate = pace.blocks_per_s(after(start, f64::from(second)), Height(height));
            match second {
                1..=30 => assert_eq!(rate, Some(100.0), "{second}"),
                50..=60 => assert_eq!(rate, Some(10.0), "{second}"),
                _ => assert!((10.0..100.0).contains(&rate.unwrap()), "{second}"),
            }
        }
        // Nothing moves any more.
        let end = Height(height);
        for second in 61..=80 {
            pace.note(after(start, f64::from(second)), end);
        }
        assert_eq!(pace.blocks_per_s(after(start, 80.0), end), Some(0.0));
        assert_eq!(seconds_left(1_000, 0.0), None);
    }

    #[test]
    fn what_is_left_follows_from_the_rate() {
        assert_eq!(seconds_left(1_000, 10.0), Some(100));
        assert_eq!(seconds_left(1, 10.0), Some(1));
        assert_eq!(seconds_left(0, 10.0), Some(0));
    }

    proptest! {
        /// However often it is told a height, it keeps few samples, and a steady rate is found.
        #[test]
        fn a_steady_rate_is_found_from_few_samples(
            step_ms in 1u64..3_000,
            steps in 2u64..2_000,
            blocks in 0u64..500,
        ) {
            let start = Instant::now();
            let mut pace = Pace::new(start, Height(7));
            let (mut now, mut height) = (start, Height(7));
            for _ in 0..steps {
                now += Duration::from_millis(step_ms);
                height.0 += blocks;
                pace.note(now, height);
                prop_assert!(pace.samples.len() <= 42, "{}", pace.samples.len());
            }
            if let Some(rate) = pace.blocks_per_s(now, height) {
                let expected = blocks as f64 * 1_000.0 / step_ms as f64;
                prop_assert!((rate - expected).abs() <= expected * 1e-6, "{rate} {expected}");
            }
        }
    }

    #[test]
    fn the_sentence_says_how_far_how_long_from_whom_and_who_was_replaced() {
        let mut status = SyncStatus {
            height: Height(1_000),
            target: Height(5_444),
            syncing: true,
            peers: vec![ip(2), ip(3)],
            blocks_per_s: Some(24.0),
            seconds_left: Some(186),
            set_aside: vec![(ip(4), "no progress for 20 s".into())],
            ..SyncStatus::default()
        };
        assert_eq!(
            status.sentence(),
            "behind by 4444 blocks at height 1000, about 3 min 6 s left at 24 blocks/s, \
             fetching from 127.0.0.2, 127.0.0.3; 127.0.0.4 replaced: no progress for 20 s"
        );
        status.seconds_left = None;
        status.peers.clear();
        status.set_aside.clear();
        assert_eq!(
            status.sentence(),
            "behind by 4444 blocks at height 1000, nothing arrives, fetching from nobody"
        );
        // It is too early for a rate.
        status.blocks_per_s = None;
        assert_eq!(
            status.sentence(),
            "behind by 4444 blocks at height 1000, fetching from nobody"
        );
        status.height = status.target;
        assert_eq!(status.sentence(), "at the tip, height 5444");
        // Whoever announced more has not served it.
        status.set_aside = vec![(ip(4), "no progress for 20 s".into())];
        assert_eq!(
            status.sentence(),
            "at height 5444, no peer that can be asked has more; \
             127.0.0.4 replaced: no progress for 20 s"
        );
    }

    #[test]
    fn a_sentence_names_the_three_that_were_replaced_last() {
        let set_aside = (4..9).map(|last| (ip(last), format!("reason {last}")));
        let status = SyncStatus {
            target: Height(1),
            set_aside: set_aside.collect(),
            ..SyncStatus::default()
        };
        assert_eq!(
            status.sentence(),
            "behind by 1 block at height 0, fetching from nobody; 127.0.0.8 replaced: reason 8; \
             127.0.0.7 replaced: reason 7; 127.0.0.6 replaced: reason 6"
        );
    }
}
