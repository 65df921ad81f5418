//! A network in memory under virtual time: hours pass in seconds.

use std::sync::Mutex;

use tokio::time::Instant;

use super::wire::{Link, Sent, Wire};
use super::*;
use crate::env::WallClock;

/// The time of day, moving with virtual time.
struct VirtualClock(Instant);

impl WallClock for VirtualClock {
    fn now_ms(&self) -> u64 {
        1_795_000_000_000 + self.0.elapsed().as_millis() as u64
    }
}

/// A wire on which nothing goes wrong.
pub(super) fn clean_wire() -> Arc<Wire> {
    Wire::start(Link::CLEAN, Entropy::from_seed([0; 32]), |_| {})
}

/// Starts a planned node on a wire.
pub(super) fn start(plan: &Plan, seed: u8, wire: &Arc<Wire>) -> Node {
    start_with(plan, seed, plan.config(seed), wire)
}

pub(super) fn start_with(plan: &Plan, seed: u8, config: NetConfig, wire: &Arc<Wire>) -> Node {
    let own = identity(seed, plan.ip(seed));
    start_as(plan, seed, config, own, wire)
}

pub(super) fn start_as(
    plan: &Plan,
    seed: u8,
    config: NetConfig,
    own: Identity,
    wire: &Arc<Wire>,
) -> Node {
    let environment = environment(plan, seed, wire);
    Node::start(plan.ip(seed), config, own, plan.directory(), environment)
}

/// Starts a planned node that holds other records.
pub(super) fn start_knowing(
    plan: &Plan,
    seed: u8,
    directory: MasternodeDirectory,
    wire: &Arc<Wire>,
) -> Node {
    let ip = plan.ip(seed);
    let environment = environment(plan, seed, wire);
    Node::start(
        ip,
        plan.config(seed),
        identity(seed, ip),
        directory,
        environment,
    )
}

fn environment(plan: &Plan, seed: u8, wire: &Arc<Wire>) -> NetEnvironment {
    NetEnvironment {
        socket: wire.socket(plan.address(seed)),
        runtime: Arc::new(TokioRuntime),
        clock: Arc::new(VirtualClock(Instant::now())),
        entropy: Entropy::from_seed([seed; 32]),
        pins: Arc::new(FileInMemory::default()),
        offload: crate::env::Offload::Inline,
    }
}

/// Runs a mesh of masternodes with a lossy wire and a partition. Gives the wire's trace and who was
/// connected to whom at the end, with the direction.
fn run_mesh(plan: &Plan, seed: u64) -> (blake3::Hash, Vec<Vec<(PeerIp, Direction)>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let trace = Arc::new(Mutex::new(blake3::Hasher::new()));
        let (notes, started) = (trace.clone(), Instant::now());
        let note = move |sent: Sent| {
            let note = format!("{:?} {sent:?}", started.elapsed());
            notes.lock().unwrap().update(note.as_bytes());
        };
        let lossy = Link {
            loss: 50,
            ..Link::CLEAN
        };
        let wire = Wire::start(lossy, Entropy::from_seed([seed as u8; 32]), note);
        let count = plan.addresses.len() as u8;
        let nodes: Vec<Node> = (1..=count).map(|seed| start(plan, seed, &wire)).collect();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let rest: Vec<_> = (2..count).map(|seed| plan.address(seed)).collect();
        wire.part(&[plan.address(1), plan.address(count)], &rest);
        tokio::time::sleep(Duration::from_secs(300)).await;
        wire.heal();
        tokio::time::sleep(Duration::from_secs(180)).await;
        let connected = |node: &Node| {
            let peers = node.net.peers().into_iter();
            peers.map(|peer| (peer.ip, peer.direction)).collect()
        };
        let trace = trace.lock().unwrap().finalize();
        (trace, nodes.iter().map(connected).collect())
    })
}

#[test]
fn a_mesh_heals_after_a_partition_with_one_connection_per_pair() {
    let mut plan = Plan::new(6, 0);
    plan.timing = NetTiming::RECOMMENDED;
    let (_, ends) = run_mesh(&plan, 1);
    for (at, peers) in ends.iter().enumerate() {
        let others = (plan.addresses.iter().enumerate()).filter(|(other, _)| *other != at);
        let expected: Vec<PeerIp> = others.map(|(_, address)| PeerIp::from(*address)).collect();
        let got: Vec<PeerIp> = peers.iter().map(|(ip, _)| *ip).collect();
        assert_eq!(got, expected);
        for (ip, direction) in peers {
            let other = expected_position(&plan, *ip);
            let back = &ends[other][if other < at { at - 1 } else { at }];
            assert_ne!(
                *direction, back.1,
                "the two ends hold different connections"
            );
        }
    }
}

fn expected_position(plan: &Plan, ip: PeerIp) -> usize {
    let mut addresses = plan.addresses.iter();
    addresses
        .position(|address| PeerIp::from(*address) == ip)
        .unwrap()
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let mut plan = Plan::new(3, 0);
    plan.timing = NetTiming::RECOMMENDED;
    let (first, _) = run_mesh(&plan, 7);
    assert_eq!(run_mesh(&plan, 7).0, first);
    assert_ne!(run_mesh(&plan, 8).0, first);
}
