//! Connection ids that a restarted node still recognises as its own, and the key of its stateless
//! resets.
//!
//! After a restart the peers of the old process go on sending on connections that no longer exist.
//! QUIC answers such a packet with a stateless reset, whose token is a keyed hash of the packet's
//! connection id (RFC 9000 section 10.3), and the peer gives up at once instead of waiting for its
//! idle timeout. That needs the same reset key in every process of the node. It also needs care
//! about which ids are answered: whoever can get a token for an id of his choice can cut the
//! connection that has it. So an id carries a check that only this node can make:
//!
//! ```text
//! 0            12                 16
//! | 12 random  | 4 of keyed BLAKE3 over the 12 |
//! ```
//!
//! Both keys are derived from the node's secret under contexts of their own, so neither tells
//! anything about the other. The random part comes from the injected source, which must differ at
//! every process start; 96 bits do not repeat in practice.

use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;
use quinn_proto::crypto::{CryptoError, HmacKey};
use rand::Rng;
use rand_chacha::ChaCha20Rng;
use subtle::ConstantTimeEq;

use super::identity::Identity;
use crate::env::Entropy;

const CONNECTION_ID_CONTEXT: &str = "timed 2026-11 QUIC connection id check v1";
const RESET_CONTEXT: &str = "timed 2026-11 QUIC stateless reset token v1";

const RANDOM_BYTES: usize = 12;
const CHECK_BYTES: usize = 4;
const ID_BYTES: usize = RANDOM_BYTES + CHECK_BYTES;

/// The key from which stateless reset tokens are made.
pub(super) fn reset_key(identity: &Identity) -> Arc<dyn HmacKey> {
    Arc::new(ResetKey(identity.derive_key(RESET_CONTEXT)))
}

/// Makes this node's connection ids and recognises them after a restart.
pub(super) struct ConnectionIds {
    key: [u8; 32],
    random: ChaCha20Rng,
}

impl ConnectionIds {
    /// A generator for one endpoint of one process.
    pub(super) fn new(identity: &Identity, entropy: &Entropy) -> Self {
        Self {
            key: identity.derive_key(CONNECTION_ID_CONTEXT),
            random: entropy.rng("QUIC connection ids"),
        }
    }

    fn check(&self, random: &[u8]) -> [u8; CHECK_BYTES] {
        let hash = blake3::keyed_hash(&self.key, random);
        *hash
            .as_bytes()
            .first_chunk()
            .expect("a hash is longer than the check")
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        self.random.fill_bytes(&mut id[..RANDOM_BYTES]);
        let check = self.check(&id[..RANDOM_BYTES]);
        id[RANDOM_BYTES..].copy_from_slice(&check);
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let (random, check) = id.split_at_checked(RANDOM_BYTES).ok_or(InvalidCid)?;
        if bool::from(self.check(random).ct_eq(check)) {
            Ok(())
        } else {
            Err(InvalidCid)
        }
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Keyed BLAKE3 in the place of an HMAC. QUIC truncates its output to the token's 16 bytes.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = blake3::keyed_hash(&self.0, data);
        if bool::from(expected.as_bytes().as_slice().ct_eq(signature)) {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

#[cfg(test)]
mod tests;
