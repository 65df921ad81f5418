//! Rows of the database.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tables::{
    ADDRESS_OUTPOINT_BYTES, address_key, decode, decode_body, encoded_body, outpoint_key,
    outpoint_of,
};
use super::wal::{body_checksum, entry_checksum, seal, unseal};
use crate::fuzzing::canonical;
use crate::ledger::LtHash;
use crate::types::{
    Address, Ban, Block, BlockHash, BlockHeader, CommitCertificate, Height, PeerIp, Tip,
    Transaction, TxOutput,
};

/// A row of each table. The first byte chooses the table, the rest is the row.
pub fn rows(input: &[u8]) {
    let Some((table, row)) = input.split_first() else {
        return;
    };
    match table % 11 {
        0 => value::<Tip>("state", row),
        1 => value::<BlockHeader>("headers", row),
        2 => {
            value::<Vec<Transaction>>("bodies", row);
            let body = canonical(row);
            let served = encoded_body(Height(7), row).ok();
            assert_eq!(served.map(|served| served.decode()), body);
            assert_eq!(decode_body(Height(7), row).ok(), body);
        }
        3 => value::<CommitCertificate>("certificates", row),
        4 => value::<TxOutput>("outputs", row),
        5 => value::<(PeerIp, u16)>("peers", row),
        6 => value::<Ban>("bans", row),
        7 => value::<Block>("wal_bodies", row),
        8 => set(row),
        9 => sealed(row),
        _ => key(row),
    }
}

fn value<T>(table: &str, row: &[u8])
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    match decode::<T>(table, 7, row) {
        Ok(value) => assert_eq!(canonical::<T>(row), Some(value)),
        Err(_) => assert_eq!(canonical::<T>(row), None),
    }
}

fn set(row: &[u8]) {
    if let Some(set) = LtHash::from_bytes(row) {
        assert_eq!(set.to_bytes(), row);
    }
}

/// A row of the log is read only where it was written and as it was written.
fn sealed(row: &[u8]) {
    let height = Height(7);
    let entry = |at| move |content: &[u8]| entry_checksum(height, at, content);
    if let Some(content) = unseal(row, entry(0)) {
        assert_eq!(seal(entry(0)(&content), &content), row);
        assert_eq!(unseal(row, entry(1)), None);
    }
    let block = BlockHash([3; 32]);
    let body = |content: &[u8]| body_checksum(height, block, content);
    let good = seal(body(row), row);
    assert_eq!(unseal(&good, body).as_deref(), Some(row));
    assert_eq!(unseal(&good, entry(0)), None);
    assert_eq!(unseal(&good[1..], body), None);
}

fn key(row: &[u8]) {
    if let Some(key) = row.first_chunk::<ADDRESS_OUTPOINT_BYTES>() {
        let outpoint = outpoint_of(key);
        let (address, rest) = key.split_first_chunk().expect("an address comes first");
        assert_eq!(outpoint_key(&outpoint), rest);
        assert_eq!(address_key(&Address(*address), &outpoint), *key);
    }
}
