//! What a node has besides consensus, in memory: chain, mempool, log, state file, each with points at
//! which the node can be made to crash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::mesh::Mesh;
use crate::chain::ChainError;
use crate::consensus::ports::Ports;
use crate::env::{DurableFile, FileInMemory};
use crate::ledger::BlockError;
use crate::net::SendError;
use crate::store::{StoreError, WalContent};
use crate::types::block::{BLOCK_VERSION, transactions_root};
use crate::types::{
    Block, BlockHash, BlockHeader, CommitCertificate, ConsensusKey, Genesis, GenesisHash, Height,
    PeerIp, StateCommitment, Tip, Transaction, ValidatorSet,
};
use crate::wire::{BodyHeader, ConsensusMessage};

/// The state commitment that the fake chain finds invalid.
const INVALID_STATE: StateCommitment = StateCommitment([255; 32]);

/// The state commitment that the fake chain takes long to check.
pub(super) const HEAVY_STATE: StateCommitment = StateCommitment([254; 32]);

/// Unwinds a node's actor like a crash does.
pub(super) struct Crashed;

/// Counts the points at which something leaves a node or becomes durable, and crashes at one.
#[derive(Default)]
pub(super) struct CrashPlan {
    pub(super) passed: Mutex<usize>,
    pub(super) at: Mutex<Option<usize>>,
}

impl CrashPlan {
    pub(super) fn point(&self) {
        let mut passed = self.passed.lock().unwrap();
        *passed += 1;
        let due = *self.at.lock().unwrap() == Some(*passed);
        drop(passed);
        if due {
            std::panic::resume_unwind(Box::new(Crashed));
        }
    }
}

/// `consensus.state` with crash points around each write.
pub(super) struct CrashingFile {
    pub(super) file: FileInMemory,
    pub(super) plan: Arc<CrashPlan>,
}

impl DurableFile for CrashingFile {
    fn load(&self) -> std::io::Result<Option<Vec<u8>>> {
        self.file.load()
    }

    fn replace(&self, content: &[u8]) -> std::io::Result<()> {
        self.plan.point();
        self.file.replace(content)?;
        self.plan.point();
        Ok(())
    }

    fn name(&self) -> String {
        "consensus.state".into()
    }
}

/// What a node has on disk.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) blocks: Vec<(Block, CommitCertificate)>,
    pub(super) logs: BTreeMap<Height, WalContent>,
    pub(super) evidence: Vec<Vec<u8>>,
}

/// One node's ports.
#[derive(Clone)]
pub(super) struct FakePorts {
    pub(super) index: usize,
    pub(super) validators: Arc<ValidatorSet>,
    pub(super) genesis_hash: GenesisHash,
    pub(super) disk: Arc<Mutex<Disk>>,
    pub(super) tip: Arc<watch::Sender<Tip>>,
    pub(super) ready: Arc<watch::Sender<bool>>,
    pub(super) mempool: Arc<Mutex<Vec<Transaction>>>,
    pub(super) mesh: Arc<Mutex<Mesh>>,
    pub(super) plan: Arc<CrashPlan>,
    pub(super) make_invalid: Arc<Mutex<bool>>,
    /// Checks, builds and commits go one at a time, in the order in which they were asked for.
    pub(super) writer: Arc<tokio::sync::Mutex<()>>,
    /// How long a block of [`HEAVY_STATE`] is checked.
    pub(super) heavy: Duration,
}

pub(super) fn genesis_tip(genesis: &Genesis) -> Tip {
    Tip {
        height: Height::GENESIS,
        hash: genesis.as_parent(),
        time_ms: genesis.time_ms,
        state: StateCommitment([0; 32]),
    }
}

impl FakePorts {
    pub(super) fn check(&self, block: &Block) -> Result<(), ChainError> {
        let tip = *self.tip.borrow();
        let header = &block.header;
        if header.height != tip.height.next() {
            return Err(ChainError::NotNext {
                height: header.height,
                tip: tip.height,
            });
        }
        let sound = header.parent == tip.hash
            && header.time_ms > tip.time_ms
            && header.state != INVALID_STATE;
        match sound {
            true => Ok(()),
            false => Err(ChainError::Invalid(BlockError::Time {
                height: header.height,
                time_ms: header.time_ms,
                parent_time_ms: tip.time_ms,
            })),
        }
    }

    /// Adds a block to the chain and drops the log of its height, as one transaction.
    pub(super) fn append(&self, block: Block, certificate: CommitCertificate) -> Tip {
        let tip = Tip {
            height: block.header.height,
            hash: block.hash(),
            time_ms: block.header.time_ms,
            state: block.header.state,
        };
        let mut mempool = self.mempool.lock().unwrap();
        mempool.retain(|waiting| !block.transactions.contains(waiting));
        self.ready.send_replace(!mempool.is_empty());
        drop(mempool);
        let mut disk = self.disk.lock().unwrap();
        disk.logs.retain(|height, _| *height > block.header.height);
        disk.blocks.push((block, certificate));
        drop(disk);
        self.tip.send_replace(tip);
        tip
    }
}

impl Ports for FakePorts {
    fn tip(&self) -> Tip {
        let mut mesh = self.mesh.lock().unwrap();
        *mesh.counts.entry("tip_read").or_default() += 1;
        *self.tip.borrow()
    }

    fn watch_tip(&self) -> watch::Receiver<Tip> {
        self.tip.subscribe()
    }

    fn watch_ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    async fn build_block(
        &self,
        proposer: ConsensusKey,
        time_ms: u64,
        max_bytes: usize,
    ) -> Result<Block, ChainError> {
        let _turn = self.writer.lock().await;
        let tip = *self.tip.borrow();
        let mut left = max_bytes.saturating_sub(1_000);
        let mut transactions = self.mempool.lock().unwrap().clone();
        transactions.retain(|one| {
            let fits = one.encoded_bytes() <= left;
            left -= if fits { one.encoded_bytes() } else { 0 };
            fits
        });
        let invalid = *self.make_invalid.lock().unwrap();
        Ok(Block {
            header: BlockHeader {
                version: BLOCK_VERSION,
                height: tip.height.next(),
                time_ms,
                parent: tip.hash,
                proposer,
                transactions_root: transactions_root(&transactions),
                state: if invalid { INVALID_STATE } else { tip.state },
                validators: self.validators.hash(),
            },
            transactions,
        })
    }

    async fn check_block(&self, block: Arc<Block>) -> Result<(), ChainError> {
        let _turn = self.writer.lock().await;
        tokio::time::sleep(match block.header.state {
            HEAVY_STATE => self.heavy,
            _ => Duration::from_millis(1),
        })
        .await;
        self.check(&block)
    }

    async fn commit(
        &self,
        block: Arc<Block>,
        certificate: CommitCertificate,
    ) -> Result<Tip, ChainError> {
        let _turn = self.writer.lock().await;
        self.plan.point();
        self.check(&block)?;
        certificate
            .verify(&self.validators, &self.genesis_hash)
            .expect("only proved blocks are committed");
        assert_eq!(certificate.block, block.hash());
        let tip = self.append(block.as_ref().clone(), certificate);
        self.plan.point();
        Ok(tip)
    }

    async fn block(&self, height: Height) -> Result<Option<Block>, ChainError> {
        let mut mesh = self.mesh.lock().unwrap();
        *mesh.counts.entry("block_read").or_default() += 1;
        drop(mesh);
        let disk = self.disk.lock().unwrap();
        let at = disk.blocks.get(height.0 as usize - 1);
        Ok(at.map(|(block, _)| block.clone()))
    }

    async fn certificate(&self, height: Height) -> Result<Option<CommitCertificate>, ChainError> {
        let disk = self.disk.lock().unwrap();
        let at = disk.blocks.get(height.0 as usize - 1);
        Ok(at.map(|(_, certificate)| certificate.clone()))
    }

    fn send(&self, to: PeerIp, message: ConsensusMessage) -> Result<(), SendError> {
        self.plan.point();
        let mut mesh = self.mesh.lock().unwrap();
        mesh.note(self.index, &message);
        mesh.send_message(self.index, to, message);
        Ok(())
    }

    fn send_body(
        &self,
        to: PeerIp,
        header: BodyHeader,
        bytes: Arc<Vec<u8>>,
    ) -> Result<(), SendError> {
        self.plan.point();
        self.mesh
            .lock()
            .unwrap()
            .send_body(self.index, to, header, &bytes);
        Ok(())
    }

    async fn wal_begin(&self, height: Height, entry: Vec<u8>) -> Result<(), StoreError> {
        self.disk.lock().unwrap().logs.remove(&height);
        self.wal_append(height, vec![entry], Vec::new()).await
    }

    async fn wal_append(
        &self,
        height: Height,
        entries: Vec<Vec<u8>>,
        bodies: Vec<(BlockHash, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        self.plan.point();
        let mut disk = self.disk.lock().unwrap();
        let log = disk.logs.entry(height).or_default();
        log.entries.extend(entries);
        log.bodies.extend(bodies);
        drop(disk);
        self.plan.point();
        Ok(())
    }

    async fn wal_load(&self, height: Height) -> Result<WalContent, StoreError> {
        let disk = self.disk.lock().unwrap();
        Ok(disk.logs.get(&height).cloned().unwrap_or_default())
    }

    async fn add_evidence(&self, evidence: Vec<u8>) -> Result<(), StoreError> {
        let mut disk = self.disk.lock().unwrap();
        if !disk.evidence.contains(&evidence) {
            disk.evidence.push(evidence);
        }
        Ok(())
    }

    async fn evidence(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.disk.lock().unwrap().evidence.clone())
    }
}
