//! Answers the sync requests of peers.
//!
//! Headers end at the last height of the range whose certificate is stored, and that certificate
//! follows; bodies are sent one frame a block. What is not held is answered with the own tip.
//!
//! # Limits
//! [`MAX_SERVED`] requests are answered at a time, each with one body in memory, and at most
//! [`MAX_SERVED_PER_PEER`] of one peer: more are dropped, which resets their stream. When all places
//! are taken, further requests wait in the bounded channel, and by it in their streams.
//! [`MAX_FRAME_TIME`] ends an answer whose peer takes nothing any more.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::SyncFailure;
use super::io::Sink;
use crate::chain::{Chain, ChainError};
use crate::net::{SyncError, SyncServe};
use crate::types::{Height, PeerIp};
use crate::wire::{SyncRequest, SyncResponse};

/// The most requests answered at a time.
pub(super) const MAX_SERVED: usize = 32;

/// The most of them from one peer; an honest one has four at most.
pub(super) const MAX_SERVED_PER_PEER: usize = 8;

/// The longest that a peer may take for one frame: 4 MB at 7 KiB/s.
const MAX_FRAME_TIME: Duration = Duration::from_secs(600);

/// A request with the place for its answer.
pub(super) struct Serve<A> {
    pub peer: PeerIp,
    pub request: SyncRequest,
    pub answer: A,
}

impl From<SyncServe> for Serve<crate::net::SyncAnswer> {
    fn from(serve: SyncServe) -> Self {
        Self {
            peer: serve.peer,
            request: serve.request,
            answer: serve.answer,
        }
    }
}

/// Why an answer ended early.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    /// The peer or its connection.
    #[error(transparent)]
    Peer(#[from] SyncError),
    /// The peer took nothing for too long.
    #[error("the peer took no frame for {} s", MAX_FRAME_TIME.as_secs())]
    Stuck,
    /// The own chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// The requests being answered.
struct Server {
    chain: Chain,
    tasks: JoinSet<Result<(), ServeError>>,
    peers: BTreeMap<Id, PeerIp>,
}

/// Serves until `cancel`, or until the own chain cannot be read.
pub(super) async fn serve<R, A>(
    chain: Chain,
    mut requests: mpsc::Receiver<R>,
    cancel: CancellationToken,
) -> Result<(), SyncFailure>
where
    R: Into<Serve<A>>,
    A: Sink,
{
    let mut server = Server {
        chain,
        tasks: JoinSet::new(),
        peers: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            Some(ended) = server.tasks.join_next_with_id() => server.ended(ended)?,
            request = requests.recv(), if server.tasks.len() < MAX_SERVED => match request {
                Some(request) => server.begin(request.into()),
                // The network has ended, so the node is about to.
                None => {
                    cancel.cancelled().await;
                    return Ok(());
                }
            },
        }
    }
}

impl Server {
    fn begin<A: Sink>(&mut self, serve: Serve<A>) {
        let Serve {
            peer,
            request,
            answer,
        } = serve;
        let served = self.peers.values().filter(|other| **other == peer).count();
        if served >= MAX_SERVED_PER_PEER {
            debug!(peer.ip = %peer, stream = "sync", "request dropped: {served} are being answered");
            return;
        }
        let task = self
            .tasks
            .spawn(answer_request(self.chain.clone(), request, answer));
        self.peers.insert(task.id(), peer);
    }

    fn ended(
        &mut self,
        ended: Result<(Id, Result<(), ServeError>), JoinError>,
    ) -> Result<(), SyncFailure> {
        let (id, result) = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => (error.id(), Ok(())),
        };
        let peer = self.peers.remove(&id);
        match result {
            Ok(()) => Ok(()),
            Err(ServeError::Chain(error)) => Err(error.into()),
            Err(error) => {
                let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
                debug!(peer.ip = %peer, stream = "sync", reason = %error, "answer ended early");
                Ok(())
            }
        }
    }
}

async fn answer_request<A: Sink>(
    chain: Chain,
    request: SyncRequest,
    mut answer: A,
) -> Result<(), ServeError> {
    match request {
        SyncRequest::Headers { first, last } => headers(&chain, first, last, &mut answer).await?,
        SyncRequest::Bodies { first, last } => bodies(&chain, first, last, &mut answer).await?,
    }
    answer.finish()?;
    Ok(())
}

async fn headers<A: Sink>(
    chain: &Chain,
    first: Height,
    last: Height,
    answer: &mut A,
) -> Result<(), ServeError> {
    let Some(certificate) = chain.last_certificate(first, last).await? else {
        return not_held(chain, answer).await;
    };
    let headers = chain.headers(first, certificate.height).await?;
    send(answer, SyncResponse::Headers(headers)).await?;
    send(answer, SyncResponse::Certificate(certificate)).await
}

async fn bodies<A: Sink>(
    chain: &Chain,
    first: Height,
    last: Height,
    answer: &mut A,
) -> Result<(), ServeError> {
    for height in first.0..=last.0 {
        let Some(block) = chain.block(Height(height)).await? else {
            return not_held(chain, answer).await;
        };
        send(answer, SyncResponse::Body(block.transactions)).await?;
    }
    Ok(())
}

async fn not_held<A: Sink>(chain: &Chain, answer: &mut A) -> Result<(), ServeError> {
    let tip = chain.tip().height;
    send(answer, SyncResponse::NotHeld { tip }).await
}

async fn send<A: Sink>(answer: &mut A, response: SyncResponse) -> Result<(), ServeError> {
    match tokio::time::timeout(MAX_FRAME_TIME, answer.send(&response)).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(ServeError::Stuck),
    }
}
