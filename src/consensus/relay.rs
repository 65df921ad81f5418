//! Who is connected to whom, and so who must be sent what others signed.
//!
//! A message travels from its author to every masternode that the author is connected to. Where a
//! link is missing, every node that is connected to the far end passes the message on, once: the
//! far end recognizes what it holds already. Whether two others are connected is known from what
//! each of them says; only when all that is known says so, nothing is passed on.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::PeerIp;
use crate::wire::ReachSet;

/// After this many messages that fail verification a peer is no longer heard until it connects
/// again.
const MAX_BAD_MESSAGES: u32 = 64;

/// A connected masternode.
#[derive(Clone, Debug)]
struct Peer {
    masternode: usize,
    reach: Option<ReachSet>,
    bad_messages: u32,
}

/// The connected masternodes.
#[derive(Debug)]
pub(super) struct Peers {
    own: usize,
    count: usize,
    by_ip: BTreeMap<PeerIp, Peer>,
    by_masternode: BTreeMap<usize, PeerIp>,
    /// By masternode, connected or not.
    blamed: BTreeMap<usize, (u64, String)>,
}

impl Peers {
    /// `own` is this node's position in genesis, of `count` masternodes.
    pub(super) fn new(own: usize, count: usize) -> Self {
        Self {
            own,
            count,
            by_ip: BTreeMap::new(),
            by_masternode: BTreeMap::new(),
            blamed: BTreeMap::new(),
        }
    }

    pub(super) fn connect(&mut self, ip: PeerIp, masternode: usize) {
        let peer = Peer {
            masternode,
            reach: None,
            bad_messages: 0,
        };
        self.disconnect(&ip);
        self.by_ip.insert(ip, peer);
        self.by_masternode.insert(masternode, ip);
    }

    pub(super) fn disconnect(&mut self, ip: &PeerIp) {
        if let Some(peer) = self.by_ip.remove(ip)
            && self.by_masternode.get(&peer.masternode) == Some(ip)
        {
            self.by_masternode.remove(&peer.masternode);
        }
    }

    pub(super) fn all(&self) -> Vec<PeerIp> {
        self.by_ip.keys().copied().collect()
    }

    /// The position in genesis of a connected peer.
    pub(super) fn masternode(&self, ip: &PeerIp) -> Option<usize> {
        self.by_ip.get(ip).map(|peer| peer.masternode)
    }

    /// Where a masternode is connected.
    pub(super) fn ip(&self, masternode: usize) -> Option<PeerIp> {
        self.by_masternode.get(&masternode).copied()
    }

    /// Counts a message that failed verification; true when the peer is no longer heard.
    pub(super) fn count_bad(&mut self, ip: &PeerIp, reason: &str) -> bool {
        let Some(peer) = self.by_ip.get_mut(ip) else {
            return true;
        };
        peer.bad_messages = peer.bad_messages.saturating_add(1);
        let unheard = peer.bad_messages >= MAX_BAD_MESSAGES;
        let masternode = peer.masternode;
        self.blame(masternode, reason);
        unheard
    }

    /// Remembers what a masternode did wrong.
    pub(super) fn blame(&mut self, masternode: usize, reason: &str) {
        let (count, last) = self.blamed.entry(masternode).or_default();
        *count = count.saturating_add(1);
        reason.clone_into(last);
    }

    /// Who did anything wrong: how often, and what last.
    pub(super) fn blamed(&self) -> impl Iterator<Item = (usize, u64, &str)> {
        let blamed = self.blamed.iter();
        blamed.map(|(masternode, (count, last))| (*masternode, *count, last.as_str()))
    }

    /// Whether a peer is connected and heard.
    pub(super) fn is_heard(&self, ip: &PeerIp) -> bool {
        self.by_ip
            .get(ip)
            .is_some_and(|peer| peer.bad_messages < MAX_BAD_MESSAGES)
    }

    /// To whom a message of `author` that came from `from` must be passed on.
    pub(super) fn forward_to(&self, author: usize, from: Option<&PeerIp>) -> Vec<PeerIp> {
        self.by_ip
            .iter()
            .filter(|(ip, peer)| {
                Some(*ip) != from && peer.masternode != author && !self.linked(author, peer)
            })
            .map(|(ip, _)| *ip)
            .collect()
    }

    /// Takes what a peer says about its connections. Returns the pairs (author, receiver) whose
    /// link is now known to be missing and was not before: what is held of the author goes to the
    /// receiver. A set that names masternodes which do not exist is refused.
    pub(super) fn set_reach(&mut self, ip: &PeerIp, reach: ReachSet) -> Vec<(usize, PeerIp)> {
        if !reach.is_valid(self.count) {
            return Vec::new();
        }
        // Until its first word a peer has been sent nothing that others signed.
        let before = match self.by_ip.get(ip) {
            Some(peer) if peer.reach.is_some() => self.missing_links(ip),
            _ => BTreeSet::new(),
        };
        match self.by_ip.get_mut(ip) {
            Some(peer) => peer.reach = Some(reach),
            None => return Vec::new(),
        }
        let after = self.missing_links(ip);
        after.difference(&before).copied().collect()
    }

    /// The missing links at one peer, both ways.
    fn missing_links(&self, ip: &PeerIp) -> BTreeSet<(usize, PeerIp)> {
        let Some(peer) = self.by_ip.get(ip) else {
            return BTreeSet::new();
        };
        let mut missing = BTreeSet::new();
        for other in (0..self.count).filter(|other| *other != peer.masternode) {
            if !self.linked(other, peer) {
                missing.insert((other, *ip));
            }
            let Some(other_ip) = self.by_masternode.get(&other) else {
                continue;
            };
            if !self.linked(peer.masternode, &self.by_ip[other_ip]) {
                missing.insert((peer.masternode, *other_ip));
            }
        }
        missing
    }

    /// Whether all that is known says that `author` is connected to `receiver`.
    fn linked(&self, author: usize, receiver: &Peer) -> bool {
        if author == self.own {
            return true;
        }
        let author_peer = self.by_masternode.get(&author).map(|ip| &self.by_ip[ip]);
        let author_says = author_peer
            .and_then(|peer| peer.reach.as_ref())
            .map(|reach| reach.contains(receiver.masternode));
        let receiver_says = receiver.reach.as_ref().map(|reach| reach.contains(author));
        match (author_says, receiver_says) {
            (None, None) => author_peer.is_some(),
            (author_says, receiver_says) => {
                author_says.unwrap_or(true) && receiver_says.unwrap_or(true)
            }
        }
    }

    /// The masternodes that this one reaches, itself included: directly, or through others.
    pub(super) fn reached(&self) -> BTreeSet<usize> {
        let mut reached: BTreeSet<usize> = [self.own].into();
        for peer in self.by_ip.values() {
            reached.insert(peer.masternode);
        }
        for peer in self.by_ip.values() {
            let Some(reach) = &peer.reach else { continue };
            reached.extend((0..self.count).filter(|at| reach.contains(*at)));
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> PeerIp {
        PeerIp::from(std::net::IpAddr::from([127, 0, 0, last]))
    }

    fn reach(of: &[usize]) -> ReachSet {
        of.iter().copied().collect()
    }

    /// Masternode 0 is connected to 1, 2 and 3.
    fn peers() -> Peers {
        let mut peers = Peers::new(0, 4);
        for masternode in 1..4 {
            peers.connect(ip(masternode as u8), masternode);
        }
        peers
    }

    #[test]
    fn a_full_mesh_relays_nothing() {
        let mut peers = peers();
        assert!(peers.forward_to(1, Some(&ip(1))).is_empty(), "unknown yet");
        for masternode in 1..4 {
            let others: Vec<usize> = (0..4).filter(|at| *at != masternode).collect();
            assert!(
                peers
                    .set_reach(&ip(masternode as u8), reach(&others))
                    .is_empty()
            );
        }
        for author in 0..4 {
            assert!(peers.forward_to(author, None).is_empty());
        }
    }

    #[test]
    fn a_cut_link_is_relayed_around_once_one_end_tells() {
        let mut peers = peers();
        for masternode in 1..4 {
            let others: Vec<usize> = (0..4).filter(|at| *at != masternode).collect();
            peers.set_reach(&ip(masternode as u8), reach(&others));
        }
        let lost = peers.set_reach(&ip(1), reach(&[0, 3]));
        assert_eq!(lost, [(1, ip(2)), (2, ip(1))]);
        assert_eq!(peers.forward_to(1, Some(&ip(1))), [ip(2)]);
        assert_eq!(peers.forward_to(2, Some(&ip(2))), [ip(1)]);
        assert!(peers.forward_to(3, Some(&ip(3))).is_empty());
        assert!(peers.set_reach(&ip(2), reach(&[0, 3])).is_empty(), "known");
    }

    #[test]
    fn an_author_that_is_not_connected_here_is_passed_to_those_that_lack_it() {
        let mut peers = peers();
        peers.disconnect(&ip(3));
        peers.set_reach(&ip(2), reach(&[0, 3]));
        // 3 came through 2; 1 says nothing about its connections yet.
        assert_eq!(peers.forward_to(3, Some(&ip(2))), [ip(1)]);
        peers.set_reach(&ip(1), reach(&[0, 3]));
        assert!(peers.forward_to(3, Some(&ip(2))).is_empty());
        assert_eq!(
            peers.reached().into_iter().collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn a_peer_that_sends_only_rubbish_is_no_longer_heard() {
        let mut peers = peers();
        for _ in 0..MAX_BAD_MESSAGES {
            assert!(peers.is_heard(&ip(1)));
            peers.count_bad(&ip(1), "a vote");
        }
        assert!(!peers.is_heard(&ip(1)));
        peers.disconnect(&ip(1));
        peers.connect(ip(1), 1);
        assert!(peers.is_heard(&ip(1)));
        let blamed: Vec<_> = peers.blamed().collect();
        assert_eq!(blamed, [(1, u64::from(MAX_BAD_MESSAGES), "a vote")]);
    }
}
