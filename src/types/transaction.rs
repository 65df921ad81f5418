//! Transactions over unspent outputs.

use serde::{Deserialize, Serialize};

use super::codec;
use super::hash::{self, context};
use super::{Address, Amount, GenesisHash, PublicKey, Signature, TxId};

/// The transaction version that this software makes and accepts.
pub const TRANSACTION_VERSION: u16 = 1;

/// Names one output of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutPoint {
    /// The transaction that made the output.
    pub txid: TxId,
    /// The output's position in it.
    pub index: u32,
}

/// An amount and who may spend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TxOutput {
    /// How much.
    pub amount: Amount,
    /// Whose key spends it.
    pub address: Address,
}

/// An output that is spent, with the proof of the right to spend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxInput {
    /// The output that is spent.
    pub outpoint: OutPoint,
    /// The key whose address the output pays to.
    pub public_key: PublicKey,
    /// The key's signature over [`Transaction::signing_digest`].
    pub signature: Signature,
}

/// A transfer: inputs are spent, outputs are made, the difference is the proposer's fee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// [`TRANSACTION_VERSION`].
    pub version: u16,
    /// What is spent; at least one.
    pub inputs: Vec<TxInput>,
    /// What is made; at least one.
    pub outputs: Vec<TxOutput>,
}

impl Transaction {
    /// The id: a hash of all but the keys and signatures. The outpoints fix the keys.
    pub fn id(&self) -> TxId {
        let outpoints: Vec<OutPoint> = self.inputs.iter().map(|input| input.outpoint).collect();
        let bytes = codec::encode(&(self.version, outpoints, &self.outputs));
        TxId(hash::hash(context::TXID, &[&bytes]))
    }

    /// What every input's signature covers: the chain and the id.
    pub fn signing_digest(&self, genesis: &GenesisHash) -> [u8; 32] {
        hash::hash(
            context::TX_SIGN,
            &[genesis.as_bytes(), self.id().as_bytes()],
        )
    }

    /// The length of the encoding, in bytes: what fees and limits count.
    pub fn encoded_bytes(&self) -> usize {
        const VERSION_AND_TWO_LENGTHS: usize = 2 + 8 + 8;
        const INPUT: usize = 32 + 4 + 32 + 64;
        const OUTPUT: usize = 8 + 32;
        VERSION_AND_TWO_LENGTHS + INPUT * self.inputs.len() + OUTPUT * self.outputs.len()
    }

    /// The outpoints that this transaction makes, with their outputs.
    pub fn created(&self) -> impl Iterator<Item = (OutPoint, TxOutput)> + '_ {
        let txid = self.id();
        self.outputs
            .iter()
            .zip(0u32..)
            .map(move |(output, index)| (OutPoint { txid, index }, *output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Transaction {
        Transaction {
            version: TRANSACTION_VERSION,
            inputs: vec![TxInput {
                outpoint: OutPoint {
                    txid: TxId([1; 32]),
                    index: 2,
                },
                public_key: PublicKey([3; 32]),
                signature: Signature([4; 64]),
            }],
            outputs: vec![TxOutput {
                amount: Amount(5),
                address: Address([6; 32]),
            }],
        }
    }

    #[test]
    fn the_id_leaves_signatures_out_and_the_size_is_exact() {
        let transaction = sample();
        let mut resigned = transaction.clone();
        resigned.inputs[0].signature = Signature([9; 64]);
        assert_eq!(transaction.id(), resigned.id());
        assert_eq!(
            codec::encode(&transaction).len(),
            transaction.encoded_bytes()
        );
    }

    #[test]
    fn the_signed_digest_differs_between_chains() {
        let transaction = sample();
        assert_ne!(
            transaction.signing_digest(&GenesisHash([0; 32])),
            transaction.signing_digest(&GenesisHash([1; 32]))
        );
    }
}
