//! Commits in order: while one batch is being written, the next is executed.
//!
//! At most [`Limits::commits`](super::plan::Limits::commits) batches are in here; the plan sees to
//! that. Nothing is dropped: a batch ends as committed, or with the reason why it cannot be, and
//! then those behind it go with it. That reason is told only when nothing is being written any more.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};

use crate::chain::{Ahead, Chain, ChainError, CheckedBody, Executed, VerifiedSegment};
use crate::types::Tip;

/// The batches on their way into the chain.
pub(super) struct Commits {
    chain: Chain,
    waiting: VecDeque<(Arc<VerifiedSegment>, Vec<CheckedBody>)>,
    /// At most one.
    executing: JoinSet<Result<Executed, ChainError>>,
    executed: Option<Result<Executed, ChainError>>,
    /// At most one.
    writing: JoinSet<Result<Tip, ChainError>>,
    /// Of the batch in `writing`; `None` when it has to be executed anew.
    written: Option<Written>,
}

struct Written {
    blocks: usize,
    ahead: Option<Ahead>,
}

impl Commits {
    pub(super) fn new(chain: Chain) -> Self {
        Self {
            chain,
            waiting: VecDeque::new(),
            executing: JoinSet::new(),
            executed: None,
            writing: JoinSet::new(),
            written: None,
        }
    }

    /// Commits this batch after those before it.
    pub(super) fn push(&mut self, segment: Arc<VerifiedSegment>, bodies: Vec<CheckedBody>) {
        self.waiting.push_back((segment, bodies));
        self.advance();
    }

    /// The next batch that has ended: how many blocks, and the tip after them. Pending when there is
    /// none. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Result<(usize, Tip), ChainError> {
        loop {
            self.advance();
            if self.writing.is_empty()
                && let Some(Err(_)) = &self.executed
                && let Some(Err(error)) = self.executed.take()
            {
                self.waiting.clear();
                return Err(error);
            }
            tokio::select! {
                biased;
                Some(done) = self.writing.join_next() => {
                    let blocks = self.written.take().map_or(0, |written| written.blocks);
                    let result = unwound(done);
                    if result.is_err() {
                        self.give_up();
                    }
                    return result.map(|tip| (blocks, tip));
                }
                Some(done) = self.executing.join_next() => self.executed = Some(unwound(done)),
                else => std::future::pending().await,
            }
        }
    }

    /// Starts what can be started.
    fn advance(&mut self) {
        if self.writing.is_empty()
            && let Some(Ok(executed)) = self.executed.take_if(|executed| executed.is_ok())
        {
            self.written = Some(Written {
                blocks: executed.len(),
                ahead: executed.ahead(),
            });
            let chain = self.chain.clone();
            (self.writing).spawn(async move { chain.commit_executed(executed).await });
        }
        if self.executed.is_some() || !self.executing.is_empty() {
            return;
        }
        let after = match &self.written {
            None => None,
            Some(Written {
                ahead: Some(ahead), ..
            }) => Some(ahead.clone()),
            // Its outcome decides what comes next.
            Some(Written { ahead: None, .. }) => return,
        };
        if let Some((segment, bodies)) = self.waiting.pop_front() {
            let chain = self.chain.clone();
            let execute = async move { chain.execute_segment(segment, bodies, after).await };
            self.executing.spawn(execute);
        }
    }

    /// Drops the batches behind one that failed.
    fn give_up(&mut self) {
        self.waiting.clear();
        self.executed = None;
        self.executing = JoinSet::new();
    }
}

/// The result of a task that is aborted only with its set.
fn unwound<T>(joined: Result<T, JoinError>) -> T {
    match joined {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
