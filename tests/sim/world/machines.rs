//! What one machine has that the others do not: said before it starts.

use timed::types::ConsensusKey;

use super::*;

impl Machine {
    pub(super) fn new(
        plan: &Plan,
        node: usize,
        genesis: &Arc<Genesis>,
        records: &[MasternodeRecord],
    ) -> Self {
        Self {
            disk: Disk::default(),
            pins: FileInMemory::default(),
            consensus_state: FileInMemory::default(),
            skew_ms: Arc::default(),
            genesis: genesis.clone(),
            inside: address(node),
            outside: address(node),
            config: Config::new(Network::Dev, address(node).ip()),
            identity,
            consensus_key: (node < plan.masternodes).then_some(node),
            records: records.to_vec(),
            store_threads: StoreThreads::Inline,
            starts: 0,
            unsafe_sign: false,
            running: None,
        }
    }
}

impl World {
    /// Changes a machine's `timed.toml`; its next start reads it.
    pub fn configure(&mut self, node: usize, change: impl FnOnce(&mut Config)) {
        change(&mut self.machines[node].config);
    }

    /// From its next start on, each write to a machine's disk takes this long.
    pub fn slow_disk(&mut self, node: usize, each_write: Duration) {
        self.machines[node].store_threads = StoreThreads::InlineSlow(each_write);
    }

    /// From now on a machine can send no faster than this.
    pub fn uplink(&mut self, node: usize, rate: Rate) {
        self.wire.share_uplink(&[self.machines[node].inside], rate);
    }

    /// A machine that does not run loses its database, and keeps its small files.
    pub fn lose_database(&mut self, node: usize) {
        (self.journal).event(format!("{} loses its database", name(node)));
        let machine = &mut self.machines[node];
        assert!(machine.running.is_none(), "{} runs", name(node));
        machine.disk = Disk::default();
        self.checker.lost_blocks(node);
    }

    /// A machine that does not run loses `consensus.state`.
    pub fn lose_consensus_state(&mut self, node: usize) {
        (self.journal).event(format!("{} loses consensus.state", name(node)));
        let machine = &mut self.machines[node];
        assert!(machine.running.is_none(), "{} runs", name(node));
        machine.consensus_state = FileInMemory::default();
    }

    /// A record that names a masternode's own key and its next one, with the next serial.
    pub fn record_with_two_pins(&self, node: usize) -> MasternodeRecord {
        let held = &self.machines[node].records[node];
        let pins = vec![identity(node).node_id(), next_identity(node).node_id()];
        MasternodeRecord {
            serial: held.serial + 1,
            pins,
            ..held.clone()
        }
        .signed(&consensus_key(node), Network::Dev)
    }

    /// A record that says that a masternode is reached at another machine now.
    pub fn record_at(&self, masternode: usize, machine: usize) -> MasternodeRecord {
        let held = &self.machines[masternode].records[masternode];
        MasternodeRecord {
            serial: held.serial + 1,
            ip: self.machines[machine].outside.into(),
            pins: vec![identity(machine).node_id()],
            ..held.clone()
        }
        .signed(&consensus_key(masternode), Network::Dev)
    }

    /// Puts a record into a machine's `certs/`; its next start or [`World::reload`] reads it.
    pub fn install_record(&mut self, machine: usize, record: &MasternodeRecord) {
        let held = self.machines[machine].records.iter_mut();
        for held in held.filter(|held| held.consensus_key == record.consensus_key) {
            *held = record.clone();
        }
    }

    /// A running node reads its `certs/` and its certificate again.
    pub async fn reload(&self, node: usize) {
        (self.journal).event(format!("{} reloads", name(node)));
        let machine = &self.machines[node];
        let records = MasternodeDirectory::new(&machine.genesis, machine.records.clone());
        let identity = (machine.identity)(node);
        let installed = self.node(node).install(records.unwrap(), Some(identity));
        installed.await.unwrap();
    }

    /// A machine goes over to its next node key at its next start or [`World::reload`].
    pub fn rotate_key(&mut self, node: usize) {
        (self.journal).event(format!("{} has its next key", name(node)));
        self.machines[node].identity = next_identity;
    }

    /// A machine gets a copy of another's consensus key. What the two sign may contradict each other.
    pub fn copy_consensus_key(&mut self, from: usize, to: usize) {
        let event = format!("{} has the consensus key of {}", name(to), name(from));
        self.journal.event(event);
        let key = ConsensusKey::from(&consensus_key(from));
        self.journal.share_key(format!("{key:?}"));
        self.machines[to].consensus_key = self.machines[from].consensus_key;
    }
}
