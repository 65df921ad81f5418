//! A sync over real connections: two nodes on loopback, from handshake to the same tip.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::chain::testing::TestNet;
use crate::env::Offload;
use crate::net::{
    Identity, Inbound, NetConfig, NetEnvironment, NetHandle, NetTiming, TransactionsEvent,
};
use crate::sync::{self, SyncParts, SyncStatus};
use crate::types::{Height, MasternodeDirectory};
use crate::wire::Role;

/// A full node: network, chain and sync.
struct FullNode {
    chain: Chain,
    net: NetHandle,
    status: watch::Receiver<SyncStatus>,
    tasks: JoinSet<()>,
    cancel: CancellationToken,
    _transactions: mpsc::Receiver<TransactionsEvent>,
}

impl FullNode {
    fn start(test: &TestNet, chain: Chain, own: SocketAddr, peers: Vec<SocketAddr>) -> Self {
        let ip = own.ip().into();
        let environment = NetEnvironment::for_test(own).unwrap();
        let config = NetConfig {
            network: test.genesis.network,
            genesis: test.genesis_hash,
            role: Role::Full,
            own_masternode: None,
            own_ip: Some(ip),
            listen_port: own.port(),
            configured_peers: peers,
            earlier_peers: Vec::new(),
            bans: Vec::new(),
            accept_unpinned: true,
            max_unpinned: 8,
            agent: "timed/test".into(),
            timing: NetTiming::RECOMMENDED,
        };
        let secret = *blake3::hash(own.to_string().as_bytes()).as_bytes();
        let identity = Identity::create(&secret, ip, "node", 1_795_000_000_000).unwrap();
        let directory = MasternodeDirectory::new(&test.genesis, []).unwrap();
        let (transactions, transactions_out) = mpsc::channel(16);
        let (requests, serve) = mpsc::channel(16);
        let inbound = Inbound {
            consensus: None,
            transactions,
            sync: requests,
        };
        let cancel = CancellationToken::new();
        let tip = chain.watch_tip();
        let stop = cancel.clone();
        let (net, network) =
            crate::net::start(config, identity, directory, environment, inbound, tip, stop)
                .unwrap();
        let parts = SyncParts {
            chain: chain.clone(),
            net: net.clone(),
            serve,
            masternode: false,
            offload: Offload::Threads,
        };
        let (handle, syncing) = sync::start(parts, cancel.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async { network.await.unwrap() });
        tasks.spawn(async { syncing.await.unwrap() });
        Self {
            chain,
            net,
            status: handle.watch_status(),
            tasks,
            cancel,
            _transactions: transactions_out,
        }
    }

    async fn reaches(&self, height: u64) {
        let mut tip = self.chain.watch_tip();
        let reached = tip.wait_for(|tip| tip.height >= Height(height));
        let waited = tokio::time::timeout(Duration::from_secs(60), reached).await;
        let context = || (self.net.known_peers(), self.status.borrow().clone());
        waited
            .unwrap_or_else(|_| panic!("{:#?}", context()))
            .unwrap();
    }

    async fn stop(mut self) {
        self.cancel.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

/// An address on loopback that no other test uses.
fn free_address(last: u8) -> SocketAddr {
    let process = std::process::id() % 251 + 2;
    let ip = Ipv4Addr::new(127, process as u8, 77, last);
    let probe = std::net::UdpSocket::bind((ip, 0)).unwrap();
    probe.local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_syncs_large_blocks_and_follows_over_real_connections() {
    let test = TestNet::new(&[1]);
    let source = test.chain().await;
    test.grow(&source, 30).await;
    // A block of about 700 kB, several times what may be in flight unconfirmed.
    let large = (1..10u8).map(|wallet| {
        let outputs = vec![(wallet, 100_000); 1_900];
        test.spend(&[(test.allocation(wallet), wallet)], &outputs)
    });
    test.extend(&source, large.collect()).await;
    test.grow(&source, 9).await;

    let addresses = [free_address(1), free_address(2)];
    let server = FullNode::start(&test, source.clone(), addresses[0], vec![]);
    let client = test.chain().await;
    let peers = vec![addresses[0]];
    let client = FullNode::start(&test, client, addresses[1], peers);
    client.reaches(40).await;
    assert_eq!(client.chain.tip(), source.tip());

    test.grow(&source, 1).await;
    client.reaches(41).await;
    let mut status = client.status.clone();
    let done = status.wait_for(|status| !status.syncing && status.height == Height(41));
    let status = done.await.unwrap().clone();
    assert_eq!((status.synced_blocks, status.replaced), (41, vec![]));
    client.stop().await;
    server.stop().await;
}
