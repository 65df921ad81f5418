//! What the holder of the writer lock does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::segment::{VerifiedSegment, check_certificate};
use super::{ChainError, Inner};
use crate::env::Offload;
use crate::ledger::{Applied, Draft, Parent, apply_block, assemble_block};
use crate::store::{BlockCommit, ChainState, Store, StoreError};
use crate::types::{
    Block, BlockHash, CommitCertificate, Genesis, GenesisHash, Height, OutPoint, Tip, Transaction,
    TxOutput,
};

/// How many checked blocks of the current height are kept: those of the newest rounds.
const CHECKED_BLOCKS: usize = 4;

pub(super) type SharedWriter = Arc<Mutex<Writer>>;

/// The state that only the holder of the lock sees and changes.
pub(super) struct Writer {
    state: ChainState,
    /// Executed children of the tip, oldest first.
    checked: VecDeque<Checked>,
}

#[derive(Clone)]
struct Checked {
    block: Arc<Block>,
    applied: Arc<Applied>,
}

impl Writer {
    pub(super) fn shared(state: ChainState) -> SharedWriter {
        Arc::new(Mutex::new(Self {
            state,
            checked: VecDeque::new(),
        }))
    }

    pub(super) fn tip(&self) -> Tip {
        self.state.tip
    }

    pub(super) fn state(&self) -> &ChainState {
        &self.state
    }

    fn parent(&self) -> Parent {
        parent_of(&self.state)
    }

    /// The kept result of exactly this block. A header's hash alone does not do: the body that came
    /// with it may be another one.
    fn checked(&self, block: &Arc<Block>) -> Option<Checked> {
        self.checked
            .iter()
            .find(|one| Arc::ptr_eq(&one.block, block) || one.block == *block)
            .cloned()
    }

    fn remember(&mut self, checked: Checked) {
        if self.checked.len() == CHECKED_BLOCKS {
            self.checked.pop_front();
        }
        self.checked.push_back(checked);
    }

    fn advance(&mut self, state: ChainState) {
        self.state = state;
        self.checked.clear();
    }
}

/// The stored state, checked against genesis, or that of genesis itself when the store is new.
pub(super) async fn open_state(
    genesis: &Arc<Genesis>,
    genesis_hash: GenesisHash,
    store: &Store,
    offload: Offload,
) -> Result<ChainState, StoreError> {
    let stored_genesis = store.genesis().hash();
    if stored_genesis != genesis_hash {
        return Err(StoreError::WrongGenesis {
            place: store.place().clone(),
            stored: stored_genesis,
            expected: genesis_hash,
        });
    }
    let stored = store.chain_state().await?;
    if let Some(state) = &stored
        && state.tip.height > Height::GENESIS
    {
        return Ok(state.clone());
    }
    let genesis = genesis.clone();
    let (state, outputs) = offload.run(move || genesis_state(&genesis)).await;
    match stored {
        None => store.write_genesis(state.clone(), outputs).await?,
        Some(stored) if stored.tip == state.tip => {}
        Some(_) => {
            return Err(StoreError::Damaged {
                place: store.place().clone(),
                detail: "the state at height 0 is not that of genesis".into(),
            });
        }
    }
    Ok(state)
}

/// The state and the unspent outputs at height 0.
fn genesis_state(genesis: &Genesis) -> (ChainState, Vec<(OutPoint, TxOutput)>) {
    let parent = Parent::genesis(genesis);
    let tip = Tip {
        height: parent.height,
        hash: parent.hash,
        time_ms: parent.time_ms,
        state: parent.set.commitment(),
    };
    let set = parent.set;
    (ChainState { tip, set }, genesis.outputs())
}

impl Inner {
    pub(super) async fn build_block(&self, draft: Draft) -> Result<Block, ChainError> {
        let mut writer = self.lock().await;
        let view = self.spendable(draft.candidates.iter()).await?;
        let (genesis, validators) = (self.genesis.clone(), self.validators.clone());
        let parent = writer.parent();
        let built = move || assemble_block(&genesis, &validators, &parent, draft, &view);
        let (block, applied) = self.offload.run(built).await?;
        writer.remember(Checked {
            block: Arc::new(block.clone()),
            applied: Arc::new(applied),
        });
        Ok(block)
    }

    pub(super) async fn check_block(&self, block: Arc<Block>) -> Result<(), ChainError> {
        let mut writer = self.lock().await;
        require_next(block.header.height, writer.tip())?;
        self.execute(&mut writer, block).await.map(drop)
    }

    pub(super) async fn commit(
        &self,
        block: Arc<Block>,
        certificate: CommitCertificate,
    ) -> Result<Tip, ChainError> {
        let mut writer = self.lock().await;
        let (tip, hash, height) = (writer.tip(), block.hash(), block.header.height);
        let held = match height <= tip.height {
            true => self.held(height).await?,
            false => None,
        };
        if held == Some(hash) {
            return Ok(tip);
        }
        let certificate = self.verify(certificate, height, hash).await?;
        if let Some(ours) = held {
            return Err(fork(height, ours, hash));
        }
        require_next(height, tip)?;
        if block.header.parent != tip.hash {
            return Err(fork(tip.height, tip.hash, block.header.parent));
        }
        let checked = self.execute(&mut writer, block).await?;
        let commit = BlockCommit {
            block: checked.block,
            hash,
            applied: checked.applied,
            certificate: Some(certificate),
        };
        self.write(writer, vec![commit]).await
    }

    pub(super) async fn lock(&self) -> OwnedMutexGuard<Writer> {
        self.writer.clone().lock_owned().await
    }

    /// Executes a child of the tip, or takes the kept result.
    async fn execute(&self, writer: &mut Writer, block: Arc<Block>) -> Result<Checked, ChainError> {
        if let Some(checked) = writer.checked(&block) {
            return Ok(checked);
        }
        let view = self.spendable(block.transactions.iter()).await?;
        let (genesis, validators) = (self.genesis.clone(), self.validators.clone());
        let (parent, executed) = (writer.parent(), block.clone());
        let run = move || apply_block(&genesis, &validators, &parent, &executed, &view);
        let checked = Checked {
            applied: Arc::new(self.offload.run(run).await?),
            block,
        };
        writer.remember(checked.clone());
        Ok(checked)
    }

    /// Commits durably, then advances the state and publishes the tip, whether or not the caller
    /// still waits.
    pub(super) async fn write(
        &self,
        mut writer: OwnedMutexGuard<Writer>,
        commits: Vec<BlockCommit>,
    ) -> Result<Tip, ChainError> {
        let publish = self.tip.clone();
        let then = move |state: ChainState| {
            let tip = state.tip;
            writer.advance(state);
            publish.send_replace(tip);
            tip
        };
        Ok(self.store.commit_blocks(commits, then).await?)
    }

    /// The stored outputs that these transactions spend.
    pub(super) async fn spendable(
        &self,
        transactions: impl Iterator<Item = &Transaction>,
    ) -> Result<Spendable, ChainError> {
        let outpoints: Vec<OutPoint> = transactions
            .flat_map(|transaction| &transaction.inputs)
            .map(|input| input.outpoint)
            .collect();
        if outpoints.is_empty() {
            return Ok(Spendable::default());
        }
        Ok(self.store.unspent(outpoints).await?)
    }

    async fn verify(
        &self,
        certificate: CommitCertificate,
        height: Height,
        hash: BlockHash,
    ) -> Result<CommitCertificate, ChainError> {
        let (validators, genesis) = (self.validators.clone(), self.genesis_hash);
        self.offload
            .run(move || {
                check_certificate(&certificate, height, hash, &validators, &genesis)?;
                Ok(certificate)
            })
            .await
    }

    /// Checks that a segment continues or repeats this chain.
    pub(super) async fn require_same_chain(
        &self,
        segment: &VerifiedSegment,
        tip: Tip,
    ) -> Result<(), ChainError> {
        let (first, last) = (segment.headers()[0], segment.last());
        let (height, ours, theirs) = if let Some(header) = segment.header(tip.height) {
            (tip.height, Some(tip.hash), header.hash())
        } else if last < tip.height {
            let theirs = segment.certificate().block;
            (last, self.held(last).await?, theirs)
        } else {
            require_next(first.height, tip)?;
            (tip.height, Some(tip.hash), first.parent)
        };
        match ours {
            Some(ours) if ours != theirs => Err(fork(height, ours, theirs)),
            _ => Ok(()),
        }
    }

    /// The hash of this node's block at a height.
    async fn held(&self, height: Height) -> Result<Option<BlockHash>, StoreError> {
        let header = self.store.header(height).await?;
        Ok(header.map(|header| header.hash()))
    }
}

/// Unspent outputs fetched before execution, which runs without the store.
pub(super) type Spendable = BTreeMap<OutPoint, TxOutput>;

pub(super) fn parent_of(state: &ChainState) -> Parent {
    Parent {
        height: state.tip.height,
        hash: state.tip.hash,
        time_ms: state.tip.time_ms,
        set: state.set.clone(),
    }
}

fn require_next(height: Height, tip: Tip) -> Result<(), ChainError> {
    if height == tip.height.next() {
        return Ok(());
    }
    let tip = tip.height;
    Err(ChainError::NotNext { height, tip })
}

fn fork(height: Height, ours: BlockHash, theirs: BlockHash) -> ChainError {
    ChainError::Fork {
        height,
        ours,
        theirs,
    }
}
