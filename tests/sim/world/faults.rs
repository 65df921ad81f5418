//! What befalls the network and the machines, apart from stopping and crashing.

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
        self.wire.cut(address(from), address(to));
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
            self.wire.set_link(address(node), address(other), link);
            self.wire.set_link(address(other), address(node), link);
            self.bad.insert((node.min(other), node.max(other)));
            self.checker.fault_begins(node, other);
        }
    }

    /// All links are as they were at first.
    pub fn good_links(&mut self) {
        self.journal.event("all links are good");
        for (a, b) in std::mem::take(&mut self.bad) {
            self.wire.set_link(address(a), address(b), self.link);
            self.wire.set_link(address(b), address(a), self.link);
        }
        self.note_ended_faults();
    }

    /// The faults between two nodes that run and reach each other over good links are over.
    pub(super) fn note_ended_faults(&self) {
        let runs = |node: usize| self.machines[node].running.is_some();
        self.checker.faults_end(|a, b| {
            let good = !self.bad.contains(&(a.min(b), a.max(b)));
            good && runs(a) && runs(b) && joined(&self.wire, a, b)
        });
    }

    /// From now on a node hears only whom it has written to.
    pub fn firewall(&mut self, node: usize) {
        self.wire.firewall(address(node));
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
}

/// Whether packets pass both ways between two nodes.
pub(super) fn joined(wire: &Wire, a: usize, b: usize) -> bool {
    let (a, b) = (address(a), address(b));
    wire.passes(a, b) && wire.passes(b, a)
}
