//! What a behaviour acts with: the masternode's keys, its chain, its network.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ed25519_dalek::SigningKey;
use rand_chacha::ChaCha20Rng;
use timed::chain::Chain;
use timed::env::WallClock;
use timed::mempool::Mempool;
use timed::net::NetHandle;
use timed::types::{
    Address, Amount, Block, BlockHash, ConsensusKey, Height, OutPoint, PeerIp, Proposal, PublicKey,
    Round, Signature, Transaction, TxId, TxInput, TxOutput, Vote, VoteKind, codec,
};
use timed::wire::{BodyHeader, ConsensusMessage};

use crate::world::address;

/// What a behaviour acts with.
pub struct Stage {
    /// The masternode's number.
    pub own: usize,
    pub key: SigningKey,
    pub chain: Chain,
    pub net: NetHandle,
    pub mempool: Mempool,
    pub clock: Arc<dyn WallClock>,
    pub random: ChaCha20Rng,
    pub(super) acts: Arc<AtomicU64>,
}

impl Stage {
    /// Counts what the story wants to have happened.
    pub fn act(&self) {
        self.acts.fetch_add(1, Ordering::Relaxed);
    }

    pub fn own_key(&self) -> ConsensusKey {
        (&self.key).into()
    }

    /// The height that is being decided.
    pub fn height(&self) -> Height {
        self.chain.tip().height.next()
    }

    /// All masternodes but this one.
    pub fn others(&self) -> Vec<usize> {
        let count = self.chain.validators().validators().len();
        (0..count).filter(|node| *node != self.own).collect()
    }

    pub fn vote(
        &self,
        kind: VoteKind,
        height: Height,
        round: Round,
        block: Option<BlockHash>,
    ) -> ConsensusMessage {
        let genesis = self.chain.genesis_hash();
        ConsensusMessage::Vote(Vote::sign(&self.key, &genesis, kind, height, round, block))
    }

    pub fn proposal(&self, block: &Block, round: Round) -> ConsensusMessage {
        self.proposal_of(block.header.height, round, block.hash())
    }

    pub fn proposal_of(&self, height: Height, round: Round, block: BlockHash) -> ConsensusMessage {
        let genesis = self.chain.genesis_hash();
        let signed = Proposal::sign(&self.key, &genesis, height, round, block, None);
        ConsensusMessage::Proposal(signed)
    }

    /// Says something to a masternode, if it is connected.
    pub fn send(&self, to: usize, message: &ConsensusMessage) -> bool {
        self.net.send_consensus(ip(to), message.clone()).is_ok()
    }

    pub fn send_all(&self, to: &[usize], message: &ConsensusMessage) {
        for to in to {
            self.send(*to, message);
        }
    }

    /// Proposes a block as an honest proposer does, but only to these.
    pub fn propose(&self, to: &[usize], block: &Block, round: Round) {
        self.send_all(to, &self.proposal(block, round));
        for to in to {
            self.send_body(*to, block, round);
        }
    }

    /// Sends a block's body as a proposer does.
    pub fn send_body(&self, to: usize, block: &Block, round: Round) -> bool {
        let header = BodyHeader {
            height: block.header.height,
            round,
            block: block.hash(),
        };
        self.send_bytes(to, header, codec::encode(block))
    }

    /// Sends any bytes as the body of a block.
    pub fn send_bytes(&self, to: usize, header: BodyHeader, bytes: Vec<u8>) -> bool {
        self.net.send_body(ip(to), header, Arc::new(bytes)).is_ok()
    }
}

fn ip(node: usize) -> PeerIp {
    address(node).into()
}

/// Votes like everybody: in each slot once, for what it hears of first.
#[derive(Default)]
pub struct Agreeable {
    voted: BTreeSet<(Height, Round, bool)>,
}

impl Agreeable {
    /// The vote with which a message of another is answered, if any: kind, height, round, block.
    pub fn answer(
        &mut self,
        message: &ConsensusMessage,
    ) -> Option<(VoteKind, Height, Round, Option<BlockHash>)> {
        let (kind, height, round, block) = match message {
            ConsensusMessage::Proposal(one) => {
                (VoteKind::Prevote, one.height, one.round, Some(one.block))
            }
            ConsensusMessage::Vote(one) => (one.kind, one.height, one.round, one.block),
            _ => return None,
        };
        while self.voted.len() > 1_000 {
            self.voted.pop_first();
        }
        let new = (self.voted).insert((height, round, kind == VoteKind::Precommit));
        new.then_some((kind, height, round, block))
    }
}

/// A well-formed transaction that spends what there is not, with signatures that are none.
pub fn bogus_transaction(number: u64) -> Transaction {
    let mut txid = [7; 32];
    txid[..8].copy_from_slice(&number.to_le_bytes());
    let input = TxInput {
        outpoint: OutPoint {
            txid: TxId(txid),
            index: 0,
        },
        public_key: PublicKey([2; 32]),
        signature: Signature([3; 64]),
    };
    let output = TxOutput {
        amount: Amount(1),
        address: Address([4; 32]),
    };
    Transaction {
        version: 1,
        inputs: vec![input],
        outputs: vec![output],
    }
}
