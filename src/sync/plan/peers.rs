//! Who can be asked: the connected peers, and what is remembered of their failures.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{Failure, Kind, Limits, PeerView, RequestId};
use crate::types::{Height, PeerIp};

/// The most peers whose failures are remembered.
const MAX_STANDINGS: usize = 1_024;

/// A peer is slow when the best one delivers more than so many times as much.
const SLOW_FACTOR: f64 = 4.0;

/// For so long a peer that failed, or was measured, is taken for what it was then.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The most entries of [`Peers::replaced`].
const MAX_REPLACED: usize = 20;

/// The connected peers and the standing of all that have been asked.
#[derive(Default)]
pub(super) struct Peers {
    connected: BTreeMap<PeerIp, PeerView>,
    standings: BTreeMap<PeerIp, Standing>,
    replaced: VecDeque<(PeerIp, String)>,
    faults: u64,
}

/// What is remembered of a peer, connected or not.
#[derive(Clone, Copy, Default)]
struct Standing {
    failures: u32,
    not_held: u32,
    /// Connections that ended under a request since the last answer.
    broken_off: u32,
    aside_until: Option<Instant>,
    /// The failure may have been the connection's own: a new one lifts it.
    lifted_by_reconnect: bool,
    /// Until then it is not asked in the place of a good peer.
    doubted_until: Option<Instant>,
    last_asked: RequestId,
    headers: Option<Speed>,
    bodies: Option<Speed>,
}

/// What was delivered a second in one request, of late: bytes of bodies, or answers with headers.
#[derive(Clone, Copy)]
struct Speed {
    rate: f64,
    at: Instant,
}

impl Standing {
    fn is_aside(&self, now: Instant) -> bool {
        self.aside_until.is_some_and(|until| until > now)
    }

    fn rate(&self, now: Instant, kind: Kind) -> Option<f64> {
        let speed = match kind {
            Kind::Headers => self.headers?,
            Kind::Bodies => self.bodies?,
        };
        (now < speed.at + REMEMBERED).then_some(speed.rate)
    }

    /// Slow beside the best.
    fn is_slow(&self, now: Instant, kind: Kind, best: f64) -> bool {
        let rate = self.rate(now, kind);
        rate.is_some_and(|rate| rate * SLOW_FACTOR < best)
    }

    fn is_doubted(&self, now: Instant) -> bool {
        self.doubted_until.is_some_and(|until| until > now)
    }
}

impl Peers {
    /// Takes the connected peers, all of them; returns those whose old connection is gone.
    pub(super) fn replace(
        &mut self,
        now: Instant,
        views: impl IntoIterator<Item = PeerView>,
    ) -> Vec<PeerIp> {
        let before = std::mem::take(&mut self.connected);
        self.connected = views.into_iter().map(|view| (view.ip, view)).collect();
        let mut gone = Vec::new();
        for (ip, old) in before {
            let new = self.connected.get(&ip).map(|view| view.connection);
            if new != Some(old.connection) {
                gone.push(ip);
            }
        }
        for ip in &gone {
            if let Some(standing) = self.standings.get_mut(ip)
                && standing.lifted_by_reconnect
            {
                standing.aside_until = None;
            }
        }
        let connected = &self.connected;
        self.standings.retain(|ip, standing| {
            connected.contains_key(ip) || standing.is_aside(now) || standing.broken_off > 0
        });
        gone
    }

    /// Those that are not set aside.
    pub(super) fn usable(&self, now: Instant) -> impl Iterator<Item = &PeerView> {
        self.connected
            .values()
            .filter(move |peer| !self.is_aside(peer.ip, now))
    }

    pub(super) fn is_aside(&self, peer: PeerIp, now: Instant) -> bool {
        let standing = self.standings.get(&peer);
        standing.is_some_and(|standing| standing.is_aside(now))
    }

    /// When peers that announce more than `above` can be asked again.
    pub(super) fn returns(&self, above: Height) -> impl Iterator<Item = Instant> {
        self.connected
            .values()
            .filter(move |peer| peer.tip > above)
            .filter_map(|peer| self.standings.get(&peer.ip)?.aside_until)
    }

    /// The best of the usable peers for a height, by the number of requests in flight to each: the
    /// most reliable, then those that are not slow, then the least busy, then the one not asked for
    /// longest. Nobody rather than one that is slow or failed of late, when a good peer that has all
    /// the requests it may have will be free sooner.
    pub(super) fn choose(
        &self,
        now: Instant,
        kind: Kind,
        height: Height,
        except: &[PeerIp],
        most_requests: usize,
        in_flight: impl Fn(PeerIp) -> usize,
    ) -> Option<PeerView> {
        let standing = |peer: &PeerView| self.standings.get(&peer.ip).copied().unwrap_or_default();
        let able = |peer: &&PeerView| peer.tip >= height && !except.contains(&peer.ip);
        let able: Vec<_> = (self.usable(now).filter(able))
            .map(|peer| (peer, standing(peer), in_flight(peer.ip)))
            .collect();
        let rates = able.iter().filter_map(|(_, one, _)| one.rate(now, kind));
        let best = rates.fold(0.0, f64::max);
        let is_poor = |one: &Standing| one.is_doubted(now) || one.is_slow(now, kind, best);
        let free = able.iter().filter(|(_, _, busy)| *busy < most_requests);
        let (peer, chosen, _) = free.min_by_key(|(peer, one, busy)| {
            let failures = (one.failures)
                .saturating_add(one.not_held)
                .saturating_add(one.broken_off);
            let is_slow = one.is_slow(now, kind, best);
            (failures, is_slow, *busy, one.last_asked, peer.ip)
        })?;
        let is_good_but_busy = |(_, one, busy): &(&PeerView, Standing, usize)| {
            *busy >= most_requests && !is_poor(one) && one.rate(now, kind).is_some()
        };
        let waits = is_poor(chosen) && able.iter().any(is_good_but_busy);
        (!waits).then_some(**peer)
    }

    /// A request was delivered, or part of it, at so many bytes of bodies or answers a second.
    pub(super) fn measured(&mut self, now: Instant, kind: Kind, peer: PeerIp, rate: f64) {
        let Some(standing) = self.standings.get_mut(&peer) else {
            return;
        };
        let old = standing.rate(now, kind);
        let rate = old.map_or(rate, |old| (old + rate) / 2.0);
        let speed = Some(Speed { rate, at: now });
        match kind {
            Kind::Headers => standing.headers = speed,
            Kind::Bodies => standing.bodies = speed,
        }
    }

    /// Bytes of bodies a second in one request of late; `None` before the first.
    pub(super) fn rate(&self, now: Instant, peer: PeerIp) -> Option<f64> {
        self.standings.get(&peer)?.rate(now, Kind::Bodies)
    }

    /// A request goes to a peer.
    pub(super) fn asked(&mut self, peer: PeerIp, id: RequestId) {
        self.standing(peer).last_asked = id;
    }

    /// A peer's connection has ended under a request. That may be this node's own doing, so it is no
    /// fault; but who does nothing else is asked last.
    pub(super) fn broke_off(&mut self, now: Instant, peer: PeerIp) {
        let standing = self.standing(peer);
        standing.doubted_until = Some(now + REMEMBERED);
        standing.broken_off = standing.broken_off.saturating_add(1);
    }

    fn standing(&mut self, peer: PeerIp) -> &mut Standing {
        if self.standings.len() >= MAX_STANDINGS && !self.standings.contains_key(&peer) {
            self.standings.pop_first();
        }
        self.standings.entry(peer).or_default()
    }

    /// A peer has answered in full.
    pub(super) fn succeeded(&mut self, peer: PeerIp) {
        if let Some(standing) = self.standings.get_mut(&peer) {
            standing.failures = standing.failures.saturating_sub(1);
            standing.not_held = 0;
            standing.broken_off = 0;
            if standing.failures == 0 {
                standing.doubted_until = None;
            }
        }
    }

    /// Leaves a peer alone for a while; what it is still sending is taken all the same.
    pub(super) fn set_aside(
        &mut self,
        now: Instant,
        limits: &Limits,
        peer: PeerIp,
        failure: Failure,
    ) {
        let standing = self.standing(peer);
        let (count, longest) = match failure {
            Failure::NotHeld => (&mut standing.not_held, limits.not_held_limit),
            _ => (&mut standing.failures, limits.aside_limit),
        };
        let doublings = (*count).min(16);
        *count = count.saturating_add(1);
        let delay = (limits.aside_first * 2u32.pow(doublings)).min(longest);
        let binding = standing.is_aside(now) && !standing.lifted_by_reconnect;
        standing.lifted_by_reconnect = matches!(failure, Failure::Ended(_)) && !binding;
        standing.aside_until = standing.aside_until.max(Some(now + delay));
        standing.doubted_until = Some(now + delay + REMEMBERED);
        if let Failure::Ended(reason) | Failure::Stalled(reason) | Failure::Wrong(reason) = failure
        {
            self.faults += 1;
            if self.replaced.len() >= MAX_REPLACED {
                self.replaced.pop_front();
            }
            self.replaced.push_back((peer, reason));
        }
    }

    /// Peers set aside for a fault, with the reason, newest last.
    pub(super) fn replaced(&self) -> &VecDeque<(PeerIp, String)> {
        &self.replaced
    }

    /// How many faults there have been.
    pub(super) fn faults(&self) -> u64 {
        self.faults
    }
}
