//! Transactions that a story submits. Each must become final, unless its node refuses it with a
//! reason, or stops before it is final.

use timed::mempool::MempoolError;
use timed::types::transaction::TRANSACTION_VERSION;
use timed::types::{OutPoint, PublicKey, Signature, Transaction, TxInput, TxOutput, signing};

use super::keys::wallet_key;
use super::*;

/// The encoded length of one output.
const OUTPUT_BYTES: usize = 40;

/// A transaction that a node has taken. That node answers for it while it stays up, and all do once
/// it has been final.
#[derive(Clone, Copy, Debug)]
pub(super) struct Submitted {
    pub txid: TxId,
    pub node: usize,
    /// Which of the node's starts took it.
    pub start: u64,
    pub was_final: bool,
}

impl World {
    /// Submits a transfer at a node; it must become final.
    pub async fn pay(&mut self, node: usize) {
        let refused = self.pay_many(node, 1).await;
        assert!(refused.is_empty(), "{refused:?}");
    }

    /// Submits so many transfers at a node, all at once. Each that is not refused must become final.
    pub async fn pay_many(&mut self, node: usize, count: usize) -> Vec<MempoolError> {
        let transfer = Transfer {
            to: Address([7; 32]),
            amount: Amount(1_000),
            fee: Fee::Lowest,
        };
        let rules = Rules::of(&self.genesis);
        let sign = |unspent| wallet().transfer(&rules, &[unspent], &transfer).unwrap();
        let transactions = self.next_unspent(count).into_iter().map(sign).collect();
        self.submit(node, transactions).await
    }

    /// As [`World::pay_many`], with transactions as large as the chain takes.
    pub async fn pay_large(&mut self, node: usize, count: usize) -> Vec<MempoolError> {
        let rules = Rules::of(&self.genesis);
        let sign = |unspent| largest(&rules, unspent);
        let transactions = self.next_unspent(count).into_iter().map(sign).collect();
        self.submit(node, transactions).await
    }

    fn next_unspent(&mut self, count: usize) -> Vec<(OutPoint, TxOutput)> {
        let unspent = self.genesis.outputs();
        let first = self.spent;
        self.spent += count;
        unspent[first..self.spent].to_vec()
    }

    async fn submit(&mut self, node: usize, transactions: Vec<Transaction>) -> Vec<MempoolError> {
        let mempool = self.node(node).mempool().clone();
        let mut answers = tokio::task::JoinSet::new();
        let mut refused = Vec::new();
        for transaction in transactions {
            let mempool = mempool.clone();
            answers.spawn(async move { mempool.submit(transaction).await });
        }
        while let Some(answer) = answers.join_next().await {
            match answer.unwrap() {
                Ok(txid) => self.submitted.push(Submitted {
                    txid,
                    node,
                    start: self.machines[node].starts,
                    was_final: false,
                }),
                Err(reason) => refused.push(reason),
            }
        }
        refused
    }
}

/// A transaction of nearly as many bytes as one may have: one input, and outputs of equal amounts.
fn largest(rules: &Rules, (outpoint, spent): (OutPoint, TxOutput)) -> Transaction {
    let mut transaction = Transaction {
        version: TRANSACTION_VERSION,
        inputs: vec![TxInput {
            outpoint,
            public_key: PublicKey::from(&wallet_key()),
            signature: Signature([0; 64]),
        }],
        outputs: Vec::new(),
    };
    let room = rules.max_transaction_bytes - transaction.encoded_bytes();
    let outputs = room / OUTPUT_BYTES;
    let fee = rules.min_fee(rules.max_transaction_bytes);
    let output = TxOutput {
        amount: Amount((spent.amount.0 - fee.0) / outputs as u64),
        address: Address([7; 32]),
    };
    transaction.outputs = vec![output; outputs];
    let digest = transaction.signing_digest(&rules.genesis);
    transaction.inputs[0].signature = signing::sign(&wallet_key(), &digest);
    transaction
}
