//! The links between the nodes of a test, and a record of what each has signed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{key, node_ip};
use crate::net::{BodyEvent, ConsensusEvent};
use crate::types::{BlockHash, ConsensusKey, Height, PeerIp, Round, VoteKind};
use crate::wire::{BodyHeader, ConsensusMessage};

/// What may be signed once: by whom, where, and which kind of vote (none for a proposal).
pub(super) type Slot = (ConsensusKey, Height, Round, Option<VoteKind>);

pub(super) type Parcel = (Instant, ConsensusEvent);

/// Decides whether a message or body travels: from, to, message or body.
pub(super) type Filter = Box<dyn Fn(usize, usize, Option<&ConsensusMessage>) -> bool + Send>;

/// The links, and what has been signed.
pub(super) struct Mesh {
    pub(super) delay: Duration,
    pub(super) inboxes: BTreeMap<usize, mpsc::Sender<ConsensusEvent>>,
    pub(super) links: BTreeMap<(usize, usize), mpsc::Sender<Parcel>>,
    pub(super) filter: Filter,
    /// How long a body is on its way, with progress every half second.
    pub(super) body_time: Duration,
    /// What each key has signed and sent, by slot.
    pub(super) signed: BTreeMap<Slot, BTreeSet<Option<BlockHash>>>,
    pub(super) counts: BTreeMap<&'static str, usize>,
}

impl Mesh {
    pub(super) fn index_of(to: PeerIp) -> usize {
        match to.ip() {
            IpAddr::V4(address) => usize::from(address.octets()[3]) - 1,
            IpAddr::V6(_) => unreachable!("test nodes have IPv4 addresses"),
        }
    }

    pub(super) fn post(&self, from: usize, to: usize, event: ConsensusEvent) {
        if let Some(link) = self.links.get(&(from, to)) {
            // A link whose far end has crashed drops what it is given.
            link.try_send((Instant::now() + self.delay, event)).ok();
        }
    }

    /// A stream of its own: what comes later does not hold up the other messages.
    pub(super) fn post_later(
        &self,
        from: usize,
        to: usize,
        after: Duration,
        event: ConsensusEvent,
    ) {
        if after.is_zero() {
            return self.post(from, to, event);
        }
        if !self.links.contains_key(&(from, to)) {
            return;
        }
        let inbox = self.inboxes[&to].clone();
        let at = Instant::now() + self.delay + after;
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            inbox.send(event).await.ok();
        });
    }

    pub(super) fn send_message(&mut self, from: usize, to: PeerIp, message: ConsensusMessage) {
        let to = Self::index_of(to);
        let kind = match &message {
            ConsensusMessage::GetBody { .. } => "get_body",
            ConsensusMessage::Commit(_) => "commit",
            _ => "other",
        };
        *self.counts.entry(kind).or_default() += 1;
        if (self.filter)(from, to, Some(&message)) {
            let peer = node_ip(from);
            self.post(from, to, ConsensusEvent::Message { peer, message });
        }
    }

    pub(super) fn send_body(&mut self, from: usize, to: PeerIp, header: BodyHeader, bytes: &[u8]) {
        let to = Self::index_of(to);
        *self.counts.entry("body").or_default() += 1;
        if !(self.filter)(from, to, None) {
            return;
        }
        let peer = node_ip(from);
        let mut parts = vec![(Duration::ZERO, BodyEvent::Started { total: bytes.len() })];
        let step = Duration::from_millis(500);
        let steps = (self.body_time.as_millis() / step.as_millis()) as u32;
        for at in 1..steps {
            let received = bytes.len() * at as usize / steps as usize;
            parts.push((step * at, BodyEvent::Progress { received }));
        }
        let complete = BodyEvent::Complete {
            bytes: bytes.to_vec().into(),
        };
        parts.push((self.body_time, complete));
        for (after, event) in parts {
            let event = ConsensusEvent::Body {
                peer,
                header,
                event,
            };
            self.post_later(from, to, after, event);
        }
    }

    /// Records what a node says of its own.
    pub(super) fn note(&mut self, from: usize, message: &ConsensusMessage) {
        let own = ConsensusKey::from(&key(from));
        let (slot, block) = match message {
            ConsensusMessage::Vote(vote) if vote.voter == own => {
                ((own, vote.height, vote.round, Some(vote.kind)), vote.block)
            }
            ConsensusMessage::Proposal(proposal) if proposal.proposer == own => (
                (own, proposal.height, proposal.round, None),
                Some(proposal.block),
            ),
            _ => return,
        };
        self.signed.entry(slot).or_default().insert(block);
    }

    pub(super) fn double_signed(&self) -> usize {
        self.signed
            .values()
            .filter(|blocks| blocks.len() > 1)
            .count()
    }
}
