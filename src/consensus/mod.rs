//! Agreement on blocks: hosts the Tendermint engine. The only user of the engine in this crate.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::env::{DurableFile, WallClock};
use crate::mempool::Mempool;
use crate::net::{ConsensusEvent, NetHandle};
use crate::store::Wal;
use crate::types::{Height, Round};

/// What consensus is given.
pub struct ConsensusParts {
    /// This masternode's consensus key.
    pub key: SigningKey,
    /// The chain.
    pub chain: Chain,
    /// Where blocks are filled from.
    pub mempool: Mempool,
    /// The network.
    pub net: NetHandle,
    /// What the network delivers.
    pub inbound: mpsc::Receiver<ConsensusEvent>,
    /// The consensus log.
    pub wal: Wal,
    /// `consensus.state`.
    pub state: Arc<dyn DurableFile>,
    /// The time of day.
    pub clock: Arc<dyn WallClock>,
    /// Sign although the state file is missing or ahead (`--unsafe-sign`).
    pub unsafe_sign: bool,
}

/// What consensus is doing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ConsensusStatus {
    /// The height being decided.
    pub height: Height,
    /// The round, once the height has started.
    pub round: Option<Round>,
    /// Whose turn it is to propose.
    pub proposer: Option<String>,
    /// Why this masternode signs nothing; `None` while it signs.
    pub not_signing: Option<String>,
    /// The power of this masternode and those it can reach, directly or relayed.
    pub power_present: u64,
    /// The power of all.
    pub power_total: u64,
    /// The names of masternodes not reached.
    pub missing: Vec<String>,
    /// How many equivocations have been seen.
    pub evidence: u64,
    /// The most rounds that a height has taken since start.
    pub highest_round: Round,
}

impl ConsensusStatus {
    /// "quorum: power x of y" or "no quorum: power x of y, missing: names".
    pub fn quorum_sentence(&self) -> String {
        todo!()
    }
}

/// Why consensus stopped: the node must stop with it.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// Placeholder.
    #[error("{0}")]
    Other(String),
}

/// A cheap handle to running consensus.
#[derive(Clone)]
pub struct ConsensusHandle {
    _stub: (),
}

impl ConsensusHandle {
    /// The newest status.
    pub fn watch_status(&self) -> watch::Receiver<ConsensusStatus> {
        todo!()
    }

    /// Evidence of equivocation, as sentences.
    pub async fn evidence(&self) -> Vec<String> {
        todo!()
    }
}

/// Starts consensus; the future is its actor. It replays the log first and ends after `cancel`.
pub fn start(
    parts: ConsensusParts,
    cancel: CancellationToken,
) -> (
    ConsensusHandle,
    impl Future<Output = Result<(), ConsensusError>> + Send + 'static,
) {
    let _ = (
        parts.key,
        parts.chain,
        parts.mempool,
        parts.net,
        parts.inbound,
        parts.wal,
        parts.state,
        parts.clock,
        parts.unsafe_sign,
        cancel,
    );
    if true {
        todo!()
    }
    (ConsensusHandle { _stub: () }, async { Ok(()) })
}
