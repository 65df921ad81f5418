//! The addresses that are banned, for the next start. Their number is bounded by the network.

use redb::{ReadableTable, TableError};

use super::tables::{self, BANS};
use super::{Store, StoreError};
use crate::types::{Ban, codec};

impl Store {
    /// The stored bans, in the order they were saved.
    pub async fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        self.read(|transaction| {
            let table = match transaction.open_table(BANS) {
                // Made by the first ban.
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let rows = table.iter()?;
            rows.map(|row| {
                let (position, ban) = row?;
                tables::decode("bans", position.value(), ban.value())
            })
            .collect()
        })
        .await
    }

    /// Replaces the stored bans.
    pub async fn save_bans(&self, bans: Vec<Ban>) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(BANS)?;
            table.retain(|_, _| false)?;
            for (ban, position) in bans.iter().zip(0u32..) {
                table.insert(position, codec::encode(ban).as_slice())?;
            }
            Ok(())
        })
        .await
    }
}
