//! Block sync: brings a node that is behind to its peers' tip, and serves those that are.
//!
//! Flow: [`plan`] says what to ask of whom; [`actor`] runs each request as a task of [`fetch`], which
//! checks every frame; what is verified is executed and committed in height order by [`commits`].
//! [`server`] answers peers. Nothing is committed that a verified certificate does not cover, and nothing is
//! asked for that could be derived as held.
//!
//! Memory is bounded by [`plan::Limits`] for what is fetched and by [`server`] for what is served.

mod actor;
mod commits;
mod fetch;
mod io;
mod plan;
mod progress;
mod report;
mod server;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::actor::Actor;
use crate::chain::Chain;
use crate::env::Offload;
use crate::net::{NetHandle, SyncServe};
use crate::types::{Height, PeerIp};

/// How far behind and what is done about it.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct SyncStatus {
    /// The own height.
    pub height: Height,
    /// The highest height that a connected peer names, without those set aside for not serving
    /// what they name.
    pub target: Height,
    /// Whether blocks are being fetched.
    pub syncing: bool,
    /// Who from.
    pub peers: Vec<PeerIp>,
    /// Blocks a second of late, to one decimal; `None` unless it is catching up, and at first.
    pub blocks_per_s: Option<f64>,
    /// What is left at this rate; `None` as well when nothing moves.
    pub seconds_left: Option<u64>,
    /// Peers replaced since it fell behind and not asked again since, with the reason, newest last.
    pub set_aside: Vec<(PeerIp, String)>,
    /// Blocks committed by sync since start.
    pub synced_blocks: u64,
    /// Peers replaced, with the reason, newest last, at most 20.
    pub replaced: Vec<(PeerIp, String)>,
}

/// Log lines about the progress of a sync, one in a few seconds; not for a terminal with a bar.
pub const PROGRESS_LOG: &str = "timed::sync::progress";

/// What sync is given.
pub struct SyncParts {
    /// The chain.
    pub chain: Chain,
    /// The network.
    pub net: NetHandle,
    /// Requests of peers.
    pub serve: mpsc::Receiver<SyncServe>,
    /// On a masternode, consensus itself fetches the block right above the tip; sync then waits
    /// until the node is two behind, or one behind for two seconds.
    pub masternode: bool,
    /// Where signatures and roots are checked.
    pub offload: Offload,
}

/// Why sync stopped: the node must stop with it.
#[derive(Debug, thiserror::Error)]
pub enum SyncFailure {
    /// The chain failed.
    #[error(transparent)]
    Chain(#[from] crate::chain::ChainError),
}

/// A cheap handle to running sync.
#[derive(Clone)]
pub struct SyncHandle {
    status: watch::Receiver<SyncStatus>,
}

impl SyncHandle {
    /// The newest status.
    pub fn watch_status(&self) -> watch::Receiver<SyncStatus> {
        self.status.clone()
    }
}

/// Starts sync and its server; the future ends after `cancel`.
pub fn start(
    parts: SyncParts,
    cancel: CancellationToken,
) -> (
    SyncHandle,
    impl Future<Output = Result<(), SyncFailure>> + Send + 'static,
) {
    let SyncParts {
        chain,
        net,
        serve,
        masternode,
        offload,
    } = parts;
    let (sender, status) = watch::channel(SyncStatus {
        height: chain.tip().height,
        target: chain.tip().height,
        ..SyncStatus::default()
    });
    let server = server::serve(chain.clone(), serve, cancel.clone());
    let fetching = Actor::new(chain, net, offload, masternode, sender).run(cancel);
    let both = async { tokio::try_join!(fetching, server).map(|_| ()) };
    (SyncHandle { status }, both)
}

#[cfg(test)]
mod tests;
