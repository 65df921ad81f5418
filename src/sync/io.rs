//! The few things that sync needs of the network, so that tests can stand in for it.

use tokio::sync::watch;

use super::plan::PeerView;
use crate::net::SyncResponses;
use crate::net::{NetHandle, SyncAnswer, SyncError};
use crate::types::PeerIp;
use crate::wire::{SyncRequest, SyncResponse};

/// Asks peers.
pub(super) trait Network: Clone + Send + Sync + 'static {
    /// An answer that is arriving.
    type Answer: Answer;

    /// Sends a request.
    fn request(
        &self,
        to: PeerIp,
        request: SyncRequest,
    ) -> impl Future<Output = Result<Self::Answer, SyncError>> + Send;

    /// The connected peers.
    fn peers(&self) -> Vec<PeerView>;

    /// Changes with them and with their tips.
    fn watch_peers(&self) -> watch::Receiver<u64>;
}

/// The receiving end of an answer.
pub(super) trait Answer: Send + 'static {
    /// The next frame; `None` at the answer's end.
    fn next(&mut self) -> impl Future<Output = Result<Option<SyncResponse>, SyncError>> + Send;

    /// Bytes received so far.
    fn progress(&self) -> watch::Receiver<u64>;
}

/// The sending end of an answer. Dropping it without `finish` tells the peer that it is incomplete.
pub(super) trait Sink: Send + 'static {
    /// Sends one frame, waiting for the peer to have room.
    fn send(
        &mut self,
        response: &SyncResponse,
    ) -> impl Future<Output = Result<(), SyncError>> + Send;

    /// Ends the answer.
    fn finish(self) -> Result<(), SyncError>;
}

impl Network for NetHandle {
    type Answer = SyncResponses;

    async fn request(&self, to: PeerIp, request: SyncRequest) -> Result<SyncResponses, SyncError> {
        self.request_sync(to, request).await
    }

    fn peers(&self) -> Vec<PeerView> {
        let views = self.tips().into_iter();
        views
            .map(|(ip, connection, tip)| PeerView {
                ip,
                connection,
                tip,
            })
            .collect()
    }

    fn watch_peers(&self) -> watch::Receiver<u64> {
        NetHandle::watch_peers(self)
    }
}

impl Answer for SyncResponses {
    async fn next(&mut self) -> Result<Option<SyncResponse>, SyncError> {
        SyncResponses::next(self).await
    }

    fn progress(&self) -> watch::Receiver<u64> {
        SyncResponses::progress(self)
    }
}

impl Sink for SyncAnswer {
    async fn send(&mut self, response: &SyncResponse) -> Result<(), SyncError> {
        SyncAnswer::send(self, response).await
    }

    fn finish(self) -> Result<(), SyncError> {
        SyncAnswer::finish(self)
    }
}
