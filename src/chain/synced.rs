//! Blocks of verified segments: executed on what they follow, then committed.
//!
//! Executing takes no lock, so the blocks of one batch are executed while those of the batch before
//! are being written: [`Ahead`] is the state that is not durable yet. Committing takes the writer's
//! lock and looks again: when the chain has moved on by itself meanwhile, as consensus moves it, what
//! is left of the batch is executed anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::segment::{CheckedBody, VerifiedSegment};
use super::writer::{Spendable, parent_of};
use super::{ChainError, Inner};
use crate::ledger::{BlockError, apply_signed_block};
use crate::store::{BlockCommit, ChainState};
use crate::types::{Block, Genesis, Height, OutPoint, Tip, Transaction, TxOutput, ValidatorSet};

/// Blocks that have been executed and wait to be committed.
pub struct Executed {
    segment: Arc<VerifiedSegment>,
    blocks: Vec<Arc<Block>>,
    /// `None` when the chain moved on while they were being executed.
    commits: Option<Vec<BlockCommit>>,
    ahead: Option<Ahead>,
}

impl Executed {
    /// What the next batch can be executed on before this one is durable; `None` when this one has
    /// to be executed anew.
    pub fn ahead(&self) -> Option<Ahead> {
        self.ahead.clone()
    }

    /// How many blocks these are.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether all of them were committed before.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

/// The state after blocks that are executed and not durable yet; a cheap handle.
#[derive(Clone)]
pub struct Ahead(Arc<AheadState>);

struct AheadState {
    /// The height that the blocks follow.
    follows: Height,
    state: ChainState,
    /// Outputs made and not spent again, and outputs spent.
    changes: BTreeMap<OutPoint, Option<TxOutput>>,
}

impl Ahead {
    fn of(follows: Height, before: &ChainState, commits: &[BlockCommit]) -> Self {
        let mut changes = BTreeMap::new();
        for commit in commits {
            let spent = commit.applied.spent.iter();
            changes.extend(spent.map(|(outpoint, _)| (*outpoint, None)));
            let created = commit.applied.created.iter();
            changes.extend(created.map(|(outpoint, output)| (*outpoint, Some(*output))));
        }
        let state = commits.last().map(BlockCommit::state);
        Self(Arc::new(AheadState {
            follows,
            state: state.unwrap_or_else(|| before.clone()),
            changes,
        }))
    }
}

impl Inner {
    pub(super) async fn execute_segment(
        &self,
        segment: Arc<VerifiedSegment>,
        bodies: Vec<CheckedBody>,
        after: Option<Ahead>,
    ) -> Result<Executed, ChainError> {
        // Consensus may have gone past what is ahead.
        let after = after.filter(|ahead| ahead.0.state.tip.height >= self.tip.borrow().height);
        let state = match &after {
            Some(ahead) => ahead.0.state.clone(),
            None => self.lock().await.state().clone(),
        };
        let tip = state.tip;
        self.require_same_chain(&segment, tip).await?;
        let blocks = above(tip.height, &segment, bodies)?;
        let mut view = self.spendable(transactions(&blocks)).await?;
        // After the read: what has become durable since says the same once more.
        if let Some(ahead) = &after {
            if self.tip.borrow().height < ahead.0.follows {
                let (height, tip) = (tip.height.next(), self.tip.borrow().height);
                return Err(ChainError::NotNext { height, tip });
            }
            overlay(&mut view, &ahead.0.changes, &blocks);
        }
        let executed = self
            .execute_blocks(&segment, &blocks, state.clone(), view)
            .await;
        let moved_on = self.tip.borrow().height > tip.height;
        let commits = match executed {
            Ok(commits) => Some(commits),
            // Outputs may have been spent by the very blocks that are being executed.
            Err(_) if moved_on => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Executed {
            ahead: (commits.as_ref()).map(|commits| Ahead::of(tip.height, &state, commits)),
            segment,
            blocks,
            commits,
        })
    }

    pub(super) async fn commit_executed(&self, executed: Executed) -> Result<Tip, ChainError> {
        let writer = self.lock().await;
        let tip = writer.tip();
        let follows = |block: &Arc<Block>| block.header.parent == tip.hash;
        let Executed {
            segment,
            mut blocks,
            commits,
            ..
        } = executed;
        let commits = match commits {
            Some(commits) if blocks.first().is_some_and(follows) => commits,
            _ => {
                self.require_same_chain(&segment, tip).await?;
                blocks.retain(|block| block.header.height > tip.height);
                let view = self.spendable(transactions(&blocks)).await?;
                let state = writer.state().clone();
                self.execute_blocks(&segment, &blocks, state, view).await?
            }
        };
        if commits.is_empty() {
            return Ok(tip);
        }
        self.write(writer, commits).await
    }

    async fn execute_blocks(
        &self,
        segment: &Arc<VerifiedSegment>,
        blocks: &[Arc<Block>],
        state: ChainState,
        view: Spendable,
    ) -> Result<Vec<BlockCommit>, BlockError> {
        let (genesis, validators) = (self.genesis.clone(), self.validators.clone());
        let (segment, blocks) = (segment.clone(), blocks.to_vec());
        let run = move || execute(&genesis, &validators, &segment, blocks, state, view);
        self.offload.run(run).await
    }
}

/// The blocks above the tip; they must be consecutive and of the segment.
fn above(
    tip: Height,
    segment: &VerifiedSegment,
    bodies: Vec<CheckedBody>,
) -> Result<Vec<Arc<Block>>, ChainError> {
    let mut blocks = Vec::with_capacity(bodies.len());
    let mut parent = tip;
    for body in bodies {
        let height = body.height();
        if height <= tip {
            continue;
        }
        match segment.block(body) {
            Some(block) if height == parent.next() => blocks.push(block),
            _ => {
                let tip = parent;
                return Err(ChainError::NotNext { height, tip });
            }
        }
        parent = height;
    }
    Ok(blocks)
}

fn transactions(blocks: &[Arc<Block>]) -> impl Iterator<Item = &Transaction> {
    blocks.iter().flat_map(|block| &block.transactions)
}

/// Puts what is not durable yet over what is, as far as the blocks spend it.
fn overlay(
    view: &mut Spendable,
    changes: &BTreeMap<OutPoint, Option<TxOutput>>,
    blocks: &[Arc<Block>],
) {
    let inputs = transactions(blocks).flat_map(|transaction| &transaction.inputs);
    for outpoint in inputs.map(|input| input.outpoint) {
        match changes.get(&outpoint) {
            Some(Some(output)) => {
                view.insert(outpoint, *output);
            }
            Some(None) => {
                view.remove(&outpoint);
            }
            None => {}
        }
    }
}

/// Executes consecutive blocks, each on the outputs that the one before leaves.
fn execute(
    genesis: &Genesis,
    validators: &ValidatorSet,
    segment: &VerifiedSegment,
    blocks: Vec<Arc<Block>>,
    mut state: ChainState,
    mut view: Spendable,
) -> Result<Vec<BlockCommit>, BlockError> {
    let mut commits = Vec::with_capacity(blocks.len());
    for block in blocks {
        let parent = parent_of(&state);
        let applied = apply_signed_block(genesis, validators, &parent, &block, &view)?;
        for (outpoint, _) in &applied.spent {
            view.remove(outpoint);
        }
        view.extend(applied.created.iter().copied());
        let is_last = block.header.height == segment.last();
        let commit = BlockCommit {
            hash: block.hash(),
            block,
            applied: Arc::new(applied),
            certificate: is_last.then(|| segment.certificate().clone()),
        };
        state = commit.state();
        commits.push(commit);
    }
    Ok(commits)
}
