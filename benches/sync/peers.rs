//! Peers that serve a chain over real connections: honest ones, and three that are of no use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use timed::chain::Chain;
use timed::env::{Entropy, FileInMemory, Offload, SystemClock, WallClock};
use timed::net::{
    Identity, Inbound, NetConfig, NetEnvironment, NetHandle, NetTiming, Runtime, SyncServe,
    TokioRuntime, TransactionsEvent, bind_udp,
};
use timed::sync::{self, SyncParts};
use timed::types::{EncodedBody, Height, MasternodeDirectory, PeerIp};
use timed::wire::{Role, SyncRequest, SyncResponse};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::network::Answers;

/// How a peer answers.
#[derive(Clone, Debug)]
pub enum Conduct {
    /// By the real server.
    Honest,
    /// Takes every request and sends nothing.
    Stalls,
    /// Sends what is right, one frame in so long.
    Slow(Duration),
    /// Sends certificates without signatures and bodies with other amounts.
    Lies,
    /// Sends what is right at once, from memory.
    FromMemory(Arc<Answers>),
}

/// A running peer.
pub struct Peer {
    pub address: SocketAddr,
    pub net: NetHandle,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
    /// Nothing is sent on it; its end would end the network.
    _transactions: mpsc::Receiver<TransactionsEvent>,
}

impl Peer {
    pub fn start(
        chain: &Chain,
        address: SocketAddr,
        conduct: Conduct,
        timing: NetTiming,
        peers: &[SocketAddr],
    ) -> Result<Self> {
        let (transactions, transactions_out) = mpsc::channel(16);
        let (requests, serve) = mpsc::channel(16);
        let inbound = Inbound {
            consensus: None,
            transactions,
            sync: requests,
        };
        let cancel = CancellationToken::new();
        let (net, network) = timed::net::start(
            config(chain, address, timing, peers),
            identity(address)?,
            MasternodeDirectory::new(chain.genesis(), [])?,
            environment(address)?,
            inbound,
            chain.watch_tip(),
            cancel.clone(),
        )?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async {
            network
                .await
                .expect("the peer's network runs until it is stopped")
        });
        match conduct {
            Conduct::Honest => {
                tasks.spawn(honest(chain.clone(), net.clone(), serve, cancel.clone()))
            }
            conduct => tasks.spawn(misbehave(chain.clone(), serve, conduct)),
        };
        Ok(Self {
            address,
            net,
            cancel,
            tasks,
            _transactions: transactions_out,
        })
    }

    pub async fn stop(mut self) {
        self.cancel.cancel();
        // Those that misbehave do not hear of it.
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn config(
    chain: &Chain,
    address: SocketAddr,
    timing: NetTiming,
    peers: &[SocketAddr],
) -> NetConfig {
    NetConfig {
        network: chain.genesis().network,
        genesis: chain.genesis_hash(),
        role: Role::Full,
        own_masternode: None,
        own_ip: Some(PeerIp::from(address)),
        listen_port: address.port(),
        configured_peers: peers.to_vec(),
        earlier_peers: Vec::new(),
        bans: Vec::new(),
        accept_unpinned: true,
        max_unpinned: 8,
        agent: "timed/bench".into(),
        timing,
    }
}

pub fn identity(address: SocketAddr) -> Result<Identity> {
    let secret = *blake3::hash(address.to_string().as_bytes()).as_bytes();
    let now_ms = SystemClock.now_ms();
    Ok(Identity::create(&secret, address.into(), "bench", now_ms)?)
}

fn environment(address: SocketAddr) -> Result<NetEnvironment> {
    let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
    Ok(NetEnvironment {
        socket: bind_udp(address, &*runtime)?,
        runtime,
        clock: Arc::new(SystemClock),
        entropy: Entropy::from_os()?,
        pins: Arc::new(FileInMemory::default()),
        offload: Offload::Threads,
    })
}

async fn honest(
    chain: Chain,
    net: NetHandle,
    serve: mpsc::Receiver<SyncServe>,
    cancel: CancellationToken,
) {
    let parts = SyncParts {
        chain,
        net,
        serve,
        masternode: false,
        offload: Offload::Threads,
    };
    let (_handle, serving) = sync::start(parts, cancel);
    serving.await.expect("the peer's chain can be read");
}

async fn misbehave(chain: Chain, mut serve: mpsc::Receiver<SyncServe>, conduct: Conduct) {
    let mut held = Vec::new();
    while let Some(request) = serve.recv().await {
        match &conduct {
            Conduct::Honest => unreachable!("the real server answers for it"),
            Conduct::Stalls => held.push(request),
            Conduct::Slow(pause) => {
                tokio::spawn(answer(chain.clone(), request, *pause, |frame| frame));
            }
            Conduct::FromMemory(answers) => {
                tokio::spawn(answer_from_memory(answers.clone(), request));
            }
            Conduct::Lies => {
                tokio::spawn(answer(chain.clone(), request, Duration::ZERO, falsify));
            }
        }
    }
}

/// Answers as far as the asker lets it.
async fn answer(
    chain: Chain,
    mut serve: SyncServe,
    pause: Duration,
    change: fn(SyncResponse) -> SyncResponse,
) {
    for response in responses(&chain, serve.request).await {
        tokio::time::sleep(pause).await;
        if serve.answer.send(&change(response)).await.is_err() {
            return;
        }
    }
    // The asker may have gone by now.
    serve.answer.finish().ok();
}

async fn answer_from_memory(answers: Arc<Answers>, mut serve: SyncServe) {
    let answer = answers.to(&serve.request);
    let answer = answer.expect("only what is in memory is asked for");
    for response in answer {
        if serve.answer.send(response).await.is_err() {
            return;
        }
    }
    // The asker may have gone by now.
    serve.answer.finish().ok();
}

async fn responses(chain: &Chain, request: SyncRequest) -> Vec<SyncResponse> {
    let readable = "the peer's chain can be read";
    match request {
        SyncRequest::Headers { first, last } => {
            let certificate = chain.last_certificate(first, last).await.expect(readable);
            let certificate = certificate.expect("only heights that are announced are asked for");
            let headers = chain.headers(first, certificate.height).await;
            vec![
                SyncResponse::Headers(headers.expect(readable)),
                SyncResponse::Certificate(certificate),
            ]
        }
        SyncRequest::Bodies { first, last } => {
            let mut bodies = Vec::new();
            for height in (first.0..=last.0).map(Height) {
                let body = chain.encoded_body(height).await.expect(readable);
                let body = body.expect("only heights that are announced are asked for");
                bodies.push(SyncResponse::Body(body));
            }
            bodies
        }
    }
}

fn falsify(mut response: SyncResponse) -> SyncResponse {
    match &mut response {
        SyncResponse::Certificate(certificate) => certificate.signatures.truncate(1),
        SyncResponse::Body(body) => {
            let mut transactions = body.decode();
            for output in transactions.iter_mut().flat_map(|one| &mut one.outputs) {
                output.amount.0 -= 1;
            }
            *body = EncodedBody::of(&transactions);
        }
        SyncResponse::Headers(_) | SyncResponse::NotHeld { .. } => {}
    }
    response
}
