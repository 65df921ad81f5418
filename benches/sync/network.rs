//! What loopback carries alone: answers that are in memory already, asked for as sync asks, decoded
//! and dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use timed::chain::Chain;
use timed::net::NetTiming;
use timed::types::{Height, PeerIp};
use timed::wire::{SyncRequest, SyncResponse};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::machine::next_address;
use crate::peers::{Conduct, Peer};

/// Requests to one peer at a time, as in a sync.
const REQUESTS: usize = 4;

/// The most bytes and the most heights of bodies in one request, as in a sync.
const RANGE_BYTES: usize = 4 * 1024 * 1024;
const RANGE_BLOCKS: usize = 128;

/// The answers that a peer gives from memory.
#[derive(Debug, Default)]
pub struct Answers {
    headers: BTreeMap<Height, (Height, Vec<SyncResponse>)>,
    bodies: BTreeMap<Height, (Height, Vec<SyncResponse>)>,
}

impl Answers {
    /// Headers with their certificate, from `first` on.
    pub fn add_headers(&mut self, first: Height, last: Height, answer: Vec<SyncResponse>) {
        self.headers.insert(first, (last, answer));
    }

    /// Bodies of consecutive blocks with their bytes, split as sync would ask for them.
    pub fn add_bodies(&mut self, bodies: impl Iterator<Item = (Height, SyncResponse, usize)>) {
        let mut range: Vec<SyncResponse> = Vec::new();
        let (mut first, mut bytes) = (Height(0), 0);
        for (height, body, size) in bodies {
            let follows = height.0 == first.0 + range.len() as u64;
            let fits = bytes + size <= RANGE_BYTES && range.len() < RANGE_BLOCKS;
            let goes_on = range.is_empty() || (follows && fits);
            if !goes_on {
                self.add_range(first, std::mem::take(&mut range));
            }
            if range.is_empty() {
                (first, bytes) = (height, 0);
            }
            bytes += size;
            range.push(body);
        }
        if !range.is_empty() {
            self.add_range(first, range);
        }
    }

    fn add_range(&mut self, first: Height, range: Vec<SyncResponse>) {
        let last = Height(first.0 + range.len() as u64 - 1);
        self.bodies.insert(first, (last, range));
    }

    /// The answer to a request of [`Answers::requests`].
    pub fn to(&self, request: &SyncRequest) -> Option<&[SyncResponse]> {
        let (map, first) = match request {
            SyncRequest::Headers { first, .. } => (&self.headers, first),
            SyncRequest::Bodies { first, .. } => (&self.bodies, first),
        };
        map.get(first).map(|(_, answer)| answer.as_slice())
    }

    fn requests(&self) -> Vec<SyncRequest> {
        let headers = self.headers.iter().map(|(first, (last, _))| {
            let (first, last) = (*first, *last);
            (first, SyncRequest::Headers { first, last })
        });
        let bodies = self.bodies.iter().map(|(first, (last, _))| {
            let (first, last) = (*first, *last);
            (first, SyncRequest::Bodies { first, last })
        });
        let mut all: Vec<_> = headers.chain(bodies).collect();
        all.sort_by_key(|(first, _)| *first);
        all.into_iter().map(|(_, request)| request).collect()
    }
}

/// How long it takes to carry all of them.
pub async fn carry(chain: &Chain, answers: Arc<Answers>) -> Result<Duration> {
    let timing = NetTiming::RECOMMENDED;
    let conduct = Conduct::FromMemory(answers.clone());
    let server = Peer::start(chain, next_address(), conduct, timing, &[])?;
    let client = Peer::start(
        chain,
        next_address(),
        Conduct::Honest,
        timing,
        &[server.address],
    )?;
    let mut peers = client.net.watch_peers();
    while client.net.peers().is_empty() {
        peers.changed().await?;
    }
    let to = PeerIp::from(server.address);
    let places = Arc::new(Semaphore::new(REQUESTS));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let start = Instant::now();
    for request in answers.requests() {
        let place = places.clone().acquire_owned().await?;
        let net = client.net.clone();
        tasks.spawn(async move {
            let mut frames = net.request_sync(to, request).await?;
            let mut count = 0;
            while frames.next().await?.is_some() {
                count += 1;
            }
            drop(place);
            anyhow::ensure!(count > 0, "an empty answer");
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a request failed")??;
    }
    let took = start.elapsed();
    client.stop().await;
    server.stop().await;
    Ok(took)
}
