//! A block's transactions as bytes: what [`codec`] writes and reads, done by hand.
//! A block is up to 100,000 rows of fixed length, and serde's price is by the row and field; this
//! costs about what copying the bytes costs.
//!
//! An [`EncodedBody`] goes from one node's database to another's checks without being taken apart:
//! a server sends the row that it has stored, and the receiver's network looks at the counts alone.
//!
//! **One encoding.** [`read`] takes the input apart into counts and fields, each byte into exactly
//! one of them, and any value of a field is allowed; [`write`](write()) puts the same fields back
//! in the same order. So bytes that are read are the only ones for their value, and need not be
//! written again to see it; and bytes whose counts come out even are read. Only types whose fields
//! are bytes and integers may come here: no flag, option, text or map.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::codec::{self, CodecError, MAX_ENCODED_BYTES};
use super::{
    Address, Amount, OutPoint, PublicKey, Signature, Transaction, TxId, TxInput, TxOutput,
};

const INPUT_BYTES: usize = 32 + 4 + 32 + 64;
const OUTPUT_BYTES: usize = 8 + 32;
/// A version and two counts.
const LEAST_TRANSACTION_BYTES: usize = 2 + 8 + 8;

/// A block's transactions in their canonical encoding, and never other bytes. For serde it is the
/// list itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBody(Bytes);

impl EncodedBody {
    /// These bytes, if they are a list of transactions; looks at each transaction's counts.
    pub fn checked(bytes: Bytes) -> Result<Self, CodecError> {
        if !is_canonical(&bytes) {
            // The other decoder says what is wrong.
            codec::decode::<Vec<Transaction>>(&bytes)?;
        }
        Ok(Self(bytes))
    }

    /// Encodes a list.
    pub fn of(transactions: &[Transaction]) -> Self {
        let each = transactions.iter().map(Transaction::encoded_bytes);
        let mut bytes = Vec::with_capacity(8 + each.sum::<usize>());
        write_count(transactions.len(), &mut bytes);
        for transaction in transactions {
            write(transaction, &mut bytes);
        }
        Self(bytes.into())
    }

    /// The list.
    pub fn decode(&self) -> Vec<Transaction> {
        decode(&self.0).expect("they are checked when it is made")
    }

    /// The encoding.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl Serialize for EncodedBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.decode().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EncodedBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|transactions| Self::of(&transactions))
    }
}

fn write_count(count: usize, to: &mut Vec<u8>) {
    to.extend_from_slice(&(count as u64).to_le_bytes());
}

fn write(transaction: &Transaction, to: &mut Vec<u8>) {
    to.extend_from_slice(&transaction.version.to_le_bytes());
    write_count(transaction.inputs.len(), to);
    for input in &transaction.inputs {
        to.extend_from_slice(&input_row(input));
    }
    write_count(transaction.outputs.len(), to);
    for output in &transaction.outputs {
        to.extend_from_slice(&output_row(output));
    }
}

/// A list of transactions from exactly its canonical bytes.
pub fn decode(bytes: &[u8]) -> Result<Vec<Transaction>, CodecError> {
    // The other decoder says what is wrong.
    read(bytes).map_or_else(|| codec::decode(bytes), Ok)
}

/// The list that these bytes are the encoding of, if any.
fn read(mut bytes: &[u8]) -> Option<Vec<Transaction>> {
    if bytes.len() > MAX_ENCODED_BYTES {
        return None;
    }
    let from = &mut bytes;
    let count = counted(from, LEAST_TRANSACTION_BYTES)?;
    let mut transactions = Vec::with_capacity(count);
    for _ in 0..count {
        transactions.push(Transaction {
            version: u16::from_le_bytes(*take(from)?),
            inputs: rows(from)?.iter().map(input).collect(),
            outputs: rows(from)?.iter().map(output).collect(),
        });
    }
    bytes.is_empty().then_some(transactions)
}

/// Whether [`read`] gives a list.
fn is_canonical(mut bytes: &[u8]) -> bool {
    bytes.len() <= MAX_ENCODED_BYTES && skip(&mut bytes).is_some() && bytes.is_empty()
}

/// Goes past the transactions of a list.
fn skip(from: &mut &[u8]) -> Option<()> {
    for _ in 0..counted(from, LEAST_TRANSACTION_BYTES)? {
        take::<2>(from)?;
        rows::<INPUT_BYTES>(from)?;
        rows::<OUTPUT_BYTES>(from)?;
    }
    Some(())
}

/// A count of things that take at least so many bytes each, all of which must be there: so nothing
/// is allocated for a count that lies.
fn counted(from: &mut &[u8], least_bytes: usize) -> Option<usize> {
    let count = usize::try_from(u64::from_le_bytes(*take(from)?)).ok()?;
    (count <= from.len() / least_bytes).then_some(count)
}

fn take<'a, const N: usize>(from: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(taken)
}

/// A counted list of rows.
fn rows<'a, const N: usize>(from: &mut &'a [u8]) -> Option<&'a [[u8; N]]> {
    let count = counted(from, N)?;
    let (rows, rest) = from.split_at(count * N);
    *from = rest;
    Some(rows.as_chunks().0)
}

/// The part of a row from a place on.
fn part<const AT: usize, const N: usize, const ROW: usize>(row: &[u8; ROW]) -> [u8; N] {
    const { assert!(AT + N <= ROW) };
    let mut part = [0; N];
    part.copy_from_slice(&row[AT..AT + N]);
    part
}

fn input(row: &[u8; INPUT_BYTES]) -> TxInput {
    TxInput {
        outpoint: OutPoint {
            txid: TxId(part::<0, 32, _>(row)),
            index: u32::from_le_bytes(part::<32, 4, _>(row)),
        },
        public_key: PublicKey(part::<36, 32, _>(row)),
        signature: Signature(part::<68, 64, _>(row)),
    }
}

fn output(row: &[u8; OUTPUT_BYTES]) -> TxOutput {
    TxOutput {
        amount: Amount(u64::from_le_bytes(part::<0, 8, _>(row))),
        address: Address(part::<8, 32, _>(row)),
    }
}

fn input_row(input: &TxInput) -> [u8; INPUT_BYTES] {
    let mut row = [0; INPUT_BYTES];
    row[..32].copy_from_slice(&input.outpoint.txid.0);
    row[32..36].copy_from_slice(&input.outpoint.index.to_le_bytes());
    row[36..68].copy_from_slice(&input.public_key.0);
    row[68..].copy_from_slice(&input.signature.0);
    row
}

fn output_row(output: &TxOutput) -> [u8; OUTPUT_BYTES] {
    let mut row = [0; OUTPUT_BYTES];
    row[..8].copy_from_slice(&output.amount.0.to_le_bytes());
    row[8..].copy_from_slice(&output.address.0);
    row
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input_any() -> impl Strategy<Value = TxInput> {
        (
            any::<[u8; 32]>(),
            any::<u32>(),
            any::<[u8; 32]>(),
            any::<[u8; 32]>(),
        )
            .prop_map(|(txid, index, key, half)| {
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(&half);
                signature[32..].copy_from_slice(&key);
                TxInput {
                    outpoint: OutPoint {
                        txid: TxId(txid),
                        index,
                    },
                    public_key: PublicKey(key),
                    signature: Signature(signature),
                }
            })
    }

    fn output_any() -> impl Strategy<Value = TxOutput> {
        (any::<u64>(), any::<[u8; 32]>()).prop_map(|(amount, address)| TxOutput {
            amount: Amount(amount),
            address: Address(address),
        })
    }

    fn transactions_any() -> impl Strategy<Value = Vec<Transaction>> {
        let inputs = proptest::collection::vec(input_any(), 0..4);
        let outputs = proptest::collection::vec(output_any(), 0..4);
        let transaction =
            (any::<u16>(), inputs, outputs).prop_map(|(version, inputs, outputs)| Transaction {
                version,
                inputs,
                outputs,
            });
        proptest::collection::vec(transaction, 0..4)
    }

    /// What happens to bytes on their way.
    #[derive(Clone, Debug)]
    enum Damage {
        Byte(prop::sample::Index, u8),
        Cut(prop::sample::Index),
        More(Vec<u8>),
        Without(prop::sample::Index),
    }

    fn damage_any() -> impl Strategy<Value = Damage> {
        prop_oneof![
            (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, to)| Damage::Byte(at, to)),
            any::<prop::sample::Index>().prop_map(Damage::Cut),
            proptest::collection::vec(any::<u8>(), 1..50).prop_map(Damage::More),
            any::<prop::sample::Index>().prop_map(Damage::Without),
        ]
    }

    fn damaged(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
        match damage {
            Damage::Byte(at, to) => {
                let at = at.index(bytes.len());
                bytes[at] = *to;
            }
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Damage::More(more) => bytes.extend(more),
            Damage::Without(at) => drop(bytes.remove(at.index(bytes.len()))),
        }
        bytes
    }

    proptest! {
        #[test]
        fn both_encoders_write_the_same(transactions in transactions_any()) {
            let body = EncodedBody::of(&transactions);
            prop_assert_eq!(&body.bytes()[..], codec::encode(&transactions));
            prop_assert_eq!(&codec::encode(&body), body.bytes());
            prop_assert_eq!(body.decode(), transactions);
        }

        #[test]
        fn both_decoders_take_the_same(
            transactions in transactions_any(),
            damages in proptest::collection::vec(damage_any(), 0..3),
        ) {
            let bytes = damages.iter().fold(codec::encode(&transactions), |bytes, damage| {
                if bytes.is_empty() { bytes } else { damaged(bytes, damage) }
            });
            let decoded = codec::decode::<Vec<Transaction>>(&bytes);
            prop_assert_eq!(is_canonical(&bytes), decoded.is_ok());
            let checked = EncodedBody::checked(bytes.clone().into());
            prop_assert_eq!(checked.map(|body| body.decode()), decoded.clone());
            prop_assert_eq!(read(&bytes), decoded.ok());
        }
    }

    #[test]
    fn what_is_refused_is_explained_and_a_count_that_lies_allocates_nothing() {
        let mut bytes = codec::encode::<Vec<Transaction>>(&Vec::new());
        assert_eq!(decode(&bytes), Ok(Vec::new()));
        bytes.push(0);
        assert!(matches!(
            decode(&bytes),
            Err(CodecError::TrailingBytes { extra: 1, .. })
        ));
        assert!(matches!(decode(&[1, 0]), Err(CodecError::Malformed { .. })));
        assert_eq!(read(&u64::MAX.to_le_bytes()), None);
        assert!(!is_canonical(&u64::MAX.to_le_bytes()));
    }
}
