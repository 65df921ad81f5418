//! Certificates as TLS hands them over, and `pins.toml`.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use ed25519_dalek::{Signer, SigningKey};

use super::certificate::{Certificate, pin_of};
use super::pins::{Admission, Decision, PinPolicy};
use crate::env::{DurableFile, FileInMemory};
use crate::types::genesis::sample_genesis;
use crate::types::{
    Address, ConsensusKey, MasternodeDirectory, MasternodeRecord, NodeId, PeerIp, Signature,
};

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));

/// A certificate; and the same bytes as the part that is signed, signed by a key of this target: so
/// that what comes after the check of the signature is reached too.
pub fn tls_certificate(input: &[u8]) {
    certificate(input);
    if let Some(certificate) = certificate(&signed(input)) {
        assert_eq!(certificate.key, KEY.verifying_key());
    }
}

/// The certificate whose signed part this is.
fn signed(part: &[u8]) -> Vec<u8> {
    // AlgorithmIdentifier of Ed25519, then a bit string of 64 bytes without unused bits.
    let mut rest = vec![0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];
    rest.extend(KEY.sign(part).to_bytes());
    let length = (part.len() + rest.len()) as u16;
    let header = match length.to_be_bytes() {
        [0, short @ 0..=0x7f] => vec![0x30, short],
        [0, middle] => vec![0x30, 0x81, middle],
        [high, low] => vec![0x30, 0x82, high, low],
    };
    [header.as_slice(), part, &rest].concat()
}

/// What is accepted is pinned to a key that stands in it, and nothing can be added to it.
fn certificate(der: &[u8]) -> Option<Certificate> {
    let certificate = Certificate::verify(der).ok()?;
    assert_eq!(certificate.pin, pin_of(&certificate.key));
    let key = certificate.key.as_bytes();
    assert!(der.windows(key.len()).any(|window| window == key));
    let longer = [der, &[0]].concat();
    assert!(Certificate::verify(&longer).is_err());
    Some(certificate)
}

/// `pins.toml`: what cannot be read is left as it is; what is read is remembered over a restart,
/// and is written the same way again.
pub fn pins(input: &[u8]) {
    let file = FileInMemory::default();
    file.replace(input).expect("memory takes everything");
    let content = || file.load().expect("memory gives everything back");
    let ip: PeerIp = "10.0.0.1".parse().expect("it is an address");
    let empty = || MasternodeDirectory::new(&sample_genesis(), []);
    let open = |directory: MasternodeDirectory| {
        let (file, configured) = (Arc::new(file.clone()), BTreeSet::from([ip]));
        PinPolicy::open(file, directory, configured, true, NodeId([9; 32]))
    };
    let Ok(mut policy) = open(empty().expect("no records, no conflict")) else {
        assert_eq!(content().as_deref(), Some(input));
        return;
    };
    let node = NodeId([5; 32]);
    let trust = |policy: &mut PinPolicy| {
        let change = policy.trusting(ip, node);
        change.store().expect("memory takes everything");
        policy.adopt(change);
    };
    trust(&mut policy);
    let first = content();
    let mut policy = open(empty().expect("no records, no conflict")).expect("it was just written");
    assert!(matches!(
        policy.decide(ip, node),
        Ok(Decision::Admit(Admission::Unpinned))
    ));
    assert!(policy.decide(ip, NodeId([6; 32])).is_err());
    let change = policy.forgetting(ip).expect("it was trusted");
    change.store().expect("memory takes everything");
    policy.adopt(change);
    trust(&mut policy);
    assert_eq!(content(), first);
    // A record is taken, or refused for what is remembered; then nothing is changed.
    let records = MasternodeDirectory::new(&sample_genesis(), [record()]);
    match open(records.expect("it is of this genesis")) {
        Ok(policy) => assert_eq!(policy.directory().records().count(), 1),
        Err(_) => assert_eq!(content(), first),
    }
}

/// The record of the first masternode of the sample genesis.
fn record() -> MasternodeRecord {
    MasternodeRecord {
        name: "alpha".into(),
        serial: 3,
        ip: "127.0.0.1".parse().expect("it is an address"),
        port: 24_200,
        pins: vec![NodeId([4; 32])],
        consensus_key: ConsensusKey([0; 32]),
        payout: Address([2; 32]),
        signature: Signature([0; 64]),
    }
    .signed(&SigningKey::from_bytes(&[1; 32]), sample_genesis().network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_certificates_and_pins() {
        let whole = include_bytes!("../../fuzz/seeds/tls_certificate/whole");
        assert!(certificate(whole).is_some());
        let part = include_bytes!("../../fuzz/seeds/tls_certificate/signed-part");
        assert_eq!(signed(part), whole);
        for seed in [
            &include_bytes!("../../fuzz/seeds/pins/seen")[..],
            include_bytes!("../../fuzz/seeds/pins/first-use"),
        ] {
            let file = FileInMemory::default();
            file.replace(seed).unwrap();
            let directory = MasternodeDirectory::new(&sample_genesis(), []).unwrap();
            let own = NodeId([9; 32]);
            assert!(PinPolicy::open(Arc::new(file), directory, BTreeSet::new(), true, own).is_ok());
        }
    }
}
