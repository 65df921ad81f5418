//! A network that is a few channels, and peers that serve right or wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::io::{Answer, Network, Sink};
use super::super::plan::PeerView;
use super::super::server::{self, Serve};
use crate::chain::Chain;
use crate::net::{SendError, SyncError};
use crate::types::{Amount, EncodedBody, Height, PeerIp};
use crate::wire::{SyncRequest, SyncResponse};

/// What a peer does to a frame that its server sends: as it is, another one, or several.
pub(super) type Twist = fn(SyncResponse) -> Vec<SyncResponse>;

pub(super) fn honest(response: SyncResponse) -> Vec<SyncResponse> {
    vec![response]
}

pub(super) fn silent(_: SyncResponse) -> Vec<SyncResponse> {
    Vec::new()
}

pub(super) fn twice(response: SyncResponse) -> Vec<SyncResponse> {
    vec![response.clone(), response]
}

pub(super) fn unsigned(mut response: SyncResponse) -> Vec<SyncResponse> {
    if let SyncResponse::Certificate(certificate) = &mut response {
        certificate.signatures.truncate(1);
    }
    vec![response]
}

pub(super) fn tampered(mut response: SyncResponse) -> Vec<SyncResponse> {
    if let SyncResponse::Body(body) = &mut response {
        let mut transactions = body.decode();
        for transaction in &mut transactions {
            transaction.outputs[0].amount = Amount(1);
        }
        *body = EncodedBody::of(&transactions);
    }
    vec![response]
}

pub(super) fn shifted(mut response: SyncResponse) -> Vec<SyncResponse> {
    if let SyncResponse::Headers(headers) = &mut response {
        headers.remove(0);
    }
    vec![response]
}

pub(super) struct FakePeer {
    chain: Chain,
    requests: mpsc::Sender<Serve<FakeSink>>,
    twist: Twist,
    /// Announced instead of the chain's tip.
    pub(super) claim: Option<Height>,
}

/// Peers that answer through their real servers, 10 ms away.
#[derive(Clone)]
pub(super) struct FakeNet {
    pub(super) peers: Arc<BTreeMap<PeerIp, FakePeer>>,
    changed: watch::Sender<u64>,
}

pub(super) struct FakeSink(pub(super) mpsc::Sender<Option<SyncResponse>>);

pub(super) struct FakeAnswer {
    peer: PeerIp,
    frames: mpsc::Receiver<Option<SyncResponse>>,
    twist: Twist,
    ready: Vec<SyncResponse>,
    progress: watch::Sender<u64>,
}

pub(super) const RTT: Duration = Duration::from_millis(10);
const US: [u8; 4] = [127, 0, 0, 1];

pub(super) fn ip(last: u8) -> PeerIp {
    std::net::IpAddr::from([127, 0, 0, last]).into()
}

impl FakeNet {
    pub(super) fn new(
        cancel: &CancellationToken,
        peers: impl IntoIterator<Item = (Chain, Twist)>,
    ) -> Self {
        let peers = peers.into_iter().zip(2..).map(|((chain, twist), last)| {
            let (requests, serve) = mpsc::channel(4);
            tokio::spawn(server::serve(chain.clone(), serve, cancel.clone()));
            let claim = None;
            let peer = FakePeer {
                chain,
                requests,
                twist,
                claim,
            };
            (ip(last), peer)
        });
        Self {
            peers: Arc::new(peers.collect()),
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn announce(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Network for FakeNet {
    type Answer = FakeAnswer;

    async fn request(&self, to: PeerIp, request: SyncRequest) -> Result<FakeAnswer, SyncError> {
        assert!(request.is_valid());
        tokio::time::sleep(RTT).await;
        let connected = Vec::new();
        let peer = self.peers.get(&to);
        let peer = peer.ok_or(SendError::UnknownPeer {
            peer: to,
            connected,
        })?;
        let (sink, frames) = mpsc::channel(2);
        let serve = Serve {
            peer: std::net::IpAddr::from(US).into(),
            request,
            answer: FakeSink(sink),
        };
        let sent = peer.requests.send(serve).await;
        sent.map_err(|_| ended(to))?;
        Ok(FakeAnswer {
            peer: to,
            frames,
            twist: peer.twist,
            ready: Vec::new(),
            progress: watch::Sender::new(0),
        })
    }

    fn peers(&self) -> Vec<PeerView> {
        let views = self.peers.iter().map(|(ip, peer)| PeerView {
            ip: *ip,
            connection: 1,
            tip: peer.claim.unwrap_or(peer.chain.tip().height),
        });
        views.collect()
    }

    fn watch_peers(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

fn ended(peer: PeerIp) -> SyncError {
    SyncError::Ended {
        peer,
        detail: "reset".into(),
    }
}

impl Answer for FakeAnswer {
    async fn next(&mut self) -> Result<Option<SyncResponse>, SyncError> {
        while self.ready.is_empty() {
            match self.frames.recv().await.ok_or(ended(self.peer))? {
                Some(frame) => self.ready = (self.twist)(frame),
                None if self.twist as usize == silent as Twist as usize => {
                    std::future::pending::<()>().await;
                }
                None => return Ok(None),
            }
        }
        self.progress.send_modify(|bytes| *bytes += 1);
        Ok(Some(self.ready.remove(0)))
    }

    fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }
}

impl Sink for FakeSink {
    async fn send(&mut self, response: &SyncResponse) -> Result<(), SyncError> {
        let sent = self.0.send(Some(response.clone())).await;
        sent.map_err(|_| ended(ip(0)))
    }

    fn finish(self) -> Result<(), SyncError> {
        // The end may find both places taken; a task waits for room.
        tokio::spawn(async move { self.0.send(None).await });
        Ok(())
    }
}
