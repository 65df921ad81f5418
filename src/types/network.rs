//! The three networks and what differs between them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which network a node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The main network.
    Main,
    /// The public test network.
    Test,
    /// A developer's own network.
    Dev,
}

impl Network {
    /// Four bytes that open every handshake and enter every record's signature.
    pub fn magic(self) -> [u8; 4] {
        match self {
            Network::Main => *b"TIME",
            Network::Test => *b"TTIM",
            Network::Dev => *b"DTIM",
        }
    }

    /// The human-readable part of this network's bech32m addresses.
    pub fn address_prefix(self) -> &'static str {
        match self {
            Network::Main => "time",
            Network::Test => "ttime",
            Network::Dev => "dtime",
        }
    }

    /// The default P2P port (UDP).
    pub fn p2p_port(self) -> u16 {
        match self {
            Network::Main => 24000,
            Network::Test => 24100,
            Network::Dev => 24200,
        }
    }

    /// The default RPC port (TCP): one above the P2P port.
    pub fn rpc_port(self) -> u16 {
        self.p2p_port() + 1
    }

    /// The default slot: how often a block is made when nothing waits.
    pub fn slot_ms(self) -> u64 {
        match self {
            Network::Main | Network::Test => 600_000,
            Network::Dev => 5_000,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Network::Main => "main",
            Network::Test => "test",
            Network::Dev => "dev",
        })
    }
}

/// A text that names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network: use main, test or dev")]
pub struct ParseNetworkError(String);

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        match text {
            "main" => Ok(Network::Main),
            "test" => Ok(Network::Test),
            "dev" => Ok(Network::Dev),
            other => Err(ParseNetworkError(other.chars().take(20).collect())),
        }
    }
}
