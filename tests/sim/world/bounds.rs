//! What is looked at in every running node while a story runs: what it shows of itself is true, and
//! within the bounds that are documented.

use tokio::time::Instant;

use super::*;

/// How long two nodes that reach each other may be apart: what is left of a handshake that began
/// before they could (10 s), the longest back-off (60 s), and a handshake under losses.
const RECONNECT_LIMIT: Duration = Duration::from_secs(90);

/// The bounds of `docs/protocol.md` and of the module that has each.
const PINGS_OUTSTANDING: u64 = 16;
const BULK_BYTES: u64 = 20 << 20;
const REFUSALS_SHOWN: usize = 100;
const POOL_TRANSACTIONS: usize = 10_000;
const POOL_BYTES: usize = 100_000_000;
const ORPHANS: usize = 100;

impl World {
    /// Two nodes that run and reach each other are connected within the longest back-off.
    pub(super) fn look_for_late_reconnects(&mut self) {
        let now = Instant::now();
        let mut apart = BTreeMap::new();
        for (a, b) in self.pairs() {
            let connected = self.checker.held(a, b).is_some() && self.checker.held(b, a).is_some();
            let excused = self.bad.contains(&(a, b)) || self.key_in_two_places();
            if connected || excused || !self.belong_together(a, b) {
                continue;
            }
            let mut since = self.apart.get(&(a, b)).copied().unwrap_or(now);
            if now - since > RECONNECT_LIMIT {
                let text = format!(
                    "{} and {} have been apart since {:?}",
                    name(a),
                    name(b),
                    now - since
                );
                self.journal.violation(text);
                since = now;
            }
            apart.insert((a, b), since);
        }
        self.apart = apart;
    }

    /// Every running node shows the peers that it has, and keeps its bounds. What is wrong for a
    /// moment only is not: the observer may not have heard yet of what has just happened.
    pub(super) async fn look_at_bounds(&mut self) {
        let before = std::mem::take(&mut self.suspected);
        for node in self.running_nodes() {
            if let Some(wrong) = self.shown_wrongly(node) {
                if before.contains(&wrong) {
                    self.journal.violation(&wrong);
                }
                self.suspected.insert(wrong);
            }
            for excess in self.excesses(node).await {
                self.journal.violation(format!("{}: {excess}", name(node)));
            }
        }
    }

    fn shown_wrongly(&self, node: usize) -> Option<String> {
        let net = self.node(node).net();
        let shown = net.tips().into_iter().map(|(ip, id, _)| (ip, id)).collect();
        self.checker.wrongly_shown(node, &shown)
    }

    async fn excesses(&self, node: usize) -> Vec<String> {
        let mut excesses = Vec::new();
        let mut bound = |what: &str, value: u64, limit: u64| {
            if value > limit {
                excesses.push(format!("{value} {what}, of at most {limit}"));
            }
        };
        let (net, mempool) = (self.node(node).net(), self.node(node).mempool());
        for peer in net.peers() {
            let outstanding = peer.pings_sent.saturating_sub(peer.pongs_received);
            bound("pings outstanding", outstanding, PINGS_OUTSTANDING);
            bound("bulk bytes unconfirmed", peer.bulk_unconfirmed, BULK_BYTES);
        }
        let refused = net.refused().len();
        bound("refusals", refused as u64, REFUSALS_SHOWN as u64);
        let stats = mempool.stats().await;
        bound(
            "transactions wait",
            stats.transactions as u64,
            POOL_TRANSACTIONS as u64,
        );
        bound(
            "bytes of transactions wait",
            stats.bytes as u64,
            POOL_BYTES as u64,
        );
        bound("orphans", stats.orphans as u64, ORPHANS as u64);
        excesses
    }

    fn running_nodes(&self) -> Vec<usize> {
        let runs = |node: &usize| self.machines[*node].running.is_some();
        self.all().into_iter().filter(runs).collect()
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.machines.len();
        (0..count).flat_map(move |a| (a + 1..count).map(move |b| (a, b)))
    }
}
