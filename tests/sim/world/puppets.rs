//! Masternodes whose place a puppet has taken. The checker judges the others only.

use super::*;
use crate::puppet::Behaviour;
use crate::puppet::raw::Attack;

impl World {
    /// A puppet takes a masternode's place, before the others start.
    pub async fn puppet(&mut self, node: usize, behaviour: impl Behaviour) {
        let outfit = self.taken_over(node);
        let puppet = Puppet::start(node, outfit.files, outfit.environment, behaviour).await;
        self.puppets.insert(node, puppet);
    }

    /// The same for one that speaks the protocol by hand, with these masternodes.
    pub fn raw_puppet(&mut self, node: usize, victims: &[usize], attack: impl Attack) {
        let Outfit {
            files, environment, ..
        } = self.taken_over(node);
        let puppet = Puppet::start_raw(node, &files, environment, victims, attack);
        self.puppets.insert(node, puppet);
    }

    fn taken_over(&mut self, node: usize) -> Outfit {
        self.journal
            .event(format!("a puppet takes the place of {}", name(node)));
        self.checker.puppet(node);
        self.outfit(node)
    }

    /// The masternodes that keep the rules.
    pub fn honest(&self) -> Vec<usize> {
        let all = self.all().into_iter();
        all.filter(|node| !self.puppets.contains_key(node))
            .collect()
    }

    pub(super) fn is_puppet(&self, called: &str) -> bool {
        self.puppets.keys().any(|node| name(*node) == called)
    }

    /// How often a puppet has done what it is there for.
    pub fn acts(&self, node: usize) -> u64 {
        self.puppets[&node].acts()
    }

    /// The equivocations that a node has stored, as sentences.
    pub async fn evidence(&self, node: usize) -> Vec<String> {
        let consensus = self.node(node).consensus().expect("all are masternodes");
        consensus.evidence().await
    }
}
