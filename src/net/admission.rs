//! Who may start a handshake: bounds on those that are in progress.
//!
//! Anyone can forge the source address of a first packet, so nothing is charged to an address
//! before it is validated. Unvalidated arrivals only meet the global bound: above half of it they
//! are answered with Retry, which costs no state, and come back validated. Validated ones are
//! charged to their address and prefix. A recorded masternode address has a budget of its own,
//! so a flood cannot keep masternodes apart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::types::PeerIp;

/// The most inbound handshakes in progress, recorded masternode addresses not counted once they
/// are validated.
pub(super) const MAX_HALF_OPEN: usize = 256;
/// The most inbound handshakes in progress from one validated address.
pub(super) const MAX_PER_IP: usize = 4;
/// The most inbound handshakes in progress from one validated /24 (IPv4) or /64 (IPv6).
pub(super) const MAX_PER_PREFIX: usize = 32;

/// The budgets. Cheap to clone; all clones share one state.
#[derive(Clone, Default)]
pub(super) struct Admission(Arc<Mutex<Counts>>);

/// Handshakes of arrivals, from the first packet to their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HalfOpen {
    /// In progress now, those of recorded masternode addresses once validated not counted.
    pub now: usize,
    /// The most that there were at a time since the network started.
    pub most: usize,
}

#[derive(Default)]
struct Counts {
    total: usize,
    most: usize,
    by_ip: BTreeMap<PeerIp, usize>,
    by_prefix: BTreeMap<IpAddr, usize>,
}

/// What to do with an arrival.
pub(super) enum Gate {
    /// Handshake; the ticket is held until it is over.
    Accept(Ticket),
    /// Prove the address first.
    Retry,
    /// No budget left.
    Refuse,
}

/// A handshake in progress; dropping it gives the budget back.
pub(super) struct Ticket {
    admission: Admission,
    charged: Charge,
}

#[derive(Clone, Copy)]
enum Charge {
    Global,
    Address(PeerIp),
    Reserved(PeerIp),
}

impl Admission {
    /// Decides on an arrival; `recorded` says whether a masternode record names the address.
    pub(super) fn arrive(&self, ip: PeerIp, validated: bool, recorded: bool) -> Gate {
        let mut counts = self.0.lock().expect("no holder panics");
        if !validated {
            if counts.total >= MAX_HALF_OPEN / 2 {
                return Gate::Retry;
            }
            counts.add();
            return self.ticket(Charge::Global);
        }
        if counts.by_ip.get(&ip).copied().unwrap_or(0) >= MAX_PER_IP {
            return Gate::Refuse;
        }
        if recorded {
            *counts.by_ip.entry(ip).or_default() += 1;
            return self.ticket(Charge::Reserved(ip));
        }
        let prefix = prefix(ip);
        let in_prefix = counts.by_prefix.get(&prefix).copied().unwrap_or(0);
        if counts.total >= MAX_HALF_OPEN || in_prefix >= MAX_PER_PREFIX {
            return Gate::Refuse;
        }
        counts.add();
        *counts.by_ip.entry(ip).or_default() += 1;
        *counts.by_prefix.entry(prefix).or_default() += 1;
        self.ticket(Charge::Address(ip))
    }

    /// How many are in progress.
    pub(super) fn half_open(&self) -> HalfOpen {
        let counts = self.0.lock().expect("no holder panics");
        HalfOpen {
            now: counts.total,
            most: counts.most,
        }
    }

    /// What is charged to an address.
    #[cfg(test)]
    pub(super) fn charged(&self, ip: PeerIp) -> usize {
        let counts = self.0.lock().unwrap();
        counts.by_ip.get(&ip).copied().unwrap_or(0)
    }

    fn ticket(&self, charged: Charge) -> Gate {
        Gate::Accept(Ticket {
            admission: self.clone(),
            charged,
        })
    }
}

impl Counts {
    fn add(&mut self) {
        self.total += 1;
        self.most = self.most.max(self.total);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.admission.0.lock().expect("no holder panics");
        match self.charged {
            Charge::Global => counts.total -= 1,
            Charge::Reserved(ip) => release(&mut counts.by_ip, ip),
            Charge::Address(ip) => {
                counts.total -= 1;
                release(&mut counts.by_ip, ip);
                release(&mut counts.by_prefix, prefix(ip));
            }
        }
    }
}

/// Takes one off a counter; a counter at zero is removed, so that the maps stay as small as what
/// is in progress.
fn release<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// The network that an address counts with: /24 of IPv4, /64 of IPv6.
pub(super) fn prefix(ip: PeerIp) -> IpAddr {
    match ip.ip() {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & !0xff).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> PeerIp {
        text.parse().unwrap()
    }

    fn accept(gate: Gate) -> Ticket {
        match gate {
            Gate::Accept(ticket) => ticket,
            _ => panic!("not accepted"),
        }
    }

    #[test]
    fn above_half_of_the_bound_strangers_must_prove_their_address() {
        let admission = Admission::default();
        let stranger = ip("10.0.0.1");
        let mut tickets: Vec<Ticket> = (0..MAX_HALF_OPEN / 2)
            .map(|_| accept(admission.arrive(stranger, false, false)))
            .collect();
        assert!(matches!(
            admission.arrive(stranger, false, true),
            Gate::Retry
        ));
        // Nothing was charged to the address that may have been forged.
        tickets.push(accept(admission.arrive(stranger, true, false)));
        drop(tickets);
        accept(admission.arrive(stranger, false, false));
        assert!(admission.0.lock().unwrap().by_ip.is_empty());
    }

    #[test]
    fn validated_arrivals_are_bounded_by_address_and_prefix_and_records_are_reserved() {
        let admission = Admission::default();
        let mut tickets = Vec::new();
        for host in 0..(MAX_PER_PREFIX / MAX_PER_IP) {
            for _ in 0..MAX_PER_IP {
                let from = ip(&format!("10.0.0.{host}"));
                tickets.push(accept(admission.arrive(from, true, false)));
            }
            let from = ip(&format!("10.0.0.{host}"));
            assert!(matches!(admission.arrive(from, true, false), Gate::Refuse));
        }
        assert!(matches!(
            admission.arrive(ip("10.0.0.200"), true, false),
            Gate::Refuse
        ));
        tickets.push(accept(admission.arrive(ip("10.0.1.1"), true, false)));
        // The same prefix is full, but a recorded masternode gets in.
        tickets.push(accept(admission.arrive(ip("10.0.0.200"), true, true)));
    }
}
