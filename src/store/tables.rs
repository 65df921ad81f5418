//! The tables and their rows, in bytes.
//!
//! redb compares integer keys by value and byte keys lexicographically, so positions inside byte
//! keys are big-endian. "canonical" is [`codec`]'s encoding.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `schema` | version, 4 bytes little-endian |
//! | | `genesis` | genesis hash, 32 bytes |
//! | `state` | `tip` | canonical `Tip`, 80 bytes: height, hash, time, state commitment |
//! | | `set` | 1,024 lanes of the set hash, 2 bytes little-endian each |
//! | `headers` | height, u64 | canonical `BlockHeader`, 178 bytes |
//! | `bodies` | height, u64 | canonical `Vec<Transaction>` |
//! | `heights` | block hash, 32 bytes | height, u64 |
//! | `certificates` | height, u64 | canonical `CommitCertificate` |
//! | `transactions` | transaction id, 32 bytes | (height, u64; position in the block, u32) |
//! | `outputs` | transaction id, 32 bytes; index, 4 bytes big-endian | canonical `TxOutput`, 40 bytes |
//! | `outputs_by_address` | address, 32 bytes; then as in `outputs` | nothing |
//! | `wal` | (height, u64; position, u64) | checksum, 16 bytes; entry |
//! | `wal_bodies` | (height, u64; block hash, 32 bytes) | checksum, 16 bytes; canonical `Block` |
//! | `evidence` | position, u64 | two conflicting signed messages, encoded by consensus |
//! | `peers` | position, u32 | canonical `(PeerIp, u16)` |
//! | `bans` | position, u32 | canonical `Ban` |
//!
//! A log row's checksum is the first 16 bytes of BLAKE3, in key-derivation mode, over the height (8
//! bytes little-endian), then the position (8 bytes little-endian) or the block hash, then the
//! content: a row that was altered or moved does not pass.

use redb::TableDefinition;

use super::error::Fault;
use crate::types::{Address, EncodedBody, Height, OutPoint, Transaction, TxId, body, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of all tables together. Any change of a row's meaning raises it.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// The length of an outpoint as a key.
pub(super) const OUTPOINT_BYTES: usize = 36;
/// The length of an address and an outpoint as a key.
pub(super) const ADDRESS_OUTPOINT_BYTES: usize = 32 + OUTPOINT_BYTES;

pub(super) type HashKey = &'static [u8; 32];
pub(super) type OutPointKey = &'static [u8; OUTPOINT_BYTES];
pub(super) type AddressKey = &'static [u8; ADDRESS_OUTPOINT_BYTES];
type Bytes = &'static [u8];
type Table<K, V> = TableDefinition<'static, K, V>;

pub(super) const META: Table<&str, Bytes> = Table::new("meta");
pub(super) const STATE: Table<&str, Bytes> = Table::new("state");
pub(super) const HEADERS: Table<u64, Bytes> = Table::new("headers");
pub(super) const BODIES: Table<u64, Bytes> = Table::new("bodies");
pub(super) const HEIGHTS: Table<HashKey, u64> = Table::new("heights");
pub(super) const CERTIFICATES: Table<u64, Bytes> = Table::new("certificates");
pub(super) const TRANSACTIONS: Table<HashKey, (u64, u32)> = Table::new("transactions");
pub(super) const OUTPUTS: Table<OutPointKey, Bytes> = Table::new("outputs");
pub(super) const OUTPUTS_BY_ADDRESS: Table<AddressKey, ()> = Table::new("outputs_by_address");
pub(super) const WAL: Table<(u64, u64), Bytes> = Table::new("wal");
pub(super) const WAL_BODIES: Table<(u64, HashKey), Bytes> = Table::new("wal_bodies");
pub(super) const EVIDENCE: Table<u64, Bytes> = Table::new("evidence");
pub(super) const PEERS: Table<u32, Bytes> = Table::new("peers");
pub(super) const BANS: Table<u32, Bytes> = Table::new("bans");

/// Rows of `meta`.
pub(super) const META_SCHEMA: &str = "schema";
pub(super) const META_GENESIS: &str = "genesis";
/// Rows of `state`.
pub(super) const STATE_TIP: &str = "tip";
pub(super) const STATE_SET: &str = "set";

/// The key of an outpoint in `outputs`.
pub(super) fn outpoint_key(outpoint: &OutPoint) -> [u8; OUTPOINT_BYTES] {
    let mut key = [0; OUTPOINT_BYTES];
    key[..32].copy_from_slice(outpoint.txid.as_bytes());
    key[32..].copy_from_slice(&outpoint.index.to_be_bytes());
    key
}

/// The key of an address' output in `outputs_by_address`.
pub(super) fn address_key(address: &Address, outpoint: &OutPoint) -> [u8; ADDRESS_OUTPOINT_BYTES] {
    let mut key = [0; ADDRESS_OUTPOINT_BYTES];
    key[..32].copy_from_slice(&address.0);
    key[32..].copy_from_slice(&outpoint_key(outpoint));
    key
}

/// The outpoint of a key of `outputs_by_address`.
pub(super) fn outpoint_of(key: &[u8; ADDRESS_OUTPOINT_BYTES]) -> OutPoint {
    let (mut txid, mut index) = ([0; 32], [0; 4]);
    txid.copy_from_slice(&key[32..64]);
    index.copy_from_slice(&key[64..]);
    OutPoint {
        txid: TxId(txid),
        index: u32::from_be_bytes(index),
    }
}

/// Reads a row's canonical value; anything else means damage.
pub(super) fn decode<T: Serialize + DeserializeOwned>(
    table: &str,
    key: impl std::fmt::Display,
    bytes: &[u8],
) -> Result<T, Fault> {
    codec::decode(bytes).map_err(|error| Fault::row(table, key, error))
}

/// Reads a row of `bodies`.
pub(super) fn decode_body(height: Height, bytes: &[u8]) -> Result<Vec<Transaction>, Fault> {
    body::decode(bytes).map_err(|error| Fault::row("bodies", height, error))
}

/// Copies a row of `bodies`.
pub(super) fn encoded_body(height: Height, bytes: &[u8]) -> Result<EncodedBody, Fault> {
    EncodedBody::checked(bytes.to_vec().into()).map_err(|error| Fault::row("bodies", height, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_body_is_seen_before_it_is_served() {
        let row = codec::encode::<Vec<Transaction>>(&Vec::new());
        let served = encoded_body(Height(7), &row).unwrap();
        assert_eq!(served.bytes(), &row);
        let Err(Fault::Damaged(cut)) = encoded_body(Height(7), &row[1..]) else {
            panic!("a row that is no body");
        };
        assert!(cut.contains("bodies") && cut.contains('7'), "{cut}");
    }
}
