use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use tempfile::TempDir;

use super::*;
use crate::node::files::{DataDir, NodeFiles};
use crate::node::formats::{genesis_from_text, record_from_text, record_to_text};
use crate::node::keys::{read_key, read_secret};
use crate::types::{Address, Amount, GenesisHash, MasternodeRecord, Network};

/// A folder with masternodes made by `init`, and one that collects their public files.
struct Fixture {
    root: TempDir,
}

impl Fixture {
    fn new(names: &[&str]) -> Self {
        let fixture = Self {
            root: TempDir::new().unwrap(),
        };
        std::fs::create_dir(fixture.certs()).unwrap();
        for (name, at) in names.iter().zip(1u8..) {
            fixture.collect(&fixture.init(name, at));
        }
        fixture
    }

    fn collect(&self, report: &InitReport) {
        for file in &report.public_files {
            let copy = self.certs().join(file.file_name().unwrap());
            std::fs::copy(file, copy).unwrap();
        }
    }

    fn init(&self, name: &str, at: u8) -> InitReport {
        init(&self.options(name, at)).unwrap()
    }

    fn options(&self, name: &str, at: u8) -> InitOptions {
        InitOptions {
            data_dir: self.root.path().join(name),
            name: name.into(),
            ip: PeerIp::from(std::net::IpAddr::from([127, 0, 0, at])),
            ..InitOptions::default()
        }
    }

    fn certs(&self) -> PathBuf {
        self.root.path().join("certs")
    }

    fn genesis(&self) -> PathBuf {
        self.root.path().join("genesis.toml")
    }

    fn build(&self) -> Result<GenesisReport, SetupError> {
        build_genesis(&self.build_options())
    }

    fn build_options(&self) -> GenesisOptions {
        GenesisOptions {
            folder: self.certs(),
            output: self.genesis(),
            ..GenesisOptions::default()
        }
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.certs().join(format!("{name}.masternode.toml"))
    }

    fn record(&self, name: &str) -> MasternodeRecord {
        let path = self.record_path(name);
        let text = std::fs::read_to_string(&path).unwrap();
        record_from_text(&text, Network::Dev, &path).unwrap()
    }

    /// Changes a record and signs it again with its own key.
    fn edit(&self, name: &str, change: impl FnOnce(&mut MasternodeRecord)) {
        let key = self.consensus_key(name);
        let mut record = self.record(name);
        change(&mut record);
        let record = record.signed(&key, Network::Dev);
        std::fs::write(self.record_path(name), record_to_text(&record)).unwrap();
    }

    fn consensus_key(&self, name: &str) -> SigningKey {
        read_key(&self.root.path().join(name).join("consensus.key")).unwrap()
    }

    /// Building is refused with this sentence, and nothing is written.
    fn refuses(&self, sentence: &str) {
        let error = self.build().unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
        assert!(!self.genesis().exists());
    }
}

#[test]
fn init_writes_all_files_and_closes_the_secret_ones() {
    let fixture = Fixture::new(&[]);
    let report = fixture.init("alpha", 1);
    let names: Vec<_> = report
        .files
        .iter()
        .map(|path| {
            path.strip_prefix(&report.data_dir)
                .unwrap()
                .to_str()
                .unwrap()
        })
        .collect();
    assert_eq!(
        names,
        [
            "node.key",
            "node.pem",
            "wallet.key",
            "consensus.key",
            "certs/alpha.masternode.toml",
            "certs/alpha.pem",
            "timed.toml",
        ]
    );
    for secret in ["node.key", "wallet.key", "consensus.key"] {
        assert!(read_secret(&report.data_dir.join(secret)).is_ok());
    }
    let mode = std::fs::metadata(&report.data_dir)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn init_never_overwrites() {
    let fixture = Fixture::new(&[]);
    let report = fixture.init("alpha", 1);
    let before: Vec<_> = contents(&report.files);
    let error = init(&fixture.options("alpha", 1)).unwrap_err();
    assert!(matches!(&error, SetupError::Exists(paths) if paths.len() == report.files.len()));
    assert_eq!(contents(&report.files), before);

    // One foreign file is enough, and then nothing at all is written.
    let folder = fixture.root.path().join("beta");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("consensus.key"), "mine").unwrap();
    let error = init(&fixture.options("beta", 2)).unwrap_err().to_string();
    assert!(error.contains("beta/consensus.key"), "{error}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
}

fn contents(files: &[PathBuf]) -> Vec<Vec<u8>> {
    files
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn init_refuses_a_bad_name_or_address() {
    let fixture = Fixture::new(&[]);
    let mut options = fixture.options("alpha", 1);
    options.name = "../alpha".into();
    assert!(matches!(init(&options), Err(SetupError::Record(_))));
    let mut options = fixture.options("alpha", 1);
    options.ip = "0.0.0.0".parse().unwrap();
    assert!(matches!(init(&options), Err(SetupError::Ip { .. })));
    assert!(!options.data_dir.exists());
}

#[test]
fn a_chain_is_built_installed_and_loaded() {
    let fixture = Fixture::new(&["alpha", "beta"]);
    let mut options = fixture.build_options();
    options.powers.insert("beta".into(), 3);
    options.allocations.push((Address([5; 32]), Amount(7)));
    let report = build_genesis(&options).unwrap();
    assert_eq!((report.total_power, report.allocated), (4, Amount(7)));
    let text = std::fs::read_to_string(fixture.genesis()).unwrap();
    let genesis = genesis_from_text(&text, &fixture.genesis()).unwrap();
    assert_eq!(genesis.hash(), report.hash);

    let full = init(&InitOptions {
        masternode: false,
        ..fixture.options("gamma", 3)
    })
    .unwrap();
    assert!(full.public_files.is_empty());
    for (name, position) in [("alpha", Some(0)), ("beta", Some(1)), ("gamma", None)] {
        let dir = fixture.root.path().join(name);
        install_chain(&dir, &fixture.genesis(), &fixture.certs()).unwrap();
        install_chain(&dir, &fixture.genesis(), &fixture.certs()).unwrap();
        let files = NodeFiles::load(&dir).unwrap();
        assert_eq!(files.own_masternode(), position);
        assert_eq!(files.directory.records().count(), 2);
        assert_eq!(files.genesis.hash(), report.hash);
    }
}

#[test]
fn an_existing_genesis_is_never_replaced() {
    let fixture = Fixture::new(&["alpha"]);
    let first: GenesisHash = fixture.build().unwrap().hash;
    assert!(matches!(fixture.build(), Err(SetupError::Exists(_))));
    let dir = fixture.root.path().join("alpha");
    std::fs::write(dir.join("genesis.toml"), "other").unwrap();
    let error = install_chain(&dir, &fixture.genesis(), &fixture.certs());
    assert!(matches!(error, Err(SetupError::Exists(_))));
    assert_eq!(
        std::fs::read_to_string(dir.join("genesis.toml")).unwrap(),
        "other"
    );
    let text = std::fs::read_to_string(fixture.genesis()).unwrap();
    assert_eq!(
        genesis_from_text(&text, Path::new("g")).unwrap().hash(),
        first
    );
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let fixture = Fixture::new(&["alpha", "beta"]);
    let of = |name: &str| fixture.certs().join(format!("{name}.pem"));
    std::fs::copy(of("beta"), of("alpha")).unwrap();
    fixture.refuses("alpha.pem has the pin");
    std::fs::write(of("alpha"), "not a certificate").unwrap();
    fixture.refuses("alpha.pem: ");
}

#[test]
fn a_certificate_for_another_address_is_refused() {
    let fixture = Fixture::new(&["alpha"]);
    fixture.edit("alpha", |record| record.ip = "127.0.0.9".parse().unwrap());
    fixture
        .refuses("alpha.pem is for 127.0.0.1, but the record of alpha names the address 127.0.0.9");
}

#[test]
fn an_edited_record_is_refused() {
    let fixture = Fixture::new(&["alpha"]);
    let path = fixture.record_path("alpha");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("port = 24200", "port = 24201")).unwrap();
    fixture.refuses("is not signed by its consensus key");
}

#[test]
fn a_record_for_another_network_is_refused() {
    let fixture = Fixture::new(&["alpha"]);
    let mut options = fixture.build_options();
    options.network = Network::Main;
    let error = build_genesis(&options).unwrap_err().to_string();
    assert!(error.contains("is for the dev network"), "{error}");
}

#[test]
fn what_must_be_unique_is() {
    // One consensus key in two records.
    let fixture = Fixture::new(&["alpha", "beta"]);
    let stolen = fixture.consensus_key("alpha");
    let record = fixture.record("beta").signed(&stolen, Network::Dev);
    std::fs::write(fixture.record_path("beta"), record_to_text(&record)).unwrap();
    fixture.refuses("one key on two machines signs twice");

    // One certificate under two names.
    let fixture = Fixture::new(&["alpha", "beta"]);
    let alpha = fixture.record("alpha");
    fixture.edit("beta", |record| {
        record.ip = alpha.ip;
        record.pins = alpha.pins;
    });
    std::fs::copy(
        fixture.certs().join("alpha.pem"),
        fixture.certs().join("beta.pem"),
    )
    .unwrap();
    fixture.refuses("share the address 127.0.0.1");
}

#[test]
fn records_of_two_address_families_are_refused() {
    let fixture = Fixture::new(&["alpha"]);
    let beta = InitOptions {
        ip: "fd00::2".parse().unwrap(),
        ..fixture.options("beta", 2)
    };
    fixture.collect(&init(&beta).unwrap());
    fixture.refuses("alpha is recorded at 127.0.0.1 (IPv4) and beta at fd00::2 (IPv6)");
}

#[test]
fn incomplete_and_misnamed_files_are_refused() {
    let fixture = Fixture::new(&[]);
    fixture.refuses("holds no *.masternode.toml");
    let fixture = Fixture::new(&["alpha"]);
    std::fs::rename(
        fixture.certs().join("alpha.pem"),
        fixture.certs().join("al.pem"),
    )
    .unwrap();
    fixture.refuses("is missing, but");
    let fixture = Fixture::new(&["alpha"]);
    for suffix in ["pem", "masternode.toml"] {
        let of = |name: &str| fixture.certs().join(format!("{name}.{suffix}"));
        std::fs::rename(of("alpha"), of("beta")).unwrap();
    }
    fixture.refuses("holds the record of alpha: call it alpha.masternode.toml");
    let fixture = Fixture::new(&["alpha"]);
    let mut options = fixture.build_options();
    options.powers.insert("betta".into(), 2);
    let error = build_genesis(&options).unwrap_err();
    assert!(matches!(error, SetupError::UnknownPower { name } if name == "betta"));
}

/// What `timed cert install` does with one file.
fn install_record(dir: &Path, file: &Path) -> Result<MasternodeRecord, SetupError> {
    let mut records = check_records(dir, &[file.to_owned()])?;
    write_record(dir, &records[0])?;
    Ok(records.remove(0))
}

/// A masternode's directory that holds its chain.
fn installed(fixture: &Fixture) -> PathBuf {
    fixture.build().unwrap();
    let dir = fixture.root.path().join("alpha");
    install_chain(&dir, &fixture.genesis(), &fixture.certs()).unwrap();
    dir
}

fn load_error(dir: &Path) -> String {
    NodeFiles::load(dir).err().unwrap().to_string()
}

#[test]
fn a_node_with_wrong_files_does_not_start() {
    let fixture = Fixture::new(&["alpha", "beta"]);
    let dir = installed(&fixture);
    let key = dir.join("consensus.key");

    std::fs::rename(&key, dir.join("kept")).unwrap();
    let error = load_error(&dir);
    assert!(
        error.contains("consensus.key is missing, but node.key is the one of"),
        "{error}"
    );

    std::fs::copy(fixture.root.path().join("beta/consensus.key"), &key).unwrap();
    let error = load_error(&dir);
    assert!(error.contains("the record of beta in"), "{error}");

    std::fs::rename(dir.join("kept"), &key).unwrap();
    let record = dir.join("certs/alpha.masternode.toml");
    std::fs::rename(&record, dir.join("kept")).unwrap();
    assert!(load_error(&dir).contains("masternode alpha needs its own record"));
    std::fs::rename(dir.join("kept"), &record).unwrap();

    let closed = std::fs::metadata(&key).unwrap().permissions();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(load_error(&dir).contains("run: chmod 600"));
    std::fs::set_permissions(&key, closed).unwrap();

    let files = NodeFiles::load(&dir).unwrap();
    assert!(load_error(&dir).contains("is in use by another timed process"));
    drop(files);

    std::fs::remove_file(dir.join("genesis.toml")).unwrap();
    assert!(load_error(&dir).contains("genesis.toml is missing"));
}

/// A rotation of the files, step by step; at each the node could start.
#[test]
fn a_rotation_goes_through_its_three_steps_and_every_step_can_start() {
    let fixture = Fixture::new(&["alpha", "beta"]);
    fixture.build().unwrap();
    let folder = fixture.root.path().join("alpha");
    install_chain(&folder, &fixture.genesis(), &fixture.certs()).unwrap();
    let other = fixture.root.path().join("beta");
    install_chain(&other, &fixture.genesis(), &fixture.certs()).unwrap();
    let pin = || NodeFiles::load(&folder).unwrap().identity.node_id();
    let old = pin();
    assert_eq!(rotation_step(&folder).unwrap(), RotationStep::Announce);

    let announced = rotate(&folder).unwrap();
    assert_eq!(
        (announced.done, announced.serial),
        (RotationStep::Announce, 2)
    );
    assert_eq!((announced.pins.len(), announced.pins[0]), (2, old));
    assert_eq!(pin(), old, "the certificate is not swapped yet");
    let next_key = folder.join("node.next.key");
    let mode = std::fs::metadata(&next_key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let record = install_record(&other, &announced.public_files[0]).unwrap();
    assert_eq!((record.name.as_str(), record.serial), ("alpha", 2));

    let swapped = rotate(&folder).unwrap();
    assert_eq!((swapped.done, swapped.serial), (RotationStep::Swap, 2));
    assert_eq!(pin(), announced.pins[1]);
    assert!(folder.join("node.old.key").exists() && !next_key.exists());

    let finished = rotate(&folder).unwrap();
    assert_eq!((finished.done, finished.serial), (RotationStep::Finish, 3));
    assert_eq!(finished.pins, [announced.pins[1]]);
    assert_eq!(pin(), announced.pins[1]);
    assert!(!folder.join("node.old.key").exists());
    assert_eq!(rotation_step(&folder).unwrap(), RotationStep::Announce);

    install_record(&other, &finished.public_files[0]).unwrap();
    let older = install_record(&other, &fixture.record_path("alpha")).unwrap_err();
    assert!(
        older
            .to_string()
            .contains("serial 1, but certs/ holds serial 3"),
        "{older}"
    );
    assert!(NodeFiles::load(&other).is_ok());
}

#[test]
fn an_interrupted_swap_is_completed_by_running_it_again() {
    let fixture = Fixture::new(&["alpha"]);
    fixture.build().unwrap();
    let folder = fixture.root.path().join("alpha");
    install_chain(&folder, &fixture.genesis(), &fixture.certs()).unwrap();
    let announced = rotate(&folder).unwrap();
    // The crash came after the new key was in place and before its certificate was.
    let dir = DataDir::new(&folder);
    std::fs::copy(dir.node_key(), dir.old_key()).unwrap();
    std::fs::copy(dir.next_key(), dir.node_key()).unwrap();
    let old_key = read_secret(&dir.old_key()).unwrap();
    assert!(NodeFiles::load(&folder).is_err());
    rotate(&folder).unwrap();
    let pin = NodeFiles::load(&folder).unwrap().identity.node_id();
    assert_eq!(pin, announced.pins[1]);
    assert_eq!(read_secret(&dir.old_key()).unwrap(), old_key);
}

#[test]
fn a_move_keeps_the_key_and_names_the_new_address_in_both_public_files() {
    let fixture = Fixture::new(&["alpha"]);
    fixture.build().unwrap();
    let folder = fixture.root.path().join("alpha");
    install_chain(&folder, &fixture.genesis(), &fixture.certs()).unwrap();
    let before = NodeFiles::load(&folder).unwrap().identity.node_id();
    let moved = move_to(&folder, "127.0.9.9".parse().unwrap(), Some(7)).unwrap();
    assert_eq!((moved.serial, &moved.pins[..]), (2, &[before][..]));
    let files = NodeFiles::load(&folder).unwrap();
    let record = files.own_record().unwrap();
    assert_eq!(record.ip.with_port(record.port).to_string(), "127.0.9.9:7");
    let pem = std::fs::read_to_string(&moved.public_files[1]).unwrap();
    let certificate = crate::net::inspect_certificate(&pem).unwrap();
    assert_eq!(
        (certificate.pin, certificate.ips),
        (before, vec![record.ip])
    );
}

#[test]
fn no_key_is_printed_in_a_debug_form_or_an_error() {
    let fixture = Fixture::new(&["alpha"]);
    let folder = fixture.root.path().join("alpha");
    let dir = DataDir::new(&folder);
    let pem = read_secret(&dir.node_key()).unwrap();
    let secret: String = pem.lines().nth(1).unwrap().into();
    let identity = crate::net::Identity::from_pem(
        &pem,
        &std::fs::read_to_string(dir.node_certificate()).unwrap(),
    )
    .unwrap();
    let shown = format!("{identity:?}");
    let bytes = read_key(&dir.node_key()).unwrap().to_bytes();
    assert!(
        !shown.contains(&secret) && !shown.contains(&hex::encode(bytes)),
        "{shown}"
    );
    // A key with a letter changed is refused without being quoted.
    let damaged = pem.replace(&secret, &format!("{}#", &secret[1..]));
    let refused = crate::net::Identity::from_pem(&damaged, &identity.certificate_pem());
    let refused = refused.unwrap_err().to_string();
    assert!(!refused.contains(&secret[1..20]), "{refused}");
}
