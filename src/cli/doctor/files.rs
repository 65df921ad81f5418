//! What stands in the data directory. The checks go on past the first fault, as far as what is whole
//! allows.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use timed::config::Config;
use timed::consensus::{StateFileError, check_state};
use timed::env::{DurableFile, FileOnDisk};
use timed::net::identity::{CertificateInfo, inspect_certificate};
use timed::net::{Identity, PinPolicy};
use timed::node::files::{DataDir, load_config, load_directory, load_genesis};
use timed::node::keys;
use timed::node::wallet::file::{WalletFile, WalletFileError};
use timed::types::{ConsensusKey, Genesis, MasternodeDirectory, NodeId, PeerIp};

use super::super::{log, output};
use super::Finding;

/// Below this many days a certificate's end is worth a word.
const DAYS_OF_NOTICE: i64 = 30;

/// What the files told, as far as they could be read.
#[derive(Default)]
pub(super) struct Known {
    pub(super) config: Option<Config>,
    pub(super) genesis: Option<Arc<Genesis>>,
    pub(super) directory: Option<MasternodeDirectory>,
    /// This node's position in genesis.
    pub(super) own: Option<usize>,
}

pub(super) fn check(dir: &DataDir, now_ms: u64, findings: &mut Vec<Finding>) -> Known {
    let mut known = Known::default();
    match load_config(dir) {
        Ok(config) => {
            findings.push(settings(dir, &config));
            known.config = Some(config);
        }
        Err(error) => findings.push(Finding::error("settings", &error)),
    }
    match load_genesis(dir) {
        Ok(genesis) => {
            let sentence = format!(
                "chain {} ({}), {}, hash {}",
                genesis.chain_id,
                genesis.network,
                output::count(genesis.masternodes.len(), "masternode"),
                genesis.hash()
            );
            findings.push(Finding::good("genesis", sentence));
            known.genesis = Some(Arc::new(genesis));
        }
        Err(error) => findings.push(Finding::error("genesis", &error)),
    }
    let pin = check_identity(dir, now_ms, findings);
    let directory = known
        .genesis
        .as_ref()
        .map(|genesis| load_directory(dir, genesis));
    let recorded = match (&directory, &pin) {
        (Some(Ok(directory)), Some(pin)) => directory.by_pin(pin).map(|(_, record)| &*record.name),
        _ => None,
    };
    let key = check_consensus_key(dir, recorded, findings);
    check_wallet_key(dir, findings);
    if let (Some(genesis), Some(directory)) = (known.genesis.clone(), directory) {
        let position = |key| {
            genesis
                .masternodes
                .iter()
                .position(|one| one.consensus_key == key)
        };
        known.own = key.and_then(position);
        match directory {
            Ok(directory) => {
                check_own(dir, &genesis, &directory, (key, pin), findings);
                check_records(dir, &genesis, &directory, findings);
                check_memory(dir, &known, &directory, pin, findings);
                known.directory = Some(directory);
            }
            Err(error) => findings.push(Finding::error("records", &error)),
        }
    }
    known
}

/// Of settings that could be read.
fn settings(dir: &DataDir, config: &Config) -> Finding {
    match log::check_setting(dir, config) {
        Ok(()) => Finding::good(
            "settings",
            format!(
                "timed.toml is whole; this node listens on {}",
                config.listen_addr()
            ),
        ),
        Err(error) => Finding::error("settings", &format!("{error:#}")),
    }
}

/// The node key, its certificate, and the dates in it.
fn check_identity(dir: &DataDir, now_ms: u64, findings: &mut Vec<Finding>) -> Option<NodeId> {
    let key = match keys::read_secret(&dir.node_key()) {
        Ok(key) => key,
        Err(error) => {
            findings.push(Finding::error("node key", &error));
            return None;
        }
    };
    let path = dir.node_certificate();
    let pem = match std::fs::read_to_string(&path) {
        Ok(pem) => pem,
        Err(error) => {
            let sentence = format!("{} cannot be read: {error}", path.display());
            let next = "restore it from your backup, or copy it from certs/, where it has this node's name";
            findings.push(Finding::fault("certificate", sentence, next));
            return None;
        }
    };
    let identity = match Identity::from_pem(&key, &pem) {
        Ok(identity) => identity,
        Err(error) => {
            let sentence = format!("node.key and node.pem cannot be used together: {error}");
            let next = "restore both from the same backup";
            findings.push(Finding::fault("certificate", sentence, next));
            return None;
        }
    };
    let pin = identity.node_id();
    findings.push(Finding::good(
        "node key",
        format!("readable by its owner only; its pin is {pin}"),
    ));
    if let Ok(certificate) = inspect_certificate(&pem) {
        findings.push(dates(&certificate, (now_ms / 1_000) as i64));
    }
    Some(pin)
}

fn dates(certificate: &CertificateInfo, now: i64) -> Finding {
    let about = "certificate";
    let days_left = (certificate.not_after - now).div_euclid(86_400);
    if now < certificate.not_before {
        let days = (certificate.not_before - now).div_euclid(86_400) + 1;
        let sentence = format!(
            "it becomes valid only in {}: this machine's clock is wrong, or was when it was made",
            output::count(days, "day")
        );
        return Finding::warning(
            about,
            sentence,
            "set the clock by NTP; peers go by the pin, so connections work",
        );
    }
    if days_left < 0 {
        let sentence = format!("it expired {} ago", output::count(-days_left, "day"));
        return Finding::warning(
            about,
            sentence,
            "peers go by the pin, so connections work; \"timed cert rotate\" makes a new one",
        );
    }
    if days_left < DAYS_OF_NOTICE {
        let sentence = format!("it expires in {}", output::count(days_left, "day"));
        return Finding::warning(
            about,
            sentence,
            "peers go by the pin, so connections work; \"timed cert rotate\" makes a new one",
        );
    }
    Finding::good(
        about,
        format!("belongs to the node key and is valid for {days_left} more days"),
    )
}

/// Gives its public half. `recorded` is the masternode whose record names the node key.
fn check_consensus_key(
    dir: &DataDir,
    recorded: Option<&str>,
    findings: &mut Vec<Finding>,
) -> Option<ConsensusKey> {
    let about = "consensus key";
    let path = dir.consensus_key();
    if !exists(&path) {
        findings.push(match recorded {
            Some(name) => Finding::fault(
                about,
                format!(
                    "{} is missing, but node.key is the one of masternode {name}: the node does not start",
                    path.display()
                ),
                "restore the consensus key from your backup",
            ),
            None => Finding::note(
                about,
                "there is none: this is a full node, which follows the chain and does not vote",
            ),
        });
        return None;
    }
    match keys::read_key(&path) {
        Ok(key) => {
            findings.push(Finding::good(about, "readable by its owner only"));
            Some(ConsensusKey::from(&key))
        }
        Err(error) => {
            findings.push(Finding::error(about, &error));
            None
        }
    }
}

fn check_wallet_key(dir: &DataDir, findings: &mut Vec<Finding>) {
    let about = "wallet key";
    match WalletFile::open(&dir.wallet_key()) {
        Ok(wallet) => {
            let sentence = match wallet.is_encrypted() {
                true => "encrypted, and readable by its owner only",
                false => "readable by its owner only",
            };
            findings.push(Finding::good(about, sentence));
        }
        Err(WalletFileError::Missing { .. }) => {}
        Err(error) => findings.push(Finding::error(about, &error)),
    }
}

/// This node among the masternodes.
fn check_own(
    dir: &DataDir,
    genesis: &Genesis,
    directory: &MasternodeDirectory,
    (key, pin): (Option<ConsensusKey>, Option<NodeId>),
    findings: &mut Vec<Finding>,
) {
    let about = "own record";
    let Some(key) = key else { return };
    let own = genesis
        .masternodes
        .iter()
        .position(|one| one.consensus_key == key);
    let Some(own) = own else {
        let sentence = format!(
            "genesis does not name the key {key} in consensus.key: this node cannot vote on this chain"
        );
        let next =
            "put the right key or genesis in place, or move consensus.key away to run a full node";
        return findings.push(Finding::fault(about, sentence, next));
    };
    let name = &genesis.masternodes[own].name;
    let Some(record) = directory.record(own) else {
        let sentence = format!("{} is missing", dir.record(name).display());
        let next = "copy it there; \"timed init\" wrote it, and the other operators have it";
        return findings.push(Finding::fault(about, sentence, next));
    };
    if pin.is_some_and(|pin| !record.pins.contains(&pin)) {
        let sentence = format!(
            "the record of {name} does not name the pin of node.key: peers will refuse this node"
        );
        let next = "restore the node.key that belongs to the record, or sign a record with a higher serial and send it to all";
        return findings.push(Finding::fault(about, sentence, next));
    }
    let sentence = format!(
        "masternode {name}, serial {}, reached at {}:{}",
        record.serial, record.ip, record.port
    );
    findings.push(Finding::good(about, sentence));
}

/// A record for every masternode, and a certificate beside each that has its pin.
fn check_records(
    dir: &DataDir,
    genesis: &Genesis,
    directory: &MasternodeDirectory,
    findings: &mut Vec<Finding>,
) {
    let about = "records";
    let before = findings.len();
    for (index, masternode) in genesis.masternodes.iter().enumerate() {
        let name = &masternode.name;
        let Some(record) = directory.record(index) else {
            let sentence = format!(
                "there is no record of masternode {name}: this node cannot dial it, and takes no votes from it directly"
            );
            let next = format!(
                "get {name}.masternode.toml and {name}.pem from its operator and put them in {}",
                dir.certs().display()
            );
            findings.push(Finding::warning(about, sentence, next));
            continue;
        };
        let path = dir.certificate(name);
        let Ok(pem) = std::fs::read_to_string(&path) else {
            continue;
        };
        let next = format!(
            "get {name}.masternode.toml and {name}.pem anew from its operator; the record decides meanwhile"
        );
        match inspect_certificate(&pem) {
            Ok(found) if record.pins.contains(&found.pin) => {}
            Ok(found) => {
                let sentence = format!(
                    "{} has the pin {}, which the record of {name} does not name",
                    path.display(),
                    found.pin
                );
                findings.push(Finding::warning(about, sentence, next));
            }
            Err(error) => findings.push(Finding::warning(
                about,
                format!("{}: {error}", path.display()),
                next,
            )),
        }
    }
    if findings.len() == before {
        let sentence = "every masternode of genesis has one, signed by its consensus key";
        findings.push(Finding::good(about, sentence));
    }
}

/// What `pins.toml` remembers against the records.
fn check_memory(
    dir: &DataDir,
    known: &Known,
    directory: &MasternodeDirectory,
    pin: Option<NodeId>,
    findings: &mut Vec<Finding>,
) {
    let about = "pins";
    let (Some(config), Some(pin)) = (&known.config, pin) else {
        return;
    };
    let configured: BTreeSet<PeerIp> = config
        .peers
        .iter()
        .map(|peer| PeerIp::from(*peer))
        .collect();
    let file = Arc::new(LeftAsItIs(FileOnDisk(dir.pins())));
    let opened = PinPolicy::open(
        file,
        directory.clone(),
        configured,
        config.accept_unpinned,
        pin,
    );
    findings.push(match opened {
        Ok(_) => Finding::good(
            about,
            "no record is older than one that this node has seen before",
        ),
        Err(error) => Finding::error(about, &error),
    });
}

/// A file that is only read.
struct LeftAsItIs(FileOnDisk);

impl DurableFile for LeftAsItIs {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        self.0.load()
    }

    fn replace(&self, _content: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

/// Of a stopped node; one that runs says itself whether it signs.
pub(super) fn check_state_file(dir: &DataDir, known: &Known, findings: &mut Vec<Finding>) {
    let about = "signing";
    if let (Some(genesis), Some(own)) = (&known.genesis, known.own) {
        let key = &genesis.masternodes[own].consensus_key;
        let file = FileOnDisk(dir.consensus_state());
        if let Err(error) = check_state(&file, &genesis.hash(), key) {
            return findings.push(unusable_state(&error));
        }
    }
    let voted = exists(&dir.consensus_key()) && exists(&dir.database());
    if exists(&dir.consensus_state()) || !voted {
        return;
    }
    let sentence = "consensus.state is missing beside an existing chain: unless this masternode never signed, it will sign nothing until it has seen a height become final live";
    let next = "let it run; never restore an old consensus.state beside a running network";
    findings.push(Finding::warning(about, sentence, next));
}

fn unusable_state(error: &StateFileError) -> Finding {
    let next = match error {
        StateFileError::Io { .. } => {
            "let the node's user read it; if it is no file, move it away: the node then signs nothing until it has \
             seen a height become final live"
        }
        StateFileError::Foreign { .. } => {
            "put the genesis.toml and the consensus.key back that it was made with"
        }
        // Its sentence says what to do.
        StateFileError::Damaged { .. } => return Finding::error("signing", error),
    };
    Finding::fault("signing", error.to_string(), next)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn valid_for(not_before: i64, not_after: i64) -> Finding {
        let certificate = CertificateInfo {
            pin: NodeId([0; 32]),
            ips: Vec::new(),
            names: Vec::new(),
            not_before,
            not_after,
        };
        dates(&certificate, 1_000_000_000)
    }

    #[test]
    fn dates_of_certificates_have_a_sentence_each() {
        let now = 1_000_000_000;
        let day = 86_400;
        for (from, to, level, words) in [
            (now - 1, now + 400 * day, Level::Good, "400 more days"),
            (now - 1, now + 3 * day, Level::Warning, "expires in 3 days"),
            (
                now - 9 * day,
                now - 2 * day,
                Level::Warning,
                "expired 2 days ago",
            ),
            (
                now + day,
                now + 9 * day,
                Level::Warning,
                "becomes valid only in 2 days",
            ),
        ] {
            let finding = valid_for(from, to);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.sentence.contains(words), "{finding:?}");
        }
    }
}
