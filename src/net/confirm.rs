//! When the receiver of bulk confirms what it has consumed: soon, because the sender's bound waits
//! for it, and not for every packet, because each confirmation is a packet on the way back. Each
//! tells when the newest byte was read, so that the sender sees how long the way to here was.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::frames::{FrameReader, ReadFailure, Step};

/// At once when so much has come. On fast links this is what counts.
const EVERY_BYTES: u64 = 64 * 1024;
/// Else at the next multiple of this after the first byte that is not confirmed: on slow links about
/// every packet.
const AFTER: Duration = Duration::from_millis(2);

/// What the receiver of a stream of bulk tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Confirmation {
    /// Bytes consumed so far.
    pub bytes: u64,
    /// When the last of them was, in microseconds of the receiver's clock.
    pub at_us: u64,
}

/// What was confirmed of one stream.
pub(super) struct Confirmer {
    /// Where the clock begins that confirmations tell.
    since: Instant,
    confirmed: u64,
    read_at: Instant,
    /// When what has come must be confirmed.
    due: Option<Instant>,
}

impl Confirmer {
    /// Nothing confirmed; all of a connection's begin their clock at the same moment.
    pub(super) fn new(since: Instant) -> Self {
        Self {
            since,
            confirmed: 0,
            read_at: since,
            due: None,
        }
    }

    /// One read; `None` when it is time to confirm although nothing more came.
    pub(super) async fn step(
        &mut self,
        reader: &mut FrameReader,
    ) -> Result<Option<Step>, ReadFailure> {
        let before = reader.consumed();
        let step = match self.due {
            None => reader.step().await?,
            // A step loses nothing when it is given up.
            Some(due) => match timeout_at(due, reader.step()).await {
                Ok(step) => step?,
                Err(_) => return Ok(None),
            },
        };
        if reader.consumed() > before {
            self.read_at = Instant::now();
        }
        if self.due.is_none() && reader.consumed() > self.confirmed {
            self.due = Some(self.next_tick());
        }
        Ok(Some(step))
    }

    /// All streams of a connection confirm at the same moments, so that one packet carries them.
    fn next_tick(&self) -> Instant {
        let (passed, tick) = (self.read_at.duration_since(self.since), AFTER.as_nanos());
        let into = Duration::from_nanos((passed.as_nanos() % tick) as u64);
        self.read_at + (AFTER - into)
    }

    /// What to confirm now, if it is time; at the end of a stream it always is.
    pub(super) fn take(&mut self, consumed: u64, end: bool) -> Option<Confirmation> {
        let time = self.due.is_some_and(|due| due <= Instant::now());
        if consumed == self.confirmed || !(time || end || consumed >= self.confirmed + EVERY_BYTES)
        {
            return None;
        }
        self.confirmed = consumed;
        self.due = None;
        Some(Confirmation {
            bytes: consumed,
            at_us: self.read_at.duration_since(self.since).as_micros() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn streams_confirm_at_the_same_moments_however_old_their_connection_is() {
        let since = Instant::now();
        for age in [0, 1, 99 * 86_400, 365 * 86_400] {
            tokio::time::advance(Duration::from_micros(age * 1_000_000 + 700)).await;
            let mut confirmer = Confirmer::new(since);
            confirmer.read_at = Instant::now();
            let (read_at, due) = (confirmer.read_at, confirmer.next_tick());
            assert!(due > read_at && due <= read_at + AFTER, "after {age} s");
            let age_at_due = due.duration_since(since);
            assert_eq!(age_at_due.as_nanos() % AFTER.as_nanos(), 0, "after {age} s");
        }
    }
}
