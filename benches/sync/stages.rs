//! What each stage of a sync does alone, in blocks a second: the next bottleneck is the slowest.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use timed::chain::{CheckedBody, VerifiedSegment};
use timed::types::{CommitCertificate, Height, Transaction};
use timed::wire::{StreamKind, SyncResponse, decode_frame, encode_frame};
use tokio::time::Instant;

use crate::machine::Stored;

/// Heights of one segment.
const SEGMENT: u64 = 256;

/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;

/// Blocks a second of each stage.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    decode: f64,
    certificate: f64,
    headers: f64,
    bodies: f64,
    execute: f64,
    commit: f64,
}

impl Rates {
    pub fn slowest(&self) -> (&'static str, f64) {
        let stages = self.named().into_iter();
        stages
            .min_by(|one, other| one.1.total_cmp(&other.1))
            .expect("there are stages")
    }

    pub fn json(&self) -> Value {
        let rates = self.named().into_iter();
        Value::Object(
            rates
                .map(|(name, rate)| (name.to_owned(), json!(rate.round())))
                .collect::<Map<_, _>>(),
        )
    }

    fn named(&self) -> [(&'static str, f64); 6] {
        [
            ("decode", self.decode),
            ("certificate", self.certificate),
            ("headers", self.headers),
            ("bodies", self.bodies),
            ("execute", self.execute),
            ("commit", self.commit),
        ]
    }
}

/// A segment as it is served.
struct Served {
    frames: Vec<Vec<u8>>,
    headers: Vec<timed::types::BlockHeader>,
    certificate: CommitCertificate,
    bodies: Vec<(Height, Vec<Transaction>)>,
}

/// Takes the first blocks of a chain through each stage, one at a time on one thread, into a new file.
pub async fn measure(source: &Stored, folder: &Path, blocks: u64) -> Result<Rates> {
    let served = served(source, blocks).await?;
    let (genesis, validators) = (
        source.chain.genesis_hash(),
        source.chain.validators().clone(),
    );
    let (mut decode, mut certificate, mut headers, mut bodies) = Default::default();
    let mut checked: Vec<(Arc<VerifiedSegment>, Vec<CheckedBody>)> = Vec::new();
    let rules = source.chain.rules();
    for one in served {
        timed(&mut decode, || {
            one.frames.iter().try_for_each(|frame| {
                decode_frame::<SyncResponse>(StreamKind::Sync, &frame[LENGTH_BYTES..]).map(drop)
            })
        })?;
        timed(&mut certificate, || {
            one.certificate.verify(&validators, &genesis)
        })?;
        let segment = timed(&mut headers, || {
            VerifiedSegment::verify(one.headers, one.certificate, &validators, &genesis)
        })?;
        let found = timed(&mut bodies, || {
            let found = one.bodies.into_iter();
            found
                .map(|(height, body)| segment.check_body(height, body, &rules))
                .collect::<Result<Vec<_>, _>>()
        })?;
        checked.push((Arc::new(segment), found));
    }
    let (execute, commit) = into_new_file(source, folder, checked).await?;
    let rate = |took: Duration| blocks as f64 / took.as_secs_f64();
    Ok(Rates {
        decode: rate(decode),
        certificate: rate(certificate),
        headers: rate(headers),
        bodies: rate(bodies),
        execute: rate(execute),
        commit: rate(commit),
    })
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
    segments: Vec<(Arc<VerifiedSegment>, Vec<CheckedBody>)>,
) -> Result<(Duration, Duration)> {
    let path = folder.join("stages.redb");
    let target = Stored::open(&path, source.chain.genesis()).await?;
    let (mut execute, mut commit) = (Duration::ZERO, Duration::ZERO);
    for (segment, bodies) in segments {
        let start = Instant::now();
        let executed = target.chain.execute_segment(segment, bodies, None).await?;
        execute += start.elapsed();
        let start = Instant::now();
        target.chain.commit_executed(executed).await?;
        commit += start.elapsed();
    }
    target.close().await;
    std::fs::remove_file(path)?;
    Ok((execute, commit))
}

async fn served(source: &Stored, blocks: u64) -> Result<Vec<Served>> {
    let mut segments = Vec::new();
    let mut first = 1;
    while first <= blocks {
        let last = blocks.min((first - 1) / SEGMENT * SEGMENT + SEGMENT);
        let range = (Height(first), Height(last));
        let certificate = source.chain.last_certificate(range.0, range.1).await?;
        let certificate = certificate.context("the chain ends in the middle of a segment")?;
        let headers = source.chain.headers(range.0, certificate.height).await?;
        let mut frames = vec![
            SyncResponse::Headers(headers.clone()),
            SyncResponse::Certificate(certificate.clone()),
        ];
        let mut bodies = Vec::new();
        for height in (first..=certificate.height.0).map(Height) {
            let block = source.chain.block(height).await?;
            let body = block.context("the chain ends early")?.transactions;
            // One without transactions is never sent.
            if !body.is_empty() {
                frames.push(SyncResponse::Body(body.clone()));
            }
            bodies.push((height, body));
        }
        let frames = frames.iter().map(|one| encode_frame(StreamKind::Sync, one));
        segments.push(Served {
            frames: frames.collect::<Result<_, _>>()?,
            headers,
            certificate,
            bodies,
        });
        first = last + 1;
    }
    Ok(segments)
}
