//! The text files that an operator or another operator writes.

use std::path::Path;

use ed25519_dalek::SigningKey;

use super::round_trip;
use crate::config::Config;
use crate::node::formats::{genesis_from_text, genesis_to_text, record_from_text, record_to_text};
use crate::types::genesis::sample_genesis;
use crate::types::{Height, MasternodeDirectory, MasternodeRecord, Network, Round, ValidatorSet};

/// `timed.toml`: what is read can be written and read again.
pub fn config(input: &[u8]) {
    let (Some(text), path) = (text_of(input), Path::new("timed.toml")) else {
        return;
    };
    match Config::parse(text, path) {
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        Ok(config) => {
            assert_eq!(Config::parse(&config.to_text(), path), Ok(config.clone()));
            assert!(config.rpc_addr().ip().is_loopback());
        }
    }
}

/// `genesis.toml`: what is read keeps its hash as text and as bytes, and a chain can start with it.
pub fn genesis(input: &[u8]) {
    let (Some(text), path) = (text_of(input), Path::new("genesis.toml")) else {
        return;
    };
    let Ok(genesis) = genesis_from_text(text, path) else {
        return;
    };
    round_trip(&genesis);
    let again = genesis_from_text(&genesis_to_text(&genesis), path);
    assert_eq!(again.as_ref(), Ok(&genesis));
    assert_eq!(genesis.outputs().len(), genesis.allocations.len());
    let validators = ValidatorSet::from_genesis(&genesis);
    assert!(validators.is_quorum(validators.total_power()) && !validators.is_quorum(0));
    for (height, round) in [(0, 0), (1, u32::MAX), (u64::MAX, 1)] {
        let proposer = validators.proposer(Height(height), Round(round));
        assert!(validators.get(&proposer.key).is_some());
    }
    for slot in [0, 1, u64::MAX / genesis.slot_ms] {
        let start = genesis.slot_start_ms(slot);
        assert!(start == u64::MAX || genesis.slot_at(start) == slot);
    }
}

/// `<name>.masternode.toml`: nothing is accepted that its key has not signed; what it signs keeps its
/// text, and stands in a directory only of a genesis that names it.
pub fn record(input: &[u8]) {
    let (Some(text), path) = (text_of(input), Path::new("x.masternode.toml")) else {
        return;
    };
    let as_it_is = record_from_text(text, Network::Dev, path);
    let Ok(read) = toml::from_str::<MasternodeRecord>(text) else {
        assert!(as_it_is.is_err());
        return;
    };
    assert_eq!(as_it_is.is_ok(), read.verify(Network::Dev).is_ok());
    round_trip(&read);
    // The key of the masternode alpha in the genesis below.
    let key = SigningKey::from_bytes(&[1; 32]);
    let record = read.signed(&key, Network::Dev);
    if record.verify(Network::Dev).is_err() {
        return;
    }
    let again = record_from_text(&record_to_text(&record), Network::Dev, path);
    assert_eq!(again.as_ref(), Ok(&record));
    assert!(record.verify(Network::Main).is_err());
    let mut moved = record.clone();
    moved.port ^= 1;
    assert!(moved.verify(Network::Dev).is_err());
    let genesis = sample_genesis();
    let directory = MasternodeDirectory::new(&genesis, [record.clone()]);
    assert_eq!(directory.is_ok(), record.name == "alpha");
    let twice = MasternodeDirectory::new(&genesis, [record.clone(), record]);
    assert!(twice.is_err());
}

fn text_of(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}
