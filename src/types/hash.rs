//! BLAKE3 with domain separation: every kind of hash has a context of its own, so that no value
//! hashed for one purpose can stand for another.

/// The contexts, in BLAKE3's key-derivation mode. A context never changes its meaning; a new
/// meaning gets a new context.
pub mod context {
    /// The genesis file's content.
    pub const GENESIS: &str = "timed 2026-11 genesis v1";
    /// Block headers.
    pub const BLOCK: &str = "timed 2026-11 block header v1";
    /// Transaction ids: the transaction without keys and signatures.
    pub const TXID: &str = "timed 2026-11 transaction id v1";
    /// What an input's signature covers.
    pub const TX_SIGN: &str = "timed 2026-11 transaction signature v1";
    /// A leaf of the transactions root: the whole transaction.
    pub const TX_LEAF: &str = "timed 2026-11 transactions root leaf v1";
    /// An inner node of the transactions root.
    pub const TX_NODE: &str = "timed 2026-11 transactions root node v1";
    /// Addresses: a hash of a public key.
    pub const ADDRESS: &str = "timed 2026-11 address v1";
    /// The virtual transaction that creates a block's reward.
    pub const REWARD: &str = "timed 2026-11 block reward v1";
    /// The virtual transaction that creates the genesis allocations.
    pub const ALLOCATION: &str = "timed 2026-11 genesis allocation v1";
    /// One unspent output's contribution to the set hash.
    pub const SET_ELEMENT: &str = "timed 2026-11 lthash element v1";
    /// The commitment over a set hash's lanes.
    pub const SET_COMMITMENT: &str = "timed 2026-11 lthash commitment v1";
    /// A validator set.
    pub const VALIDATORS: &str = "timed 2026-11 validator set v1";
    /// What a prevote's or precommit's signature covers.
    pub const VOTE_SIGN: &str = "timed 2026-11 vote signature v1";
    /// What a proposal's signature covers.
    pub const PROPOSAL_SIGN: &str = "timed 2026-11 proposal signature v1";
    /// What a masternode record's signature covers.
    pub const RECORD_SIGN: &str = "timed 2026-11 masternode record signature v1";
}

/// Hashes the parts, one after the other, under a context. Parts must have fixed lengths or be the
/// last, so that no two lists of parts give the same input.
pub fn hash(context: &'static str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}
