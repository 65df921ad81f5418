//! One request in flight: asks, checks every frame of the answer, and reports to the actor.
//!
//! Nothing unverified leaves this module: headers come out as a [`VerifiedSegment`] that follows the
//! block it was asked to follow, bodies match the root of their verified header. What a peer may
//! send is bounded by what was asked; one frame more is a fault. Signatures and roots are checked
//! through [`Offload`].

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::io::{Answer, Network};
use super::plan::{Ask, Failure, RequestId};
use crate::chain::{Chain, ChainError, CheckedBody, Rules, VerifiedSegment};
use crate::env::Offload;
use crate::net::SyncError;
use crate::types::{BlockHash, BlockHeader, CommitCertificate, EncodedBody, Height, PeerIp};
use crate::wire::{SyncRequest, SyncResponse};

/// Bodies are checked together up to so many bytes, or so many of them: one call of a worker thread
/// for each small body would cost more than its check.
const CHECKED_BYTES: usize = 32 * 1024;
const CHECKED_BODIES: usize = 16;

/// What a request reports, in this order; `Ended` is always the last.
pub(super) enum Event {
    /// The peer has the request; the bytes received of its answer.
    Opened(watch::Receiver<u64>),
    /// Headers and their certificate, verified.
    Headers(Arc<VerifiedSegment>),
    /// The next bodies of those asked for.
    Bodies(Vec<CheckedBody>),
    /// It is over.
    Ended(Result<(), FetchError>),
}

/// Why a request ended early.
#[derive(Debug)]
pub(super) enum FetchError {
    /// The peer's fault or misfortune.
    Peer(Failure),
    /// The peer has proved that the network has split: nobody's fault that another peer could heal.
    Fork(ChainError),
    /// What a certificate covers is refused here, whoever sends it.
    Refused(ChainError),
}

/// What all requests share.
#[derive(Clone)]
pub(super) struct Fetcher<N> {
    pub chain: Chain,
    pub rules: Rules,
    pub net: N,
    pub offload: Offload,
    pub events: mpsc::Sender<(RequestId, Event)>,
}

/// An answer whose frames must come in a known order.
struct Exchange<A>(A);

impl<N: Network> Fetcher<N> {
    /// Carries one request out. Dropping the future gives the request up.
    pub(super) async fn fetch(self, id: RequestId, peer: PeerIp, ask: Ask<Arc<VerifiedSegment>>) {
        let result = match ask {
            Ask::Headers {
                first,
                last,
                parent,
            } => self.headers(id, peer, first, last, parent).await,
            Ask::Bodies {
                first,
                last,
                segment,
            } => self.bodies(id, peer, first, last, segment).await,
        };
        report(&self.events, id, Event::Ended(result)).await;
    }

    async fn open(
        &self,
        id: RequestId,
        peer: PeerIp,
        request: SyncRequest,
    ) -> Result<Exchange<N::Answer>, FetchError> {
        let answer = self.net.request(peer, request).await.map_err(failure)?;
        report(&self.events, id, Event::Opened(answer.progress())).await;
        Ok(Exchange(answer))
    }

    async fn headers(
        &self,
        id: RequestId,
        peer: PeerIp,
        first: Height,
        last: Height,
        parent: BlockHash,
    ) -> Result<(), FetchError> {
        let request = SyncRequest::Headers { first, last };
        let mut exchange = self.open(id, peer, request).await?;
        let headers = exchange.headers().await?;
        let certificate = exchange.certificate().await?;
        exchange.end().await?;
        let segment = self.verify(headers, certificate, first, last).await?;
        let theirs = segment.headers()[0].parent;
        if theirs != parent {
            return Err(FetchError::Fork(ChainError::Fork {
                height: first.previous(),
                ours: parent,
                theirs,
            }));
        }
        report(&self.events, id, Event::Headers(Arc::new(segment))).await;
        Ok(())
    }

    async fn verify(
        &self,
        headers: Vec<BlockHeader>,
        certificate: CommitCertificate,
        first: Height,
        last: Height,
    ) -> Result<VerifiedSegment, FetchError> {
        let start = headers.first().map(|header| header.height);
        if start != Some(first) || headers.len() as u64 > last.0 - first.0 + 1 {
            return Err(wrong(format!(
                "{} headers from height {} on for a request of {first} to {last}",
                headers.len(),
                start.unwrap_or_default()
            )));
        }
        let chain = self.chain.clone();
        let verify = move || {
            let (validators, genesis) = (chain.validators(), chain.genesis_hash());
            VerifiedSegment::verify(headers, certificate, validators, &genesis)
        };
        let verified = self.offload.run(verify).await;
        verified.map_err(|error| wrong(error.to_string()))
    }

    async fn bodies(
        &self,
        id: RequestId,
        peer: PeerIp,
        first: Height,
        last: Height,
        segment: Arc<VerifiedSegment>,
    ) -> Result<(), FetchError> {
        let request = SyncRequest::Bodies { first, last };
        let mut exchange = self.open(id, peer, request).await?;
        let mut waiting = Unchecked::default();
        for header in segment.headers() {
            if (first..=last).contains(&header.height) {
                let body = exchange.body(header.height).await?;
                waiting.push(header.height, body);
            }
            if waiting.bytes >= CHECKED_BYTES || waiting.bodies.len() >= CHECKED_BODIES {
                self.check(id, &segment, std::mem::take(&mut waiting))
                    .await?;
            }
        }
        exchange.end().await?;
        self.check(id, &segment, waiting).await
    }

    async fn check(
        &self,
        id: RequestId,
        segment: &Arc<VerifiedSegment>,
        waiting: Unchecked,
    ) -> Result<(), FetchError> {
        if waiting.bodies.is_empty() {
            return Ok(());
        }
        let (segment, rules) = (segment.clone(), self.rules);
        let check = move || -> Result<Vec<CheckedBody>, ChainError> {
            let bodies = waiting.bodies.into_iter();
            bodies
                .map(|(height, body)| segment.check_body(height, body.decode(), &rules))
                .collect()
        };
        let checked = self.offload.run(check).await.map_err(|error| match error {
            ChainError::Body { .. } => wrong(error.to_string()),
            error => FetchError::Refused(error),
        })?;
        report(&self.events, id, Event::Bodies(checked)).await;
        Ok(())
    }
}

/// Bodies that have arrived and are checked together.
#[derive(Default)]
struct Unchecked {
    bodies: Vec<(Height, EncodedBody)>,
    bytes: usize,
}

impl Unchecked {
    fn push(&mut self, height: Height, body: EncodedBody) {
        self.bytes += body.bytes().len();
        self.bodies.push((height, body));
    }
}

impl<A: Answer> Exchange<A> {
    async fn headers(&mut self) -> Result<Vec<BlockHeader>, FetchError> {
        match self.next().await? {
            Some(SyncResponse::Headers(headers)) => Ok(headers),
            other => Err(unexpected("headers", other)),
        }
    }

    async fn certificate(&mut self) -> Result<CommitCertificate, FetchError> {
        match self.next().await? {
            Some(SyncResponse::Certificate(certificate)) => Ok(certificate),
            other => Err(unexpected("a certificate", other)),
        }
    }

    async fn body(&mut self, height: Height) -> Result<EncodedBody, FetchError> {
        match self.next().await? {
            Some(SyncResponse::Body(body)) => Ok(body),
            other => Err(unexpected(&format!("the body of block {height}"), other)),
        }
    }

    async fn end(&mut self) -> Result<(), FetchError> {
        match self.next().await? {
            None => Ok(()),
            other => Err(unexpected("the end", other)),
        }
    }

    async fn next(&mut self) -> Result<Option<SyncResponse>, FetchError> {
        match self.0.next().await.map_err(failure)? {
            Some(SyncResponse::NotHeld { .. }) => Err(FetchError::Peer(Failure::NotHeld)),
            other => Ok(other),
        }
    }
}

/// Waits while the actor is behind. When the actor has ended, so will this task.
async fn report(events: &mpsc::Sender<(RequestId, Event)>, id: RequestId, event: Event) {
    if events.send((id, event)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn failure(error: SyncError) -> FetchError {
    FetchError::Peer(match error {
        SyncError::Protocol { detail, .. } => Failure::Wrong(detail),
        error @ (SyncError::Ended { .. } | SyncError::NotConnected(_)) => {
            Failure::Ended(error.to_string())
        }
    })
}

fn wrong(detail: String) -> FetchError {
    FetchError::Peer(Failure::Wrong(detail))
}

fn unexpected(expected: &str, got: Option<SyncResponse>) -> FetchError {
    let got = match got {
        Some(SyncResponse::Headers(_)) => "headers",
        Some(SyncResponse::Certificate(_)) => "a certificate",
        Some(SyncResponse::Body(_)) => "a body",
        Some(SyncResponse::NotHeld { .. }) => "a refusal",
        None => "the end of the answer",
    };
    wrong(format!("sent {got} instead of {expected}"))
}
