//! What to ask of whom, and what to commit: the pure core of sync. No clock and no task in here;
//! every event says what time it is, and [`Plan::actions`] says what to do next.
//!
//! Nothing is remembered that could be derived: there is no "is syncing" flag. The next action
//! follows from the tip, the verified segments above it, the bodies held and the requests in flight.
//!
//! # Flow
//! Headers of one segment and the certificate of their last one are asked of one peer; once they are
//! verified, their bodies are asked in ranges of several peers, except those of blocks without
//! transactions, which follow from the header. Bodies are committed in order. While the bodies of a
//! segment arrive, the headers of the next [`MAX_SEGMENTS`] are fetched. A range is as large as its
//! peer delivers in [`Limits::range_time`], by what was measured of it.
//!
//! # Limits
//! See [`Limits`]. When held bodies exceed their bytes, those furthest ahead are dropped and asked
//! again later; the one next to commit never is.
//!
//! # Peers that do not deliver
//! * Progress is a body, or [`Limits::progress_bytes`]: a few bytes now and then are none.
//! * A request without progress for [`Limits::hedge_after`], or [`Limits::hedge_headers_after`], no
//!   longer covers its heights: one more peer is asked for them, and whoever is second loses its
//!   request.
//! * When nothing can be committed because the oldest missing range comes from a slow peer, a faster
//!   one is asked for it too. That one did not stop, so it is not set aside.
//! * Without progress for [`Limits::stall_after`] a request is given up.
//! * A peer that was given up, outrun, or wrong is set aside for a delay that doubles with each
//!   failure. A peer that says that it does not hold the heights is set aside too, but not blamed.
//! * For a minute more, a peer that failed is not asked in the place of a good one that has all the
//!   requests it may have; nor is a slow one: what they hold up costs more than they bring.
//!
//! So a peer that announces a height that it cannot serve delays others by `hedge_after` at most.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use crate::types::{BlockHash, Height, PeerIp};
use crate::wire::messages::MAX_SYNC_HEIGHTS;

mod decide;
mod held;
mod limits;
mod peers;

pub(super) use limits::Limits;

use held::HeldBodies;
use peers::Peers;

/// Names a request for as long as it is in flight.
pub(super) type RequestId = u64;

/// The most segments held: those whose bodies arrive, and the next. 256 headers are 45 kB.
const MAX_SEGMENTS: usize = 8;

/// What a body is expected to weigh before any has arrived.
const FIRST_BODY_ESTIMATE: usize = 16 * 1024;

/// What a body without transactions takes in memory, about.
const EMPTY_BODY_BYTES: usize = 64;

/// A connected peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerView {
    /// Its address.
    pub ip: PeerIp,
    /// Its connection; another one means that it has connected anew.
    pub connection: u64,
    /// The height that it announces.
    pub tip: Height,
}

/// What to do. `S` is a verified segment, `B` the body of a block: cargo that the plan only carries.
#[derive(Debug)]
pub(super) enum Action<S, B> {
    /// Send a request.
    Ask {
        /// Names it in the events that follow.
        id: RequestId,
        /// Who to ask.
        peer: PeerIp,
        /// What for.
        ask: Ask<S>,
    },
    /// Give a request up; no event for it matters any more.
    Cancel(RequestId),
    /// Commit these blocks, after those of the actions before.
    Commit {
        /// The segment that holds them.
        segment: S,
        /// Consecutive bodies from the tip on.
        bodies: Vec<(Height, B)>,
    },
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask<S> {
    /// Headers with their certificate; the answer may end before `last`.
    Headers {
        /// The first height.
        first: Height,
        /// The last height: the end of a segment.
        last: Height,
        /// What the first header must name as its parent.
        parent: BlockHash,
    },
    /// Bodies of a verified segment.
    Bodies {
        /// The first height.
        first: Height,
        /// The last height.
        last: Height,
        /// The segment.
        segment: S,
    },
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The peer does not hold the heights.
    NotHeld,
    /// The stream or connection ended.
    Ended(String),
    /// Nothing came for too long.
    Stalled(String),
    /// The peer sent what no honest peer sends.
    Wrong(String),
}

/// The state of sync.
pub(super) struct Plan<S, B> {
    limits: Limits,
    masternode: bool,
    tip: (Height, BlockHash),
    peers: Peers,
    /// Consecutive and ending above the tip; at most [`MAX_SEGMENTS`].
    segments: VecDeque<Segment<S>>,
    /// Bodies of the segments, above the tip.
    held: HeldBodies<B>,
    /// In order; at most [`Limits::commits`].
    committing: VecDeque<Committing>,
    requests: BTreeMap<RequestId, InFlight>,
    next_id: RequestId,
    /// What a body weighs: the largest of late; never 0.
    body_estimate: usize,
    /// Since when peers have been above this tip.
    behind_since: Option<(Height, Instant)>,
    /// Requests dropped since the last call of `actions`.
    dropped: Vec<RequestId>,
}

struct Segment<S> {
    last: Height,
    last_hash: BlockHash,
    source: PeerIp,
    cargo: S,
}

struct Committing {
    last: Height,
    bytes: usize,
}

/// What is in flight to a peer.
struct InFlight {
    peer: PeerIp,
    kind: Kind,
    /// The lowest height that has not arrived.
    next: Height,
    last: Height,
    /// Bytes of the bodies that have arrived.
    bytes: usize,
    asked_at: Instant,
    progress_at: Instant,
    /// The bytes received when they last were progress.
    counted_bytes: u64,
}

impl InFlight {
    /// Bytes of bodies a second so far.
    fn rate(&self, now: Instant) -> f64 {
        self.bytes as f64 / self.seconds(now)
    }

    fn seconds(&self, now: Instant) -> f64 {
        now.duration_since(self.asked_at).as_secs_f64().max(0.001)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Headers,
    Bodies,
}

impl<S: Clone, B> Plan<S, B> {
    /// A plan that has asked for nothing yet.
    pub(super) fn new(limits: Limits, masternode: bool, tip: (Height, BlockHash)) -> Self {
        Self {
            limits,
            masternode,
            tip,
            peers: Peers::default(),
            segments: VecDeque::new(),
            held: HeldBodies::new(),
            committing: VecDeque::new(),
            requests: BTreeMap::new(),
            next_id: 1,
            body_estimate: FIRST_BODY_ESTIMATE,
            behind_since: None,
            dropped: Vec::new(),
        }
    }

    /// A block has become final here, by sync or by consensus.
    pub(super) fn set_tip(&mut self, height: Height, hash: BlockHash) {
        if height <= self.tip.0 {
            return;
        }
        self.tip = (height, hash);
        self.segments.retain(|segment| segment.last > height);
        self.held.drop_up_to(height);
    }

    /// The connected peers, all of them.
    pub(super) fn set_peers(&mut self, now: Instant, views: impl IntoIterator<Item = PeerView>) {
        let gone = self.peers.replace(now, views);
        for request in self.requests.values() {
            if gone.contains(&request.peer) {
                self.peers.broke_off(now, request.peer);
            }
        }
        self.drop_requests(|request| gone.contains(&request.peer));
    }

    /// The peer has the request: it waited for other requests until now.
    pub(super) fn opened(&mut self, now: Instant, id: RequestId) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.progress_at = now;
        }
    }

    /// So many bytes of an answer have arrived so far.
    pub(super) fn received(&mut self, now: Instant, id: RequestId, bytes: u64) {
        if let Some(request) = self.requests.get_mut(&id)
            && bytes >= request.counted_bytes + self.limits.progress_bytes
        {
            request.counted_bytes = bytes;
            request.progress_at = now;
        }
    }

    /// Headers have arrived and are verified: up to `last`, linked to the parent that was asked for.
    /// `empty` are the bodies that follow from them.
    pub(super) fn headers(
        &mut self,
        now: Instant,
        id: RequestId,
        last: Height,
        last_hash: BlockHash,
        cargo: S,
        empty: impl IntoIterator<Item = (Height, B)>,
    ) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        let rate = 1.0 / request.seconds(now);
        (self.peers).measured(now, Kind::Headers, request.peer, rate);
        self.peers.succeeded(request.peer);
        let extends = request.next == self.known_end().next()
            || (self.segments.is_empty() && request.next <= self.tip.0);
        if extends && last > self.known_end() && self.segments.len() < MAX_SEGMENTS {
            self.segments.push_back(Segment {
                last,
                last_hash,
                source: request.peer,
                cargo,
            });
            for (height, body) in empty {
                if self.is_missing(height) {
                    self.held.insert(height, EMPTY_BODY_BYTES, body);
                }
            }
        }
    }

    /// A body has arrived and matches its header; bodies of a request arrive in order.
    pub(super) fn body(
        &mut self,
        now: Instant,
        id: RequestId,
        height: Height,
        bytes: usize,
        cargo: B,
    ) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.next = height.next();
        request.progress_at = now;
        request.bytes += bytes;
        self.body_estimate = bytes.max(self.body_estimate * 15 / 16).max(1);
        if self.is_missing(height) {
            self.held.insert(height, bytes, cargo);
            self.drop_furthest();
        }
    }

    /// A request for bodies has delivered all of them.
    pub(super) fn finished(&mut self, now: Instant, id: RequestId) {
        if let Some(request) = self.requests.remove(&id) {
            let rate = request.rate(now);
            (self.peers).measured(now, Kind::Bodies, request.peer, rate);
            self.peers.succeeded(request.peer);
        }
    }

    /// A request has failed.
    pub(super) fn failed(&mut self, now: Instant, id: RequestId, failure: Failure) {
        if let Some(request) = self.requests.remove(&id) {
            self.peers
                .set_aside(now, &self.limits, request.peer, failure);
        }
    }

    /// The oldest commit has ended; the tip that it led to.
    pub(super) fn committed(&mut self, height: Height, hash: BlockHash) {
        self.committing.pop_front();
        self.set_tip(height, hash);
    }

    /// The chain has refused blocks although their certificate holds, and no commit is left. All
    /// that is above the tip is fetched anew, of another peer first.
    pub(super) fn commit_refused(&mut self, now: Instant, detail: String) {
        self.committing.clear();
        self.held.clear();
        self.drop_requests(|_| true);
        let source = self.segments.front().map(|segment| segment.source);
        self.segments.clear();
        if let Some(source) = source {
            let failure = Failure::Wrong(detail);
            self.peers.set_aside(now, &self.limits, source, failure);
        }
    }

    /// The highest height that a peer announces which is not set aside; at least the own tip.
    pub(super) fn target(&self, now: Instant) -> Height {
        let announced = self.peers.usable(now).map(|peer| peer.tip).max();
        announced.unwrap_or_default().max(self.tip.0)
    }

    /// The own tip's height.
    pub(super) fn height(&self) -> Height {
        self.tip.0
    }

    /// Whether anything is being fetched or committed.
    pub(super) fn is_busy(&self) -> bool {
        !self.requests.is_empty() || !self.segments.is_empty() || !self.committing.is_empty()
    }

    /// Who is being asked, ascending.
    pub(super) fn sources(&self) -> Vec<PeerIp> {
        let mut sources: Vec<PeerIp> = self.requests.values().map(|one| one.peer).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// Peers set aside for a fault, with the reason, newest last.
    pub(super) fn replaced(&self) -> &VecDeque<(PeerIp, String)> {
        self.peers.replaced()
    }

    /// Whether a peer is set aside.
    pub(super) fn is_aside(&self, peer: PeerIp, now: Instant) -> bool {
        self.peers.is_aside(peer, now)
    }

    /// How many faults there have been.
    pub(super) fn faults(&self) -> u64 {
        self.peers.faults()
    }

    /// How many blocks are proved to exist above the tip.
    pub(super) fn blocks_proved(&self) -> u64 {
        self.known_end().0 - self.tip.0.0
    }

    /// The last height whose header is known.
    fn known_end(&self) -> Height {
        let newest = self.segments.back();
        newest.map_or(self.tip.0, |segment| segment.last)
    }

    /// The first height that is neither final nor being committed.
    fn first_open(&self) -> Height {
        let committing = self.committing.back().map(|one| one.last);
        self.tip.0.max(committing.unwrap_or_default()).next()
    }

    fn is_missing(&self, height: Height) -> bool {
        height >= self.first_open() && height <= self.known_end() && !self.held.contains(height)
    }

    /// Bytes of the bodies held and being committed.
    fn bytes_held(&self) -> usize {
        let committing = self.committing.iter().map(|one| one.bytes);
        self.held.bytes() + committing.sum::<usize>()
    }

    /// Drops held bodies from the top while they exceed their bytes, and the requests above them. Those
    /// of blocks without transactions stay: they weigh next to nothing, and nobody has to be asked for
    /// what their header says.
    fn drop_furthest(&mut self) {
        while self.bytes_held() > self.limits.held_bytes {
            let above = self.first_open();
            let Some(height) = self.held.drop_highest(above, EMPTY_BODY_BYTES) else {
                return;
            };
            self.drop_requests(|request| request.kind == Kind::Bodies && request.next > height);
        }
    }

    fn drop_requests(&mut self, which: impl Fn(&InFlight) -> bool) {
        let dropped = &mut self.dropped;
        self.requests.retain(|id, request| {
            let goes = which(request);
            if goes {
                dropped.push(*id);
            }
            !goes
        });
    }
}

/// The last height of the segment that holds a height: segments are 256k+1 to 256(k+1).
fn segment_end(height: Height) -> Height {
    let index = height.previous().0 / MAX_SYNC_HEIGHTS;
    Height((index + 1).saturating_mul(MAX_SYNC_HEIGHTS))
}

#[cfg(test)]
mod tests;
