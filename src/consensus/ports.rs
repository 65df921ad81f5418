//! What consensus needs from the rest of the node, as one interface: so that its tests run with a
//! chain and a network in memory.

use std::sync::Arc;

use tokio::sync::watch;

use crate::chain::{Chain, ChainError};
use crate::mempool::Mempool;
use crate::net::{NetHandle, SendError};
use crate::store::{StoreError, Wal, WalContent};
use crate::types::{Block, BlockHash, CommitCertificate, ConsensusKey, Height, PeerIp, Tip};
use crate::wire::{BodyHeader, ConsensusMessage};

/// The chain, the mempool, the network and the log.
pub(super) trait Ports: Clone + Send + Sync + 'static {
    fn tip(&self) -> Tip;
    fn watch_tip(&self) -> watch::Receiver<Tip>;
    fn watch_ready(&self) -> watch::Receiver<bool>;
    fn build_block(
        &self,
        proposer: ConsensusKey,
        time_ms: u64,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Block, ChainError>> + Send;
    fn check_block(&self, block: Arc<Block>)
    -> impl Future<Output = Result<(), ChainError>> + Send;
    fn commit(
        &self,
        block: Arc<Block>,
        certificate: CommitCertificate,
    ) -> impl Future<Output = Result<Tip, ChainError>> + Send;
    fn block(
        &self,
        height: Height,
    ) -> impl Future<Output = Result<Option<Block>, ChainError>> + Send;
    fn certificate(
        &self,
        height: Height,
    ) -> impl Future<Output = Result<Option<CommitCertificate>, ChainError>> + Send;
    fn send(&self, to: PeerIp, message: ConsensusMessage) -> Result<(), SendError>;
    fn send_body(
        &self,
        to: PeerIp,
        header: BodyHeader,
        bytes: Arc<Vec<u8>>,
    ) -> Result<(), SendError>;
    fn wal_begin(
        &self,
        height: Height,
        entry: Vec<u8>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn wal_append(
        &self,
        height: Height,
        entries: Vec<Vec<u8>>,
        bodies: Vec<(BlockHash, Vec<u8>)>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn wal_load(
        &self,
        height: Height,
    ) -> impl Future<Output = Result<WalContent, StoreError>> + Send;
    fn add_evidence(
        &self,
        evidence: Vec<u8>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn evidence(&self) -> impl Future<Output = Result<Vec<Vec<u8>>, StoreError>> + Send;
}

/// The parts of a running node.
#[derive(Clone)]
pub(super) struct NodePorts {
    pub(super) chain: Chain,
    pub(super) mempool: Mempool,
    pub(super) net: NetHandle,
    pub(super) wal: Wal,
}

impl Ports for NodePorts {
    fn tip(&self) -> Tip {
        self.chain.tip()
    }

    fn watch_tip(&self) -> watch::Receiver<Tip> {
        self.chain.watch_tip()
    }

    fn watch_ready(&self) -> watch::Receiver<bool> {
        self.mempool.watch_ready()
    }

    async fn build_block(
        &self,
        proposer: ConsensusKey,
        time_ms: u64,
        max_bytes: usize,
    ) -> Result<Block, ChainError> {
        let candidates = self.mempool.select(max_bytes).await;
        self.chain
            .build_block(proposer, time_ms, candidates, max_bytes)
            .await
    }

    async fn check_block(&self, block: Arc<Block>) -> Result<(), ChainError> {
        self.chain.check_block(block).await
    }

    async fn commit(
        &self,
        block: Arc<Block>,
        certificate: CommitCertificate,
    ) -> Result<Tip, ChainError> {
        self.chain.commit(block, certificate).await
    }

    async fn block(&self, height: Height) -> Result<Option<Block>, ChainError> {
        self.chain.block(height).await
    }

    async fn certificate(&self, height: Height) -> Result<Option<CommitCertificate>, ChainError> {
        self.chain.certificate(height).await
    }

    fn send(&self, to: PeerIp, message: ConsensusMessage) -> Result<(), SendError> {
        self.net.send_consensus(to, message)
    }

    fn send_body(
        &self,
        to: PeerIp,
        header: BodyHeader,
        bytes: Arc<Vec<u8>>,
    ) -> Result<(), SendError> {
        self.net.send_body(to, header, bytes)
    }

    async fn wal_begin(&self, height: Height, entry: Vec<u8>) -> Result<(), StoreError> {
        self.wal.begin(height, entry).await
    }

    async fn wal_append(
        &self,
        height: Height,
        entries: Vec<Vec<u8>>,
        bodies: Vec<(BlockHash, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        self.wal.append(height, entries, bodies).await
    }

    async fn wal_load(&self, height: Height) -> Result<WalContent, StoreError> {
        self.wal.load(height).await
    }

    async fn add_evidence(&self, evidence: Vec<u8>) -> Result<(), StoreError> {
        self.wal.add_evidence(evidence).await
    }

    async fn evidence(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        self.wal.evidence().await
    }
}
