//! How a connection gets into the registry: its slot, the tie-break, its Welcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Manager;
use crate::net::Direction;
use crate::net::connection::{Established, close};
use crate::net::direction::{Contender, Verdict, preferred_direction, settle};
use crate::net::endpoint::widen;
use crate::net::eviction::{self, Candidate, Slot};
use crate::net::handshake::Authenticated;
use crate::net::peer::{Peer, PeerFacts};
use crate::types::PeerIp;
use crate::wire::{CloseCode, CloseReason, Role, Welcome};

/// How long the acceptor of a winning connection leaves it to the dialer to close the loser.
const LOSER_LINGERS: Duration = Duration::from_secs(2);

impl Manager {
    /// Registers an authenticated connection, or closes it with the reason.
    pub(super) fn admit(&mut self, new: Authenticated) {
        if let Err(reason) = self.still_holds(&new) {
            self.turn_away(&new, reason);
            // What holds now may admit it: no back-off for a change that was made here.
            let now = (Instant::now(), self.clock.now_ms());
            return self.state.known.dial_soon(new.ip, now);
        }
        match self.find_slot(&new) {
            Ok(loser) => self.register(new, loser),
            Err(reason) => self.turn_away(&new, reason),
        }
    }

    fn turn_away(&mut self, new: &Authenticated, reason: CloseReason) {
        close(&new.quic, &reason);
        match new.direction {
            Direction::Inbound => self.refused(new.ip, new.direction, reason, true),
            // It is of an earlier run, and others have taken the slots while it was dialed.
            Direction::Outbound if reason.code == CloseCode::Full => {
                tracing::debug!(peer.ip = %new.ip, reason = %reason, "not kept");
                self.state.known.give_up(new.ip);
                self.state.known_changed = true;
            }
            Direction::Outbound => self.dial_failed(new.ip, reason, true),
        }
    }

    /// Decides about a new connection: refuse it, or take it and tell the connection that it
    /// displaces why.
    fn find_slot(&self, new: &Authenticated) -> Result<Option<CloseReason>, CloseReason> {
        let Some(held) = self.state.registry.get(&new.ip) else {
            return self.find_free_slot(new).map(|()| None);
        };
        // Two keys of one record are one masternode, which is changing its certificate.
        let same = held.facts().node_id == new.node_id
            || new.masternode.is_some() && new.masternode == held.masternode();
        if !same {
            let detail = format!(
                "{} holds a live connection with another key ({}); two nodes behind one address \
                 cannot both connect",
                new.ip,
                held.facts().node_id.short()
            );
            let reason = CloseReason::new(CloseCode::IpTaken, detail);
            let displaces = new.masternode.is_some() && held.masternode().is_none();
            return if displaces {
                Ok(Some(reason))
            } else {
                Err(reason)
            };
        }
        let contender = Contender {
            direction: new.direction,
            instance: new.hello.instance,
        };
        let preferred = preferred_direction((new.hello.observed, self.own), (new.ip, new.node_id));
        let duplicate = || {
            let detail = "another connection of this pair stays";
            CloseReason::new(CloseCode::Duplicate, detail)
        };
        match settle(held.contender(), contender, preferred) {
            Verdict::KeepRegistered => Err(duplicate()),
            Verdict::Replace => Ok(Some(duplicate())),
            Verdict::ReplaceOlderInstance => Ok(Some(newer_instance())),
        }
    }

    /// A slot for a peer that is not connected yet; another stranger may have to give way.
    fn find_free_slot(&self, new: &Authenticated) -> Result<(), CloseReason> {
        if new.masternode.is_some() || self.state.known.is_chosen(new.ip) {
            return Ok(());
        }
        let there = self.strangers();
        match eviction::find_slot(new.ip, &there, self.config.max_unpinned) {
            Slot::Free => Ok(()),
            Slot::InPlaceOf(ip) => {
                if let Some(peer) = self.state.registry.get(&ip) {
                    let detail = "all slots for peers without a record are taken, and this \
                                  connection was of the least use";
                    peer.end(CloseReason::new(CloseCode::Full, detail));
                }
                Ok(())
            }
            Slot::None => {
                let detail = format!(
                    "the slots for peers without a record are taken ({} of {}, at most half of \
                     them from one network)",
                    there.len(),
                    self.config.max_unpinned
                );
                Err(CloseReason::new(CloseCode::Full, detail))
            }
        }
    }

    /// Those who share the slots for peers without a record, whoever dialed.
    fn strangers(&self) -> Vec<Candidate> {
        let strangers = self.state.registry.values().filter(|peer| {
            let chosen = peer.masternode().is_some() || self.state.known.is_chosen(peer.ip());
            !chosen && !peer.is_ending()
        });
        strangers
            .map(|peer| Candidate {
                ip: peer.ip(),
                age: peer.meter.age(),
                moved: peer.tip_height() > peer.facts().hello.tip_height,
            })
            .collect()
    }

    /// Whether only this node's past speaks for a peer, and strangers have all slots.
    pub(super) fn is_surplus(&self, ip: PeerIp) -> bool {
        let slot = || eviction::find_slot(ip, &self.strangers(), self.config.max_unpinned);
        !self.state.known.is_chosen(ip) && slot() != Slot::Free
    }

    fn register(&mut self, new: Authenticated, displaced_for: Option<CloseReason>) {
        let restarted =
            (displaced_for.as_ref()).is_some_and(|why| why.code == CloseCode::NewerInstance);
        self.state.last_id += 1;
        let peer = self.make_peer(&new, restarted);
        if let (Some(reason), Some(loser)) = (displaced_for, self.state.registry.remove(&new.ip)) {
            // Of two live connections the winner's dialer closes the loser once it has the
            // Welcome. Its acceptor cannot know when that is, and gives it time.
            let ours_to_close =
                new.direction == Direction::Outbound || reason.code != CloseCode::Duplicate;
            let delay = if ours_to_close {
                Duration::ZERO
            } else {
                LOSER_LINGERS
            };
            loser.end_after(delay, reason);
        }
        self.end_older_instances(&peer);
        if peer.masternode().is_none() {
            widen(&new.quic);
        }
        let welcome = self.welcome_for(&new);
        let (predecessor, gone) = self.succeed(&new);
        log_connected(peer.facts());
        self.count(|counts| *counts.established.entry(new.direction).or_default() += 1);
        let facts = peer.facts();
        self.state.known.connected(facts);
        self.state.registry.insert(new.ip, peer.clone());
        self.state.registry_changed = true;
        self.state.known_changed = true;
        let recorded = peer.masternode().is_some();
        let established = Established {
            peer,
            welcome,
            writer: new.writer,
            reader: new.reader,
            predecessor,
            gone,
            surroundings: self.surroundings.clone(),
        };
        let runtimes = &self.endpoint.runtimes;
        runtimes.spawn(recorded, &mut self.state.connections, established.run());
    }

    /// The tokens that keep the events of two connections of one peer in order: of the connection
    /// before, if its events are not all delivered, and of this one.
    fn succeed(&mut self, new: &Authenticated) -> (CancellationToken, CancellationToken) {
        self.state.gone.retain(|_, gone| !gone.is_cancelled());
        let gone = CancellationToken::new();
        let predecessor = self.state.gone.insert(new.ip, gone.clone());
        let predecessor = predecessor.unwrap_or_else(|| {
            let nobody = CancellationToken::new();
            nobody.cancel();
            nobody
        });
        (predecessor, gone)
    }

    fn make_peer(&mut self, new: &Authenticated, restarted: bool) -> Arc<Peer> {
        let logged = self.may_log(new.ip, new.direction);
        let directory = self.pins.directory();
        let masternode = new.masternode.and_then(|index| {
            let name = directory.name(index)?.to_string();
            Some((index, name))
        });
        // The acceptor says whether it holds this node's record: without one it takes no
        // consensus stream.
        let they_hold_ours = new.welcome.as_ref().is_none_or(|welcome| welcome.pinned);
        let facts = PeerFacts {
            id: self.state.last_id,
            ip: new.ip,
            node_id: new.node_id,
            consensus: masternode.is_some()
                && new.hello.role == Role::Masternode
                && they_hold_ours
                && self.config.own_masternode.is_some()
                && self.surroundings.inbound.consensus.is_some(),
            masternode,
            direction: new.direction,
            hello: new.hello.clone(),
            connected_at_ms: self.clock.now_ms(),
            clock_offset_ms: new.clock_offset_ms,
            reconnects: self.state.known.count_reconnect(new.ip, restarted),
            logged,
        };
        let timing = self.config.timing;
        let (quic, meter) = (new.quic.clone(), new.meter.clone());
        let peer = Peer::new(facts, timing, quic, meter);
        let directory = self.pins.directory();
        let record = new.masternode.and_then(|index| directory.record(index));
        peer.hold_record(record.map_or(0, |record| record.serial));
        if let Some(welcome) = &new.welcome {
            peer.told_record(welcome.record_serial);
        }
        self.compare_serials(new);
        Arc::new(peer)
    }

    /// The peer holds an older or newer record of this masternode: an operator should know.
    fn compare_serials(&self, new: &Authenticated) {
        let own = self.config.own_masternode;
        let own = own.and_then(|index| self.pins.directory().record(index));
        if let (Some(own), Some(welcome)) = (own, &new.welcome)
            && welcome.record_serial != own.serial
        {
            tracing::warn!(
                peer.ip = %new.ip,
                theirs = welcome.record_serial,
                ours = own.serial,
                "the peer holds another version of this masternode's record; 0 means none"
            );
        }
    }

    fn welcome_for(&self, new: &Authenticated) -> Option<Welcome> {
        let record = new
            .masternode
            .and_then(|at| self.pins.directory().record(at));
        (new.direction == Direction::Inbound).then(|| Welcome {
            version: new.version,
            pinned: record.is_some(),
            record_serial: record.map_or(0, |record| record.serial),
        })
    }

    /// The peer's earlier process is dead, at whatever address it was connected.
    fn end_older_instances(&self, peer: &Peer) {
        let facts = peer.facts();
        for other in self.state.registry.values() {
            let same = other.facts().node_id == facts.node_id
                || other.masternode().is_some() && other.masternode() == peer.masternode();
            if same && other.facts().hello.instance != facts.hello.instance {
                other.end(newer_instance());
            }
        }
    }
}

fn log_connected(facts: &PeerFacts) {
    if !facts.logged {
        return tracing::debug!(peer.ip = %facts.ip, connection = facts.id, "connected");
    }
    tracing::info!(
        peer.ip = %facts.ip,
        peer.node = %facts.node_id.short(),
        peer.name = facts.masternode.as_ref().map(|(_, name)| name.as_str()),
        direction = ?facts.direction,
        connection = facts.id,
        agent = facts.hello.agent,
        "connected"
    );
}

fn newer_instance() -> CloseReason {
    let detail = "a newer process of the same node has connected";
    CloseReason::new(CloseCode::NewerInstance, detail)
}
