//! What follows from a plan's state: what to give up, to commit and to ask.

use tokio::time::Instant;

use super::{
    Action, Ask, Committing, Failure, InFlight, Kind, MAX_SEGMENTS, Plan, RequestId, segment_end,
};
use crate::types::{Height, PeerIp};

impl<S: Clone, B> Plan<S, B> {
    /// What to do now.
    pub(in crate::sync) fn actions(&mut self, now: Instant) -> Vec<Action<S, B>> {
        self.note_behind(now);
        self.give_up_stalled(now);
        self.drop_needless(now);
        let dropped = std::mem::take(&mut self.dropped);
        let mut actions: Vec<_> = dropped.into_iter().map(Action::Cancel).collect();
        while let Some(commit) = self.next_commit() {
            actions.push(commit);
        }
        actions.extend(self.ask_headers(now));
        actions.extend(self.outpace(now));
        self.ask_bodies(now, &mut actions);
        actions
    }

    /// When to call [`Plan::actions`] again although nothing has happened.
    pub(in crate::sync) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let limits = &self.limits;
        let waiting = self.requests.values().flat_map(|request| {
            let stalled = request.progress_at + limits.stall_after;
            [self.hedged_at(request), stalled, self.outpaced_at(request)]
        });
        let head_start = self
            .behind_since
            .filter(|_| self.masternode)
            .map(|(_, since)| since + limits.consensus_head_start);
        waiting
            .chain(self.peers.returns(self.tip.0))
            .chain(head_start)
            .filter(|at| *at > now)
            .min()
    }

    fn note_behind(&mut self, now: Instant) {
        let tip = self.tip.0;
        if self.target(now) <= tip {
            self.behind_since = None;
        } else if self.behind_since.is_none_or(|(at, _)| at != tip) {
            self.behind_since = Some((tip, now));
        }
    }

    // Giving up.

    fn give_up_stalled(&mut self, now: Instant) {
        let limit = self.limits.stall_after;
        for id in self.request_ids(|request| now >= request.progress_at + limit) {
            self.dropped.push(id);
            let reason = format!("no progress for {} s", limit.as_secs());
            self.failed(now, id, Failure::Stalled(reason));
        }
    }

    /// Drops requests whose answer would change nothing: another peer or consensus was quicker.
    fn drop_needless(&mut self, now: Instant) {
        for id in self.request_ids(|request| !self.is_needed(request)) {
            let Some(request) = self.requests.remove(&id) else {
                continue;
            };
            self.dropped.push(id);
            if self.is_fresh(now, &request) {
                if request.kind == Kind::Bodies && now >= self.outpaced_at(&request) {
                    let rate = request.rate(now);
                    (self.peers).measured(now, Kind::Bodies, request.peer, rate);
                }
            } else {
                let waited = now.duration_since(request.progress_at).as_secs();
                let reason = format!("no progress for {waited} s while another peer answered");
                let failure = Failure::Stalled(reason);
                self.peers
                    .set_aside(now, &self.limits, request.peer, failure);
            }
        }
    }

    fn request_ids(&self, which: impl Fn(&InFlight) -> bool) -> Vec<RequestId> {
        let matching = self.requests.iter().filter(|(_, request)| which(request));
        matching.map(|(id, _)| *id).collect()
    }

    fn is_needed(&self, request: &InFlight) -> bool {
        match request.kind {
            Kind::Headers if self.segments.is_empty() => {
                request.next <= self.tip.0.next() && request.last > self.tip.0
            }
            Kind::Headers => request.next == self.known_end().next(),
            // One that has delivered everything is about to finish.
            Kind::Bodies => {
                request.next > request.last
                    || (request.next.0..=request.last.0).any(|at| self.is_missing(Height(at)))
            }
        }
    }

    // Committing.

    fn next_commit(&mut self) -> Option<Action<S, B>> {
        if self.committing.len() >= self.limits.commits {
            return None;
        }
        let first = self.first_open();
        let segment = self.segments.iter().find(|one| one.last >= first)?;
        let (mut bytes, mut end, mut is_full) = (0, first, false);
        while end <= segment.last {
            let Some(more) = self.held.bytes_at(end) else {
                break;
            };
            let blocks = (end.0 - first.0) as usize;
            let too_many = blocks >= self.limits.commit_blocks;
            is_full = too_many || (blocks > 0 && bytes + more > self.limits.commit_bytes);
            if is_full {
                break;
            }
            bytes += more;
            end = end.next();
        }
        // While another commit runs, a small one gains nothing by waiting behind it.
        if end == first || !(self.committing.is_empty() || is_full || end > segment.last) {
            return None;
        }
        let segment = segment.cargo.clone();
        let heights = (first.0..end.0).map(Height);
        let bodies = heights.filter_map(|height| Some((height, self.held.remove(height)?)));
        let bodies = bodies.collect();
        let last = end.previous();
        self.committing.push_back(Committing { last, bytes });
        Some(Action::Commit { segment, bodies })
    }

    // Asking.

    fn ask_headers(&mut self, now: Instant) -> Option<Action<S, B>> {
        let known = self.known_end();
        if self.segments.len() >= MAX_SEGMENTS || !self.wants_more(now, known) {
            return None;
        }
        let mut asked: Vec<PeerIp> = Vec::new();
        for request in self.requests.values() {
            if request.kind == Kind::Headers {
                if self.is_fresh(now, request) {
                    return None;
                }
                asked.push(request.peer);
            }
        }
        if asked.len() >= 2 {
            return None;
        }
        let first = known.next();
        let peer = self.choose(now, Kind::Headers, first, &asked)?;
        let last = segment_end(first);
        let id = self.add_request(now, peer.ip, Kind::Headers, first, last);
        let newest = self.segments.back();
        Some(Action::Ask {
            id,
            peer: peer.ip,
            ask: Ask::Headers {
                first,
                last,
                parent: newest.map_or(self.tip.1, |segment| segment.last_hash),
            },
        })
    }

    /// Whether headers above `known` should be fetched: on a masternode the block right above the
    /// tip belongs to consensus at first.
    fn wants_more(&self, now: Instant, known: Height) -> bool {
        let target = self.target(now);
        if !self.masternode || target.0 >= known.0.saturating_add(2) {
            return target > known;
        }
        let head_start_over = self
            .behind_since
            .is_some_and(|(_, since)| now >= since + self.limits.consensus_head_start);
        target > known && known == self.tip.0 && head_start_over
    }

    fn ask_bodies(&mut self, now: Instant, actions: &mut Vec<Action<S, B>>) {
        let mut height = self.first_open();
        let all_fresh = (self.requests.values()).all(|one| self.is_fresh(now, one));
        if all_fresh && self.choose(now, Kind::Bodies, height, &[]).is_none() {
            return;
        }
        while height <= self.known_end() {
            if let Some(last) = self.delivered_to(now, height) {
                height = last.next();
                continue;
            }
            let Some(waiting_for) = self.open_to(now, height) else {
                height = height.next();
                continue;
            };
            let Some(peer) = self.choose(now, Kind::Bodies, height, &waiting_for) else {
                if waiting_for.is_empty() {
                    // Then nobody can be asked for anything higher either.
                    return;
                }
                height = height.next();
                continue;
            };
            let room = self.blocks_in_budget();
            if room == 0 && height != self.first_open() {
                return;
            }
            let Some(segment) = self.segments.iter().find(|one| one.last >= height) else {
                return;
            };
            let cargo = segment.cargo.clone();
            let most = self.range_blocks(now, peer.ip).min(room.max(1));
            let end = segment.last.min(peer.tip).min(Height(height.0 + most - 1));
            let last = self.open_range(now, height, end, peer.ip);
            let id = self.add_request(now, peer.ip, Kind::Bodies, height, last);
            actions.push(Action::Ask {
                id,
                peer: peer.ip,
                ask: Ask::Bodies {
                    first: height,
                    last,
                    segment: cargo,
                },
            });
            height = last.next();
        }
    }

    /// The end of a range that holds this height and is being delivered.
    fn delivered_to(&self, now: Instant, height: Height) -> Option<Height> {
        let requests = self.requests.values().filter(|request| {
            let covers = request.next <= height && height <= request.last;
            request.kind == Kind::Bodies && covers && self.is_fresh(now, request)
        });
        requests.map(|request| request.last).max()
    }

    /// How far the bodies from `first` on may be asked of a peer without a gap.
    fn open_range(&self, now: Instant, first: Height, end: Height, peer: PeerIp) -> Height {
        let mut last = first;
        while last < end
            && let Some(waiting_for) = self.open_to(now, last.next())
            && !waiting_for.contains(&peer)
        {
            last = last.next();
        }
        last
    }

    /// `Some` when a body is missing and nobody is delivering it; then, who has stopped doing so.
    fn open_to(&self, now: Instant, height: Height) -> Option<Vec<PeerIp>> {
        if !self.is_missing(height) {
            return None;
        }
        let mut waiting_for = Vec::new();
        for request in self.requests.values() {
            let covers = request.next <= height && height <= request.last;
            if request.kind == Kind::Bodies && covers {
                if self.is_fresh(now, request) {
                    return None;
                }
                waiting_for.push(request.peer);
            }
        }
        (waiting_for.len() < 2).then_some(waiting_for)
    }

    fn is_fresh(&self, now: Instant, request: &InFlight) -> bool {
        now < self.hedged_at(request)
    }

    fn hedged_at(&self, request: &InFlight) -> Instant {
        request.progress_at
            + match request.kind {
                Kind::Headers => self.limits.hedge_headers_after,
                Kind::Bodies => self.limits.hedge_after,
            }
    }

    fn outpaced_at(&self, request: &InFlight) -> Instant {
        request.asked_at + self.limits.outpace_after
    }

    /// Nothing can be committed before the oldest missing body has arrived: when its peer delivers,
    /// but another would have done so in half the time, that one is asked as well.
    fn outpace(&mut self, now: Instant) -> Option<Action<S, B>> {
        let first = self.first_open();
        if !self.committing.is_empty() || !self.is_missing(first) {
            return None;
        }
        let covering = |height: Height| {
            let requests = self.requests.values();
            requests.filter(move |request| {
                let covers = request.next <= height && height <= request.last;
                request.kind == Kind::Bodies && covers
            })
        };
        let mut of_first = covering(first);
        let (Some(slow), None) = (of_first.next(), of_first.next()) else {
            return None;
        };
        if now < self.outpaced_at(slow) || !self.is_fresh(now, slow) {
            return None;
        }
        let faster = self.choose(now, Kind::Bodies, first, &[slow.peer])?;
        let twice = 2.0 * slow.rate(now);
        if self
            .peers
            .rate(now, faster.ip)
            .is_none_or(|rate| rate < twice)
        {
            return None;
        }
        let segment = self.segments.iter().find(|one| one.last >= first)?;
        let cargo = segment.cargo.clone();
        let most = self.range_blocks(now, faster.ip);
        let end = slow.last.min(segment.last).min(faster.tip);
        let end = end.min(Height(first.0 + most - 1));
        let mut last = first;
        // What others have been asked for as well is theirs.
        while last < end && self.is_missing(last.next()) && covering(last.next()).count() == 1 {
            last = last.next();
        }
        let id = self.add_request(now, faster.ip, Kind::Bodies, first, last);
        Some(Action::Ask {
            id,
            peer: faster.ip,
            ask: Ask::Bodies {
                first,
                last,
                segment: cargo,
            },
        })
    }

    /// How many more bodies may be asked for, at the weight that they have had of late.
    fn blocks_in_budget(&self) -> u64 {
        let bodies = self
            .requests
            .values()
            .filter(|one| one.kind == Kind::Bodies);
        let expected: u64 = bodies
            .map(|one| (one.last.0 + 1).saturating_sub(one.next.0))
            .sum();
        let free = self.limits.held_bytes.saturating_sub(self.bytes_held());
        ((free / self.body_estimate) as u64).saturating_sub(expected)
    }

    /// As many as the peer delivers in [`Limits::range_time`](super::Limits::range_time).
    fn range_blocks(&self, now: Instant, peer: PeerIp) -> u64 {
        let limits = &self.limits;
        let measured = self.peers.rate(now, peer).unwrap_or_default();
        let bytes = (measured * limits.range_time.as_secs_f64()) as usize;
        let bytes = bytes.clamp(limits.first_range_bytes, limits.range_bytes);
        let fitting = (bytes / self.body_estimate) as u64;
        fitting.clamp(1, limits.range_blocks)
    }

    fn choose(
        &self,
        now: Instant,
        kind: Kind,
        height: Height,
        except: &[PeerIp],
    ) -> Option<super::PeerView> {
        if self.requests.len() >= self.limits.requests {
            return None;
        }
        let most = self.limits.requests_per_peer;
        (self.peers).choose(now, kind, height, except, most, |peer| {
            let in_flight = self.requests.values().filter(|one| one.peer == peer);
            in_flight.count()
        })
    }

    fn add_request(
        &mut self,
        now: Instant,
        peer: PeerIp,
        kind: Kind,
        first: Height,
        last: Height,
    ) -> RequestId {
        let id = self.next_id;
        self.next_id += 1;
        self.peers.asked(peer, id);
        let request = InFlight {
            peer,
            kind,
            next: first,
            last,
            bytes: 0,
            asked_at: now,
            progress_at: now,
            counted_bytes: 0,
        };
        self.requests.insert(id, request);
        id
    }
}
