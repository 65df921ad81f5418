//! The example folder `certs/`: that it verifies, and that it is what this code makes.
//!
//! Its keys are made from the phrases below, which are public, so nothing may ever trust them.
//! After a change of format, `cargo test -- --ignored write_the_example_folder` writes it anew.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers panic like the test itself"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use timed::net::{Identity, inspect_certificate};
use timed::node::formats::{record_from_text, record_to_text};
use timed::node::setup::{GenesisOptions, build_genesis};
use timed::types::{Address, ConsensusKey, MasternodeRecord, Network, PublicKey, Signature};

/// Names and addresses of the two-masternode development network.
const MASTERNODES: [(&str, &str); 2] = [("alpha", "127.0.0.1"), ("beta", "127.0.0.2")];

const NETWORK: Network = Network::Dev;
const PORT: u16 = 24200;

/// 2026-11-01T00:00:00Z.
const MADE_AT_MS: u64 = 1_793_491_200_000;

/// A secret that everybody can make: good for an example, and for nothing else.
fn thrown_away(name: &str, what: &str) -> [u8; 32] {
    blake3::hash(format!("timed example certs: {what} of {name}").as_bytes()).into()
}

fn identity(name: &str, ip: &str) -> Identity {
    let secret = thrown_away(name, "node key");
    Identity::create(&secret, ip.parse().unwrap(), name, MADE_AT_MS).unwrap()
}

fn record_text(name: &str, ip: &str) -> String {
    let key = |what| ed25519_dalek::SigningKey::from_bytes(&thrown_away(name, what));
    let record = MasternodeRecord {
        name: name.into(),
        serial: 1,
        ip: ip.parse().unwrap(),
        port: PORT,
        pins: vec![identity(name, ip).node_id()],
        consensus_key: ConsensusKey([0; 32]),
        payout: Address::of(&PublicKey::from(&key("wallet key"))),
        signature: Signature([0; 64]),
    }
    .signed(&key("consensus key"), NETWORK);
    record_to_text(&record)
}

/// All files of the folder but its README: name and content.
fn files() -> Vec<(String, String)> {
    let made = MASTERNODES.iter().map(|(name, ip)| {
        [
            (format!("{name}.masternode.toml"), record_text(name, ip)),
            (format!("{name}.pem"), identity(name, ip).certificate_pem()),
        ]
    });
    made.flatten().collect()
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "certs"].iter().collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

#[test]
#[ignore = "writes into the source tree"]
fn write_the_example_folder() {
    for (name, content) in files() {
        std::fs::write(folder().join(name), content).unwrap();
    }
}

#[test]
fn the_example_folder_is_what_this_code_makes() {
    for (name, content) in files() {
        assert_eq!(read(&name), content, "{name}");
    }
}

#[test]
fn the_example_folder_makes_a_genesis() {
    for (name, ip) in MASTERNODES {
        let path = folder().join(format!("{name}.masternode.toml"));
        let record = record_from_text(&std::fs::read_to_string(&path).unwrap(), NETWORK, &path);
        let record = record.unwrap();
        let certificate = inspect_certificate(&read(&format!("{name}.pem"))).unwrap();
        assert_eq!(record.ip, ip.parse().unwrap());
        assert_eq!(record.pins, [certificate.pin]);
        assert_eq!(certificate.ips, [record.ip]);
    }
    let output = tempfile::tempdir().unwrap();
    let file = output.path().join("genesis.toml");
    let options = GenesisOptions {
        folder: folder(),
        output: file.clone(),
        ..GenesisOptions::of(NETWORK)
    };
    build_genesis(&options).unwrap();
    assert!(file.exists());
}

#[test]
fn the_example_folder_holds_public_files_only() {
    let entries = std::fs::read_dir(folder()).unwrap();
    let found: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut expected: BTreeSet<String> = files().into_iter().map(|(name, _)| name).collect();
    expected.insert("README.md".into());
    assert_eq!(found, expected);
    for name in found {
        assert!(!read(&name).contains("-----BEGIN PRIVATE"), "{name}");
    }
}
