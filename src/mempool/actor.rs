//! The loop around [`Core`]: feeds it with requests, network events, blocks and verdicts.
//!
//! At most one job runs at a time: checking a batch, reading the next block, or reading the outputs
//! for a re-check. So a verdict never meets a pool that has followed a newer block than the verdict
//! knows of; meanwhile requests and network events are handled as usual.

use std::collections::BTreeMap;
use std::pin::Pin;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::core::Core;
use super::gossip::Outbox;
use super::intake::{Batch, Checked, Reply, Verdict};
use super::pool::PoolLimits;
use super::ports::ChainReader;
use super::{MempoolError, MempoolStats, WaitingTransaction};
use crate::chain::ChainError;
use crate::env::Offload;
use crate::ledger::{Rules, TransactionError};
use crate::net::TransactionsEvent;
use crate::types::{Block, Height, OutPoint, Transaction, TxId, TxOutput};

/// Further behind than this, the pool is checked as a whole instead of block by block.
const MAX_BLOCKS_BEHIND: u64 = 256;

/// The most outputs that the chain is asked for at a time.
const OUTPOINTS_AT_ONCE: usize = 10_000;

/// The most selections that wait for the pool to catch up; further ones are answered as it is.
const MAX_PARKED: usize = 16;

/// A request of a handle.
pub(super) enum Request {
    /// Check and take a transaction.
    Submit {
        /// The transaction.
        transaction: Transaction,
        /// The verdict.
        reply: Reply,
    },
    /// Candidates for a block.
    Select {
        /// The most bytes.
        max_bytes: usize,
        /// The candidates.
        reply: oneshot::Sender<Vec<Transaction>>,
    },
    /// One transaction.
    Get {
        /// Which.
        txid: TxId,
        /// The transaction.
        reply: oneshot::Sender<Option<Transaction>>,
    },
    /// All transactions.
    List {
        /// Best rate first.
        reply: oneshot::Sender<Vec<WaitingTransaction>>,
    },
    /// Counts and sizes.
    Stats {
        /// They.
        reply: oneshot::Sender<MempoolStats>,
    },
}

/// The mempool's actor.
pub(super) struct Actor<C, O> {
    chain: C,
    offload: Offload,
    rules: Rules,
    core: Core,
    outbox: O,
    ready: watch::Sender<bool>,
    /// The block that the pool has followed the chain to.
    height: Height,
    /// The pool is to be checked as a whole.
    recheck_due: bool,
    /// The best candidate of the last selection.
    last_best: Option<TxId>,
    parked: Vec<Parked>,
}

/// A selection that waits until the pool has caught up.
struct Parked {
    max_bytes: usize,
    reply: oneshot::Sender<Vec<Transaction>>,
    height: Height,
}

type Job = Pin<Box<dyn Future<Output = Result<Done, ChainError>> + Send>>;
type Outputs = BTreeMap<OutPoint, TxOutput>;

/// What a job brings.
enum Done {
    Checked(Checked),
    Block(Height, Option<Block>),
    Outputs(Height, Outputs),
}

impl<C: ChainReader, O: Outbox> Actor<C, O> {
    /// An actor with an empty pool at the chain's tip.
    pub(super) fn new(
        chain: C,
        rules: Rules,
        outbox: O,
        offload: Offload,
        ready: watch::Sender<bool>,
    ) -> Self {
        Self {
            rules,
            core: Core::new(rules, PoolLimits::RECOMMENDED),
            outbox,
            ready,
            height: chain.tip().height,
            recheck_due: false,
            last_best: None,
            parked: Vec::new(),
            chain,
            offload,
        }
    }

    /// Runs until cancelled, or until the chain cannot be read.
    pub(super) async fn run(
        mut self,
        mut mailbox: mpsc::Receiver<Request>,
        mut inbound: mpsc::Receiver<TransactionsEvent>,
        cancel: CancellationToken,
    ) -> Result<(), MempoolError> {
        let mut tip = self.chain.watch_tip();
        let mut job: Option<Job> = None;
        let (mut handles, mut network) = (true, true);
        loop {
            if job.is_none() {
                job = self.next_job();
            }
            self.settle();
            let tick = self.core.next_tick();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                done = finish(&mut job) => self.on_done(done?),
                request = mailbox.recv(), if handles => match request {
                    Some(request) => self.on_request(request),
                    None => handles = false,
                },
                changed = tip.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                event = inbound.recv(), if network && self.core.has_room() => match event {
                    Some(event) => self.core.on_event(event, Instant::now()),
                    None => network = false,
                },
                () = until(tick) => {}
            }
        }
    }

    /// The next thing to be done off this loop: catching up comes before new transactions.
    fn next_job(&mut self) -> Option<Job> {
        let tip = self.chain.tip().height;
        if self.core.is_idle() && (self.height < tip || self.recheck_due) {
            self.core.skip_blocks();
            self.height = tip;
            self.recheck_due = false;
        }
        if self.recheck_due || tip.0.saturating_sub(self.height.0) > MAX_BLOCKS_BEHIND {
            let inputs = self.core.pool().inputs();
            return Some(Box::pin(read_outputs(self.chain.clone(), tip, inputs)));
        }
        if self.height < tip {
            return Some(Box::pin(read_block(self.chain.clone(), self.height.next())));
        }
        let batch = self.core.next_batch()?;
        let (chain, offload, rules) = (self.chain.clone(), self.offload, self.rules);
        Some(Box::pin(check(chain, offload, rules, batch)))
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Checked(checked) => self.core.on_checked(checked),
            Done::Block(height, Some(block)) => {
                self.core.on_block(&block);
                self.height = height;
            }
            Done::Block(_, None) => self.recheck_due = true,
            Done::Outputs(height, outputs) => {
                let dropped = self.core.recheck(&outputs);
                if dropped > 0 {
                    info!(%height, dropped, "dropped transactions that the chain no longer allows");
                }
                self.recheck_due = false;
                self.height = height;
            }
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Submit { transaction, reply } => self.core.submit(transaction, reply),
            Request::Select { max_bytes, reply } => self.park(max_bytes, reply),
            Request::Get { txid, reply } => {
                let transaction = self.core.pool().get(&txid);
                answer(
                    reply,
                    transaction.map(|transaction| (**transaction).clone()),
                );
            }
            Request::List { reply } => answer(reply, self.core.pool().list()),
            Request::Stats { reply } => answer(reply, self.core.stats()),
        }
    }

    /// Holds a selection until the pool is at the chain's tip. If the last one did not lead to a
    /// block, something may be wrong with what it offered: then the pool is checked first.
    fn park(&mut self, max_bytes: usize, reply: oneshot::Sender<Vec<Transaction>>) {
        if self.parked.len() >= MAX_PARKED {
            return answer(reply, self.core.pool().select(max_bytes));
        }
        if self
            .last_best
            .is_some_and(|txid| self.core.pool().contains(&txid))
        {
            self.recheck_due = true;
        }
        self.parked.push(Parked {
            max_bytes,
            reply,
            height: self.chain.tip().height,
        });
    }

    /// Sends and answers what has become due.
    fn settle(&mut self) {
        self.core.flush(Instant::now(), &mut self.outbox);
        if !self.recheck_due {
            for parked in std::mem::take(&mut self.parked) {
                if self.height < parked.height {
                    self.parked.push(parked);
                    continue;
                }
                let selected = self.core.pool().select(parked.max_bytes);
                self.last_best = selected.first().map(Transaction::id);
                answer(parked.reply, selected);
            }
        }
        let ready = !self.core.pool().is_empty();
        self.ready
            .send_if_modified(|old| std::mem::replace(old, ready) != ready);
    }
}

/// Answers a caller, who may have stopped waiting.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        debug!("the caller no longer waits for its answer");
    }
}

/// The running job's result; waits for ever when none runs.
async fn finish(job: &mut Option<Job>) -> Result<Done, ChainError> {
    let Some(running) = job else {
        return std::future::pending().await;
    };
    let done = running.await;
    *job = None;
    done
}

async fn until(tick: Option<Instant>) {
    match tick {
        Some(tick) => sleep_until(tick).await,
        None => std::future::pending().await,
    }
}

/// Checks a batch against the chain's outputs, the signatures where they hold up nobody.
async fn check(
    chain: impl ChainReader,
    offload: Offload,
    rules: Rules,
    batch: Batch,
) -> Result<Done, ChainError> {
    let outputs = outputs_of(&chain, batch.outpoints()).await?;
    let mut checked = offload.run(move || batch.check(outputs, &rules)).await;
    // Inputs are missing also when the transaction itself has spent them: it may be final.
    for (item, verdict) in &mut checked.verdicts {
        if matches!(
            verdict,
            Verdict::Refused(TransactionError::MissingInput { .. })
        ) && let Some(height) = chain.final_height(item.txid).await?
        {
            *verdict = Verdict::Final(height);
        }
    }
    Ok(Done::Checked(checked))
}

async fn read_block(chain: impl ChainReader, height: Height) -> Result<Done, ChainError> {
    Ok(Done::Block(height, chain.block(height).await?))
}

/// The outputs as they are at `tip` or later; later blocks are followed afterwards.
async fn read_outputs(
    chain: impl ChainReader,
    tip: Height,
    outpoints: Vec<OutPoint>,
) -> Result<Done, ChainError> {
    Ok(Done::Outputs(tip, outputs_of(&chain, outpoints).await?))
}

async fn outputs_of(
    chain: &impl ChainReader,
    outpoints: Vec<OutPoint>,
) -> Result<Outputs, ChainError> {
    let mut known = BTreeMap::new();
    for part in outpoints.chunks(OUTPOINTS_AT_ONCE) {
        let outputs = chain.outputs(part.to_vec()).await?;
        let found = part.iter().copied().zip(outputs);
        known.extend(found.filter_map(|(outpoint, output)| Some((outpoint, output?))));
    }
    Ok(known)
}

#[cfg(test)]
mod tests;
