//! Certificates and records that change while the network runs.

use std::sync::Mutex;
use std::sync::mpsc as blocking;

use super::raw::{Raw, hello};
use super::*;
use crate::env::{DurableFile, Offload};
use crate::wire::{CloseCode, KeepaliveMessage};

/// The record of a planned masternode, changed and signed again.
fn newer(plan: &Plan, seed: u8, change: impl FnOnce(&mut MasternodeRecord)) -> MasternodeRecord {
    let mut record = plan.records[usize::from(seed) - 1].clone();
    record.serial += 1;
    change(&mut record);
    record.signed(&consensus_key(seed), Network::Dev)
}

fn connections(node: &Node) -> Vec<(PeerIp, u64)> {
    let peers = node.net.peers().into_iter();
    peers.map(|peer| (peer.ip, peer.connection)).collect()
}

async fn install_on(nodes: &[&Node], plan: &Plan) {
    for node in nodes {
        node.net.install(plan.directory(), None).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_rotated_without_an_outage() {
    let mut plan = Plan::new(3, 0);
    let wire = sim::clean_wire();
    let nodes: Vec<Node> = (1..=3).map(|seed| sim::start(&plan, seed, &wire)).collect();
    let [low, middle, high] = &nodes[..] else {
        panic!("three nodes");
    };
    low.connected_to(&[middle.ip, high.ip]).await;
    middle.connected_to(&[low.ip, high.ip]).await;
    high.connected_to(&[low.ip, middle.ip]).await;
    let before: Vec<_> = nodes.iter().map(connections).collect();
    let (old, new) = (identity(3, high.ip), identity(33, high.ip));
    let (old_pin, new_pin) = (old.node_id(), new.node_id());

    // Both pins, on everyone; who has not installed it is known.
    plan.records[2] = newer(&plan, 3, |record| record.pins.push(new_pin));
    install_on(&[high, low], &plan).await;
    high.until("the word of the other about the record", |peers| {
        peers
            .iter()
            .map(|peer| peer.record_serial)
            .eq([Some(2), Some(1)])
    })
    .await;
    install_on(&[middle], &plan).await;
    high.until("the word of both about the record", |peers| {
        peers.iter().all(|peer| peer.record_serial == Some(2))
    })
    .await;

    // The swap, then a new connection: it shows the new certificate.
    high.net.install(plan.directory(), Some(new)).await.unwrap();
    assert_eq!(high.net.pin(), new_pin);
    assert_eq!(nodes.iter().map(connections).collect::<Vec<_>>(), before);
    let asked = CloseReason::new(CloseCode::Operator, "a test");
    low.net.disconnect(high.ip, asked).unwrap();
    low.until("the new key, and its word about the record", |peers| {
        let renewed = peers.iter().find(|peer| peer.node_id == new_pin);
        renewed.is_some_and(|peer| peer.record_serial == Some(1))
    })
    .await;
    assert_eq!(
        middle.info(high.ip).node_id,
        old_pin,
        "its connection goes on"
    );

    // The old pin goes: what was made with it ends, what was made with the new one does not.
    plan.records[2] = newer(&plan, 3, |record| record.pins = vec![new_pin]);
    let kept = connections(low);
    install_on(&[low, middle, high], &plan).await;
    middle
        .until("the new key", |peers| {
            peers.iter().any(|peer| peer.node_id == new_pin)
        })
        .await;
    assert_eq!(connections(low), kept);
    assert_eq!(connections(middle)[0], before[1][0]);
}

#[tokio::test(start_paused = true)]
async fn older_records_put_back_are_refused_and_change_nothing() {
    let mut plan = Plan::new(2, 0);
    let wire = sim::clean_wire();
    let (low, high) = (sim::start(&plan, 1, &wire), sim::start(&plan, 2, &wire));
    low.connected_to(&[high.ip]).await;
    let old = plan.directory();
    plan.records[1] = newer(&plan, 2, |record| record.port = record.port.wrapping_add(1));
    install_on(&[&low], &plan).await;
    let before = connections(&low);
    let refused = low.net.install(old, None).await.unwrap_err().to_string();
    assert!(
        refused.contains("serial 1") && refused.contains("serial 2"),
        "{refused}"
    );
    assert_eq!(*low.net.directory(), plan.directory());
    assert_eq!(connections(&low), before);
}

#[tokio::test(start_paused = true)]
async fn a_masternode_that_moves_is_followed_to_its_new_address_only() {
    let mut plan = Plan::new(2, 0);
    let wire = sim::clean_wire();
    let (low, high) = (sim::start(&plan, 1, &wire), sim::start(&plan, 2, &wire));
    low.connected_to(&[high.ip]).await;
    let old_ip = high.ip;
    let new_address = fresh_ip().with_port(24_200);
    plan.records[1] = newer(&plan, 2, |record| {
        (record.ip, record.port) = (new_address.into(), new_address.port());
    });
    let before = connections(&low);
    install_on(&[&low], &plan).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(connections(&low), before, "the machine has not moved yet");

    // It stops at the old address and starts at the new one, with the same key.
    high.stop().await;
    plan.addresses[1] = new_address;
    let high = sim::start_as(&plan, 2, plan.config(2), identity(2, old_ip), &wire);
    low.connected_to(&[high.ip]).await;
    assert_eq!(low.info(high.ip).masternode, Some(1));
    let known = low.net.known_peers();
    let old = known.iter().find(|one| one.ip == old_ip).unwrap();
    assert!(old.explanation.starts_with("not dialed"), "{old:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_node_whose_record_is_installed_becomes_a_masternode_at_once() {
    let plan = Plan::new(2, 0);
    let wire = sim::clean_wire();
    let mut unknown = Plan::new(0, 0);
    (unknown.genesis, unknown.addresses) = (plan.genesis.clone(), plan.addresses.clone());
    unknown.records = vec![plan.records[0].clone()];
    let low = sim::start_as(&unknown, 1, plan.config(1), identity(1, plan.ip(1)), &wire);
    let high = sim::start(&plan, 2, &wire);
    low.connected_to(&[high.ip]).await;
    assert_eq!(low.info(high.ip).masternode, None);
    high.until("word that there is no record", |peers| {
        peers.iter().all(|peer| peer.record_serial == Some(0))
    })
    .await;
    install_on(&[&low], &plan).await;
    low.until("a masternode", |peers| {
        peers.iter().any(|peer| peer.masternode == Some(1))
    })
    .await;
}

/// A full node behind the public address of a masternode takes that masternode's new record too.
#[tokio::test(start_paused = true)]
async fn a_full_node_behind_a_masternodes_address_follows_its_record() {
    let mut plan = Plan::new(1, 1);
    let wire = sim::clean_wire();
    let mut config = plan.config(2);
    config.own_ip = Some(plan.ip(1));
    let full = sim::start_with(&plan, 2, config, &wire);
    let moved = plan.address(1).port().wrapping_add(1);
    plan.records[0] = newer(&plan, 1, |record| record.port = moved);
    plan.addresses[0].set_port(moved);
    install_on(&[&full], &plan).await;
    let masternode = sim::start(&plan, 1, &wire);
    full.connected_to(&[masternode.ip]).await;
    assert_eq!(full.info(masternode.ip).masternode, Some(0));
}

/// The records without that of one masternode.
fn without(plan: &Plan, seed: u8) -> MasternodeDirectory {
    let mut records = plan.records.clone();
    records.remove(usize::from(seed) - 1);
    MasternodeDirectory::new(&plan.genesis, records).unwrap()
}

#[tokio::test]
async fn a_handshake_that_began_before_other_records_is_closed_and_made_anew() {
    let plan = Plan::new(2, 0);
    let own = identity(1, plan.ip(1));
    let node = plan.start_as(1, plan.config(1), own, without(&plan, 2));
    let mut raw = Raw::meet(Raw::connect(&plan, 2, 1).await).await;
    install_on(&[&node], &plan).await;
    let ours = KeepaliveMessage::Hello(hello(&plan, 2, node.ip));
    raw.say(&ours).await;
    let told = raw.closed().await;
    assert_eq!(told.code, CloseCode::Operator, "{told}");
    assert!(told.detail.contains("during the handshake"), "{told}");
    drop(raw);
    plan.freed(2).await;
    let other = plan.start(2);
    node.connected_to(&[other.ip]).await;
    assert_eq!(node.info(other.ip).masternode, Some(1));
}

/// Whichever side installs the record, and wherever the handshake is at that time.
#[tokio::test(start_paused = true)]
async fn a_record_installed_during_a_handshake_leads_to_a_pinned_connection_soon() {
    for knows_later in [1, 2] {
        let mut straddled = 0;
        for at_ms in (5..125).step_by(10) {
            let mut plan = Plan::new(2, 0);
            plan.timing.dial_grace = Duration::ZERO;
            let wire = sim::clean_wire();
            let directory = without(&plan, 3 - knows_later);
            let later = sim::start_knowing(&plan, knows_later, directory, &wire);
            let other = sim::start(&plan, 3 - knows_later, &wire);
            tokio::time::sleep(Duration::from_millis(at_ms)).await;
            install_on(&[&later], &plan).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            for (here, there) in [(&later, &other), (&other, &later)] {
                let index = plan
                    .addresses
                    .iter()
                    .position(|one| there.ip == (*one).into());
                assert_eq!(here.info(there.ip).masternode, index, "{at_ms} ms");
                assert_eq!(here.info(there.ip).record_serial, Some(1), "{at_ms} ms");
            }
            let refused = later.net.refused().into_iter();
            straddled += refused
                .filter(|one| one.3.detail.contains("during the handshake"))
                .count();
        }
        assert!(straddled > 0, "no handshake was refused");
    }
}

/// A file whose writes wait until they are let through.
struct SlowFile {
    begun: blocking::Sender<()>,
    go: Mutex<blocking::Receiver<()>>,
}

impl DurableFile for SlowFile {
    fn load(&self) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn replace(&self, content: &[u8]) -> std::io::Result<()> {
        if content.windows(9).any(|part| part == b"first_use") && !is_header_only(content) {
            self.begun.send(()).unwrap();
            self.go.lock().unwrap().recv().unwrap();
        }
        Ok(())
    }

    fn name(&self) -> String {
        "a slow file".into()
    }
}

/// The comment at the top names first-use pins too.
fn is_header_only(content: &[u8]) -> bool {
    let text = std::str::from_utf8(content).unwrap();
    !text.contains("\n[[first_use]]")
}

#[tokio::test]
async fn a_slow_disk_holds_back_the_first_contact_and_nobody_else() {
    let plan = Plan::new(2, 1);
    let (begun, has_begun) = blocking::channel();
    let (go, may_go) = blocking::channel();
    let mut config = plan.config(1);
    config.configured_peers = vec![plan.address(3)];
    let runtime = Arc::new(TokioRuntime);
    let environment = NetEnvironment {
        socket: bind_udp(plan.address(1), &*runtime as &dyn Runtime).unwrap(),
        runtime,
        clock: Arc::new(SystemClock),
        entropy: Entropy::from_seed([1; 32]),
        pins: Arc::new(SlowFile {
            begun,
            go: Mutex::new(may_go),
        }),
        offload: Offload::Threads,
    };
    let own = identity(1, plan.ip(1));
    let node = Node::start(plan.ip(1), config, own, plan.directory(), environment);
    let full = plan.start(3);
    Offload::Threads
        .run(move || has_begun.recv().unwrap())
        .await;
    // The write hangs; a masternode connects all the same.
    let masternode = plan.start(2);
    node.connected_to(&[masternode.ip]).await;
    go.send(()).unwrap();
    node.connected_to(&[masternode.ip, full.ip]).await;
}
