use std::sync::Mutex;

use ed25519_dalek::SigningKey;

use super::*;
use crate::env::FileInMemory;
use crate::types::{Address, Amount, Genesis, GenesisMasternode, Network, Signature, Timeouts};

const ALPHA: &str = "10.0.0.1";
const BETA: &str = "10.0.0.2";
const FRIEND: &str = "10.0.0.7";
const STRANGER: &str = "10.0.0.9";

fn ip(text: &str) -> PeerIp {
    text.parse().unwrap()
}

fn pin(seed: u8) -> NodeId {
    NodeId([seed; 32])
}

const OWN: u8 = 99;

fn consensus_key(name: &str) -> SigningKey {
    SigningKey::from_bytes(blake3::hash(name.as_bytes()).as_bytes())
}

fn genesis() -> Genesis {
    let masternode = |name: &str| GenesisMasternode {
        name: name.into(),
        consensus_key: (&consensus_key(name)).into(),
        power: 1,
        payout: Address([1; 32]),
    };
    Genesis {
        chain_id: "pins".into(),
        network: Network::Dev,
        time_ms: 1,
        slot_ms: 5_000,
        min_block_interval_ms: 250,
        max_block_bytes: 1_000_000,
        min_fee_per_kb: Amount(0),
        uplink_mbit: 20,
        timeouts: Timeouts::default(),
        masternodes: vec![masternode("alpha"), masternode("beta")],
        allocations: Vec::new(),
    }
}

fn record(name: &str, serial: u64, ip: PeerIp, pins: &[NodeId]) -> MasternodeRecord {
    MasternodeRecord {
        name: name.into(),
        serial,
        ip,
        port: 24200,
        pins: pins.to_vec(),
        consensus_key: ConsensusKey([0; 32]),
        payout: Address([1; 32]),
        signature: Signature([0; 64]),
    }
    .signed(&consensus_key(name), Network::Dev)
}

fn directory_of(records: impl IntoIterator<Item = MasternodeRecord>) -> MasternodeDirectory {
    MasternodeDirectory::new(&genesis(), records).unwrap()
}

/// alpha with pins 1 and 11 (a rotation), beta with pin 2.
fn directory() -> MasternodeDirectory {
    directory_of([
        record("alpha", 1, ip(ALPHA), &[pin(1), pin(11)]),
        record("beta", 1, ip(BETA), &[pin(2)]),
    ])
}

fn open(file: &FileInMemory, directory: MasternodeDirectory) -> Result<PinPolicy, PinError> {
    let configured = BTreeSet::from([ip(FRIEND), ip(BETA)]);
    PinPolicy::open(
        Arc::new(file.clone()),
        directory,
        configured,
        true,
        pin(OWN),
    )
}

/// Each change stored and adopted at once.
trait AtOnce {
    fn check(&mut self, ip: PeerIp, node: NodeId) -> Result<Admission, CloseReason>;
    fn forget(&mut self, ip: PeerIp) -> Result<bool, PinError>;
    fn replace_directory(&mut self, directory: MasternodeDirectory) -> Result<(), PinError>;
}

impl AtOnce for PinPolicy {
    fn check(&mut self, ip: PeerIp, node: NodeId) -> Result<Admission, CloseReason> {
        match self.decide(ip, node)? {
            Decision::Admit(admission) => Ok(admission),
            Decision::FirstContact => {
                let change = self.trusting(ip, node);
                change.store().map_err(|error| not_stored(ip, &error))?;
                self.adopt(change);
                Ok(Admission::Unpinned)
            }
        }
    }

    fn forget(&mut self, ip: PeerIp) -> Result<bool, PinError> {
        let Some(change) = self.forgetting(ip) else {
            return Ok(false);
        };
        change.store()?;
        self.adopt(change);
        Ok(true)
    }

    fn replace_directory(&mut self, directory: MasternodeDirectory) -> Result<(), PinError> {
        let change = self.replacing(directory, pin(OWN))?;
        change.store()?;
        self.adopt(change);
        Ok(())
    }
}

fn policy() -> PinPolicy {
    open(&FileInMemory::default(), directory()).unwrap()
}

#[test]
fn a_recorded_address_answers_with_any_pin_of_its_record() {
    let mut policy = policy();
    for node in [pin(1), pin(11)] {
        let admitted = policy.check(ip(ALPHA), node).unwrap();
        assert_eq!(admitted, Admission::Masternode { index: 0 });
    }
    let admitted = policy.check(ip(BETA), pin(2)).unwrap();
    assert_eq!(admitted, Admission::Masternode { index: 1 });
}

#[test]
fn a_recorded_address_with_another_key_is_refused_with_both_pins() {
    let refused = policy().check(ip(ALPHA), pin(77)).unwrap_err();
    assert_eq!(refused.code, CloseCode::PinMismatch);
    for part in [ALPHA, "alpha", &pin(1).to_string(), &pin(11).to_string()] {
        assert!(refused.detail.contains(part), "{part} in {refused}");
    }
    assert!(refused.detail.contains(&pin(77).to_string()), "{refused}");
}

#[test]
fn a_recorded_address_is_not_trusted_on_first_use_even_when_configured() {
    let file = FileInMemory::default();
    let mut policy = open(&file, directory()).unwrap();
    let before = file.load().unwrap();
    let refused = policy.check(ip(BETA), pin(77)).unwrap_err();
    assert_eq!(refused.code, CloseCode::PinMismatch);
    assert_eq!(file.load().unwrap(), before);
}

#[test]
fn a_recorded_pin_from_another_address_is_refused_with_both_addresses() {
    for from in [STRANGER, FRIEND, BETA] {
        let refused = policy().check(ip(from), pin(1)).unwrap_err();
        assert_eq!(refused.code, CloseCode::PinMismatch);
        assert!(refused.detail.contains(from), "{refused}");
    }
    let refused = policy().check(ip(STRANGER), pin(1)).unwrap_err();
    let belongs = format!("pin {} belongs to alpha at {ALPHA}", pin(1));
    assert!(refused.detail.contains(&belongs), "{refused}");
}

#[test]
fn the_own_key_is_a_connection_to_oneself_wherever_it_comes_from() {
    for from in [ALPHA, FRIEND, STRANGER] {
        let refused = policy().check(ip(from), pin(OWN)).unwrap_err();
        assert_eq!(refused.code, CloseCode::SelfConnection);
    }
}

#[test]
fn the_longest_pin_mismatch_still_shows_what_was_presented() {
    let name = "m".repeat(32);
    let ip: PeerIp = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
    let mut record = record("alpha", 1, ip, &[pin(0xaa), pin(0xbb)]);
    record.name = name;
    let refused = wrong_pin(&record, pin(0xcc));
    assert!(refused.detail.contains(&pin(0xcc).to_string()), "{refused}");
    let refused = wrong_address(&record, ip, pin(0xaa));
    assert!(refused.detail.contains("came from ffff:"), "{refused}");
}

#[test]
fn an_unpinned_stranger_is_admitted_with_any_key_and_nothing_is_stored() {
    let file = FileInMemory::default();
    let mut policy = open(&file, directory()).unwrap();
    let before = file.load().unwrap();
    for node in [pin(50), pin(51)] {
        let admitted = policy.check(ip(STRANGER), node).unwrap();
        assert_eq!(admitted, Admission::Unpinned);
    }
    assert_eq!(file.load().unwrap(), before);
}

#[test]
fn without_accept_unpinned_only_masternodes_and_configured_peers_are_admitted() {
    let file = FileInMemory::default();
    let configured = BTreeSet::from([ip(FRIEND)]);
    let mut policy = PinPolicy::open(
        Arc::new(file.clone()),
        directory(),
        configured,
        false,
        pin(OWN),
    )
    .unwrap();
    let refused = policy.check(ip(STRANGER), pin(50)).unwrap_err();
    assert_eq!(refused.code, CloseCode::UnpinnedRefused);
    assert!(refused.detail.contains(&pin(50).to_string()), "{refused}");
    // Whom the operator named is wanted, and pinned to its first key.
    assert_eq!(policy.check(ip(FRIEND), pin(50)), Ok(Admission::Unpinned));
    let other_key = policy.check(ip(FRIEND), pin(51)).unwrap_err();
    assert_eq!(other_key.code, CloseCode::PinMismatch);
    assert!(policy.check(ip(ALPHA), pin(1)).is_ok());
}

#[test]
fn the_first_key_of_a_configured_address_is_kept_over_a_restart() {
    let file = FileInMemory::default();
    let mut policy = open(&file, directory()).unwrap();
    assert_eq!(policy.check(ip(FRIEND), pin(5)), Ok(Admission::Unpinned));

    let mut policy = open(&file, directory()).unwrap();
    assert_eq!(policy.check(ip(FRIEND), pin(5)), Ok(Admission::Unpinned));
    let refused = policy.check(ip(FRIEND), pin(6)).unwrap_err();
    assert_eq!(refused.code, CloseCode::PinMismatch);
    for part in [
        &pin(5).to_string(),
        &pin(6).to_string(),
        "`timed peers forget 10.0.0.7`",
    ] {
        assert!(refused.detail.contains(part), "{part} in {refused}");
    }
}

#[test]
fn a_forgotten_address_may_have_a_new_first_key() {
    let file = FileInMemory::default();
    let mut policy = open(&file, directory()).unwrap();
    policy.check(ip(FRIEND), pin(5)).unwrap();
    assert!(policy.forget(ip(FRIEND)).unwrap());
    assert!(!policy.forget(ip(FRIEND)).unwrap());
    assert_eq!(policy.check(ip(FRIEND), pin(6)), Ok(Admission::Unpinned));
    let mut policy = open(&file, directory()).unwrap();
    assert!(policy.check(ip(FRIEND), pin(5)).is_err());
}

/// A disk that is full.
#[derive(Default)]
struct FullDisk {
    content: Option<Vec<u8>>,
    refused: Mutex<u32>,
}

impl DurableFile for FullDisk {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.content.clone())
    }

    fn replace(&self, _: &[u8]) -> io::Result<()> {
        *self.refused.lock().unwrap() += 1;
        Err(io::ErrorKind::StorageFull.into())
    }

    fn name(&self) -> String {
        "/data/pins.toml".into()
    }
}

#[test]
fn a_first_contact_that_cannot_be_stored_is_not_admitted_and_can_be_tried_again() {
    let stored = FileInMemory::default();
    open(&stored, directory()).unwrap();
    let disk = Arc::new(FullDisk {
        content: stored.load().unwrap(),
        ..FullDisk::default()
    });
    let configured = BTreeSet::from([ip(FRIEND)]);
    let mut policy =
        PinPolicy::open(disk.clone(), directory(), configured, true, pin(OWN)).unwrap();
    for attempt in 1..=2 {
        let refused = policy.check(ip(FRIEND), pin(5)).unwrap_err();
        assert_eq!(refused.code, CloseCode::Internal);
        assert_eq!(*disk.refused.lock().unwrap(), attempt);
    }
}

#[test]
fn a_file_that_cannot_be_written_or_read_is_named() {
    let result = PinPolicy::open(
        Arc::new(FullDisk::default()),
        directory(),
        BTreeSet::new(),
        true,
        pin(OWN),
    );
    let error = result.err().unwrap();
    assert!(matches!(error, PinError::Write { .. }));
    assert!(
        error
            .to_string()
            .starts_with("/data/pins.toml cannot be written")
    );
}

#[test]
fn the_highest_serial_wins_over_a_restart() {
    let file = FileInMemory::default();
    let at = |serial, pins: &[NodeId]| directory_of([record("alpha", serial, ip(ALPHA), pins)]);
    open(&file, at(3, &[pin(1)])).unwrap();
    // The same record again, a newer one, and the newer one again.
    open(&file, at(3, &[pin(1)])).unwrap();
    open(&file, at(5, &[pin(4)])).unwrap();
    let mut policy = open(&file, at(5, &[pin(4)])).unwrap();
    assert!(policy.check(ip(ALPHA), pin(4)).is_ok());
    assert!(policy.check(ip(ALPHA), pin(1)).is_err());
}

#[test]
fn a_lower_serial_is_refused_with_both_shown_and_nothing_is_overwritten() {
    let file = FileInMemory::default();
    open(
        &file,
        directory_of([record("alpha", 5, ip(ALPHA), &[pin(1)])]),
    )
    .unwrap();
    let before = file.load().unwrap();
    let older = directory_of([
        record("alpha", 4, ip(STRANGER), &[pin(0xee)]),
        record("beta", 9, ip(BETA), &[pin(2)]),
    ]);
    let error = open(&file, older).err().unwrap();
    assert!(matches!(&error, PinError::OlderRecord { held, found, .. }
        if held.serial == 5 && found.serial == 4));
    let text = error.to_string();
    for part in [
        "the record of alpha has serial 4 (10.0.0.9:24200, pin eeeeeeee",
        "but serial 5 (10.0.0.1:24200, pin 01010101",
        "was seen before (a file in memory)",
    ] {
        assert!(text.contains(part), "{part:?} in {text:?}");
    }
    assert_eq!(file.load().unwrap(), before);
}

#[test]
fn the_same_serial_with_other_content_is_refused() {
    let file = FileInMemory::default();
    let original = record("alpha", 5, ip(ALPHA), &[pin(1)]);
    open(&file, directory_of([original.clone()])).unwrap();
    let changes: [fn(&mut MasternodeRecord); 4] = [
        |record| record.ip = ip(STRANGER),
        |record| record.port = 1,
        |record| record.pins = vec![pin(3)],
        |record| record.payout = Address([9; 32]),
    ];
    for change in changes {
        let mut changed = original.clone();
        change(&mut changed);
        let changed = changed.signed(&consensus_key("alpha"), Network::Dev);
        let error = open(&file, directory_of([changed])).err().unwrap();
        assert!(matches!(&error, PinError::ChangedRecord { .. }), "{error}");
        assert_eq!(error.to_string().matches("serial 5").count(), 2, "{error}");
    }
}

#[test]
fn a_reload_that_is_refused_leaves_the_old_directory_in_force() {
    let mut policy = policy();
    let moved = directory_of([record("alpha", 2, ip(STRANGER), &[pin(1)])]);
    policy.replace_directory(moved.clone()).unwrap();
    assert!(policy.check(ip(STRANGER), pin(1)).is_ok());
    assert!(policy.replace_directory(directory()).is_err());
    assert_eq!(policy.directory(), &moved);
    assert!(policy.check(ip(STRANGER), pin(1)).is_ok());
}

#[test]
fn a_record_that_is_absent_for_a_while_is_still_remembered() {
    let file = FileInMemory::default();
    open(
        &file,
        directory_of([record("alpha", 5, ip(ALPHA), &[pin(1)])]),
    )
    .unwrap();
    open(&file, directory_of([])).unwrap();
    let older = directory_of([record("alpha", 4, ip(ALPHA), &[pin(1)])]);
    assert!(open(&file, older).is_err());
}

#[test]
fn a_damaged_file_is_named_with_the_place_and_left_as_it_is() {
    let pin_line = format!("pin = \"{}\"", pin(5));
    let twice = format!(
        "version = 1\n[[first_use]]\nip = \"10.0.0.7\"\n{pin_line}\n\
         [[first_use]]\nip = \"::ffff:10.0.0.7\"\n{pin_line}\n"
    );
    let cases: [(&[u8], &str); 7] = [
        (b"version = 1\ncolour = 3\n", "unknown field `colour`"),
        (b"version = 2\n", "it has version 2"),
        (b"", "missing field `version`"),
        (
            b"version = 1\n[[first_use]]\nip = \"10.0.0.7:24000\"\n",
            "line 3",
        ),
        (
            b"version = 1\n[[first_use]]\nip = \"10.0.0.7\"\npin = \"00\"\n",
            "line 4",
        ),
        (b"\xff\xfe", "utf-8"),
        (twice.as_bytes(), "two first-use pins for 10.0.0.7"),
    ];
    for (content, expected) in cases {
        let file = FileInMemory::default();
        file.replace(content).unwrap();
        let error = open(&file, directory()).err().unwrap();
        assert!(matches!(error, PinError::Damaged { .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("a file in memory is damaged"), "{text}");
        assert!(text.contains(expected), "{expected:?} in {text:?}");
        assert_eq!(file.load().unwrap().unwrap(), content);
    }
}

#[test]
fn the_file_reads_back_as_it_was_written() {
    let file = FileInMemory::default();
    let mut policy = open(&file, directory()).unwrap();
    policy.check(ip(FRIEND), pin(5)).unwrap();
    let text = String::from_utf8(file.load().unwrap().unwrap()).unwrap();
    assert!(text.starts_with("# Kept by timed."), "{text}");
    assert_eq!(Memory::parse(text.as_bytes()).unwrap(), policy.memory);
    assert_eq!(policy.memory.records.len(), 2);
    assert_eq!(
        policy.memory.first_use,
        BTreeMap::from([(ip(FRIEND), pin(5))])
    );
}
