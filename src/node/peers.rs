//! Keeps the list of connected peers in the store, for the next start.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::net::NetHandle;
use crate::store::{Store, StoreError};
use crate::types::PeerIp;

/// The shortest time between two writes.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// Writes the list when it has changed, at most once per [`WRITE_INTERVAL`], and once more at the
/// end. An empty list replaces nothing: a node that lost all peers still knows whom to dial.
pub(super) async fn keep(
    store: Store,
    net: NetHandle,
    cancel: CancellationToken,
) -> Result<(), StoreError> {
    let mut changes = net.watch_peers();
    let mut written = Vec::new();
    loop {
        save(&store, &net, &mut written).await?;
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            () = tokio::time::sleep(WRITE_INTERVAL) => {}
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            // The network has ended: the node is stopping and cancels this task too.
            changed = changes.changed() => if changed.is_err() { cancel.cancelled().await },
        }
    }
    save(&store, &net, &mut written).await
}

async fn save(
    store: &Store,
    net: &NetHandle,
    written: &mut Vec<(PeerIp, u16)>,
) -> Result<(), StoreError> {
    let peers = net.peers();
    let peers: Vec<_> = peers
        .iter()
        .map(|peer| (peer.ip, peer.listen_port))
        .collect();
    if peers.is_empty() || peers == *written {
        return Ok(());
    }
    store.save_peers(peers.clone()).await?;
    *written = peers;
    Ok(())
}
