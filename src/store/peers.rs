//! The peers of the last run, dialed first after a restart.

use redb::ReadableTable;

use super::tables::{self, PEERS};
use super::{Store, StoreError};
use crate::types::{PeerIp, codec};

/// The most peers that are kept; those beyond it in the list are left out.
pub const MAX_EARLIER_PEERS: usize = 1_000;

impl Store {
    /// Peers that were connected in the last run, with their ports, in the order they were saved.
    pub async fn earlier_peers(&self) -> Result<Vec<(PeerIp, u16)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(PEERS)?;
            let rows = table.iter()?;
            rows.map(|row| {
                let (position, peer) = row?;
                tables::decode("peers", position.value(), peer.value())
            })
            .collect()
        })
        .await
    }

    /// Replaces the list of peers for the next run; at most [`MAX_EARLIER_PEERS`] are kept.
    pub async fn save_peers(&self, peers: Vec<(PeerIp, u16)>) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(PEERS)?;
            table.retain(|_, _| false)?;
            for (peer, position) in peers.iter().take(MAX_EARLIER_PEERS).zip(0u32..) {
                table.insert(position, codec::encode(peer).as_slice())?;
            }
            Ok(())
        })
        .await
    }
}
