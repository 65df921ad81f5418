//! Ed25519 signing and the one check that decides validity.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use super::{ConsensusKey, PublicKey, Signature};

/// Signs a 32-byte digest made under a context of [`super::hash::context`].
pub fn sign(key: &SigningKey, digest: &[u8; 32]) -> Signature {
    Signature(key.sign(digest).to_bytes())
}

/// Whether `signature` is `key`'s over `digest`, by RFC 8032 with the strict rules of
/// `verify_strict`: no small-order keys, no malleable encodings. A batch check never decides.
pub fn verify(key: &[u8; 32], digest: &[u8; 32], signature: &Signature) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| {
        key.verify_strict(digest, &ed25519_dalek::Signature::from_bytes(&signature.0))
            .is_ok()
    })
}

impl From<&SigningKey> for ConsensusKey {
    fn from(key: &SigningKey) -> Self {
        Self(key.verifying_key().to_bytes())
    }
}

impl From<&SigningKey> for PublicKey {
    fn from(key: &SigningKey) -> Self {
        Self(key.verifying_key().to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signed_digest_verifies() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let public = key.verifying_key().to_bytes();
        let signature = sign(&key, &[2; 32]);
        assert!(verify(&public, &[2; 32], &signature));
        assert!(!verify(&public, &[3; 32], &signature));
    }

    #[test]
    fn a_small_order_key_signs_nothing() {
        // The identity point: with R = identity and s = 0 the cofactorless equation holds for
        // every message, which is why the strict check exists.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut forged = [0; 64];
        forged[0] = 1;
        assert!(!verify(&identity, &[0; 32], &Signature(forged)));
    }
}
