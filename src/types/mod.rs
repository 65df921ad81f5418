//! Values that every other module shares. No input or output, no clock, no state.
//!
//! Everything that is hashed, signed, stored or sent has exactly one encoding, made by [`codec`].

pub mod address;
pub mod amount;
pub mod ban;
pub mod block;
pub mod body;
pub mod codec;
pub mod directory;
mod fixed;
pub mod genesis;
#[cfg(test)]
pub(crate) mod golden;
pub mod hash;
pub mod height;
pub mod ids;
pub mod network;
pub mod peer_ip;
pub mod record;
pub mod signing;
pub mod time;
pub mod transaction;
pub mod validators;
pub mod vote;

pub use address::{Address, AddressError};
pub use amount::{Amount, AmountError};
pub use ban::{Ban, BannedBy};
pub use block::{Block, BlockHeader, Tip};
pub use body::EncodedBody;
pub use directory::{DirectoryError, MasternodeDirectory};
pub use genesis::{Allocation, Genesis, GenesisError, GenesisMasternode, Timeouts};
pub use height::{Height, Round};
pub use ids::{
    BlockHash, ConsensusKey, GenesisHash, NodeId, PublicKey, Signature, StateCommitment,
    TransactionsRoot, TxId, ValidatorSetHash,
};
pub use network::Network;
pub use peer_ip::PeerIp;
pub use record::{MasternodeRecord, RecordError};
pub use transaction::{OutPoint, Transaction, TxInput, TxOutput};
pub use validators::{Validator, ValidatorSet};
pub use vote::{
    CertificateError, CommitCertificate, PolkaCertificate, Proposal, RoundCertificate, Vote,
    VoteKind,
};
