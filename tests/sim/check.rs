//! What must hold at every moment of a run. Fed by one observer per node, which is told of every
//! change of the registry and of the tip.
//!
//! - A connection that held ends only if a fault was injected between the two, or has just ended.
//! - A connection that one end holds and the other does not is gone within [`ONE_SIDED_LIMIT`].
//! - All nodes of a chain have the same block at a height, and nobody loses a final block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use timed::chain::Chain;
use timed::net::{Direction, NetHandle};
use timed::types::{BlockHash, GenesisHash, Height, PeerIp};
use tokio::time::Instant;

use super::journal::Journal;

/// Two connections of a pair may meet only this soon after the first: then one gives way.
const TIE_BREAK: Duration = Duration::from_secs(15);

/// How long after a fault's end its consequences may show: the idle timeout, and a tie-break.
const AFTERMATH: Duration = Duration::from_secs(45);

/// How long one end may take to notice that the other has gone: the limit of silence, and a margin.
const ONE_SIDED_LIMIT: Duration = Duration::from_secs(70);

/// The checker of one run.
pub struct Checker {
    journal: Arc<Journal>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By address, the node's number.
    nodes: BTreeMap<PeerIp, usize>,
    /// How many nodes there are; one may be at several addresses.
    count: usize,
    /// By (node, peer), what that node's registry holds.
    held: BTreeMap<(usize, usize), Held>,
    /// Since when only one end holds a connection, by (that end, the other).
    one_sided: BTreeMap<(usize, usize), Instant>,
    /// Pairs with a fault between them; `None` while it lasts, then when it ended.
    faults: BTreeMap<(usize, usize), Option<Instant>>,
    /// Nodes that do not keep the rules: what becomes of their connections is no violation.
    puppets: BTreeSet<usize>,
    /// Whose blocks and tips are known.
    blocks: BTreeMap<(GenesisHash, Height), (BlockHash, usize)>,
    tips: BTreeMap<(GenesisHash, usize), Height>,
    disconnects: usize,
}

/// A registered connection as its node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub ip: PeerIp,
    pub connection: u64,
    pub direction: Direction,
    pub since: Instant,
}

impl Checker {
    pub fn new(journal: Arc<Journal>, nodes: impl IntoIterator<Item = PeerIp>) -> Self {
        let nodes: BTreeMap<_, _> = nodes.into_iter().zip(0..).collect();
        Self {
            journal,
            state: Mutex::new(State {
                count: nodes.len(),
                nodes,
                ..State::default()
            }),
        }
    }

    /// A puppet takes a node's place.
    pub fn puppet(&self, node: usize) {
        self.state().puppets.insert(node);
    }

    /// A node is seen at a further address from now on.
    pub fn also_at(&self, node: usize, ip: PeerIp) {
        self.state().nodes.insert(ip, node);
    }

    /// A fault between two nodes begins.
    pub fn fault_begins(&self, a: usize, b: usize) {
        self.state().faults.insert(pair(a, b), None);
    }

    /// Every fault that one of these nodes is in has ended.
    pub fn faults_end(&self, ended: impl Fn(usize, usize) -> bool) {
        let now = Instant::now();
        for ((a, b), end) in &mut self.state().faults {
            if end.is_none() && ended(*a, *b) {
                *end = Some(now);
            }
        }
    }

    /// A node is gone, with its registry.
    pub fn gone(&self, node: usize) {
        self.state().held.retain(|(at, _), _| *at != node);
    }

    /// A node has lost its blocks, and starts again without them.
    pub fn lost_blocks(&self, node: usize) {
        self.state().tips.retain(|(_, at), _| *at != node);
    }

    /// What a node's registry holds of another.
    pub fn held(&self, node: usize, peer: usize) -> Option<Held> {
        self.state().held.get(&(node, peer)).copied()
    }

    /// Compares the connections that a node shows, by address and id, with those that were observed.
    /// A node that has moved may be shown at its old address too, until that connection has ended.
    pub fn wrongly_shown(&self, node: usize, shown: &BTreeSet<(PeerIp, u64)>) -> Option<String> {
        let state = self.state();
        let held = state.held.range((node, 0)..=(node, usize::MAX));
        let held: BTreeMap<_, _> = held.map(|((_, peer), held)| (*peer, held)).collect();
        let all = (held.values()).all(|held| shown.contains(&(held.ip, held.connection)));
        let known = |(ip, _): &(PeerIp, u64)| state.nodes.get(ip).copied();
        let others =
            (shown.iter()).any(|one| known(one).is_none_or(|peer| !held.contains_key(&peer)));
        (!all || others).then(|| format!("{} shows {shown:?} and has {held:?}", name(node)))
    }

    /// How many peers a node's registry holds.
    pub fn peers(&self, node: usize) -> usize {
        let state = self.state();
        state.held.range((node, 0)..=(node, usize::MAX)).count()
    }

    /// Connections that ended, whatever the cause, without the losers of a tie-break; each end counts.
    pub fn disconnects(&self) -> usize {
        self.state().disconnects
    }

    /// Follows a node until it is aborted or the node has stopped.
    pub async fn observe(self: Arc<Self>, node: usize, chain: Chain, net: NetHandle) {
        let mut tips = chain.watch_tip();
        let mut peers = net.watch_peers();
        let genesis = chain.genesis_hash();
        let mut seen = self.resumes_at(genesis, node, tips.borrow_and_update().height);
        loop {
            peers.borrow_and_update();
            self.registry(node, &net);
            let tip = *tips.borrow_and_update();
            while seen < tip.height {
                seen = seen.next();
                let Ok(Some(header)) = chain.header(seen).await else {
                    return;
                };
                self.block(genesis, node, seen, header.hash());
            }
            let goes_on = tokio::select! {
                biased;
                changed = tips.changed() => changed.is_ok(),
                changed = peers.changed() => changed.is_ok(),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Looks for connections that one end only holds.
    pub fn look_for_one_sided(&self) {
        let mut state = self.state();
        let held: BTreeSet<(usize, usize)> = state.held.keys().copied().collect();
        let puppets = state.puppets.clone();
        let lonely = |(a, b): &(usize, usize)| !held.contains(&(*b, *a)) && !puppets.contains(b);
        let now = Instant::now();
        state
            .one_sided
            .retain(|ends, _| held.contains(ends) && lonely(ends));
        for ends in held.iter().filter(|ends| lonely(ends)) {
            let since = *state.one_sided.entry(*ends).or_insert(now);
            if now - since > ONE_SIDED_LIMIT {
                let (a, b) = (name(ends.0), name(ends.1));
                let text = format!(
                    "{a} has held a connection to {b} alone since {:?}",
                    now - since
                );
                self.journal.violation(text);
                state.one_sided.insert(*ends, now);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A node that starts again still has every block that it had published.
    fn resumes_at(&self, genesis: GenesisHash, node: usize, tip: Height) -> Height {
        let before = self.state().tips.get(&(genesis, node)).copied();
        if let Some(before) = before.filter(|before| *before > tip) {
            let node = name(node);
            let text = format!("{node} had published height {before} and starts again at {tip}");
            self.journal.violation(text);
        }
        tip
    }

    fn block(&self, genesis: GenesisHash, node: usize, height: Height, hash: BlockHash) {
        let mut state = self.state();
        state.tips.insert((genesis, node), height);
        let first = state
            .blocks
            .entry((genesis, height))
            .or_insert((hash, node));
        let text = format!("{} commits {height} {}", name(node), hash.short());
        self.journal.event(text);
        if first.0 != hash {
            let (node, other) = (name(node), name(first.1));
            let text = format!(
                "fork: at {height} {node} has {hash} and {other} has {}",
                first.0
            );
            self.journal.violation(text);
        }
    }

    /// Compares a node's registry with what it held before.
    fn registry(&self, node: usize, net: &NetHandle) {
        let mut now = BTreeMap::new();
        let mut state = self.state();
        for peer in net.peers() {
            let Some(other) = state.nodes.get(&peer.ip).copied() else {
                self.journal
                    .violation(format!("{} is connected to {}", name(node), peer.ip));
                continue;
            };
            now.insert(other, (peer.ip, peer.connection, peer.direction));
        }
        for other in 0..state.count {
            let before = state.held.get(&(node, other)).copied();
            let after = now.get(&other).copied();
            if before.map(|held| (held.ip, held.connection, held.direction)) == after {
                continue;
            }
            if let Some(before) = before {
                self.ended(&mut state, (node, other), before, after.is_some(), net);
            }
            match after {
                None => state.held.remove(&(node, other)),
                Some((ip, connection, direction)) => {
                    let (a, b) = (name(node), name(other));
                    self.journal
                        .event(format!("{a} - {b}: connected #{connection} {direction:?}"));
                    let held = Held {
                        ip,
                        connection,
                        direction,
                        since: Instant::now(),
                    };
                    state.held.insert((node, other), held)
                }
            };
        }
    }

    fn ended(
        &self,
        state: &mut State,
        (node, other): (usize, usize),
        before: Held,
        replaced: bool,
        net: &NetHandle,
    ) {
        let (a, b) = (name(node), name(other));
        let lasted = before.since.elapsed();
        if replaced && lasted <= TIE_BREAK {
            self.journal
                .event(format!("{a} - {b}: #{} gave way", before.connection));
            return;
        }
        let by_puppet = state.puppets.contains(&other);
        state.disconnects += usize::from(!by_puppet);
        let known = net.known_peers().into_iter();
        let why = known
            .filter(|known| state.nodes.get(&known.ip) == Some(&other))
            .find_map(|known| known.last_end);
        let why = why.map_or_else(String::new, |(_, _, why)| why);
        let text = format!(
            "{a} - {b}: #{} ended after {lasted:?}: {why}",
            before.connection
        );
        let injected = match state.faults.get(&pair(node, other)) {
            _ if by_puppet => true,
            None => false,
            Some(None) => true,
            Some(Some(end)) => end.elapsed() <= AFTERMATH,
        };
        if injected {
            self.journal.event(text);
        } else {
            self.journal
                .violation(format!("no fault was injected, but {text}"));
        }
    }
}

/// How reports name a node.
pub fn name(node: usize) -> String {
    format!("m{}", node + 1)
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
