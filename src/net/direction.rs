//! Which side dials, and which of two connections of a pair stays. Pure.
//!
//! **Invariant**: both ends of a pair compute the same winner from the same two connections. The
//! pair of addresses comes from the two Hellos (each side sees the other's address and is told its
//! own), so both ends compare the same two values. A side has at most one dial in progress per
//! peer, so two connections of one process pair with the same direction never overlap at both ends.

use std::time::Duration;

use super::Direction;
use crate::types::{NodeId, PeerIp};

/// Whether this node dials the peer at once; the other side waits a grace period first. A node
/// that does not know its own address is never passive: it would wait for ever on a peer that
/// cannot reach it.
pub fn dials_at_once(own: Option<PeerIp>, peer: PeerIp) -> bool {
    own.is_none_or(|own| own > peer)
}

/// How long this node waits before its first dial.
pub fn first_dial_delay(own: Option<PeerIp>, peer: PeerIp, grace: Duration) -> Duration {
    if dials_at_once(own, peer) {
        Duration::ZERO
    } else {
        grace
    }
}

/// The direction, as seen from `own`, of the connection that the preferred dialer made. Addresses
/// decide; two nodes behind one address are told apart by their ids.
pub fn preferred_direction(own: (PeerIp, NodeId), peer: (PeerIp, NodeId)) -> Direction {
    if own > peer {
        Direction::Outbound
    } else {
        Direction::Inbound
    }
}

/// What the tie-break needs to know of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    /// Who dialed.
    pub direction: Direction,
    /// The peer's instance number in its Hello.
    pub instance: u64,
}

/// The outcome for a newly authenticated connection while another is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The registered connection stays.
    KeepRegistered,
    /// The new one takes its place, as the better of two of the same process.
    Replace,
    /// The new one takes its place: the peer has restarted, and the registered one is dead.
    ReplaceOlderInstance,
}

/// Decides between a registered connection and a new one of the same peer: another process of the
/// peer wins whatever the direction, then the preferred dialer's connection, and of two with the
/// same direction the newer.
pub fn settle(registered: Contender, new: Contender, preferred: Direction) -> Verdict {
    if registered.instance != new.instance {
        Verdict::ReplaceOlderInstance
    } else if registered.direction == new.direction || new.direction == preferred {
        Verdict::Replace
    } else {
        Verdict::KeepRegistered
    }
}

#[cfg(test)]
mod tests;
