//! Keeps the bans in the store, for the next start.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::net::NetHandle;
use crate::store::{Store, StoreError};

/// Writes the bans whenever they change; `stored` follows with the number of the list on disk.
pub(super) async fn keep(
    store: Store,
    net: NetHandle,
    stored: watch::Sender<u64>,
    cancel: CancellationToken,
) -> Result<(), StoreError> {
    let mut bans = net.watch_bans();
    loop {
        tokio::select! {
            biased;
            // The network has ended: the node is stopping and cancels this task too.
            changed = bans.changed() => if changed.is_err() { cancel.cancelled().await },
            () = cancel.cancelled() => {}
        }
        let list = bans.borrow_and_update().clone();
        if list.version > *stored.borrow() {
            store.save_bans(list.bans).await?;
            stored.send_replace(list.version);
        }
        if cancel.is_cancelled() {
            return Ok(());
        }
    }
}
