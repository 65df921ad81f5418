//! The least of what was measured of late: what a path takes when its queue is empty.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// What was seen longer ago is forgotten, so that a path that has become longer is believed, and clocks
/// that do not run alike are no matter. By age, not by count: two bodies may be minutes apart.
pub(super) const HISTORY: Duration = Duration::from_secs(60);
/// How long a part of the history is: it is forgotten as one.
const STEP: Duration = Duration::from_secs(10);

/// The least of late.
#[derive(Debug)]
pub(super) struct Least<T> {
    /// Newest last: when each began, and its least.
    steps: VecDeque<(Instant, T)>,
}

impl<T> Default for Least<T> {
    fn default() -> Self {
        Self {
            steps: VecDeque::new(),
        }
    }
}

impl<T: Copy + Ord> Least<T> {
    /// One was measured; gives the least.
    pub(super) fn note(&mut self, now: Instant, measured: T) -> T {
        match self.steps.back_mut() {
            Some((began, least)) if now.duration_since(*began) < STEP => {
                *least = measured.min(*least);
            }
            _ => self.steps.push_back((now, measured)),
        }
        let old = |(began, _): &(Instant, T)| now.duration_since(*began) >= HISTORY;
        while self.steps.front().is_some_and(old) {
            self.steps.pop_front();
        }
        self.least().unwrap_or(measured)
    }

    /// The least when something was measured last.
    pub(super) fn least(&self) -> Option<T> {
        self.steps.iter().map(|(_, least)| *least).min()
    }
}
