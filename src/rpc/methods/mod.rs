//! The methods, one file per group. Each group gives the lines of the table that it serves.

mod addresses;
mod blockchain;
mod control;
mod masternodes;
mod network;
mod transactions;

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::context::RpcContext;
use super::http::Site;
use super::jsonrpc::{CallError, Method};
use super::live::{Events, Live};
use super::logging::LogControl;
use super::metrics;
use crate::types::{Address, Network, TxOutput};

/// The most calls that wait for an event at a time.
const MAX_WAITING: usize = 32;

/// What the methods work on.
pub(super) struct Calls {
    node: RpcContext,
    log: Option<Arc<dyn LogControl>>,
    /// Ends waiting calls when the RPC stops.
    ending: CancellationToken,
    waiting: Semaphore,
    live: Live,
}

impl Calls {
    pub(super) fn new(
        node: RpcContext,
        log: Option<Arc<dyn LogControl>>,
        ending: CancellationToken,
        live: Live,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            log,
            ending,
            waiting: Semaphore::new(MAX_WAITING),
            live,
        })
    }

    /// The node.
    pub(super) fn node(&self) -> &RpcContext {
        &self.node
    }

    fn network(&self) -> Network {
        self.node.chain.genesis().network
    }

    fn address(&self, text: &str) -> Result<Address, CallError> {
        Address::parse(text, self.network())
            .map_err(|error| CallError::not_found(error.to_string()))
    }

    fn output(&self, output: &TxOutput) -> Value {
        json!({
            "amount": output.amount,
            "address": output.address.to_text(self.network()),
        })
    }
}

impl Site for Calls {
    fn health(&self) -> Value {
        json!({
            "status": "ok",
            "height": self.node.chain.tip().height,
            "peers": self.node.net.peers().len(),
        })
    }

    async fn metrics(&self) -> String {
        metrics::render(&self.node, self.live.finality()).await
    }

    fn events(&self) -> Option<Events> {
        self.live.subscribe()
    }
}

/// Lines of the table: access, name, parameters, one sentence.
macro_rules! methods {
    ($($access:ident $name:ident($($param:literal),*): $help:literal,)*) => {
        vec![$(crate::rpc::jsonrpc::Method {
            name: stringify!($name),
            access: crate::rpc::jsonrpc::Access::$access,
            params: &[$($param),*],
            help: $help,
            call: |calls, params| Box::pin($name(calls, params)),
        }),*]
    };
}
use methods;

/// Every method, ascending by name.
pub(super) fn all() -> Vec<Method<Calls>> {
    let mut all: Vec<Method<Calls>> = [
        blockchain::methods(),
        network::methods(),
        transactions::methods(),
        addresses::methods(),
        masternodes::methods(),
        control::methods(),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.sort_by_key(|method| method.name);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rpc::jsonrpc::Access;

    #[test]
    fn names_are_unique_and_help_lists_every_method() {
        let names: BTreeSet<&str> = all().iter().map(|method| method.name).collect();
        assert_eq!(names.len(), all().len());
        let help = control::help_text(None).unwrap();
        let listed: BTreeSet<&str> = help
            .lines()
            .filter_map(|line| line.split([' ', '(']).next())
            .collect();
        assert_eq!(listed, names);
    }

    /// What every node of this kind is asked by tools and people; renaming one breaks them.
    #[test]
    fn the_methods_that_are_promised_exist() {
        let names: BTreeSet<&str> = all().iter().map(|method| method.name).collect();
        for promised in [
            "getblockchaininfo",
            "getpeerinfo",
            "getnetworkinfo",
            "getconnectioncount",
            "getblockcount",
            "getblockhash",
            "getblock",
            "getrawmempool",
            "getmempoolinfo",
            "estimatesmartfee",
            "sendrawtransaction",
            "getrawtransaction",
            "gettxout",
            "setban",
            "listbanned",
            "clearbanned",
            "disconnectnode",
            "uptime",
            "stop",
            "help",
            "logging",
            "masternodelist",
            "masternodestatus",
            "getconsensusinfo",
            "getsyncinfo",
            "gettransactionfinality",
            "waittransactionfinality",
        ] {
            assert!(names.contains(promised), "{promised}");
        }
    }

    #[test]
    fn whatever_changes_the_node_needs_the_cookie() {
        let guarded = [
            "clearbanned",
            "disconnectnode",
            "forgetpin",
            "logging",
            "loglevel",
            "reloadcerts",
            "sendrawtransaction",
            "setban",
            "stop",
        ];
        let found = all();
        let found = found.iter().filter(|one| one.access == Access::Change);
        assert_eq!(found.map(|one| one.name).collect::<Vec<_>>(), guarded);
    }
}
