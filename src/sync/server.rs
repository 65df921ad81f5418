//! Answers the sync requests of peers.
//!
//! Headers end at the last height of the range whose certificate is stored, and that certificate
//! follows; bodies are sent one frame a block. What is not held is answered with the own tip.
//!
//! # Limits
//! [`MAX_SERVED`] requests are answered at a time, each with one body in memory. A peer may have
//! [`MAX_SERVED_PER_PEER`] that are answered or wait: more are dropped, which resets their stream.
//!
//! When all places are taken, a free one goes to the waiting peer that holds the fewest. Nobody can
//! keep places by taking nothing: while others wait, an answer without progress gives way, after
//! [`UNFAIR_AFTER`] to a peer that holds at least two places less, after [`STUCK_AFTER`] to anybody.
//! [`MAX_FRAME_TIME`] ends an answer whose peer takes nothing any more, whoever waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
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

/// The most of them from one peer: four of its connection, and those of one that ended a moment ago.
pub(super) const MAX_SERVED_PER_PEER: usize = 8;

/// An answer without progress for so long gives way to a peer with fewer places.
const UNFAIR_AFTER: Duration = Duration::from_secs(3);

/// An answer without progress for so long gives way to any other.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// While requests wait, answers without progress are looked for so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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

/// The requests being answered, and those that wait for a place.
struct Server<A> {
    chain: Chain,
    tasks: JoinSet<Result<(), ServeError>>,
    places: BTreeMap<Id, Place>,
    /// Never an empty queue.
    waiting: BTreeMap<PeerIp, VecDeque<Serve<A>>>,
}

/// A request being answered.
struct Place {
    peer: PeerIp,
    task: AbortHandle,
    progress: Progress,
}

/// When the peer last took a frame.
#[derive(Clone)]
struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn note(&self) {
        *self.0.lock().expect("no holder panics") = Instant::now();
    }

    fn since(&self) -> Duration {
        self.0.lock().expect("no holder panics").elapsed()
    }
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
        places: BTreeMap::new(),
        waiting: BTreeMap::new(),
    };
    loop {
        server.assign();
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            Some(ended) = server.tasks.join_next_with_id() => server.ended(ended)?,
            request = requests.recv() => match request {
                Some(request) => server.take(request.into()),
                // The network has ended, so the node is about to.
                None => {
                    cancel.cancelled().await;
                    return Ok(());
                }
            },
            () = tokio::time::sleep(LOOK_INTERVAL), if !server.waiting.is_empty() => {}
        }
    }
}

impl<A: Sink> Server<A> {
    fn take(&mut self, serve: Serve<A>) {
        let peer = serve.peer;
        let waiting = self.waiting.get(&peer).map_or(0, VecDeque::len);
        let held = self.held_by(peer) + waiting;
        if held >= MAX_SERVED_PER_PEER {
            debug!(peer.ip = %peer, stream = "sync", "request dropped: {held} are being answered");
            return;
        }
        self.waiting.entry(peer).or_default().push_back(serve);
    }

    /// Gives places to those that wait, as far as there are any or somebody has to give way.
    fn assign(&mut self) {
        while let Some((held, peer)) = self.next_peer() {
            if self.places.len() >= MAX_SERVED && !self.make_room(held) {
                return;
            }
            let Some(queue) = self.waiting.get_mut(&peer) else {
                return;
            };
            let next = queue.pop_front();
            if queue.is_empty() {
                self.waiting.remove(&peer);
            }
            if let Some(serve) = next {
                self.begin(serve);
            }
        }
    }

    /// The waiting peer that holds the fewest places, and how many that are.
    fn next_peer(&self) -> Option<(usize, PeerIp)> {
        let waiting = self.waiting.keys();
        waiting.map(|peer| (self.held_by(*peer), *peer)).min()
    }

    fn held_by(&self, peer: PeerIp) -> usize {
        self.places.values().filter(|one| one.peer == peer).count()
    }

    /// Ends the answer that has gone longest without progress, if it must give way to a peer that
    /// holds so many places.
    fn make_room(&mut self, held: usize) -> bool {
        let idle = |place: &Place| {
            let share = self.held_by(place.peer) > held + 1;
            let limit = if share { UNFAIR_AFTER } else { STUCK_AFTER };
            Some(place.progress.since()).filter(|idle| *idle >= limit)
        };
        let places = self.places.iter();
        let idle = places.filter_map(|(id, place)| Some((idle(place)?, *id)));
        let Some(place) = idle.max().and_then(|(_, id)| self.places.remove(&id)) else {
            return false;
        };
        debug!(peer.ip = %place.peer, stream = "sync", "an answer without progress gives way");
        place.task.abort();
        true
    }

    fn begin(&mut self, serve: Serve<A>) {
        let Serve {
            peer,
            request,
            answer,
        } = serve;
        let progress = Progress::now();
        let answering = answer_request(self.chain.clone(), request, answer, progress.clone());
        let task = self.tasks.spawn(answering);
        let place = Place {
            peer,
            task: task.clone(),
            progress,
        };
        self.places.insert(task.id(), place);
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
        let peer = self.places.remove(&id).map(|place| place.peer);
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
    answer: A,
    progress: Progress,
) -> Result<(), ServeError> {
    let mut answering = Answering { answer, progress };
    match request {
        SyncRequest::Headers { first, last } => answering.headers(&chain, first, last).await?,
        SyncRequest::Bodies { first, last } => answering.bodies(&chain, first, last).await?,
    }
    answering.answer.finish()?;
    Ok(())
}

/// One answer.
struct Answering<A> {
    answer: A,
    progress: Progress,
}

impl<A: Sink> Answering<A> {
    async fn headers(
        &mut self,
        chain: &Chain,
        first: Height,
        last: Height,
    ) -> Result<(), ServeError> {
        let Some(certificate) = chain.last_certificate(first, last).await? else {
            return self.not_held(chain).await;
        };
        let headers = chain.headers(first, certificate.height).await?;
        self.send(SyncResponse::Headers(headers)).await?;
        self.send(SyncResponse::Certificate(certificate)).await
    }

    async fn bodies(
        &mut self,
        chain: &Chain,
        first: Height,
        last: Height,
    ) -> Result<(), ServeError> {
        for height in first.0..=last.0 {
            let Some(body) = chain.encoded_body(Height(height)).await? else {
                return self.not_held(chain).await;
            };
            self.send(SyncResponse::Body(body)).await?;
        }
        Ok(())
    }

    async fn not_held(&mut self, chain: &Chain) -> Result<(), ServeError> {
        let tip = chain.tip().height;
        self.send(SyncResponse::NotHeld { tip }).await
    }

    async fn send(&mut self, response: SyncResponse) -> Result<(), ServeError> {
        match tokio::time::timeout(MAX_FRAME_TIME, self.answer.send(&response)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(ServeError::Stuck),
        }
        self.progress.note();
        Ok(())
    }
}
