//! What the examples share: throw-away masternodes on loopback addresses.

use std::path::{Path, PathBuf};

use anyhow::Context;
use timed::node::formats::genesis_from_text;
use timed::node::setup::{self, GenesisOptions, InitOptions};
use timed::node::{Node, NodeEnvironment, NodeFiles};
use timed::types::{Address, Amount, Genesis, PeerIp};

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
    Ok(genesis_from_text(&std::fs::read_to_string(&file)?, &file)?)
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
