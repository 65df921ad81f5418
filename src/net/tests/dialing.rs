//! Who dials, which connection stays, how it comes back.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::*;
use crate::wire::{CloseCode, TransactionsMessage};

#[tokio::test]
async fn two_masternodes_connect_once_and_the_higher_address_dials() {
    let mut plan = Plan::new(2, 0);
    // No further dial may hide the reason of the disconnect.
    plan.timing.backoff_start = 1_000 * PATIENCE;
    plan.timing.backoff_limit = 1_000 * PATIENCE;
    let (low, high) = (plan.start(1), plan.start(2));
    let at_low = low.connected_to(&[high.ip]).await;
    let at_high = high.connected_to(&[low.ip]).await;
    assert_eq!(at_low[0].direction, Direction::Inbound);
    assert_eq!(at_high[0].direction, Direction::Outbound);
    assert_eq!(at_low[0].masternode, Some(1));
    assert_eq!(at_high[0].name.as_deref(), Some("m1"));
    assert_eq!((at_low[0].reconnects, at_high[0].reconnects), (0, 0));
    assert_eq!(at_high[0].observed_us_as, high.ip);
    low.stop().await;
    high.until("disconnected", |peers| peers.is_empty()).await;
    let known = &high.net.known_peers()[0];
    let (_, direction, reason) = known.last_end.as_ref().unwrap();
    assert_eq!(*direction, Direction::Outbound);
    assert!(reason.contains("shutting_down"), "{reason}");
    high.stop().await;
}

#[tokio::test]
async fn the_lower_address_dials_after_the_grace_period_when_it_is_not_dialed() {
    let plan = Plan::new(2, 0);
    // The higher one has no record of the lower, so it does not know whom to dial.
    let alone = MasternodeDirectory::new(&plan.genesis, plan.records[1..].to_vec()).unwrap();
    let high = plan.start_as(2, plan.config(2), identity(2, plan.ip(2)), alone);
    let low = plan.start(1);
    let peers = low.connected_to(&[high.ip]).await;
    assert_eq!(peers[0].direction, Direction::Outbound);
    let peers = high.connected_to(&[low.ip]).await;
    assert_eq!(peers[0].masternode, None, "no record: unpinned");
}

#[tokio::test]
async fn a_full_node_never_waits_to_be_dialed() {
    let mut plan = Plan::new(1, 1);
    plan.addresses.reverse();
    plan.records = vec![record(
        1,
        plan.address(1),
        identity(1, plan.ip(1)).node_id(),
    )];
    plan.timing.dial_grace = Duration::from_secs(600);
    let (masternode, full) = (plan.start(1), plan.start(2));
    assert!(full.ip < masternode.ip);
    full.connected_to(&[masternode.ip]).await;
}

/// The old network's "both dial" made duplicates that overwrote each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_dials_at_once_leave_exactly_one_connection_on_both_sides_100_times() {
    let mut plan = Plan::new(2, 0);
    plan.timing.dial_grace = Duration::ZERO;
    plan.timing.backoff_start = Duration::from_millis(2);
    plan.timing.backoff_limit = Duration::from_millis(4);
    plan.timing.backoff_reset = Duration::ZERO;
    let (mut low, mut high) = (plan.start(1), plan.start(2));
    let mut before = (0, 0);
    for _ in 0..100 {
        let agreed = async {
            loop {
                let ends = (low.net.peers(), high.net.peers());
                let answered = |peers: &[PeerInfo], before: u64| match peers {
                    [peer] => peer.connection != before && peer.pongs_received > 0,
                    _ => false,
                };
                if answered(&ends.0, before.0)
                    && answered(&ends.1, before.1)
                    && ends.0[0].direction != ends.1[0].direction
                {
                    return (ends.0[0].connection, ends.1[0].connection);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        before = match tokio::time::timeout(PATIENCE, agreed).await {
            Ok(connections) => connections,
            Err(_) => panic!("{:#?} {:#?}", low.net.peers(), high.net.peers()),
        };
        while low.transactions.try_recv().is_ok() || low.consensus.try_recv().is_ok() {}
        while high.transactions.try_recv().is_ok() || high.consensus.try_recv().is_ok() {}
        let again = CloseReason::new(CloseCode::Operator, "once more");
        low.net.disconnect(high.ip, again).unwrap();
    }
}

#[tokio::test]
async fn events_of_a_peer_come_as_connected_and_disconnected_in_turn() {
    let mut plan = Plan::new(2, 0);
    plan.timing.backoff_start = Duration::from_millis(2);
    let (mut low, high) = (plan.start(1), plan.start(2));
    for _ in 0..3 {
        let event = low.transactions.recv().await.unwrap();
        assert!(
            matches!(event, TransactionsEvent::Connected { peer } if peer == high.ip),
            "{event:?}"
        );
        low.connected_to(&[high.ip]).await;
        let again = CloseReason::new(CloseCode::Operator, "once more");
        low.net.disconnect(high.ip, again).unwrap();
        let event = low.transactions.recv().await.unwrap();
        assert!(
            matches!(event, TransactionsEvent::Disconnected { peer } if peer == high.ip),
            "{event:?}"
        );
    }
}

/// A consumer that is behind hears of a connection's end before it hears of a later connection, also
/// when there was one between them that it never heard of.
#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_heard_of_leaves_the_order_of_events_as_it_is() {
    let plan = Plan::new(2, 0);
    let wire = sim::clean_wire();
    let (mut low, high) = (sim::start(&plan, 1, &wire), sim::start(&plan, 2, &wire));
    low.connected_to(&[high.ip]).await;
    high.connected_to(&[low.ip]).await;
    // More messages than the mempool's channel takes.
    for _ in 0..low.transactions.max_capacity() + 10 {
        let message = TransactionsMessage::Announce(Vec::new());
        high.net.send_transactions(low.ip, message).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..2 {
        let last = low.info(high.ip).connection;
        let again = CloseReason::new(CloseCode::Operator, "once more");
        low.net.disconnect(high.ip, again).unwrap();
        low.until("another connection", |peers| {
            peers.first().is_some_and(|peer| peer.connection > last)
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut heard = Vec::new();
    let quiet = Duration::from_secs(5);
    while let Ok(Some(event)) = tokio::time::timeout(quiet, low.transactions.recv()).await {
        match event {
            TransactionsEvent::Connected { .. } => heard.push("connected"),
            TransactionsEvent::Disconnected { .. } => heard.push("disconnected"),
            TransactionsEvent::Message { .. } => {}
        }
    }
    assert_eq!(heard, ["connected", "disconnected", "connected"]);
}

/// The old network stored writers under a bare IP and looked them up under "IP:PORT".
#[tokio::test]
async fn a_port_is_no_part_of_a_peers_key() {
    let plan = Plan::new(2, 0);
    let mut config = plan.config(2);
    config.listen_port = 1;
    let (mut low, high) = (plan.start(1), plan.start_with(2, config));
    let peers = low.connected_to(&[high.ip]).await;
    assert_eq!(peers[0].listen_port, 1);
    high.connected_to(&[low.ip]).await;
    let message = TransactionsMessage::Announce(Vec::new());
    high.net.send_transactions(low.ip, message.clone()).unwrap();
    low.net.send_transactions(high.ip, message.clone()).unwrap();
    low.transactions.recv().await.unwrap();
    let event = low.transactions.recv().await.unwrap();
    let TransactionsEvent::Message { peer, message: got } = event else {
        panic!("{event:?}")
    };
    assert_eq!((peer, got), (high.ip, message));
}

#[tokio::test]
async fn an_unknown_peer_is_an_error_that_lists_the_known_addresses() {
    let plan = Plan::new(3, 0);
    let nodes = [plan.start(1), plan.start(2), plan.start(3)];
    nodes[0].connected_to(&[nodes[1].ip, nodes[2].ip]).await;
    let stranger: PeerIp = "10.9.8.7".parse().unwrap();
    let error = (nodes[0].net)
        .send_transactions(stranger, TransactionsMessage::Announce(Vec::new()))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "peer 10.9.8.7 is not connected; connected peers: {}, {}",
            nodes[1].ip, nodes[2].ip
        )
    );
}

/// A socket that can go dead, as a machine does.
struct Mortal {
    inner: Arc<dyn AsyncUdpSocket>,
    dead: Arc<AtomicBool>,
}

impl fmt::Debug for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl AsyncUdpSocket for Mortal {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        if self.dead.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }
}

/// Starts a node whose process can be killed; `process` tells its starts apart.
async fn start_mortal(
    plan: &Plan,
    seed: u8,
    process: u8,
    config: NetConfig,
) -> (Node, Arc<AtomicBool>) {
    let runtime = Arc::new(TokioRuntime);
    plan.freed(seed).await;
    let inner = bind_udp(plan.address(seed), &*runtime as &dyn Runtime).unwrap();
    let dead = Arc::new(AtomicBool::new(false));
    let environment = NetEnvironment {
        socket: Arc::new(Mortal {
            inner,
            dead: dead.clone(),
        }),
        runtime,
        clock: Arc::new(SystemClock),
        entropy: Entropy::from_seed([seed * 16 + process; 32]),
        pins: Arc::new(FileInMemory::default()),
        offload: crate::env::Offload::Inline,
    };
    let ip = plan.ip(seed);
    let node = Node::start(
        ip,
        config,
        identity(seed, ip),
        plan.directory(),
        environment,
    );
    (node, dead)
}

async fn kill(node: Node, dead: Arc<AtomicBool>) {
    dead.store(true, Ordering::SeqCst);
    node.task.abort();
    assert!(node.task.await.unwrap_err().is_cancelled());
}

/// Kills and restarts one of two nodes; the idle timeout is far away.
async fn restart(seed: u8, other: u8, change: impl FnOnce(&mut NetConfig)) -> (Node, Node, Plan) {
    let mut plan = Plan::new(2, 0);
    plan.timing.idle_timeout = Duration::from_secs(600);
    plan.timing.ping_interval = Duration::from_millis(100);
    let survivor = plan.start(other);
    let (node, dead) = start_mortal(&plan, seed, 1, plan.config(seed)).await;
    survivor.connected_to(&[node.ip]).await;
    node.connected_to(&[survivor.ip]).await;
    kill(node, dead).await;
    let mut config = plan.config(seed);
    change(&mut config);
    let (node, _) = start_mortal(&plan, seed, 2, config).await;
    (node, survivor, plan)
}

#[tokio::test]
async fn a_restarted_peer_with_the_lower_address_is_regained_without_the_idle_timeout() {
    let mut plan_address = None;
    let (node, survivor, _plan) = restart(1, 2, |config| {
        plan_address = config.own_ip;
        config.timing.dial_grace = Duration::from_secs(600);
    })
    .await;
    // It would wait ten minutes to be dialed; the stateless reset tells the survivor at once.
    node.connected_to(&[survivor.ip]).await;
    let peers = survivor
        .until("reconnected", |peers| {
            peers.first().is_some_and(|peer| peer.reconnects == 1)
        })
        .await;
    assert_eq!(peers[0].ip, plan_address.unwrap());
}

#[tokio::test]
async fn a_restarted_peer_with_the_higher_address_is_regained_without_the_idle_timeout() {
    let (node, survivor, _plan) = restart(2, 1, |_| {}).await;
    node.connected_to(&[survivor.ip]).await;
    survivor
        .until("reconnected", |peers| {
            peers.first().is_some_and(|peer| peer.reconnects == 1)
        })
        .await;
}

#[tokio::test]
async fn a_restarted_peer_dials_the_peers_of_its_earlier_run_at_once() {
    let mut plan = Plan::new(2, 0);
    plan.timing.idle_timeout = Duration::from_secs(600);
    plan.timing.dial_grace = Duration::from_secs(600);
    // No ping that could meet a stateless reset: only the instance number tells.
    plan.timing.ping_interval = Duration::from_secs(600);
    plan.timing.quic_keepalive = Duration::from_secs(200);
    plan.timing.silence_limit = Duration::from_secs(3600);
    let survivor = plan.start(2);
    let (node, dead) = start_mortal(&plan, 1, 1, plan.config(1)).await;
    survivor.connected_to(&[node.ip]).await;
    node.connected_to(&[survivor.ip]).await;
    kill(node, dead).await;
    let mut config = plan.config(1);
    config.earlier_peers = vec![plan.address(2)];
    let (node, _) = start_mortal(&plan, 1, 2, config).await;
    let peers = node.connected_to(&[survivor.ip]).await;
    assert_eq!(peers[0].direction, Direction::Outbound);
    survivor
        .until("reconnected", |peers| {
            peers
                .first()
                .is_some_and(|peer| peer.reconnects == 1 && peer.direction == Direction::Inbound)
        })
        .await;
}

/// A record names two pins while a key is being replaced. The process with the old key may have
/// gone without a word.
#[tokio::test]
async fn the_other_pin_of_a_masternode_takes_its_slot() {
    let mut plan = Plan::new(2, 0);
    let new_key = identity(77, plan.ip(2));
    let pin = new_key.node_id();
    plan.records[1].pins.push(pin);
    plan.records[1] = plan.records[1]
        .clone()
        .signed(&consensus_key(2), Network::Dev);
    let node = plan.start(1);
    let old = super::raw::Raw::dial(&plan, 2, 1).await;
    node.connected_to(&[plan.ip(2)]).await;
    plan.addresses[1] = plan.ip(2).with_port(0);
    let restarted = plan.start_as(2, plan.config(2), new_key, plan.directory());
    assert_eq!(old.closed().await.code, CloseCode::NewerInstance);
    restarted.connected_to(&[node.ip]).await;
    assert_eq!(node.info(plan.ip(2)).node_id, pin);
    assert!(restarted.net.refused().is_empty());
}

/// Strangers who fill all slots must not keep a node from the peers that its operator chose.
#[tokio::test(start_paused = true)]
async fn a_configured_peer_needs_no_slot_for_strangers() {
    let plan = Plan::new(1, 2);
    let wire = sim::clean_wire();
    let mut config = plan.config(1);
    config.max_unpinned = 1;
    config.configured_peers = vec![plan.address(3)];
    let node = sim::start_with(&plan, 1, config, &wire);
    let stranger = sim::start(&plan, 2, &wire);
    stranger.connected_to(&[node.ip]).await;
    node.connected_to(&[stranger.ip]).await;
    let chosen = sim::start(&plan, 3, &wire);
    node.connected_to(&[stranger.ip, chosen.ip]).await;
}

/// Who dials whom says nothing about whom the operator chose.
#[tokio::test(start_paused = true)]
async fn a_configured_peer_that_dials_needs_no_slot_for_strangers_and_keeps_its_own() {
    let mut plan = Plan::new(1, 2);
    plan.timing.backoff_limit = Duration::from_secs(30);
    let wire = sim::clean_wire();
    let mut config = plan.config(1);
    // Nobody answers there, so the chosen peer is the one that dials.
    config.configured_peers = vec![plan.ip(2).with_port(1)];
    config.max_unpinned = 0;
    let node = sim::start_with(&plan, 1, config, &wire);
    let (chosen, stranger) = (sim::start(&plan, 2, &wire), sim::start(&plan, 3, &wire));
    assert_eq!(stranger.refused_with(node.ip).await.code, CloseCode::Full);
    let peers = node.connected_to(&[chosen.ip]).await;
    assert_eq!(peers[0].direction, Direction::Inbound);
    // Longer than a peer without progress may stay when others want its slot.
    tokio::time::sleep(Duration::from_secs(1_500)).await;
    assert_eq!(node.info(chosen.ip).connection, peers[0].connection);
}

/// Else each restart would add the strangers of the run before to those that come.
#[tokio::test(start_paused = true)]
async fn strangers_of_an_earlier_run_count_among_the_strangers() {
    let mut plan = Plan::new(0, 4);
    for (at, address) in plan.addresses.iter_mut().enumerate() {
        // Each in a network of its own, which has half of the slots.
        *address = SocketAddr::from(([10, 0, at as u8, 1], 24_200));
    }
    let wire = sim::clean_wire();
    let mut config = plan.config(1);
    config.max_unpinned = 2;
    config.earlier_peers = vec![plan.address(2), plan.address(3), plan.address(4)];
    let others: Vec<Node> = (2..=4).map(|seed| sim::start(&plan, seed, &wire)).collect();
    let node = sim::start_with(&plan, 1, config, &wire);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(node.net.peers().len(), 2);
    assert_eq!(node.net.refused(), [], "the third is dropped quietly");
    let connected = others.iter().filter(|one| !one.net.peers().is_empty());
    assert_eq!(connected.count(), 2);

    // One that dials meets the same bound, and a slot that becomes free is for whoever comes.
    let mut config = plan.config(4);
    config.configured_peers = vec![plan.address(1)];
    let [kept, leaving, _surplus] = others.try_into().ok().unwrap();
    let newcomer = sim::start_with(&plan, 4, config, &wire);
    assert_eq!(newcomer.refused_with(node.ip).await.code, CloseCode::Full);
    leaving.stop().await;
    node.connected_to(&[kept.ip, newcomer.ip]).await;
}

/// Peers without a record that had connected in an earlier run are not dialed for ever.
#[tokio::test(start_paused = true)]
async fn an_earlier_peer_that_is_gone_is_given_up_and_a_configured_one_is_not() {
    let plan = Plan::new(1, 2);
    let wire = sim::clean_wire();
    let mut config = plan.config(1);
    config.timing.handshake_timeout = Duration::from_secs(1);
    config.earlier_peers = vec![plan.address(2)];
    config.configured_peers = vec![plan.address(3)];
    let node = sim::start_with(&plan, 1, config, &wire);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let known = node.net.known_peers();
    let of = |seed| known.iter().find(|one| one.ip == plan.ip(seed)).unwrap();
    assert!(of(2).explanation.starts_with("not dialed"), "{:?}", of(2));
    assert!(of(2).last_refusal.is_some() && of(2).last_end.is_none());
    assert!(of(3).failures > 100, "{:?}", of(3));
}

/// The reason of the last disconnect stays beside that of later failures to connect.
#[tokio::test(start_paused = true)]
async fn a_refusal_does_not_hide_why_the_last_connection_ended() {
    let plan = Plan::new(2, 0);
    let wire = sim::clean_wire();
    let node = sim::start(&plan, 1, &wire);
    let other = sim::start(&plan, 2, &wire);
    node.connected_to(&[other.ip]).await;
    other.stop().await;
    node.connected_to(&[]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let known = node.net.known_peers();
    let (_, _, ended) = known[0].last_end.clone().unwrap();
    let (_, _, refused) = known[0].last_refusal.clone().unwrap();
    assert!(ended.contains("shutting_down"), "{ended}");
    assert!(refused.contains("handshake_timeout"), "{refused}");
}
