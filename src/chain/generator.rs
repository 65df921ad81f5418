//! Deterministic chains of any length, for tests and benches: several validators, blocks with or
//! without transactions, certificates. The same shape gives the same chain, block for block.
//!
//! The library's tests and the benches include this file, so it names the crate by its own name.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use timed::chain::{Chain, ChainError, VerifiedSegment};
use timed::ledger::{Draft, Parent, assemble_block};
use timed::types::transaction::TRANSACTION_VERSION;
use timed::types::{
    Address, Allocation, Amount, Block, BlockHeader, CommitCertificate, Genesis, GenesisHash,
    GenesisMasternode, Height, Network, OutPoint, PublicKey, Round, Signature, Timeouts, Tip,
    Transaction, TxInput, TxOutput, ValidatorSet, Vote, VoteKind, signing,
};

/// Heights of one segment.
const SEGMENT: u64 = 256;

/// Blocks of one durable commit: bounds what is in memory.
const COMMIT_BLOCKS: usize = 128;

/// Between two blocks, and a slot: so every block pays rewards, as on a quiet chain.
const BLOCK_MS: u64 = 5_000;

/// When every generated chain begins, Unix milliseconds; long enough ago for any length.
const GENESIS_MS: u64 = 1_500_000_000_000;

/// The keys that own the coins, in turn.
const WALLETS: usize = 16;

/// Above the minimum for the generated transactions, which have 190 bytes.
const FEE: u64 = 1_000;

/// What a chain is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// How many masternodes of power 1 vote.
    pub(crate) validators: usize,
    /// Transactions in each block, one input and one output each; at most 10,000.
    pub(crate) transactions: usize,
}

/// Transactions by the height of their block.
pub(crate) type Bodies = Vec<(Height, Vec<Transaction>)>;

/// Commits blocks of a segment the way that sync does. Bodies outside the segment are passed over.
pub(crate) async fn commit_segment(
    chain: &Chain,
    segment: Arc<VerifiedSegment>,
    bodies: Bodies,
) -> Result<Tip, ChainError> {
    let rules = chain.rules();
    let checked = bodies
        .into_iter()
        .filter(|(height, _)| segment.header(*height).is_some())
        .map(|(height, body)| segment.check_body(height, body, &rules))
        .collect::<Result<Vec<_>, _>>()?;
    let executed = chain.execute_segment(segment, checked, None).await?;
    chain.commit_executed(executed).await
}

/// Makes the blocks of a chain, one after the other.
pub(crate) struct Generator {
    genesis: Arc<Genesis>,
    genesis_hash: GenesisHash,
    validators: ValidatorSet,
    keys: Vec<SigningKey>,
    wallets: Vec<SigningKey>,
    parent: Parent,
    /// One for each transaction of a block, with its wallet.
    coins: Vec<(OutPoint, TxOutput, usize)>,
}

impl Generator {
    /// At height 0.
    pub(crate) fn new(shape: Shape) -> Self {
        let keys: Vec<SigningKey> = (0..shape.validators).map(|at| key(1, at)).collect();
        let wallets: Vec<SigningKey> = (0..WALLETS).map(|at| key(2, at)).collect();
        let genesis = genesis(shape, &keys, &wallets);
        let coins = genesis.outputs().into_iter().enumerate();
        Self {
            genesis_hash: genesis.hash(),
            validators: ValidatorSet::from_genesis(&genesis),
            parent: Parent::genesis(&genesis),
            coins: coins
                .map(|(at, (outpoint, output))| (outpoint, output, at % WALLETS))
                .collect(),
            genesis: Arc::new(genesis),
            keys,
            wallets,
        }
    }

    pub(crate) fn genesis(&self) -> &Arc<Genesis> {
        &self.genesis
    }

    /// Makes the blocks up to the end of the segment, but not above `last`, and the certificate of
    /// the last of them. There must be one below `last`.
    pub(crate) fn segment(&mut self, last: Height) -> (Arc<VerifiedSegment>, Bodies) {
        let end = (self.parent.height.0 / SEGMENT + 1) * SEGMENT;
        let count = end.min(last.0) - self.parent.height.0;
        let blocks: Vec<Block> = (0..count).map(|_| self.block()).collect();
        let headers: Vec<BlockHeader> = blocks.iter().map(|block| block.header).collect();
        let certificate = self.certify(headers.last().expect("there is a block below the last"));
        let segment =
            VerifiedSegment::verify(headers, certificate, &self.validators, &self.genesis_hash)
                .expect("these headers and their certificate are sound");
        let bodies = blocks.into_iter().map(|block| {
            let height = block.header.height;
            (height, block.transactions)
        });
        (Arc::new(segment), bodies.collect())
    }

    /// Writes blocks to a chain that is as high as this generator.
    pub(crate) async fn write(&mut self, chain: &Chain, last: Height) -> Result<(), ChainError> {
        while self.parent.height < last {
            let (segment, mut bodies) = self.segment(last);
            while !bodies.is_empty() {
                let rest = bodies.split_off(bodies.len().min(COMMIT_BLOCKS));
                commit_segment(chain, segment.clone(), bodies).await?;
                bodies = rest;
            }
        }
        Ok(())
    }

    fn block(&mut self) -> Block {
        let transactions = self.transactions();
        let count = transactions.len();
        let draft = Draft {
            proposer: self
                .validators
                .proposer(self.parent.height.next(), Round(0))
                .key,
            time_ms: self.parent.time_ms + BLOCK_MS,
            candidates: transactions,
            max_bytes: usize::MAX,
        };
        let view: BTreeMap<OutPoint, TxOutput> = self
            .coins
            .iter()
            .map(|(outpoint, output, _)| (*outpoint, *output))
            .collect();
        let (genesis, validators) = (&self.genesis, &self.validators);
        let (block, applied) = assemble_block(genesis, validators, &self.parent, draft, &view)
            .expect("the draft is valid");
        assert_eq!(block.transactions.len(), count, "a transaction was refused");
        for (coin, transaction) in self.coins.iter_mut().zip(&block.transactions) {
            let (outpoint, output) = transaction.created().next().expect("it has one output");
            *coin = (outpoint, output, (coin.2 + 1) % WALLETS);
        }
        self.parent = Parent {
            height: block.header.height,
            hash: block.hash(),
            time_ms: block.header.time_ms,
            set: applied.set,
        };
        block
    }

    /// Each coin goes on to the next wallet.
    fn transactions(&self) -> Vec<Transaction> {
        let spend = |(outpoint, output, owner): &(OutPoint, TxOutput, usize)| {
            let (key, payee) = (&self.wallets[*owner], (owner + 1) % WALLETS);
            let input = TxInput {
                outpoint: *outpoint,
                public_key: PublicKey::from(key),
                signature: Signature([0; 64]),
            };
            let output = TxOutput {
                amount: Amount(output.amount.0 - FEE),
                address: address(&self.wallets[payee]),
            };
            let mut transaction = Transaction {
                version: TRANSACTION_VERSION,
                inputs: vec![input],
                outputs: vec![output],
            };
            let digest = transaction.signing_digest(&self.genesis_hash);
            transaction.inputs[0].signature = signing::sign(key, &digest);
            transaction
        };
        self.coins.iter().map(spend).collect()
    }

    fn certify(&self, header: &BlockHeader) -> CommitCertificate {
        let (height, block, round) = (header.height, header.hash(), Round(0));
        let vote = |key| {
            let kind = VoteKind::Precommit;
            Vote::sign(key, &self.genesis_hash, kind, height, round, Some(block))
        };
        let votes = self.keys.iter().map(vote);
        let mut signatures: Vec<_> = votes.map(|vote| (vote.voter, vote.signature)).collect();
        signatures.sort_by_key(|(voter, _)| *voter);
        CommitCertificate {
            height,
            round,
            block,
            signatures,
        }
    }
}

fn genesis(shape: Shape, keys: &[SigningKey], wallets: &[SigningKey]) -> Genesis {
    let masternodes = keys.iter().enumerate().map(|(at, key)| GenesisMasternode {
        name: format!("mn{at}"),
        consensus_key: key.into(),
        power: 1,
        payout: Address([at as u8; 32]),
    });
    let allocations = (0..shape.transactions).map(|at| Allocation {
        address: address(&wallets[at % WALLETS]),
        amount: Amount(10_000_000_000),
    });
    Genesis {
        chain_id: "generated".into(),
        network: Network::Dev,
        time_ms: GENESIS_MS,
        slot_ms: BLOCK_MS,
        min_block_interval_ms: 250,
        max_block_bytes: 4_000_000,
        min_fee_per_kb: Amount(1_000),
        uplink_mbit: 20,
        timeouts: Timeouts::default(),
        masternodes: masternodes.collect(),
        allocations: allocations.collect(),
    }
}

fn key(use_of_it: u8, number: usize) -> SigningKey {
    let mut secret = [use_of_it; 32];
    secret[..8].copy_from_slice(&(number as u64).to_le_bytes());
    SigningKey::from_bytes(&secret)
}

fn address(key: &SigningKey) -> Address {
    Address::of(&PublicKey::from(key))
}
