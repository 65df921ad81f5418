//! Who can be asked: the connected peers, and what is remembered of their failures.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::{Failure, Limits, PeerView, RequestId};
use crate::types::{Height, PeerIp};

/// The most peers whose failures are remembered.
const MAX_STANDINGS: usize = 1_024;

/// A peer is slow when the best one delivers more than so many times as much.
const SLOW_FACTOR: f64 = 4.0;

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
    last_asked: RequestId,
    /// Bytes of bodies a second in one request, of late.
    rate: Option<f64>,
}

impl Standing {
    fn is_aside(&self, now: Instant) -> bool {
        self.aside_until.is_some_and(|until| until > now)
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
        self.connected.values().filter(move |peer| {
            let standing = self.standings.get(&peer.ip);
            standing.is_none_or(|standing| !standing.is_aside(now))
        })
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
    /// longest.
    pub(super) fn choose(
        &self,
        now: Instant,
        height: Height,
        except: &[PeerIp],
        most_requests: usize,
        in_flight: impl Fn(PeerIp) -> usize,
    ) -> Option<PeerView> {
        let rates = self.usable(now).filter_map(|peer| self.rate(peer.ip));
        let best = rates.fold(0.0, f64::max);
        self.usable(now)
            .filter(|peer| peer.tip >= height && !except.contains(&peer.ip))
            .map(|peer| (peer, in_flight(peer.ip)))
            .filter(|(_, busy)| *busy < most_requests)
            .min_by_key(|(peer, busy)| {
                let standing = self.standings.get(&peer.ip).copied().unwrap_or_default();
                let failures = (standing.failures)
                    .saturating_add(standing.not_held)
                    .saturating_add(standing.broken_off);
                let is_slow = standing.rate.is_some_and(|rate| rate * SLOW_FACTOR < best);
                (failures, is_slow, *busy, standing.last_asked, peer.ip)
            })
            .map(|(peer, _)| *peer)
    }

    /// A request for bodies was delivered at so many bytes a second.
    pub(super) fn measured(&mut self, peer: PeerIp, rate: f64) {
        let rate = rate.max(1.0);
        if let Some(standing) = self.standings.get_mut(&peer) {
            standing.rate = Some(standing.rate.map_or(rate, |old| (old + rate) / 2.0));
        }
    }

    /// Bytes of bodies a second in one request of late; `None` before the first.
    pub(super) fn rate(&self, peer: PeerIp) -> Option<f64> {
        self.standings.get(&peer)?.rate
    }

    /// A request goes to a peer.
    pub(super) fn asked(&mut self, peer: PeerIp, id: RequestId) {
        self.standing(peer).last_asked = id;
    }

    /// A peer's connection has ended under a request. That may be this node's own doing, so it is no
    /// fault; but who does nothing else is asked last.
    pub(super) fn broke_off(&mut self, peer: PeerIp) {
        let standing = self.standing(peer);
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
