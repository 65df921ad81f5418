//! What befalls the network and the machines, apart from stopping and crashing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;

use super::*;

impl World {
    /// Nothing passes between these groups any more; nodes in no group are cut from all.
    pub fn partition(&mut self, groups: &[&[usize]]) {
        self.journal.event(format!("partition {groups:?}"));
        let together = |a, b| (groups.iter()).any(|group| group.contains(&a) && group.contains(&b));
        for a in self.all() {
            for b in self
                .all()
                .into_iter()
                .filter(|b| *b != a && !together(a, *b))
            {
                self.cut_one_way(a, b);
            }
        }
    }

    /// Nothing passes between two nodes any more.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Nothing passes from one node to another any more.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.journal
            .event(format!("{} -> {} is cut", name(from), name(to)));
        let (from_address, to_address) = (self.machines[from].inside, self.machines[to].outside);
        self.wire.cut(from_address, to_address);
        self.checker.fault_begins(from, to);
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.journal.event("all cuts end");
        self.wire.heal();
        self.note_ended_faults();
    }

    /// From now on a node's links to all others are like this, so bad that connections may end.
    pub fn bad_links(&mut self, node: usize, link: Link) {
        self.journal.event(format!("{} has {link:?}", name(node)));
        for other in self.all().into_iter().filter(|other| *other != node) {
            self.set_links(node, other, link);
            self.bad.insert((node.min(other), node.max(other)));
            self.checker.fault_begins(node, other);
        }
    }

    /// All links are as they were at first.
    pub fn good_links(&mut self) {
        self.journal.event("all links are good");
        for (a, b) in std::mem::take(&mut self.bad) {
            self.set_links(a, b, self.link);
        }
        self.note_ended_faults();
    }

    fn set_links(&self, a: usize, b: usize, link: Link) {
        let (a, b) = (&self.machines[a], &self.machines[b]);
        self.wire.set_link(a.inside, b.outside, link);
        self.wire.set_link(b.inside, a.outside, link);
    }

    /// The faults between two nodes that run and reach each other over good links are over.
    pub(super) fn note_ended_faults(&self) {
        self.checker.faults_end(|a, b| {
            let good = !self.bad.contains(&(a.min(b), a.max(b)));
            good && self.joined(a, b)
        });
    }

    /// From now on a node hears only whom it has written to.
    pub fn firewall(&mut self, node: usize) {
        self.wire.firewall(self.machines[node].inside);
    }

    /// From now on a machine's time of day is off by so much.
    pub fn skew(&mut self, node: usize, ms: i64) {
        self.journal
            .event(format!("{} has its clock off by {ms} ms", name(node)));
        self.machines[node].skew_ms.store(ms, Ordering::Relaxed);
    }

    /// Gives a machine that does not run an empty disk, and another chain or the true one.
    pub fn install(&mut self, node: usize, chain_id: &str) {
        let genesis = Genesis {
            chain_id: chain_id.into(),
            ..(*self.genesis).clone()
        };
        let machine = &mut self.machines[node];
        assert!(machine.running.is_none(), "{} runs", name(node));
        machine.genesis = Arc::new(genesis);
        machine.disk = Disk::default();
        machine.consensus_state = FileInMemory::default();
    }

    /// From now on a node is behind a router that translates addresses and lets nobody in who was
    /// not written to: its record names the outside. Before its first start.
    pub fn translate(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        assert_eq!(machine.starts, 0, "{} has run", name(node));
        machine.inside.set_ip(private_ip(node));
        machine.config.listen_ip = private_ip(node);
        self.wire.translate(machine.inside, machine.outside.ip());
    }

    /// The router before a translated node starts again: its node's connections are lost.
    pub fn forget_translation(&mut self, node: usize) {
        (self.journal).event(format!("the router of {} starts again", name(node)));
        self.disturb(node);
        self.wire.forget_translation(self.machines[node].inside);
    }

    /// A running node's machine gets another address.
    pub fn move_to(&mut self, node: usize, ip: Ipv4Addr) {
        (self.journal).event(format!("{} moves to {ip}", name(node)));
        self.disturb(node);
        self.checker.also_at(node, PeerIp::from(IpAddr::V4(ip)));
        let machine = &mut self.machines[node];
        machine.inside.set_ip(ip.into());
        machine.outside.set_ip(ip.into());
        self.running(node)
            .socket
            .move_to(self.machines[node].inside);
    }

    /// Whether two nodes run and packets pass both ways between them.
    pub(super) fn joined(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.machines[a], &self.machines[b]);
        let passes = |a: &Machine, b: &Machine| self.wire.passes(a.inside, b.outside);
        a.running.is_some() && b.running.is_some() && passes(a, b) && passes(b, a)
    }

    /// Something befalls all connections of a node at this moment, and is over.
    pub fn disturb(&self, node: usize) {
        for other in self.all().into_iter().filter(|other| *other != node) {
            self.checker.fault_begins(node, other);
        }
        self.note_ended_faults();
    }
}

fn private_ip(node: usize) -> IpAddr {
    let low = u8::try_from(node + 1).expect("worlds are small");
    Ipv4Addr::new(192, 168, low, 2).into()
}
