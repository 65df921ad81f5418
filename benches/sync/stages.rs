//! What each stage of a sync does alone, in blocks a second: the next bottleneck is the slowest.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use timed::chain::{CheckedBody, VerifiedSegment};
use timed::types::{BlockHeader, CommitCertificate, EncodedBody, Height, Transaction};
use timed::wire::{SyncResponse, encode_answer};
use tokio::time::Instant;

use crate::machine::Stored;
use crate::network::{self, Answers};

/// Heights of one segment.
const SEGMENT: u64 = 256;

/// How long each stage took.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// The peer's part: reading from its file, and framing.
    serve: Duration,
    /// Loopback through the whole network layer, with the peer's framing.
    network: Duration,
    /// Of bodies.
    decode: Duration,
    certificate: Duration,
    headers: Duration,
    bodies: Duration,
    execute: Duration,
    commit: Duration,
}

/// Blocks a second of each stage.
pub struct Rates {
    blocks: u64,
    times: Times,
}

impl Rates {
    pub fn slowest(&self) -> (&'static str, f64) {
        let stages = self.named().into_iter();
        let (name, took) = stages
            .max_by_key(|(_, took)| *took)
            .expect("there are stages");
        (name, self.rate(took))
    }

    pub fn json(&self) -> Value {
        let rates = self.named().into_iter();
        let rates = rates.map(|(name, took)| (name.to_owned(), json!(self.rate(took).round())));
        Value::Object(rates.collect::<Map<_, _>>())
    }

    /// What this many cores could do at most, with the peer's part on them too.
    pub fn bound_of(&self, cores: usize) -> f64 {
        let stages = self.named().into_iter();
        self.rate(stages.map(|(_, took)| took).sum()) * cores as f64
    }

    fn rate(&self, took: Duration) -> f64 {
        self.blocks as f64 / took.as_secs_f64()
    }

    fn named(&self) -> [(&'static str, Duration); 8] {
        let times = &self.times;
        [
            ("serve", times.serve),
            ("network", times.network),
            ("decode", times.decode),
            ("certificate", times.certificate),
            ("headers", times.headers),
            ("bodies", times.bodies),
            ("execute", times.execute),
            ("commit", times.commit),
        ]
    }
}

/// A segment as it is served.
struct Served {
    headers: Vec<BlockHeader>,
    certificate: CommitCertificate,
    /// Of blocks that are not empty.
    bodies: Vec<(Height, EncodedBody)>,
}

/// Takes the first blocks of a chain through each stage: the network by itself, the others one at a
/// time on one thread, into a new file.
pub async fn measure(source: &Stored, folder: &Path, blocks: u64) -> Result<Rates> {
    let mut times = Times::default();
    let start = Instant::now();
    let served = served(source, blocks).await?;
    times.serve = start.elapsed();
    let answers = answers(&served);
    times.network = network::carry(&source.chain, Arc::new(answers)).await?;
    let checked = check(source, served, &mut times)?;
    into_new_file(source, folder, checked, &mut times).await?;
    Ok(Rates { blocks, times })
}

fn answers(served: &[Served]) -> Answers {
    let mut answers = Answers::default();
    for one in served {
        let (first, last) = (one.headers[0].height, one.certificate.height);
        let headers = vec![
            SyncResponse::Headers(one.headers.clone()),
            SyncResponse::Certificate(one.certificate.clone()),
        ];
        answers.add_headers(first, last, headers);
        answers.add_bodies(one.bodies.iter().map(|(height, body)| {
            let bytes = body.bytes().len();
            (*height, SyncResponse::Body(body.clone()), bytes)
        }));
    }
    answers
}

type Checked = Vec<(Arc<VerifiedSegment>, Vec<CheckedBody>)>;

fn check(source: &Stored, served: Vec<Served>, times: &mut Times) -> Result<Checked> {
    let chain = &source.chain;
    let (genesis, validators) = (chain.genesis_hash(), chain.validators().clone());
    let rules = chain.rules();
    let mut checked = Vec::new();
    for one in served {
        let decoded: Vec<(Height, Vec<Transaction>)> = timed(&mut times.decode, || {
            let bodies = one.bodies.iter();
            bodies
                .map(|(height, body)| (*height, body.decode()))
                .collect()
        });
        timed(&mut times.certificate, || {
            one.certificate.verify(&validators, &genesis)
        })?;
        let segment = timed(&mut times.headers, || {
            VerifiedSegment::verify(one.headers, one.certificate, &validators, &genesis)
        })?;
        let found = timed(&mut times.bodies, || {
            // What a sync derives from the headers instead of asking for it.
            let empty = segment.empty_bodies().into_iter().map(Ok);
            let full = decoded.into_iter();
            let full = full.map(|(height, body)| segment.check_body(height, body, &rules));
            empty.chain(full).collect::<Result<Vec<_>, _>>()
        })?;
        checked.push((Arc::new(segment), found));
    }
    Ok(checked)
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *total += start.elapsed();
    result
}

async fn into_new_file(
    source: &Stored,
    folder: &Path,
    segments: Checked,
    times: &mut Times,
) -> Result<()> {
    let path = folder.join("stages.redb");
    let target = Stored::open(&path, source.chain.genesis()).await?;
    for (segment, bodies) in segments {
        let start = Instant::now();
        let executed = target.chain.execute_segment(segment, bodies, None).await?;
        times.execute += start.elapsed();
        let start = Instant::now();
        target.chain.commit_executed(executed).await?;
        times.commit += start.elapsed();
    }
    target.close().await;
    std::fs::remove_file(path)?;
    Ok(())
}

/// Reads as the server of a sync reads: headers of a segment at once, bodies one by one, those of
/// empty blocks not at all.
async fn served(source: &Stored, blocks: u64) -> Result<Vec<Served>> {
    let empty = timed::types::block::transactions_root(&[]);
    let mut segments = Vec::new();
    let mut first = 1;
    while first <= blocks {
        let last = blocks.min((first - 1) / SEGMENT * SEGMENT + SEGMENT);
        let range = (Height(first), Height(last));
        let certificate = source.chain.last_certificate(range.0, range.1).await?;
        let certificate = certificate.context("the chain ends in the middle of a segment")?;
        let headers = source.chain.headers(range.0, certificate.height).await?;
        frame(&SyncResponse::Headers(headers.clone()))?;
        frame(&SyncResponse::Certificate(certificate.clone()))?;
        let mut bodies = Vec::new();
        for header in headers.iter().filter(|one| one.transactions_root != empty) {
            let body = source.chain.encoded_body(header.height).await?;
            let body = body.context("the chain ends early")?;
            frame(&SyncResponse::Body(body.clone()))?;
            bodies.push((header.height, body));
        }
        segments.push(Served {
            headers,
            certificate,
            bodies,
        });
        first = last + 1;
    }
    Ok(segments)
}

/// Makes the frame as it is sent.
fn frame(response: &SyncResponse) -> Result<()> {
    encode_answer(response)?.for_each(drop);
    Ok(())
}
