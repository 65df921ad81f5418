//! Agreement on blocks: hosts the Tendermint engine. The only user of the engine in this crate.
//!
//! One actor (`host`) owns everything; what surrounds it is plain data and pure rules:
//!
//! - `engine`: the engine behind one narrow interface, with `context` as its view of our types;
//! - `wal` and `guard`: what is durable before anything is sent, and when nothing is signed;
//! - `book`: the verified messages of the current and the next height;
//! - `bodies`: the gate through which block bodies reach the engine, and where they come from;
//! - `schedule` and `timers`: when a height starts and when a step ends;
//! - `relay`: who is connected to whom, and who must be sent what others signed;
//! - `ports`: what consensus needs from the rest of the node.
//!
//! **Flow.** A message of a masternode is dropped when it is of a height or round that is not
//! awaited, or says nothing new; then its signature is checked; then it enters the book, is passed
//! on where links are missing, and is fed to the engine if its height has started. What the engine
//! answers is logged, flushed, and only then sent.
//!
//! **Limits.** The inbox is bounded: when it is full, the streams of the senders are held back. A
//! peer whose messages fail verification is no longer heard until it connects again. Sending never
//! waits: the network drops the oldest height of a full queue, and the receiver recovers through
//! certificates and sync.

mod bodies;
mod book;
mod context;
mod engine;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guard;
mod host;
mod ports;
mod relay;
mod schedule;
mod timers;
mod wal;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::chain::{Chain, ChainError};
use crate::env::{DurableFile, Offload, WallClock};
use crate::mempool::Mempool;
use crate::net::{ConsensusEvent, NetHandle};
use crate::store::{StoreError, Wal};
use crate::types::{ConsensusKey, Height, Round, ValidatorSet, codec};
use book::Evidence;
pub use engine::EngineError;
pub use guard::{StateFileError, check_state};
use ports::NodePorts;

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
    /// Where `consensus.state` is read and written.
    pub offload: Offload,
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
    /// Masternodes that have sent what no honest one sends, since start.
    pub blamed: Vec<Blamed>,
}

/// What a masternode was caught at, apart from equivocation, which is evidence.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Blamed {
    /// Its name.
    pub name: String,
    /// How many of its messages, bodies and blocks were wrong.
    pub count: u64,
    /// What was wrong with the last one.
    pub last: String,
}

impl ConsensusStatus {
    /// "quorum: power x of y" or "no quorum: power x of y, missing: names".
    pub fn quorum_sentence(&self) -> String {
        let (present, total) = (self.power_present, self.power_total);
        if u128::from(present) * 3 > u128::from(total) * 2 {
            return format!("quorum: power {present} of {total}");
        }
        format!(
            "no quorum: power {present} of {total}, missing: {}",
            self.missing.join(", ")
        )
    }
}

/// Why consensus stopped: the node must stop with it.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The chain failed, or a final block is not valid here.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The log could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `consensus.state` could not be used.
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The key is not one of genesis.
    #[error("consensus key {key} is not named in genesis: this node cannot run as a masternode")]
    NotAMasternode {
        /// The key.
        key: ConsensusKey,
    },
    /// A part that consensus depends on has ended.
    #[error("consensus ended because the {part} has ended")]
    Ended {
        /// Which part.
        part: &'static str,
    },
}

/// A cheap handle to running consensus.
#[derive(Clone)]
pub struct ConsensusHandle {
    status: watch::Receiver<ConsensusStatus>,
    wal: Wal,
    validators: Arc<ValidatorSet>,
    stop: mpsc::Sender<String>,
}

impl ConsensusHandle {
    /// The newest status.
    pub fn watch_status(&self) -> watch::Receiver<ConsensusStatus> {
        self.status.clone()
    }

    /// Evidence of equivocation, as sentences.
    pub async fn evidence(&self) -> Vec<String> {
        let stored = match self.wal.evidence().await {
            Ok(stored) => stored,
            Err(error) => return vec![format!("the evidence cannot be read: {error}")],
        };
        stored
            .iter()
            .map(|bytes| match codec::decode::<Evidence>(bytes) {
                Ok(evidence) => evidence.sentence(&self.validators),
                Err(error) => format!("a piece of evidence is damaged: {error}"),
            })
            .collect()
    }

    /// Stops signing for the rest of this process, for instance because a record of the own key
    /// names another machine. The reason is shown in the status.
    pub fn stop_signing(&self, reason: String) {
        // A full channel holds another reason that has the same effect; a closed one has no signer.
        if self.stop.try_send(reason).is_err() {
            tracing::debug!("signing has been stopped already");
        }
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
    let validators = parts.chain.validators().clone();
    let setup = host::Setup {
        key: parts.key,
        genesis: parts.chain.genesis().clone(),
        genesis_hash: parts.chain.genesis_hash(),
        validators: validators.clone(),
        state: parts.state,
        clock: parts.clock,
        offload: parts.offload,
        unsafe_sign: parts.unsafe_sign,
    };
    let ports = NodePorts {
        chain: parts.chain,
        mempool: parts.mempool,
        net: parts.net,
        wal: parts.wal.clone(),
    };
    let (stop, stops) = mpsc::channel(1);
    let (status, actor) = host::start(setup, ports, parts.inbound, stops, cancel);
    let handle = ConsensusHandle {
        status,
        wal: parts.wal,
        validators,
        stop,
    };
    (handle, actor)
}
