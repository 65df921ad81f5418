//! Transactions that wait for a block: a pure pool and the actor that gossips it.
//!
//! Flow: a transaction comes from a user ([`Mempool::submit`]) or from a peer (announced by id,
//! asked for from one announcer at a time, sent as a body). It waits in the intake; batches of it are
//! checked against the chain's outputs and the pool's, signatures off the runtime's workers; what
//! holds enters the pool and is announced to every peer that is not known to have it. What waits for
//! long is announced again every minute, because peers drop what they have no room for. A new block
//! takes out what it contains and what it contradicts.
//!
//! | part | what |
//! |---|---|
//! | `pool` | the waiting transactions: rules, limits, eviction, selection for a block |
//! | `intake` | what is to be checked, and the check of a batch |
//! | `orphans` | transactions whose inputs are not known yet |
//! | `gossip` | who has what, what is asked of whom, what is announced and served |
//! | `core` | these four together: everything but chain, network and time |
//! | `actor` | the loop around `core` |
//! | `ports` | what the actor needs from chain and network |
//!
//! Limits and full queues:
//! - pool: 10,000 transactions and 100 MB; the worst fee rates leave for better ones;
//! - intake: 256 submissions (then [`MempoolError::Busy`]); 4 MiB from peers, then the network's
//!   channel is left unread, which holds the senders back by flow control;
//! - orphans: 100, at most 20 of one peer; the oldest leaves, and so does what 20 blocks have passed by;
//! - a peer may offer 10,000 unknown ids at a time (more are ignored and counted) and is asked for
//!   512 at a time; it may ask for 2,000 bodies at a time;
//! - every minute at most 1,000 ids are announced again to each peer, the best first;
//! - a full send queue keeps announcements and bodies here and tries again 250 ms later.

mod actor;
mod core;
mod gossip;
mod intake;
mod orphans;
mod pool;
mod ports;
mod rate;
mod recent;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::chain::{Chain, ChainError};
use crate::env::Offload;
use crate::ledger::{Rules, TransactionError};
use crate::net::{NetHandle, TransactionsEvent};
use crate::types::{Amount, Height, OutPoint, Transaction, TxId};

use actor::{Actor, Request};

/// How many requests wait for the actor; further callers wait with theirs.
const MAILBOX: usize = 64;

/// A cheap handle to the mempool.
#[derive(Clone)]
pub struct Mempool {
    requests: mpsc::Sender<Request>,
    ready: watch::Receiver<bool>,
}

/// Why a transaction was not taken, or why the mempool stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MempoolError {
    /// It breaks a rule.
    #[error(transparent)]
    Invalid(Box<TransactionError>),
    /// Another waiting transaction spends the same output.
    #[error(
        "transaction {txid} spends output {}:{}, which waiting transaction {other} spends already; \
         wait until that one is final, or spend other outputs",
        .outpoint.txid, .outpoint.index
    )]
    Conflict {
        /// The transaction refused.
        txid: TxId,
        /// The output that both spend.
        outpoint: OutPoint,
        /// The transaction that waits.
        other: TxId,
    },
    /// It builds on too many transactions that are not final.
    #[error(
        "transaction {txid} would make an unconfirmed chain longer than {limit}; wait until the \
         transactions that it spends from are final"
    )]
    ChainTooLong {
        /// The transaction refused.
        txid: TxId,
        /// The longest chain allowed, the transaction itself included.
        limit: usize,
    },
    /// The pool is full of better ones.
    #[error(
        "the mempool is full: transaction {txid} offers {offered} units for 1,000 bytes and must \
         offer more than {needed}; raise its fee or wait"
    )]
    Full {
        /// The transaction refused.
        txid: TxId,
        /// What it pays.
        offered: u64,
        /// What the worst one that waits is worth.
        needed: u64,
    },
    /// It is in the chain.
    #[error("transaction {txid} is already final at height {height}; there is nothing left to do")]
    AlreadyFinal {
        /// The transaction.
        txid: TxId,
        /// Where it is.
        height: Height,
    },
    /// Too many submissions wait to be checked.
    #[error("the mempool is busy checking other transactions; submit again in a moment")]
    Busy,
    /// The mempool has ended.
    #[error("the mempool has stopped because the node is shutting down")]
    Stopped,
    /// The chain could not be read: the node must stop.
    #[error("the mempool cannot read the chain: {reason}")]
    Chain {
        /// Why not.
        reason: String,
    },
}

impl From<TransactionError> for MempoolError {
    fn from(error: TransactionError) -> Self {
        MempoolError::Invalid(Box::new(error))
    }
}

impl From<ChainError> for MempoolError {
    fn from(error: ChainError) -> Self {
        MempoolError::Chain {
            reason: error.to_string(),
        }
    }
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

/// How much waits, and what peers did wrong since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct MempoolStats {
    /// Transactions in the pool.
    pub transactions: usize,
    /// Their encoded bytes.
    pub bytes: usize,
    /// Transactions that wait for their inputs.
    pub orphans: usize,
    /// Ids that peers have offered and that have not arrived.
    pub wanted: usize,
    /// Transactions of peers that broke a rule.
    pub invalid: u64,
    /// Transactions of peers that nobody had asked for.
    pub unrequested: u64,
    /// Announcements and requests ignored because they were over a limit.
    pub over_limit: u64,
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
    let (requests, mailbox) = mpsc::channel(MAILBOX);
    let (ready_sender, ready) = watch::channel(false);
    let rules = Rules::of(chain.genesis());
    let actor = Actor::new(chain, rules, net, offload, ready_sender);
    let handle = Mempool { requests, ready };
    (handle, actor.run(mailbox, inbound, cancel))
}

impl Mempool {
    /// Checks and takes a transaction, and announces it to all peers. Submitting one again that waits
    /// is `Ok`, and announces it again.
    pub async fn submit(&self, transaction: Transaction) -> Result<TxId, MempoolError> {
        self.ask(|reply| Request::Submit { transaction, reply })
            .await
            .unwrap_or(Err(MempoolError::Stopped))
    }

    /// Candidates for a block of up to `max_bytes` of transactions: best fee rate first, parents
    /// before children. Waits until the pool has followed the chain to its tip. When the best of them
    /// was already the best of the selection before, no block has taken it, and the pool checks
    /// itself against the chain first.
    pub async fn select(&self, max_bytes: usize) -> Vec<Transaction> {
        self.ask(|reply| Request::Select { max_bytes, reply })
            .await
            .unwrap_or_default()
    }

    /// Whether a transaction waits that a block could include now.
    pub fn watch_ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// A waiting transaction.
    pub async fn get(&self, txid: TxId) -> Option<Transaction> {
        self.ask(|reply| Request::Get { txid, reply })
            .await
            .flatten()
    }

    /// All waiting transactions, best fee rate first.
    pub async fn list(&self) -> Vec<WaitingTransaction> {
        self.ask(|reply| Request::List { reply })
            .await
            .unwrap_or_default()
    }

    /// How much waits, and what peers did wrong.
    pub async fn stats(&self) -> MempoolStats {
        self.ask(|reply| Request::Stats { reply })
            .await
            .unwrap_or_default()
    }

    /// Sends a request and waits for its answer; `None` when the actor has ended.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }
}
