//! What a testnet has shown, and whether it is as it must be.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use timed::types::{BlockHash, StateCommitment};
use tokio::time::Instant;

use super::network::{Network, NodeStatus};

/// The facts, as `--json` prints them.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    nodes: usize,
    seconds: u64,
    /// Height by node name; `None` where no answer came.
    height: BTreeMap<String, Option<u64>>,
    tips_equal: bool,
    hash: Option<BlockHash>,
    state: Option<StateCommitment>,
    connections: BTreeMap<String, Option<usize>>,
    /// Evidence of double signing by node that holds it.
    evidence: BTreeMap<String, Option<u64>>,
    transactions_sent: usize,
    transactions_final: usize,
    killed: Option<KillOutcome>,
    pub(super) failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct KillOutcome {
    node: String,
    /// The least that any of the others gained while it was down.
    others_gained: u64,
    restarted: bool,
    /// From its restart until it had all its peers again.
    peers_regained_ms: Option<u64>,
}

/// A node that was ended, and what the heights were.
pub(super) struct Kill {
    pub(super) node: usize,
    heights_before: Vec<Option<u64>>,
    heights_after: Vec<Option<u64>>,
    pub(super) restarted: Option<Instant>,
    pub(super) peers_regained: Option<Duration>,
}

impl Kill {
    pub(super) fn new(node: usize, heights: Vec<Option<u64>>) -> Self {
        Self {
            node,
            heights_before: heights,
            heights_after: Vec::new(),
            restarted: None,
            peers_regained: None,
        }
    }

    pub(super) fn restart(&mut self, heights: Vec<Option<u64>>, now: Instant) {
        self.heights_after = heights;
        self.restarted = Some(now);
    }

    fn others_gained(&self) -> u64 {
        let pairs = self
            .heights_before
            .iter()
            .zip(&self.heights_after)
            .enumerate();
        let others = pairs.filter(|(node, _)| *node != self.node);
        let gains = others.map(|(_, heights)| match heights {
            (Some(before), Some(after)) => after.saturating_sub(*before),
            _ => 0,
        });
        gains.min().unwrap_or(0)
    }
}

/// Whether all nodes answer with the same height, block and state.
pub(super) fn tips_equal(statuses: &[Option<NodeStatus>]) -> bool {
    let tip = |status: &Option<NodeStatus>| {
        let status = status.as_ref()?;
        Some((status.height, status.hash, status.state))
    };
    let first = statuses.first().and_then(tip);
    first.is_some() && statuses.iter().all(|status| tip(status) == first)
}

impl Outcome {
    pub(super) fn judge(
        network: &Network,
        statuses: &[Option<NodeStatus>],
        evidence: &[Option<u64>],
        (transactions_sent, transactions_final): (usize, usize),
        kill: Option<&Kill>,
        ran: Duration,
    ) -> Self {
        let names = || (0..network.len()).map(|node| network.name(node).to_owned());
        let of = |status: &Option<NodeStatus>| status.as_ref().map(|status| status.height);
        let connections =
            |status: &Option<NodeStatus>| status.as_ref().map(|status| status.connections);
        let tips_equal = tips_equal(statuses);
        let tip = statuses
            .first()
            .and_then(Option::as_ref)
            .filter(|_| tips_equal);
        let mut outcome = Self {
            nodes: network.len(),
            seconds: ran.as_secs(),
            height: names().zip(statuses.iter().map(of)).collect(),
            tips_equal,
            hash: tip.map(|tip| tip.hash),
            state: tip.map(|tip| tip.state),
            connections: names().zip(statuses.iter().map(connections)).collect(),
            evidence: names().zip(evidence.iter().copied()).collect(),
            transactions_sent,
            transactions_final,
            killed: kill.map(|kill| KillOutcome {
                node: network.name(kill.node).to_owned(),
                others_gained: kill.others_gained(),
                restarted: kill.restarted.is_some(),
                peers_regained_ms: kill.peers_regained.map(|after| after.as_millis() as u64),
            }),
            failures: Vec::new(),
        };
        outcome.failures = outcome.find_failures();
        outcome
    }

    fn find_failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |good: bool, sentence: String| {
            if !good {
                failures.push(sentence);
            }
        };
        check(
            self.tips_equal,
            format!("the tips are not equal: heights {:?}", self.height),
        );
        let grew = self.height.values().flatten().any(|height| *height > 0);
        check(grew, "no block became final".into());
        for (node, evidence) in &self.evidence {
            match evidence {
                None => check(false, format!("{node} does not answer")),
                Some(count) => check(
                    *count == 0,
                    format!("{node} holds {count} pieces of evidence of double signing"),
                ),
            }
        }
        if let Some(killed) = &self.killed {
            let name = &killed.node;
            check(killed.restarted, format!("{name} was not started again"));
            check(
                !killed.restarted || killed.others_gained > 0,
                format!("not all others gained heights while {name} was down"),
            );
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(height: u64, hash: u8) -> Option<NodeStatus> {
        Some(NodeStatus {
            height,
            hash: BlockHash([hash; 32]),
            state: StateCommitment([0; 32]),
            connections: 1,
        })
    }

    #[test]
    fn tips_are_equal_only_when_all_answer_alike() {
        assert!(tips_equal(&[status(3, 1), status(3, 1)]));
        assert!(!tips_equal(&[status(3, 1), status(3, 2)]));
        assert!(!tips_equal(&[status(3, 1), None]));
        assert!(!tips_equal(&[None, None]));
        assert!(!tips_equal(&[]));
    }

    #[test]
    fn the_least_gain_of_the_others_counts() {
        let mut kill = Kill::new(1, vec![Some(5), Some(5), Some(5)]);
        kill.restart(vec![Some(9), None, Some(6)], Instant::now());
        assert_eq!(kill.others_gained(), 1);
        kill.restart(vec![Some(9), None, None], Instant::now());
        assert_eq!(kill.others_gained(), 0);
    }
}
