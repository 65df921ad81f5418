//! Transactions that wait for a block: a pure pool and the actor that gossips it.

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::env::Offload;
use crate::net::{NetHandle, TransactionsEvent};
use crate::types::{Amount, Transaction, TxId};

/// A cheap handle to the mempool.
#[derive(Clone)]
pub struct Mempool {
    _stub: (),
}

/// Why a transaction was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MempoolError {
    /// Placeholder.
    #[error("{0}")]
    Other(String),
}

/// A transaction that waits, for display.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct WaitingTransaction {
    /// Its id.
    pub txid: TxId,
    /// Its size in bytes.
    pub bytes: usize,
    /// Its fee.
    pub fee: Amount,
}

/// Starts the mempool; the future is its actor and ends after `cancel`.
pub fn start(
    chain: Chain,
    net: NetHandle,
    inbound: mpsc::Receiver<TransactionsEvent>,
    offload: Offload,
    cancel: CancellationToken,
) -> (
    Mempool,
    impl Future<Output = Result<(), MempoolError>> + Send + 'static,
) {
    let _ = (chain, net, inbound, offload, cancel);
    if true {
        todo!()
    }
    (Mempool { _stub: () }, async { Ok(()) })
}

impl Mempool {
    /// Checks and takes a transaction, and announces it to all peers. Taking one again is `Ok`.
    pub async fn submit(&self, transaction: Transaction) -> Result<TxId, MempoolError> {
        let _ = transaction;
        todo!()
    }

    /// Candidates for a block of up to `max_bytes` of transactions: best fee rate first, parents
    /// before children.
    pub async fn select(&self, max_bytes: usize) -> Vec<Transaction> {
        let _ = max_bytes;
        todo!()
    }

    /// Whether a transaction waits that a block could include now.
    pub fn watch_ready(&self) -> watch::Receiver<bool> {
        todo!()
    }

    /// A waiting transaction.
    pub async fn get(&self, txid: TxId) -> Option<Transaction> {
        let _ = txid;
        todo!()
    }

    /// All waiting transactions, best fee rate first.
    pub async fn list(&self) -> Vec<WaitingTransaction> {
        todo!()
    }
}
