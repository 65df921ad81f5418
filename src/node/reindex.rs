//! `timed run --reindex`: builds the database anew from the blocks in it that prove themselves.
//!
//! Block after block is taken from the old file, by whole segments, and checked as if a stranger had
//! sent it: hash chain, certificate, roots, signatures, execution, state commitment. What comes after
//! the first block that does not pass is fetched from peers. The new file takes the place of the old
//! one in one step, and only when it is complete; the old one stays beside it, for a person to look
//! at or remove.
//!
//! The consensus log is never taken over: a file that is damaged may have lost the newest of it
//! without a trace. `consensus.state` names the height at which this masternode may have signed, so
//! it signs nothing up to that height and goes on above it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::NodeError;
use super::files::DataDir;
use crate::chain::{Chain, ChainError, CheckedBody, VerifiedSegment};
use crate::env::Offload;
use crate::store::{Backend, Store, StoreError, StoreThreads};
use crate::types::{Genesis, Height, Transaction};

/// Heights of one segment.
const SEGMENT: u64 = 256;

/// Bytes of bodies in one commit, but always one block.
const COMMIT_BYTES: usize = 16 * 1024 * 1024;

/// Between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reindexed {
    /// The last block that was kept.
    pub height: Height,
    /// Why it ended there; `None` when the old file held nothing more.
    pub stopped_by: Option<String>,
    /// Where the old file is now; `None` when there was none.
    pub old_file: Option<PathBuf>,
}

/// Builds the database of a data directory anew. The caller holds the directory's lock.
pub async fn reindex(dir: &DataDir, genesis: &Arc<Genesis>) -> Result<Reindexed, NodeError> {
    let path = dir.database();
    if !path.exists() {
        return Ok(Reindexed {
            height: Height::GENESIS,
            stopped_by: None,
            old_file: None,
        });
    }
    let fresh = beside(dir, "new");
    if fresh.exists() {
        // Left by a run that was ended early.
        std::fs::remove_file(&fresh).map_err(|source| failed(&fresh, source))?;
    }
    let store = Store::open(
        Backend::File(fresh.clone()),
        genesis.clone(),
        StoreThreads::Own,
    )?;
    let chain = Chain::open(genesis.clone(), store.clone(), Offload::Threads).await?;
    let stopped_by = match Store::open_unchecked(Backend::File(path.clone()), genesis.clone()) {
        Ok(source) => {
            keep_the_rest(&source, &store).await?;
            let stopped_by = copy(&source, &chain).await?;
            source.close().await;
            stopped_by
        }
        Err(StoreError::Damaged { detail, .. }) => Some(detail),
        Err(error) => return Err(error.into()),
    };
    let height = chain.tip().height;
    drop(chain);
    store.close().await;
    let old = free_name(dir);
    // There is a database under its name at every moment: a node that found none would start anew.
    std::fs::hard_link(&path, &old).map_err(|source| failed(&old, source))?;
    std::fs::rename(&fresh, &path).map_err(|source| failed(&fresh, source))?;
    let folder = std::fs::File::open(dir.root()).and_then(|folder| folder.sync_all());
    folder.map_err(|source| failed(dir.root(), source))?;
    Ok(Reindexed {
        height,
        stopped_by,
        old_file: Some(old),
    })
}

/// Where the old file goes: an older one that was kept stays.
fn free_name(dir: &DataDir) -> PathBuf {
    let numbered = (2..).map(|number| beside(dir, &format!("damaged-{number}")));
    std::iter::once(beside(dir, "damaged"))
        .chain(numbered)
        .find(|name| !name.exists())
        .expect("there is always a higher number")
}

fn beside(dir: &DataDir, suffix: &str) -> PathBuf {
    let mut name = dir.database().into_os_string();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn failed(path: &Path, source: std::io::Error) -> NodeError {
    NodeError::Reindex {
        path: path.to_owned(),
        source,
    }
}

/// Evidence, bans and the addresses of earlier peers; what cannot be read is lost with the file.
async fn keep_the_rest(source: &Store, target: &Store) -> Result<(), StoreError> {
    match source.wal().evidence().await {
        Ok(evidence) => {
            for one in evidence {
                target.wal().add_evidence(one).await?;
            }
        }
        Err(error) => tracing::warn!(reason = %error, "evidence of double signing is not kept"),
    }
    match source.bans().await {
        Ok(bans) => target.save_bans(bans).await?,
        Err(error) => tracing::warn!(reason = %error, "bans are not kept"),
    }
    match source.earlier_peers().await {
        Ok(peers) => target.save_peers(peers).await,
        Err(error) => {
            tracing::warn!(reason = %error, "the addresses of earlier peers are not kept");
            Ok(())
        }
    }
}

/// Commits what proves itself; returns why it ended before the source did.
async fn copy(source: &Store, chain: &Chain) -> Result<Option<String>, ChainError> {
    let mut next_line = Instant::now() + LOG_INTERVAL;
    loop {
        let from = chain.tip().height;
        let ended = match segment(source, chain).await {
            Ok(Some(segment)) => blocks(source, chain, Arc::new(segment)).await,
            Ok(None) => return Ok(None),
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) if chain.tip().height > from => {}
            Ok(()) => {
                return Ok(Some(format!(
                    "the body of block {} is missing",
                    from.next()
                )));
            }
            Err(Stop::Here(error)) => return Err(error),
            Err(Stop::There(why)) => return Ok(Some(why)),
        }
        if Instant::now() >= next_line {
            next_line = Instant::now() + LOG_INTERVAL;
            tracing::info!(height = chain.tip().height.0, "reindex: blocks kept so far");
        }
    }
}

/// Why copying cannot go on.
enum Stop {
    /// The new database or this machine failed.
    Here(ChainError),
    /// The old database does not hold the next block as it was.
    There(String),
}

impl From<StoreError> for Stop {
    /// Of the old database.
    fn from(error: StoreError) -> Self {
        Stop::There(match error {
            StoreError::Damaged { detail, .. } => detail,
            error => error.to_string(),
        })
    }
}

impl From<ChainError> for Stop {
    /// Of what was read, unless the new database failed.
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Store(_) => Stop::Here(error),
            error => Stop::There(error.to_string()),
        }
    }
}

/// The next segment that a stored certificate proves; `None` at the end.
async fn segment(source: &Store, chain: &Chain) -> Result<Option<VerifiedSegment>, Stop> {
    let first = chain.tip().height.0 + 1;
    let end = (first - 1) / SEGMENT * SEGMENT + SEGMENT;
    let Some(certificate) = source.last_certificate(first..=end).await? else {
        let more = source.header(Height(first)).await?;
        return match more {
            None => Ok(None),
            Some(_) => Err(Stop::There(format!("no certificate covers block {first}"))),
        };
    };
    let headers = source.headers(first..=certificate.height.0).await?;
    let (genesis, validators) = (chain.genesis_hash(), chain.validators().clone());
    let verify = move || VerifiedSegment::verify(headers, certificate, &validators, &genesis);
    Ok(Some(Offload::Threads.run(verify).await?))
}

/// Commits the blocks of a segment, up to the first that cannot be read or is not what it was.
async fn blocks(source: &Store, chain: &Chain, segment: Arc<VerifiedSegment>) -> Result<(), Stop> {
    let (mut bodies, mut bytes) = (Vec::new(), 0);
    let mut stopped = Ok(());
    for height in (segment.first().0..=segment.last().0).map(Height) {
        let body = match body(source, chain, &segment, height).await {
            Ok(Some(body)) => body,
            Ok(None) => break,
            Err(why) => {
                stopped = Err(why);
                break;
            }
        };
        let transactions = body.transactions().iter();
        bytes += transactions.map(Transaction::encoded_bytes).sum::<usize>();
        bodies.push(body);
        if bytes >= COMMIT_BYTES {
            commit(chain, &segment, std::mem::take(&mut bodies)).await?;
            bytes = 0;
        }
    }
    commit(chain, &segment, bodies).await?;
    stopped
}

async fn body(
    source: &Store,
    chain: &Chain,
    segment: &Arc<VerifiedSegment>,
    height: Height,
) -> Result<Option<CheckedBody>, Stop> {
    let Some(block) = source.block(height).await? else {
        return Ok(None);
    };
    let (segment, rules) = (segment.clone(), chain.rules());
    let check = move || segment.check_body(height, block.transactions, &rules);
    Ok(Some(Offload::Threads.run(check).await?))
}

async fn commit(
    chain: &Chain,
    segment: &Arc<VerifiedSegment>,
    bodies: Vec<CheckedBody>,
) -> Result<(), Stop> {
    let executed = chain.execute_segment(segment.clone(), bodies, None).await?;
    chain.commit_executed(executed).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
