//! Bans in the manager: what they do to arrivals, dials and connections, and where they come from.

use std::time::Duration;

use quinn::Incoming;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Manager, ask_again};
use crate::net::Direction;
use crate::net::bans::BanError;
use crate::net::faults::{FAULT_BAN, Fault, MASTERNODE_FAULT_BAN};
use crate::types::{Ban, BannedBy, PeerIp};
use crate::wire::{CloseCode, CloseReason};

/// A change of the bans that an operator asks for; the answer is the number of the published list
/// that holds it.
pub(in crate::net) enum BanOrder {
    /// Ban an address.
    Add {
        /// The ban.
        ban: Ban,
        /// The answer.
        reply: oneshot::Sender<Result<u64, BanError>>,
    },
    /// Lift the ban of an address, or all; the answer also has how many there were.
    Lift {
        /// Of whom; all without one.
        ip: Option<PeerIp>,
        /// The answer.
        reply: oneshot::Sender<(usize, u64)>,
    },
}

impl Manager {
    pub(super) fn order_ban(&mut self, order: BanOrder) {
        // Whoever asked and went away has no use for the answer.
        match order {
            BanOrder::Add { ban, reply } => {
                let done = self.ban(ban).map(|()| self.publish_bans());
                reply.send(done).ok();
            }
            BanOrder::Lift { ip, reply } => {
                let lifted = self.lift_bans(ip);
                reply.send((lifted, self.publish_bans())).ok();
            }
        }
    }

    /// Turns a banned arrival away, unless it is to be told why now: then its handshake goes on
    /// until its key is known. An address must be proved first, so that forged packets neither use
    /// up its turn nor cost a handshake.
    pub(super) fn turn_banned_away(&mut self, ip: PeerIp, incoming: Incoming) -> Option<Incoming> {
        let now_ms = self.clock.now_ms();
        if self.state.bans.get(ip, now_ms).is_none() {
            return Some(incoming);
        }
        if !incoming.remote_address_validated() {
            ask_again(ip, incoming);
            return None;
        }
        if self.state.bans.may_tell(ip, now_ms) {
            return Some(incoming);
        }
        incoming.refuse();
        None
    }

    /// Whether the dial of an address is put off because the address is banned.
    pub(super) fn put_off_while_banned(&mut self, ip: PeerIp) -> bool {
        let now = (Instant::now(), self.clock.now_ms());
        let Some(ban) = self.state.bans.get(ip, now.1) else {
            return false;
        };
        let left = Duration::from_millis(ban.until_ms - now.1);
        // Looked at again now and then, since the time of day may be set.
        let delay = left.min(self.config.timing.backoff_limit);
        self.state.known.postpone(ip, delay, now);
        true
    }

    /// A peer sent bytes that cannot be honest, from an address that it has proved.
    pub(super) fn ban_for(&mut self, ip: PeerIp, fault: Fault, detail: &str) {
        let now_ms = self.clock.now_ms();
        let recorded = self.pins.directory().by_ip(ip).is_some();
        let duration = if recorded {
            MASTERNODE_FAULT_BAN
        } else {
            FAULT_BAN
        };
        let until_ms = now_ms + duration.as_millis() as u64;
        let reason = format!("{}: {detail}", fault.name());
        let ban = Ban::new(ip, (now_ms, until_ms), BannedBy::Fault, &reason);
        match self.ban(ban) {
            Ok(()) => {
                self.publish_bans();
            }
            Err(error) => tracing::warn!(peer.ip = %ip, reason = %error, "not banned"),
        }
    }

    /// Why an address is banned now, if it is.
    pub(super) fn banned(&self, ip: PeerIp) -> Option<CloseReason> {
        let ban = self.state.bans.get(ip, self.clock.now_ms())?;
        Some(CloseReason::new(CloseCode::Banned, ban.sentence()))
    }

    fn ban(&mut self, ban: Ban) -> Result<(), BanError> {
        let (ip, by) = (ban.ip, ban.by);
        if self.is_own_address(ip) {
            return Err(BanError::Own(ip));
        }
        if !ip.is_usable() {
            return Err(BanError::Unusable(ip));
        }
        self.state.bans.add(ban, self.clock.now_ms())?;
        let Some(reason) = self.banned(ip) else {
            // It was over before it began.
            return Ok(());
        };
        let loud = by == BannedBy::Operator || self.may_log(ip, Direction::Inbound);
        match self.pins.directory().by_ip(ip) {
            Some((_, record)) => tracing::error!(
                peer.ip = %ip,
                peer.name = record.name,
                reason = %reason.detail,
                "A MASTERNODE IS BANNED: its votes do not reach this node directly; \
                 `timed unban {ip}` lifts it"
            ),
            None if loud => tracing::warn!(
                peer.ip = %ip, reason = %reason.detail, "banned; `timed unban {ip}` lifts it"
            ),
            None => tracing::debug!(peer.ip = %ip, reason = %reason.detail, "banned"),
        }
        if let Some(peer) = self.state.registry.get(&ip) {
            peer.end(reason);
        }
        Ok(())
    }

    fn lift_bans(&mut self, only: Option<PeerIp>) -> usize {
        let now_ms = self.clock.now_ms();
        let banned = self.state.bans.list(now_ms).into_iter().map(|ban| ban.ip);
        let lifted: Vec<PeerIp> = banned
            .filter(|ip| only.is_none_or(|only| only == *ip))
            .collect();
        let now = (Instant::now(), now_ms);
        for ip in &lifted {
            self.state.bans.lift(*ip);
            self.state.known.dial_soon(*ip, now);
            tracing::info!(peer.ip = %ip, "the ban is lifted");
        }
        self.state.known_changed = true;
        lifted.len()
    }

    /// Publishes the bans; gives the number of the list.
    fn publish_bans(&mut self) -> u64 {
        let bans = self.state.bans.list(self.clock.now_ms());
        let mut version = 0;
        self.published.bans.send_modify(|list| {
            list.version += 1;
            list.bans = bans;
            version = list.version;
        });
        version
    }

    fn is_own_address(&self, ip: PeerIp) -> bool {
        let own = self.config.own_masternode;
        let record = own.and_then(|index| self.pins.directory().record(index));
        self.config.own_ip == Some(ip) || record.is_some_and(|record| record.ip == ip)
    }
}
