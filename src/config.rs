//! `timed.toml`: what an operator decides about one node. Unknown keys are refused. This is the one
//! place where the file's keys become the settings of the network and of the local RPC port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use serde::Deserialize;

use crate::net::{NetConfig, NetTiming};
use crate::types::{Ban, GenesisHash, Network, PeerIp};
use crate::wire::Role;

/// The name of the file in the data directory.
pub const CONFIG_FILE: &str = "timed.toml";

/// What nodes tell each other about their software.
pub const AGENT: &str = concat!("timed/", env!("CARGO_PKG_VERSION"));

/// The default of [`Config::max_unpinned`].
const DEFAULT_MAX_UNPINNED: usize = 64;

/// The most configured peers.
const MAX_CONFIGURED_PEERS: usize = 1_000;

/// The content of `timed.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address that the P2P socket (UDP) is bound to.
    pub listen_ip: IpAddr,
    /// The port of the P2P socket.
    pub listen_port: u16,
    /// The address at which peers reach this node, when it is not `listen_ip`.
    #[serde(default)]
    pub advertised_ip: Option<PeerIp>,
    /// The port (TCP) of the local RPC.
    pub rpc_port: u16,
    /// The address of the local RPC; a loopback address.
    #[serde(default)]
    pub rpc_ip: Option<IpAddr>,
    /// Peers to dial besides the recorded masternodes.
    #[serde(default)]
    pub peers: Vec<SocketAddr>,
    /// Whether full nodes without a record may connect.
    #[serde(default = "default_accept_unpinned")]
    pub accept_unpinned: bool,
    /// The most connected nodes without a record, configured peers not counted.
    #[serde(default = "default_max_unpinned")]
    pub max_unpinned: usize,
    /// What is logged, in the form of `tracing`'s filters.
    #[serde(default = "default_log")]
    pub log: String,
}

fn default_accept_unpinned() -> bool {
    true
}

fn default_max_unpinned() -> usize {
    DEFAULT_MAX_UNPINNED
}

fn default_log() -> String {
    "info".into()
}

/// Why a configuration cannot be used. Each is one sentence that names the file and the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not valid TOML, has an unknown key, or lacks one.
    #[error("{file}{}: {detail}", at_line(.line))]
    Syntax {
        /// The file.
        file: String,
        /// The line, from 1, when it is known.
        line: Option<usize>,
        /// What is wrong.
        detail: String,
    },
    /// A value is not possible.
    #[error("{file}: {key} = {value} cannot be used: {advice}")]
    Value {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What to write instead.
        advice: &'static str,
    },
}

fn at_line(line: &Option<usize>) -> String {
    line.map(|line| format!(" line {line}")).unwrap_or_default()
}

/// Who this node is on which chain: what the network must know beyond the operator's file.
pub struct NodeFacts {
    /// The chain's network.
    pub network: Network,
    /// The chain.
    pub genesis: GenesisHash,
    /// This node's position in genesis, when it is a masternode.
    pub own_masternode: Option<usize>,
    /// The address of this node's own record, when it is a masternode.
    pub recorded_ip: Option<PeerIp>,
    /// Peers of an earlier run.
    pub earlier_peers: Vec<SocketAddr>,
    /// Bans of an earlier run.
    pub bans: Vec<Ban>,
    /// All durations.
    pub timing: NetTiming,
}

impl Config {
    /// The settings of a new node at an address, with the network's ports.
    pub fn new(network: Network, listen_ip: IpAddr) -> Self {
        Self {
            listen_ip,
            listen_port: network.p2p_port(),
            advertised_ip: None,
            rpc_port: network.rpc_port(),
            rpc_ip: None,
            peers: Vec::new(),
            accept_unpinned: default_accept_unpinned(),
            max_unpinned: default_max_unpinned(),
            log: default_log(),
        }
    }

    /// Reads the file's text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            file: path.display().to_string(),
            line: line_of(text, &error),
            detail: one_line(error.message()),
        })?;
        config.check(path)?;
        Ok(config)
    }

    /// Refuses values with which no node can run; `path` is for messages.
    pub fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let refuse = |key, value: String, advice| {
            Err(ConfigError::Value {
                file: path.display().to_string(),
                key,
                value,
                advice,
            })
        };
        if self.listen_port == 0 {
            return refuse("listen_port", "0".into(), "use a port from 1 to 65535");
        }
        if self.rpc_port == 0 {
            return refuse("rpc_port", "0".into(), "use a port from 1 to 65535");
        }
        if let Some(ip) = self.advertised_ip.filter(|ip| !ip.is_usable()) {
            let advice = "write the address at which peers reach this node, or leave it out";
            return refuse("advertised_ip", format!("\"{ip}\""), advice);
        }
        if let Some(ip) = self.rpc_ip.filter(|ip| !ip.is_loopback()) {
            let advice = "the RPC serves this machine only, so use an address of 127.0.0.0/8";
            return refuse("rpc_ip", format!("\"{ip}\""), advice);
        }
        if self.peers.len() > MAX_CONFIGURED_PEERS {
            let advice = "name at most 1000 peers";
            return refuse("peers", format!("{} peers", self.peers.len()), advice);
        }
        if let Some(peer) = self
            .peers
            .iter()
            .find(|peer| !PeerIp::from(**peer).is_usable() || peer.port() == 0)
        {
            let advice = "write peers as \"IP:PORT\"";
            return refuse("peers", format!("\"{peer}\""), advice);
        }
        Ok(())
    }

    /// The file's text, each key with its meaning.
    pub fn to_text(&self) -> String {
        let quoted = |ip: Option<String>| ip.map(|ip| format!("\"{ip}\""));
        let optional = |key: &str, value: Option<String>, example: &str| match value {
            Some(value) => format!("{key} = {value}"),
            None => format!("#{key} = {example}"),
        };
        let peers: Vec<String> = self
            .peers
            .iter()
            .map(|peer| format!("\"{peer}\""))
            .collect();
        format!(
            "# Settings of this node. Unknown keys are refused. A change takes effect at the next start,\n\
             # that of log also at a SIGHUP.\n\
             \n\
             # The address and port (UDP) on which this node listens for peers.\n\
             listen_ip = \"{listen_ip}\"\n\
             listen_port = {listen_port}\n\
             \n\
             # The address at which peers reach this node, when it differs from listen_ip\n\
             # (behind a router, or when listen_ip is 0.0.0.0). Without it a node that listens on\n\
             # 0.0.0.0 uses the address in its own masternode record.\n\
             {advertised}\n\
             \n\
             # The port (TCP) of the JSON-RPC, which serves this machine only. Its address is\n\
             # 127.0.0.1, or listen_ip when that lies in 127.0.0.0/8.\n\
             rpc_port = {rpc_port}\n\
             {rpc_ip}\n\
             \n\
             # Peers to dial besides the masternodes recorded in certs/, as \"IP:PORT\".\n\
             peers = [{peers}]\n\
             \n\
             # Whether full nodes without a record in certs/ may connect, and how many at most (half of\n\
             # them from one network). The peers named above may in any case.\n\
             accept_unpinned = {accept_unpinned}\n\
             max_unpinned = {max_unpinned}\n\
             \n\
             # What is logged: error, warn, info, debug or trace, also per module, such as\n\
             # \"info,timed::net=debug\".\n\
             log = {log}\n",
            listen_ip = self.listen_ip,
            listen_port = self.listen_port,
            advertised = optional(
                "advertised_ip",
                quoted(self.advertised_ip.map(|ip| ip.to_string())),
                "\"203.0.113.7\"",
            ),
            rpc_port = self.rpc_port,
            rpc_ip = optional(
                "rpc_ip",
                quoted(self.rpc_ip.map(|ip| ip.to_string())),
                "\"127.0.0.1\"",
            ),
            peers = peers.join(", "),
            accept_unpinned = self.accept_unpinned,
            max_unpinned = self.max_unpinned,
            log = toml::Value::from(self.log.as_str()),
        )
    }

    /// Where the P2P socket is bound.
    pub fn listen_addr(&self) -> SocketAddr {
        SocketAddr::new(self.listen_ip, self.listen_port)
    }

    /// Where the local RPC listens.
    pub fn rpc_addr(&self) -> SocketAddr {
        let own = match self.listen_ip.to_canonical() {
            IpAddr::V4(ip) if ip.is_loopback() => ip,
            _ => Ipv4Addr::LOCALHOST,
        };
        SocketAddr::new(self.rpc_ip.unwrap_or(own.into()), self.rpc_port)
    }

    /// The network's settings.
    pub fn net_config(&self, facts: NodeFacts) -> NetConfig {
        let listen_ip = PeerIp::from(self.listen_ip);
        let own_ip = self
            .advertised_ip
            .or(facts.recorded_ip)
            .or(listen_ip.is_usable().then_some(listen_ip));
        NetConfig {
            network: facts.network,
            genesis: facts.genesis,
            role: match facts.own_masternode {
                Some(_) => Role::Masternode,
                None => Role::Full,
            },
            own_masternode: facts.own_masternode,
            own_ip,
            listen_port: self.listen_port,
            configured_peers: self.peers.clone(),
            earlier_peers: facts.earlier_peers,
            bans: facts.bans,
            accept_unpinned: self.accept_unpinned,
            max_unpinned: self.max_unpinned,
            agent: AGENT.into(),
            timing: facts.timing,
        }
    }
}

/// The line of a TOML error, from 1.
pub(crate) fn line_of(text: &str, error: &toml::de::Error) -> Option<usize> {
    let start = error.span()?.start;
    let before = text.get(..start)?;
    Some(before.matches('\n').count() + 1)
}

/// A message without line breaks.
pub(crate) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("timed.toml"))
    }

    fn sample() -> Config {
        Config::new(Network::Dev, "127.0.0.2".parse().unwrap())
    }

    #[test]
    fn the_written_file_reads_back() {
        let mut config = sample();
        assert_eq!(parse(&config.to_text()).unwrap(), config);
        config.advertised_ip = Some("10.1.2.3".parse().unwrap());
        config.rpc_ip = Some("127.0.0.9".parse().unwrap());
        config.peers = vec!["10.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
        config.accept_unpinned = false;
        config.log = "info,[{peer=\"a\\b\"}]=debug\n".into();
        assert_eq!(parse(&config.to_text()).unwrap(), config);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let text = sample().to_text() + "max_peers = 3\n";
        let lines = text.lines().count();
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.starts_with(&format!(
            "timed.toml line {lines}: unknown field `max_peers`"
        )));
        assert!(!error.contains('\n'));
    }

    #[test]
    fn impossible_values_are_refused_by_key() {
        for (old, new, key) in [
            ("listen_port = 24200", "listen_port = 0", "listen_port"),
            ("rpc_port = 24201", "rpc_port = 0", "rpc_port"),
            ("#rpc_ip = \"127.0.0.1\"", "rpc_ip = \"10.0.0.1\"", "rpc_ip"),
            ("peers = []", "peers = [\"0.0.0.0:7\"]", "peers"),
        ] {
            let text = sample().to_text();
            assert!(text.contains(old), "{old}");
            let error = parse(&text.replace(old, new)).unwrap_err();
            assert!(matches!(error, ConfigError::Value { key: got, .. } if got == key));
        }
    }

    #[test]
    fn the_rpc_is_bound_to_loopback_whatever_the_node_listens_on() {
        let at = |ip: &str| Config::new(Network::Dev, ip.parse().unwrap()).rpc_addr();
        assert_eq!(at("127.0.0.3").to_string(), "127.0.0.3:24201");
        assert_eq!(at("0.0.0.0").to_string(), "127.0.0.1:24201");
        assert_eq!(at("10.0.0.1").to_string(), "127.0.0.1:24201");
        assert_eq!(at("::1").to_string(), "127.0.0.1:24201");
    }
}
