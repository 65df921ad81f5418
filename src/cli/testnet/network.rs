//! The nodes of a testnet: their files and their processes.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use timed::env::Offload;
use timed::node::files::{DataDir, load_config, load_genesis};
use timed::node::keys;
use timed::node::setup::{self, GenesisOptions, InitOptions};
use timed::node::wallet::Wallet;
use timed::types::{self, Amount, BlockHash, Genesis, PeerIp, StateCommitment};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cli::client::Client;
use crate::cli::output;

/// Outputs of the traffic's wallet at genesis, and what each holds.
const ALLOCATIONS: usize = 200;
const ALLOCATION: u64 = 10;

/// The longest wait for one node's answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long a node may take to end when asked; then it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(7);

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeStatus {
    pub(super) height: u64,
    pub(super) hash: BlockHash,
    pub(super) state: StateCommitment,
    pub(super) connections: usize,
}

/// All nodes. Processes that run are killed when this is dropped.
pub(super) struct Network {
    nodes: Vec<Node>,
    genesis: Genesis,
    wallet_key: PathBuf,
    port: u16,
}

struct Node {
    name: String,
    data_dir: PathBuf,
    client: Arc<Client>,
    child: Option<Child>,
}

impl Network {
    /// Makes the files of a new testnet, or finds those of an earlier one.
    pub(super) fn make(root: &Path, count: usize, port: Option<u16>) -> anyhow::Result<Self> {
        let data_dirs: Vec<PathBuf> = (1..=count)
            .map(|at| root.join(format!("node{at}")))
            .collect();
        // Its genesis and its wallet are called as a node's are.
        let dir = DataDir::new(root);
        if dir.genesis().exists() {
            check_nodes(root, count)?;
        } else {
            let port = port.unwrap_or(types::Network::Dev.p2p_port());
            make_files(root, &data_dirs, port)?;
        }
        let port = check_port(root, &data_dirs, port)?;
        let nodes = data_dirs.into_iter().zip(1..).map(|(data_dir, at)| {
            let client = Client::answering_within(&data_dir, ANSWER_LIMIT)?;
            Ok(Node {
                name: format!("node{at}"),
                client: Arc::new(client),
                data_dir,
                child: None,
            })
        });
        Ok(Self {
            nodes: nodes.collect::<anyhow::Result<_>>()?,
            genesis: load_genesis(&dir)?,
            wallet_key: dir.wallet_key(),
            port,
        })
    }

    /// The P2P port of every node.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn name(&self, node: usize) -> &str {
        &self.nodes[node].name
    }

    pub(super) fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The wallet that owns the allocations.
    pub(super) fn wallet(&self) -> anyhow::Result<Wallet> {
        Ok(Wallet::new(keys::read_key(&self.wallet_key)?))
    }

    pub(super) fn start_all(&mut self) -> anyhow::Result<()> {
        (0..self.len()).try_for_each(|node| self.start(node))
    }

    /// Starts a node's process; its log goes to `log` in its data directory.
    pub(super) fn start(&mut self, node: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[node];
        let log_path = node.data_dir.join("log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log_path);
        let log = log.with_context(|| log_path.display().to_string())?;
        let program = std::env::current_exe().context("the path of this program is not known")?;
        let child = Command::new(program)
            .args(["run", "--until-stdin-closes", "--data-dir"])
            .arg(&node.data_dir)
            // Closes when this process ends, however it does; the node then stops too.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for this process, which then stops the nodes.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} could not be started", node.name))?;
        node.child = Some(child);
        Ok(())
    }

    /// Ends a node by SIGKILL.
    pub(super) async fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[node];
        if let Some(mut child) = node.child.take() {
            let killed = child.kill().await;
            killed.with_context(|| format!("{} could not be ended", node.name))?;
        }
        Ok(())
    }

    /// An error when a node has ended although nobody asked it to.
    pub(super) fn check_running(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child
                && let Some(status) = child.try_wait()?
            {
                bail!(
                    "{} has ended ({status}): {}",
                    node.name,
                    node.last_log_line()
                );
            }
        }
        Ok(())
    }

    /// Asks all nodes; `None` where no answer comes.
    pub(super) async fn statuses(&self) -> Vec<Option<NodeStatus>> {
        let mut statuses = Vec::with_capacity(self.len());
        for node in 0..self.len() {
            statuses.push(self.status(node).await);
        }
        statuses
    }

    /// Asks one node; `None` when no answer comes.
    pub(super) async fn status(&self, node: usize) -> Option<NodeStatus> {
        self.nodes[node].child.as_ref()?;
        let chain = self.call(node, "getblockchaininfo", json!([])).await.ok()?;
        let connections = self
            .call(node, "getconnectioncount", json!([]))
            .await
            .ok()?;
        Some(NodeStatus {
            height: chain["blocks"].as_u64()?,
            hash: serde_json::from_value(chain["bestblockhash"].clone()).ok()?,
            state: serde_json::from_value(chain["state"].clone()).ok()?,
            connections: connections.as_u64()? as usize,
        })
    }

    /// What each node holds as evidence of double signing; `None` where no answer comes.
    pub(super) async fn evidence(&self) -> Vec<Option<u64>> {
        let mut all = Vec::with_capacity(self.len());
        for node in 0..self.len() {
            let answer = self.call(node, "getconsensusinfo", json!([])).await;
            all.push(answer.ok().and_then(|answer| answer["evidence"].as_u64()));
        }
        all
    }

    /// Calls a method of a node.
    pub(super) async fn call(
        &self,
        node: usize,
        method: &'static str,
        params: Value,
    ) -> anyhow::Result<Value> {
        let client = self.nodes[node].client.clone();
        Offload::Threads
            .run(move || client.call(method, params))
            .await
    }

    /// Asks all nodes to stop, together, and kills those that do not.
    pub(super) async fn stop_all(&mut self) {
        for node in 0..self.len() {
            if self.nodes[node].child.is_some()
                && let Err(error) = self.call(node, "stop", json!([])).await
            {
                output::line(format!(
                    "{} cannot be asked to stop: {error:#}",
                    self.name(node)
                ));
            }
        }
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take()
                && let Err(error) = wait_or_kill(&mut child).await
            {
                output::line(format!("{} did not stop cleanly: {error:#}", node.name));
            }
        }
    }
}

async fn wait_or_kill(child: &mut Child) -> anyhow::Result<()> {
    match timeout(STOP_LIMIT, child.wait()).await {
        Ok(status) => match status? {
            status if status.success() => Ok(()),
            status => bail!("it ended with {status}", status = describe(status)),
        },
        Err(_) => {
            child.kill().await?;
            bail!("it was still running after {} s", STOP_LIMIT.as_secs())
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

impl Node {
    fn last_log_line(&self) -> String {
        let path = self.data_dir.join("log");
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        match log.lines().next_back() {
            Some(line) => line.to_owned(),
            None => format!("{} is empty", path.display()),
        }
    }
}

/// Refuses a folder with another number of nodes.
fn check_nodes(root: &Path, count: usize) -> anyhow::Result<()> {
    let made = load_genesis(&DataDir::new(root))?.masternodes.len();
    if made != count {
        bail!(
            "{} holds a testnet of {made} nodes: say --nodes {made}",
            root.display()
        );
    }
    Ok(())
}

/// The port that the nodes of a folder have; refuses another one that was asked for.
fn check_port(root: &Path, data_dirs: &[PathBuf], asked: Option<u16>) -> anyhow::Result<u16> {
    let first = data_dirs.first().context("a testnet has a node")?;
    let made = load_config(&DataDir::new(first))?.listen_port;
    if asked.is_some_and(|asked| asked != made) {
        bail!(
            "{} holds a testnet on port {made}: leave --port out, or name another folder",
            root.display()
        );
    }
    Ok(made)
}

fn make_files(root: &Path, data_dirs: &[PathBuf], port: u16) -> anyhow::Result<()> {
    let certs = root.join("certs");
    std::fs::create_dir_all(&certs).with_context(|| certs.display().to_string())?;
    for (data_dir, at) in data_dirs.iter().zip(1u8..) {
        let report = setup::init(&InitOptions {
            data_dir: data_dir.clone(),
            name: format!("node{at}"),
            ip: PeerIp::from(IpAddr::from([127, 0, 0, at])),
            port: Some(port),
            ..InitOptions::default()
        })?;
        for file in &report.public_files {
            let name = file.file_name().context("a public file has a name")?;
            std::fs::copy(file, certs.join(name))?;
        }
    }
    let secret = keys::new_secret()?;
    let key = SigningKey::from_bytes(&secret);
    keys::write_key(&root.join("wallet.key"), &key)?;
    let amount = Amount::from_time(ALLOCATION).context("an allocation is an amount")?;
    let genesis = root.join("genesis.toml");
    setup::build_genesis(&GenesisOptions {
        folder: certs.clone(),
        output: genesis.clone(),
        chain_id: "timed-testnet".into(),
        allocations: vec![(Wallet::new(key).address(), amount); ALLOCATIONS],
        ..GenesisOptions::default()
    })?;
    for data_dir in data_dirs {
        setup::install_chain(data_dir, &genesis, &certs)?;
    }
    Ok(())
}
