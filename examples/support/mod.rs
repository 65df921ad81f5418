//! What the examples share: throw-away masternodes on loopback addresses and signed transfers.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::Context;
use ed25519_dalek::SigningKey;
use timed::node::setup::{self, GenesisOptions, InitOptions};
use timed::node::{Node, NodeEnvironment, NodeFiles};
use timed::types::transaction::TRANSACTION_VERSION;
use timed::types::{
    Address, Amount, Genesis, GenesisHash, OutPoint, PeerIp, PublicKey, Signature, Transaction,
    TxInput, TxOutput, signing,
};

/// Makes a node's keys, certificate and configuration in `root/<name>`.
pub fn init(root: &Path, name: &str, ip: &str, masternode: bool) -> anyhow::Result<PathBuf> {
    let folder = root.join(name);
    let options = InitOptions {
        data_dir: folder.clone(),
        name: name.into(),
        ip: ip.parse::<PeerIp>()?,
        masternode,
        ..InitOptions::default()
    };
    setup::init(&options).with_context(|| format!("making the node {name}"))?;
    Ok(folder)
}

/// Builds genesis from the masternodes' public files and gives every node a copy of all of them.
pub fn build_genesis(
    root: &Path,
    masternodes: &[&PathBuf],
    everyone: &[&PathBuf],
    allocations: Vec<(Address, Amount)>,
) -> anyhow::Result<Genesis> {
    let shared = root.join("certs");
    std::fs::create_dir_all(&shared)?;
    for folder in masternodes {
        copy_all(&folder.join("certs"), &shared)?;
    }
    let file = root.join("genesis.toml");
    setup::build_genesis(&GenesisOptions {
        folder: shared.clone(),
        output: file.clone(),
        allocations,
        ..GenesisOptions::default()
    })?;
    for folder in everyone {
        copy_all(&shared, &folder.join("certs"))?;
        std::fs::copy(&file, folder.join("genesis.toml"))?;
    }
    Ok(toml::from_str(&std::fs::read_to_string(&file)?)?)
}

/// Copies every file of a folder.
pub fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Starts the node of a data directory.
pub async fn start(folder: &Path) -> anyhow::Result<Node> {
    let files = NodeFiles::load(folder)?;
    let environment = NodeEnvironment::real(&files)?;
    Ok(Node::start(files, environment).await?)
}

/// A key and the outputs that it can spend, each used again when its transfer is final.
pub struct Purse {
    key: SigningKey,
    genesis: GenesisHash,
    fee: Amount,
    spendable: VecDeque<(OutPoint, Amount)>,
    in_flight: BTreeMap<OutPoint, Amount>,
}

impl Purse {
    /// The key's outputs among the allocations of genesis.
    pub fn new(key: SigningKey, genesis: &Genesis) -> Self {
        let address = Address::of(&PublicKey::from(&key));
        let own = genesis.outputs().into_iter();
        let spendable = own
            .filter(|(_, output)| output.address == address)
            .map(|(outpoint, output)| (outpoint, output.amount))
            .collect();
        Self {
            key,
            genesis: genesis.hash(),
            fee: genesis.min_fee_per_kb,
            spendable,
            in_flight: BTreeMap::new(),
        }
    }

    /// A signed transfer of one output back to the same key, less the fee; `None` while all are
    /// under way.
    pub fn transfer(&mut self) -> Option<Transaction> {
        let (outpoint, amount) = self.spendable.pop_front()?;
        let public_key = PublicKey::from(&self.key);
        let amount = amount.checked_sub(self.fee)?;
        let mut transaction = Transaction {
            version: TRANSACTION_VERSION,
            inputs: vec![TxInput {
                outpoint,
                public_key,
                signature: Signature([0; 64]),
            }],
            outputs: vec![TxOutput {
                amount,
                address: Address::of(&public_key),
            }],
        };
        let digest = transaction.signing_digest(&self.genesis);
        transaction.inputs[0].signature = signing::sign(&self.key, &digest);
        let (created, _) = transaction.created().next()?;
        self.in_flight.insert(created, amount);
        Some(transaction)
    }

    /// A transfer is final: its output can be spent.
    pub fn confirm(&mut self, transaction: &Transaction) {
        for (outpoint, _) in transaction.created() {
            if let Some(amount) = self.in_flight.remove(&outpoint) {
                self.spendable.push_back((outpoint, amount));
            }
        }
    }
}
