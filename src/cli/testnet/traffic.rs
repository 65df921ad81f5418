//! Transactions that keep a testnet busy: one wallet pays itself, one output at a time, through one
//! node after the other.

use std::collections::VecDeque;

use anyhow::Context;
use serde::Deserialize;
use serde_json::json;
use timed::ledger::Rules;
use timed::node::wallet::{Fee, Transfer, Wallet};
use timed::types::{Amount, OutPoint, TxId, TxOutput, codec};

use super::network::Network;

pub(super) struct Traffic {
    wallet: Wallet,
    rules: Rules,
    address: String,
    free: VecDeque<(OutPoint, TxOutput)>,
    next_node: usize,
    /// What the nodes have taken.
    pub(super) sent: Vec<TxId>,
}

/// An entry of `getaddressutxos`.
#[derive(Deserialize)]
struct Utxo {
    txid: TxId,
    index: u32,
    amount: Amount,
    spent_by: Option<TxId>,
}

impl Traffic {
    pub(super) fn new(network: &Network) -> anyhow::Result<Self> {
        let wallet = network.wallet()?;
        let genesis = network.genesis();
        Ok(Self {
            address: wallet.address().to_text(genesis.network),
            rules: Rules::of(genesis),
            wallet,
            free: VecDeque::new(),
            next_node: 0,
            sent: Vec::new(),
        })
    }

    /// Sends one transaction to the next node. A node that is down or refuses takes nothing; the
    /// next one is asked the next time.
    pub(super) async fn send_one(&mut self, network: &Network) {
        let node = self.next_node;
        self.next_node = (node + 1) % network.len();
        if self.try_send(network, node).await.is_err() {
            // What was tried may be spent by a transaction that this process does not know of.
            self.free.clear();
        }
    }

    async fn try_send(&mut self, network: &Network, node: usize) -> anyhow::Result<()> {
        if self.free.is_empty() {
            self.free = self.unspent(network, node).await?.into();
        }
        let Some((outpoint, output)) = self.free.pop_front() else {
            return Ok(());
        };
        let half = Transfer {
            to: self.wallet.address(),
            amount: Amount(output.amount.0 / 2),
            fee: Fee::Lowest,
        };
        let transaction = self
            .wallet
            .transfer(&self.rules, &[(outpoint, output)], &half)?;
        let encoded = hex::encode(codec::encode(&transaction));
        network
            .call(node, "sendrawtransaction", json!([encoded]))
            .await?;
        self.sent.push(transaction.id());
        Ok(())
    }

    async fn unspent(
        &self,
        network: &Network,
        node: usize,
    ) -> anyhow::Result<Vec<(OutPoint, TxOutput)>> {
        let answer = network
            .call(node, "getaddressutxos", json!([self.address]))
            .await?;
        let utxos: Vec<Utxo> = serde_json::from_value(answer["utxos"].clone())
            .context("the answer to getaddressutxos is not as expected")?;
        let free = utxos.into_iter().filter(|utxo| utxo.spent_by.is_none());
        let outputs = free.map(|utxo| {
            let outpoint = OutPoint {
                txid: utxo.txid,
                index: utxo.index,
            };
            let address = self.wallet.address();
            (
                outpoint,
                TxOutput {
                    amount: utxo.amount,
                    address,
                },
            )
        });
        Ok(outputs.collect())
    }

    /// How many of the sent transactions are final on the first node.
    pub(super) async fn count_final(&self, network: &Network) -> usize {
        let mut finals = 0;
        for txid in &self.sent {
            let answer = network
                .call(0, "gettransactionfinality", json!([txid]))
                .await;
            finals += usize::from(answer.is_ok_and(|answer| answer["status"] == "final"));
        }
        finals
    }
}
