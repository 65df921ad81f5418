use super::*;

const NOW_MS: u64 = 1_795_000_000_999;

fn ip(text: &str) -> PeerIp {
    text.parse().unwrap()
}

fn identity(seed: u8) -> Identity {
    Identity::create(&[seed; 32], ip("10.0.0.1"), "alpha", NOW_MS).unwrap()
}

#[test]
fn a_certificate_says_who_it_is_for_and_how_long() {
    let identity = identity(1);
    let info = inspect_certificate(&identity.certificate_pem()).unwrap();
    assert_eq!(
        info,
        CertificateInfo {
            pin: identity.node_id(),
            ips: vec![ip("10.0.0.1")],
            names: vec!["alpha".into()],
            not_before: 1_795_000_000,
            not_after: 1_795_000_000 + 315_576_000,
        }
    );
}

#[test]
fn ipv6_and_unknown_addresses() {
    let make = |address| Identity::create(&[1; 32], ip(address), "alpha", NOW_MS).unwrap();
    let ips = |identity: Identity| {
        let info = inspect_certificate(&identity.certificate_pem()).unwrap();
        info.ips
    };
    assert_eq!(ips(make("2001:db8::1")), [ip("2001:db8::1")]);
    assert_eq!(ips(make("::ffff:10.0.0.1")), [ip("10.0.0.1")]);
    assert_eq!(ips(make("0.0.0.0")), []);
}

#[test]
fn a_renewed_certificate_keeps_the_pin_and_another_key_changes_it() {
    let old = identity(1);
    let renewed = Identity::create(&[1; 32], ip("10.0.0.5"), "moved", NOW_MS + 1_000).unwrap();
    assert_ne!(old.certificate_pem(), renewed.certificate_pem());
    assert_eq!(old.node_id(), renewed.node_id());
    assert_ne!(old.node_id(), identity(2).node_id());
}

#[test]
fn the_pin_is_blake3_of_the_subject_public_key_info() {
    let identity = identity(1);
    let der = rustls::pki_types::CertificateDer::from(identity.certificate.to_vec());
    let parsed = rustls::server::ParsedCertificate::try_from(&der).unwrap();
    let spki = parsed.subject_public_key_info();
    assert_eq!(
        identity.node_id().0,
        *blake3::hash(spki.as_ref()).as_bytes()
    );
}

#[test]
fn an_identity_survives_its_files() {
    let identity = identity(1);
    let (key, certificate) = (identity.key_pem(), identity.certificate_pem());
    let read = Identity::from_pem(&key, &certificate).unwrap();
    assert_eq!(read.node_id(), identity.node_id());
    assert_eq!(read.key_pem(), key);
    assert_eq!(read.certificate_pem(), certificate);
    assert_eq!(read.derive_key("a"), identity.derive_key("a"));
    assert_ne!(read.derive_key("a"), read.derive_key("b"));
}

#[test]
fn a_key_made_by_another_tool_is_read() {
    // PKCS#8 version 2, with the public key, as ring writes it.
    let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&made)
        .unwrap();
    Identity::from_pem(&made.serialize_pem(), &certificate.pem()).unwrap();
}

#[test]
fn a_key_and_a_certificate_of_two_identities_are_refused_with_both_pins() {
    let (one, two) = (identity(1), identity(2));
    let error = Identity::from_pem(&one.key_pem(), &two.certificate_pem()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&one.node_id().to_string()), "{text}");
    assert!(text.contains(&two.node_id().to_string()), "{text}");
}

#[test]
fn unreadable_files_are_refused_in_words() {
    let one = identity(1);
    let (key, certificate) = (one.key_pem(), one.certificate_pem());
    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();

    for bad in ["", "no PEM", &certificate, &p256.serialize_pem()] {
        let error = Identity::from_pem(bad, &certificate).unwrap_err();
        assert!(matches!(error, IdentityError::Key(_)), "{error}");
    }
    for bad in ["", "no PEM", key.as_str()] {
        let error = Identity::from_pem(&key, bad).unwrap_err();
        assert!(matches!(error, IdentityError::Pem(_)), "{error}");
    }
    let error = inspect_certificate(&key).unwrap_err().to_string();
    assert!(error.contains("\"PRIVATE KEY\" instead of"), "{error}");
}

#[test]
fn nothing_shows_the_secret() {
    let identity = identity(7);
    let secret = hex::encode([7; 32]);
    let shown = format!("{identity:?} {:?}", identity.key);
    assert!(shown.contains(&identity.node_id().short()));
    assert!(!shown.contains(&secret[..16]));
    assert!(!shown.contains("7, 7, 7"));

    // A key file that breaks off in the middle: the error must not quote it.
    let pem = identity.key_pem();
    let error = Identity::from_pem(&pem[..80], "").unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains(&pem[60..75]), "{text}");
}

#[test]
fn names_and_times_that_no_certificate_can_have_are_refused() {
    for name in ["", "white space", "a".repeat(300).as_str(), "\u{e4}"] {
        let error = Identity::create(&[1; 32], ip("10.0.0.1"), name, NOW_MS).unwrap_err();
        assert!(matches!(error, IdentityError::Name(_)), "{name}: {error}");
    }
    let create = |now| Identity::create(&[1; 32], ip("10.0.0.1"), "alpha", now);
    assert!(matches!(create(u64::MAX), Err(IdentityError::Time(_))));
    let last = create(LAST_START_MS).unwrap();
    let info = inspect_certificate(&last.certificate_pem()).unwrap();
    assert_eq!(info.not_after, 253_402_300_799);
}

mod certificates {
    use proptest::prelude::*;

    use super::*;

    fn der() -> Vec<u8> {
        identity(1).certificate.to_vec()
    }

    #[test]
    fn another_algorithm_is_refused() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let made = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap();
        let error = Certificate::verify(made.der()).unwrap_err();
        assert!(matches!(error, IdentityError::NotEd25519), "{error}");
    }

    #[test]
    fn a_certificate_signed_by_another_key_is_refused() {
        let issuer_key = identity(2).key;
        let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), issuer_key);
        let made = rcgen::CertificateParams::default()
            .signed_by(&identity(1).key, &issuer)
            .unwrap();
        let error = Certificate::verify(made.der()).unwrap_err();
        assert!(matches!(error, IdentityError::NotSelfSigned), "{error}");
    }

    #[test]
    fn a_certificate_of_a_small_order_key_is_refused() {
        // The identity point as key: every message "verifies" with R = identity, s = 0 unless the
        // check is strict.
        struct SmallOrder([u8; 32]);
        impl rcgen::PublicKeyData for SmallOrder {
            fn der_bytes(&self) -> &[u8] {
                &self.0
            }
            fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
                &rcgen::PKCS_ED25519
            }
        }
        impl rcgen::SigningKey for SmallOrder {
            fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
                let mut forged = vec![0; 64];
                forged[0] = 1;
                Ok(forged)
            }
        }
        let mut point = [0; 32];
        point[0] = 1;
        let made = rcgen::CertificateParams::default()
            .self_signed(&SmallOrder(point))
            .unwrap();
        let error = Certificate::verify(made.der()).unwrap_err();
        assert!(matches!(error, IdentityError::NotSelfSigned), "{error}");
    }

    #[test]
    fn too_long_and_empty_certificates_are_refused() {
        let mut long = der();
        long.resize(MAX_BYTES + 1, 0);
        for bad in [&long[..], &[], &der()[..100]] {
            let error = Certificate::verify(bad).unwrap_err();
            assert!(matches!(error, IdentityError::Malformed(_)), "{error}");
        }
        let mut trailing = der();
        trailing.push(0);
        assert!(Certificate::verify(&trailing).is_err());
    }

    const MAX_BYTES: usize = 4096;

    proptest! {
        /// Every single byte is covered by the signature or by the strict encoding.
        #[test]
        fn a_changed_byte_is_refused(at in 0usize..1_000, flip in 1u8..) {
            let mut der = der();
            let at = at % der.len();
            der[at] ^= flip;
            prop_assert!(Certificate::verify(&der).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            prop_assert!(Certificate::verify(&bytes).is_err());
        }
    }
}
