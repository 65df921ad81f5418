//! When the receiver of bulk confirms what it has consumed: soon, because the sender's bound waits
//! for it, and not for every packet, because each confirmation is a packet on the way back.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::frames::{FrameReader, ReadFailure, Step};

/// At once when so much has come. On fast links this is what counts.
const EVERY_BYTES: u64 = 64 * 1024;
/// Else so long after the first byte that is not confirmed: on slow links about every packet.
const AFTER: Duration = Duration::from_millis(2);

/// What was confirmed of one stream.
#[derive(Default)]
pub(super) struct Confirmer {
    confirmed: u64,
    /// When what has come must be confirmed.
    due: Option<Instant>,
}

impl Confirmer {
    /// One read; `None` when it is time to confirm although nothing more came.
    pub(super) async fn step(
        &mut self,
        reader: &mut FrameReader,
    ) -> Result<Option<Step>, ReadFailure> {
        let step = match self.due {
            None => reader.step().await?,
            // A step loses nothing when it is given up.
            Some(due) => match timeout_at(due, reader.step()).await {
                Ok(step) => step?,
                Err(_) => return Ok(None),
            },
        };
        if self.due.is_none() && reader.consumed() > self.confirmed {
            self.due = Some(Instant::now() + AFTER);
        }
        Ok(Some(step))
    }

    /// The bytes to confirm now, if it is time; at the end of a stream it always is.
    pub(super) fn take(&mut self, consumed: u64, end: bool) -> Option<u64> {
        let time = self.due.is_some_and(|due| due <= Instant::now());
        if consumed == self.confirmed || !(time || end || consumed >= self.confirmed + EVERY_BYTES)
        {
            return None;
        }
        self.confirmed = consumed;
        self.due = None;
        Some(consumed)
    }
}
