//! Letting time pass, awaiting a state of the world, and what must hold at the end.

use tokio::time::{Instant, sleep};

use super::*;

/// How often the state of the world is looked at while it runs.
const STEP: Duration = Duration::from_secs(5);

/// How often it is looked at while something is awaited.
const LOOK: Duration = Duration::from_millis(250);

impl World {
    /// Lets virtual time pass, and looks at every node meanwhile.
    pub async fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(STEP.min(end - Instant::now())).await;
            self.look().await;
        }
    }

    /// Lets time pass until so long after the next slot boundary.
    pub async fn until_slot_and(&mut self, later: Duration) {
        let slot = Duration::from_millis(self.genesis.slot_ms);
        let in_slot = self.journal.elapsed().as_millis() % slot.as_millis();
        let rest = slot - Duration::from_millis(in_slot as u64);
        self.run(rest + later).await;
    }

    /// Waits until all running nodes that a cut does not part are connected, both ends agreeing,
    /// and nobody else is. Returns how long that took.
    pub async fn connected_within(&mut self, limit: Duration) -> Duration {
        self.within(limit, "connected", Self::what_is_not_connected)
            .await
    }

    /// Waits until all running nodes of the chain have one tip.
    pub async fn level_within(&mut self, limit: Duration) -> Duration {
        self.within(limit, "level", Self::what_is_not_level).await
    }

    /// Waits until no running masternode of the chain refuses to sign.
    pub async fn all_sign_within(&mut self, limit: Duration) -> Duration {
        self.within(limit, "signing", Self::who_does_not_sign).await
    }

    /// Waits until every submitted transaction is final on all running nodes of the chain.
    pub async fn transactions_final_within(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        for Submitted { txid, .. } in self.submitted.clone() {
            for node in self.on_chain() {
                while self
                    .node(node)
                    .chain()
                    .find_transaction(txid)
                    .await
                    .unwrap()
                    .is_none()
                {
                    let node = name(node);
                    assert!(
                        Instant::now() < end,
                        "{txid} is not final on {node} within {limit:?}"
                    );
                    sleep(LOOK).await;
                }
            }
        }
    }

    async fn within(
        &mut self,
        limit: Duration,
        what: &str,
        missing: impl Fn(&Self) -> Option<String>,
    ) -> Duration {
        let began = Instant::now();
        while let Some(missing) = missing(self) {
            let waited = began.elapsed();
            assert!(waited < limit, "not {what} within {limit:?}: {missing}");
            sleep(LOOK).await;
        }
        self.look().await;
        self.journal
            .event(format!("{what} after {:?}", began.elapsed()));
        began.elapsed()
    }

    fn what_is_not_connected(&self) -> Option<String> {
        for a in self.honest() {
            for b in self.honest().into_iter().filter(|b| *b > a) {
                let ends = (self.checker.held(a, b), self.checker.held(b, a));
                let right = match ends {
                    (Some(a_end), Some(b_end)) if self.belong_together(a, b) => {
                        a_end.direction != b_end.direction
                    }
                    (None, None) => !self.belong_together(a, b),
                    _ => false,
                };
                if !right {
                    return Some(format!("{} - {}: {ends:?}", name(a), name(b)));
                }
            }
        }
        None
    }

    /// Consensus, which hears of peers through the network, misses just those that do not run.
    fn whom_consensus_misses(&self) -> Option<String> {
        let running = self.masternodes_on_chain();
        let here = |key: &usize| {
            let holds = |machine: &Machine| machine.consensus_key == Some(*key);
            (self.on_chain().iter()).any(|node| holds(&self.machines[*node]))
        };
        let honest = |key: &usize| !self.puppets.contains_key(key);
        let absent = (0..self.masternodes).filter(|key| honest(key) && !here(key));
        let absent = absent.count();
        let missing = |node: &usize| {
            let mut missing = self.consensus(*node).missing;
            missing.retain(|missing| !self.is_puppet(missing));
            let wrong = missing.len() != absent;
            wrong.then(|| format!("{} misses {missing:?}", name(*node)))
        };
        running.iter().find_map(missing)
    }

    /// Then the two machines do not know what the other signs.
    pub(super) fn key_in_two_places(&self) -> bool {
        let holders = self
            .machines
            .iter()
            .filter(|one| one.consensus_key.is_some());
        holders.count() > self.masternodes
    }

    fn masternodes_on_chain(&self) -> Vec<usize> {
        let on_chain = self.on_chain().into_iter();
        on_chain.filter(|node| self.is_masternode(*node)).collect()
    }

    /// Whether it is one of those that genesis names; a copy of its key elsewhere does not count.
    fn is_masternode(&self, node: usize) -> bool {
        node < self.masternodes
    }

    fn who_does_not_sign(&self) -> Option<String> {
        self.masternodes_on_chain().into_iter().find_map(|node| {
            let why = self.consensus(node).not_signing?;
            Some(format!("{}: {why}", name(node)))
        })
    }

    pub(super) fn belong_together(&self, a: usize, b: usize) -> bool {
        let (one, other) = (&self.machines[a], &self.machines[b]);
        let somebody_dials = self.is_masternode(a)
            || self.is_masternode(b)
            || one.config.peers.contains(&other.outside)
            || other.config.peers.contains(&one.outside);
        somebody_dials && one.genesis == other.genesis && self.joined(a, b)
    }

    fn what_is_not_level(&self) -> Option<String> {
        let tips: Vec<_> = (self.on_chain().into_iter())
            .map(|node| self.node(node).chain().tip())
            .collect();
        let level = tips.windows(2).all(|two| two[0] == two[1]);
        let heights = tips.iter().map(|tip| tip.height.0).collect::<Vec<_>>();
        (!level).then(|| format!("heights {heights:?}"))
    }

    /// The running nodes of the true chain.
    pub(super) fn on_chain(&self) -> Vec<usize> {
        let on_chain = |node: &usize| {
            let machine = &self.machines[*node];
            machine.running.is_some() && machine.genesis == self.genesis
        };
        self.all().into_iter().filter(on_chain).collect()
    }

    /// A running node is healthy, and its registry says what was observed.
    async fn look(&mut self) {
        self.checker.look_for_one_sided();
        self.look_for_late_reconnects();
        self.look_at_bounds().await;
        for puppet in self.puppets.values_mut() {
            puppet.look();
        }
        for (node, machine) in self.machines.iter_mut().enumerate() {
            let Some(running) = &mut machine.running else {
                continue;
            };
            let ended = tokio::select! {
                biased;
                ended = running.node.wait() => Some(ended),
                () = std::future::ready(()) => None,
            };
            if let Some(ended) = ended {
                panic!("{} ended: {ended:?}", name(node));
            }
        }
    }

    /// What must hold at the end of every scenario.
    pub async fn finish(&mut self) {
        self.transactions_final_within(Duration::from_secs(60))
            .await;
        let limit = Duration::from_secs(30);
        self.within(limit, "heard by consensus", Self::whom_consensus_misses)
            .await;
        for node in self.masternodes_on_chain() {
            for evidence in self.evidence(node).await {
                let mut puppets = self.puppets.keys().map(|puppet| name(*puppet));
                let of_puppet =
                    puppets.any(|puppet| evidence.starts_with(&format!("{puppet} signed two ")));
                if !of_puppet && !self.key_in_two_places() {
                    let text = format!("{} holds evidence: {evidence}", name(node));
                    self.journal.violation(text);
                }
            }
        }
    }
}
