//! The round trip of an empty path, above which delay is a queue.
//!
//! It is the least that QUIC's smoothed round trip was of late. On a new connection that one is still high
//! from the handshake's long packets, and the queue of others may be part of it: there the least that QUIC
//! has measured is believed instead. But where delays come and go by themselves hardly a packet comes
//! as early as that again: all would be taken for a queue, and the transfer would starve. So
//! the least is given up when the smoothed one has stayed above it although the bounds have yielded.

use std::time::Duration;

use tokio::time::Instant;

use super::Path;
use super::least::{HISTORY, Least};

/// So little that the smoothed round trip is above the least one is no jitter that matters.
const LITTLE: Duration = Duration::from_millis(4);
/// Where a packet takes long, so much may be due to that. More starves a transfer if it is jitter after all.
const SLOW: Duration = Duration::from_millis(6);

/// The round trip of an empty path.
#[derive(Debug)]
pub(super) struct Base {
    connected: Instant,
    smoothed: Least<Duration>,
    /// When the first bulk of a new connection was confirmed and the least round trip then, as long as
    /// that is believed.
    least: Option<(Instant, Duration)>,
}

impl Base {
    /// For a new connection.
    pub(super) fn new(connected: Instant) -> Self {
        Self {
            connected,
            smoothed: Least::default(),
            least: None,
        }
    }

    /// The path has become longer: what was before is forgotten.
    pub(super) fn longer(&mut self) {
        self.least = None;
        self.smoothed = Least::default();
    }

    /// The connection's first bulk is confirmed.
    pub(super) fn begin(&mut self, now: Instant, path: Path) {
        if now.duration_since(self.connected) < HISTORY {
            self.least = Some((now, path.least_rtt));
        }
    }

    /// No bulk was sent for so long.
    pub(super) fn paused(&mut self, pause: Duration) {
        if pause > HISTORY {
            self.least = None;
        }
    }

    /// QUIC tells of the path; gives the round trip of an empty one.
    pub(super) fn note(&mut self, now: Instant, path: Path) -> Duration {
        let smoothed = self.smoothed.note(now, path.rtt);
        self.least
            .map_or(smoothed, |(_, least)| least.min(smoothed))
    }

    /// The bounds have yielded: what queue there is, is another's or none. A full packet takes so much longer
    /// than those of the handshake.
    pub(super) fn looked(&mut self, now: Instant, foreign: bool, packet: Duration) {
        let (Some((began, least)), Some(smoothed)) = (self.least, self.smoothed.least()) else {
            return;
        };
        let above = smoothed.saturating_sub(least);
        let explained = match now.duration_since(began) < HISTORY {
            true => foreign || above <= packet.max(LITTLE),
            false => above <= packet.clamp(LITTLE, SLOW),
        };
        if !explained {
            self.least = None;
        }
    }
}
