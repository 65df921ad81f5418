//! Whom to ask for a body that is missing, and when.

use tokio::time::Instant;

use super::{Bodies, FETCH_PATIENCE};
use crate::consensus::timers;
use crate::types::{BlockHash, Height, PeerIp};

impl Bodies {
    /// Bytes of a body have arrived. They put off asking the next holder only if they come from the
    /// one that was asked, or while nobody is, and for no longer than a round waits for a body.
    pub(in crate::consensus) fn progress(
        &mut self,
        key: (Height, BlockHash),
        from: PeerIp,
        now: Instant,
    ) {
        let longest = timers::longest_hold(&self.genesis);
        let Some(body) = self.bodies.get_mut(&key).filter(|body| body.is_missing()) else {
            return;
        };
        if body.asked.is_none() {
            (body.asked, body.asked_at) = (Some(from), now);
        }
        if body.asked == Some(from) {
            let put_off = (now + FETCH_PATIENCE).min(body.asked_at + longest);
            body.next_try = body.next_try.max(put_off);
        }
        if body.asked == Some(from) || body.tried.contains(&from) {
            body.last_progress = now;
        }
    }

    /// A holder will not deliver: the next is asked at once.
    pub(in crate::consensus) fn failed(
        &mut self,
        key: Option<(Height, BlockHash)>,
        from: PeerIp,
        now: Instant,
    ) {
        for (of, body) in &mut self.bodies {
            if key.is_none_or(|key| key == *of) && body.asked == Some(from) {
                body.next_try = now;
            }
            if key.is_none() {
                body.wanted_by.remove(&from);
            }
        }
    }

    /// Whom to ask for which body now. `holders` lists who probably holds a body, best first;
    /// `others` are asked when nobody else is left.
    pub(in crate::consensus) fn take_requests(
        &mut self,
        now: Instant,
        others: &[PeerIp],
        holders: impl Fn(BlockHash) -> Vec<PeerIp>,
    ) -> Vec<(PeerIp, BlockHash)> {
        let height = self.height;
        let mut requests = Vec::new();
        for ((of, hash), body) in &mut self.bodies {
            if *of != height || !body.is_missing() || body.next_try > now {
                continue;
            }
            body.tried.extend(body.asked.take());
            let mut candidates = holders(*hash);
            candidates.extend(body.sources.iter().copied());
            candidates.extend_from_slice(others);
            let next = candidates.iter().find(|ip| !body.tried.contains(*ip));
            body.next_try = now + FETCH_PATIENCE;
            match next {
                Some(next) => {
                    (body.asked, body.asked_at) = (Some(*next), now);
                    requests.push((*next, *hash));
                }
                // All were asked in vain: begin again.
                None => body.tried.clear(),
            }
        }
        requests
    }

    /// When [`Self::take_requests`] has something to do next.
    pub(in crate::consensus) fn next_request(&self) -> Option<Instant> {
        self.bodies
            .iter()
            .filter(|((of, _), body)| *of == self.height && body.is_missing())
            .map(|(_, body)| body.next_try)
            .min()
    }

    /// A peer asks for a body that is named and not here yet: it gets it when it arrives.
    pub(in crate::consensus) fn want(&mut self, key: (Height, BlockHash), peer: PeerIp) {
        if let Some(body) = self.bodies.get_mut(&key)
            && body.is_missing()
        {
            body.wanted_by.insert(peer);
        }
    }
}
