//! Deterministic chains for tests: masternodes with keys, wallets, blocks with certificates.

use std::sync::Arc;

use ed25519_dalek::SigningKey;

use super::{Chain, VerifiedSegment};
use crate::env::Offload;
use crate::ledger::fixture;
use crate::store::testing::Disk;
use crate::store::{Store, StoreThreads};
use crate::types::{
    Block, BlockHash, BlockHeader, CommitCertificate, Genesis, GenesisHash, Height, OutPoint,
    Round, Transaction, ValidatorSet, Vote, VoteKind,
};

/// The time between two blocks of [`TestNet::next_block`]; five of them are a slot.
pub(crate) const BLOCK_TIME_MS: u64 = 1_000;

/// The masternodes of a chain. Wallets, payments and genesis are those of
/// [`ledger::fixture`](crate::ledger::fixture).
pub(crate) struct TestNet {
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) genesis_hash: GenesisHash,
    pub(crate) validators: ValidatorSet,
    /// Consensus keys, in the order of genesis.
    pub(crate) keys: Vec<SigningKey>,
}

/// A block and the certificate that makes it final.
pub(crate) type Final = (Arc<Block>, CommitCertificate);

impl TestNet {
    /// One masternode for each power.
    pub(crate) fn new(powers: &[u64]) -> Self {
        let genesis = fixture::genesis_with_powers(powers);
        let validators = ValidatorSet::from_genesis(&genesis);
        let keys: Vec<SigningKey> = (0..powers.len() as u8)
            .map(|index| SigningKey::from_bytes(&[index + 1; 32]))
            .collect();
        for (key, validator) in keys.iter().zip(validators.validators()) {
            assert_eq!(validator.key, key.into());
        }
        Self {
            genesis_hash: genesis.hash(),
            genesis: Arc::new(genesis),
            validators,
            keys,
        }
    }

    /// A store on a disk, without threads.
    pub(crate) fn store(&self, disk: &Disk) -> Store {
        Store::open(disk.backend(), self.genesis.clone(), StoreThreads::Inline).unwrap()
    }

    /// The chain on a disk, without threads.
    pub(crate) async fn chain_on(&self, disk: &Disk) -> Chain {
        let store = self.store(disk);
        Chain::open(self.genesis.clone(), store, Offload::Inline)
            .await
            .unwrap()
    }

    /// A new chain in memory, without threads.
    pub(crate) async fn chain(&self) -> Chain {
        self.chain_on(&Disk::default()).await
    }

    /// A certificate of any block by these masternodes.
    pub(crate) fn certify_by(
        &self,
        signers: &[usize],
        height: Height,
        block: BlockHash,
    ) -> CommitCertificate {
        let (kind, round) = (VoteKind::Precommit, Round(0));
        let votes = signers.iter().map(|signer| {
            let key = &self.keys[*signer];
            Vote::sign(key, &self.genesis_hash, kind, height, round, Some(block))
        });
        let mut signatures: Vec<_> = votes.map(|vote| (vote.voter, vote.signature)).collect();
        signatures.sort_by_key(|(voter, _)| *voter);
        CommitCertificate {
            height,
            round,
            block,
            signatures,
        }
    }

    /// A certificate by all masternodes.
    pub(crate) fn certify(&self, header: &BlockHeader) -> CommitCertificate {
        let all: Vec<usize> = (0..self.keys.len()).collect();
        self.certify_by(&all, header.height, header.hash())
    }

    /// Builds and certifies the next block, without committing it. Every transaction must fit.
    pub(crate) async fn next_block(&self, chain: &Chain, transactions: Vec<Transaction>) -> Final {
        let tip = chain.tip();
        let proposer = self.validators.proposer(tip.height.next(), Round(0)).key;
        let count = transactions.len();
        let time_ms = tip.time_ms + BLOCK_TIME_MS;
        let block = chain
            .build_block(proposer, time_ms, transactions, usize::MAX)
            .await
            .unwrap();
        assert_eq!(block.transactions.len(), count, "a transaction was refused");
        let certificate = self.certify(&block.header);
        (Arc::new(block), certificate)
    }

    /// Builds and commits the next block.
    pub(crate) async fn extend(&self, chain: &Chain, transactions: Vec<Transaction>) -> Final {
        let (block, certificate) = self.next_block(chain, transactions).await;
        chain
            .commit(block.clone(), certificate.clone())
            .await
            .unwrap();
        (block, certificate)
    }

    /// Commits this many blocks with one payment each, from wallet 0 to itself.
    pub(crate) async fn grow(&self, chain: &Chain, blocks: usize) -> Vec<Final> {
        let mut grown = Vec::with_capacity(blocks);
        for _ in 0..blocks {
            let payment = self.payment(chain).await;
            grown.push(self.extend(chain, vec![payment]).await);
        }
        grown
    }

    /// A payment of wallet 0 to itself that the tip's child can include.
    pub(crate) async fn payment(&self, chain: &Chain) -> Transaction {
        let unspent = chain.outputs_of(fixture::address(0)).await.unwrap();
        let (outpoint, output) = unspent[0];
        self.spend(&[(outpoint, 0)], &[(0, output.amount.0 - 10_000)])
    }

    /// A signed transaction: (outpoint, wallet) in, (wallet, units) out.
    pub(crate) fn spend(&self, inputs: &[(OutPoint, u8)], outputs: &[(u8, u64)]) -> Transaction {
        fixture::spend(&self.genesis_hash, inputs, outputs)
    }

    /// The genesis output of a wallet.
    pub(crate) fn allocation(&self, wallet: u8) -> OutPoint {
        self.genesis.outputs()[usize::from(wallet)].0
    }

    /// The segment of consecutive blocks.
    pub(crate) fn segment(&self, blocks: &[Final]) -> Arc<VerifiedSegment> {
        let headers = blocks.iter().map(|(block, _)| block.header).collect();
        let certificate = blocks.last().unwrap().1.clone();
        let segment =
            VerifiedSegment::verify(headers, certificate, &self.validators, &self.genesis_hash);
        Arc::new(segment.unwrap())
    }
}

/// What sync hands over for these blocks.
pub(crate) fn bodies(blocks: &[Final]) -> Vec<(Height, Vec<Transaction>)> {
    blocks
        .iter()
        .map(|(block, _)| (block.header.height, block.transactions.clone()))
        .collect()
}
