//! The consensus write-ahead log, and evidence of equivocation.

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::error::Fault;
use super::tables::{EVIDENCE, WAL, WAL_BODIES};
use super::{Store, StoreError};
use crate::types::{BlockHash, Height};

/// The most pieces of evidence that are kept; later ones are dropped, so that an equivocator cannot
/// push out the proof of its first deed.
pub const MAX_EVIDENCE: u64 = 1_000;

const CHECKSUM_BYTES: usize = 16;
const ENTRY_CONTEXT: &str = "timed 2026-11 consensus log entry v1";
const BODY_CONTEXT: &str = "timed 2026-11 consensus log body v1";

/// The consensus log of one height, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalContent {
    /// Entries in the order in which they were appended.
    pub entries: Vec<Vec<u8>>,
    /// Encoded blocks by hash.
    pub bodies: Vec<(BlockHash, Vec<u8>)>,
}

/// The consensus write-ahead log: entries of the height being decided, pruned in the transaction
/// that commits that height.
#[derive(Clone)]
pub struct Wal {
    pub(super) store: Store,
}

impl Wal {
    /// Begins the log of a height with one entry, as durably as [`Wal::append`]. What is left of an
    /// older one, whatever its state, goes in the same transaction.
    pub async fn begin(&self, height: Height, entry: Vec<u8>) -> Result<(), StoreError> {
        self.store
            .write_for_good(move |transaction| {
                clear(transaction, height)?;
                append(transaction, height, &[entry], &[])
            })
            .await
    }

    /// Appends entries, and the bodies that they name, in one durable transaction. Returns once
    /// they are durable, and such that damage cannot undo them unnoticed.
    pub async fn append(
        &self,
        height: Height,
        entries: Vec<Vec<u8>>,
        bodies: Vec<(BlockHash, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        if entries.is_empty() && bodies.is_empty() {
            return Ok(());
        }
        self.store
            .write_for_good(move |transaction| append(transaction, height, &entries, &bodies))
            .await
    }

    /// Everything logged for a height. A damaged or missing entry is an error, not an omission.
    pub async fn load(&self, height: Height) -> Result<WalContent, StoreError> {
        self.store
            .read(move |transaction| {
                let mut content = WalContent::default();
                let entries = transaction.open_table(WAL)?;
                for row in entries.range((height.0, 0)..=(height.0, u64::MAX))? {
                    let (key, row) = row?;
                    let index = content.entries.len() as u64;
                    let entry = unseal(row.value(), |entry| entry_checksum(height, index, entry));
                    match entry {
                        Some(entry) if key.value().1 == index => content.entries.push(entry),
                        _ => return Err(Fault::WalEntry(height, index)),
                    }
                }
                let bodies = transaction.open_table(WAL_BODIES)?;
                for row in bodies.range((height.0, &[0; 32])..=(height.0, &[0xff; 32]))? {
                    let (key, row) = row?;
                    let block = BlockHash(*key.value().1);
                    let body = unseal(row.value(), |body| body_checksum(height, block, body))
                        .ok_or(Fault::WalBody(height, block))?;
                    content.bodies.push((block, body));
                }
                Ok(content)
            })
            .await
    }

    /// Stores evidence of a voter's equivocation (two conflicting signed messages, encoded). The
    /// same evidence again, and evidence beyond [`MAX_EVIDENCE`], changes nothing.
    pub async fn add_evidence(&self, evidence: Vec<u8>) -> Result<(), StoreError> {
        self.store
            .write(move |transaction| {
                let mut table = transaction.open_table(EVIDENCE)?;
                let count = table.len()?;
                for row in table.iter()? {
                    if row?.1.value() == evidence {
                        return Ok(());
                    }
                }
                if count < MAX_EVIDENCE {
                    table.insert(count, evidence.as_slice())?;
                }
                Ok(())
            })
            .await
    }

    /// All stored evidence, oldest first, at most [`MAX_EVIDENCE`].
    pub async fn evidence(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        self.store
            .read(|transaction| {
                let table = transaction.open_table(EVIDENCE)?;
                let rows = table.iter()?;
                rows.map(|row| Ok(row?.1.value().to_vec())).collect()
            })
            .await
    }
}

/// Removes the log of this height and of all below.
pub(super) fn prune(transaction: &WriteTransaction, committed: Height) -> Result<(), Fault> {
    let entries = ..=(committed.0, u64::MAX);
    transaction
        .open_table(WAL)?
        .retain_in(entries, |_, _| false)?;
    let bodies = ..=(committed.0, &[0xff; 32]);
    transaction
        .open_table(WAL_BODIES)?
        .retain_in(bodies, |_, _| false)?;
    Ok(())
}

fn clear(transaction: &WriteTransaction, height: Height) -> Result<(), Fault> {
    let entries = (height.0, 0)..=(height.0, u64::MAX);
    transaction
        .open_table(WAL)?
        .retain_in(entries, |_, _| false)?;
    let bodies = (height.0, &[0; 32])..=(height.0, &[0xff; 32]);
    transaction
        .open_table(WAL_BODIES)?
        .retain_in(bodies, |_, _| false)?;
    Ok(())
}

fn append(
    transaction: &WriteTransaction,
    height: Height,
    entries: &[Vec<u8>],
    bodies: &[(BlockHash, Vec<u8>)],
) -> Result<(), Fault> {
    let mut table = transaction.open_table(WAL)?;
    let last = table
        .range((height.0, 0)..=(height.0, u64::MAX))?
        .next_back()
        .transpose()?;
    let first = last.map_or(0, |(key, _)| key.value().1 + 1);
    for (entry, index) in entries.iter().zip(first..) {
        let row = seal(entry_checksum(height, index, entry), entry);
        table.insert((height.0, index), row.as_slice())?;
    }
    let mut table = transaction.open_table(WAL_BODIES)?;
    for (block, body) in bodies {
        let row = seal(body_checksum(height, *block, body), body);
        table.insert((height.0, block.as_bytes()), row.as_slice())?;
    }
    Ok(())
}

pub(super) fn seal(checksum: [u8; CHECKSUM_BYTES], content: &[u8]) -> Vec<u8> {
    [checksum.as_slice(), content].concat()
}

/// The content of a sealed row; `None` when the checksum does not match it.
pub(super) fn unseal(
    row: &[u8],
    checksum: impl Fn(&[u8]) -> [u8; CHECKSUM_BYTES],
) -> Option<Vec<u8>> {
    let (stored, content) = row.split_at_checked(CHECKSUM_BYTES)?;
    (checksum(content) == stored).then(|| content.to_vec())
}

pub(super) fn entry_checksum(height: Height, index: u64, entry: &[u8]) -> [u8; CHECKSUM_BYTES] {
    checksum(ENTRY_CONTEXT, height, &index.to_le_bytes(), entry)
}

pub(super) fn body_checksum(height: Height, block: BlockHash, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    checksum(BODY_CONTEXT, height, block.as_bytes(), body)
}

fn checksum(context: &str, height: Height, name: &[u8], content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&height.0.to_le_bytes());
    hasher.update(name);
    hasher.update(content);
    let mut first = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut first);
    first
}
