//! `timed wallet history`: what an address received and sent, read from final blocks.
//!
//! The node keeps no index by address of what is spent, so the newest blocks are read, one call for
//! each; how many is the caller's choice.

use serde::Serialize;
use serde_json::{Value, json};
use timed::env::{SystemClock, WallClock};
use timed::ledger::reward::reward_outputs;
use timed::types::{Address, Amount, Block, Genesis, Network, TxId, ValidatorSet, codec};

use super::client::Client;
use super::output;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Paid by somebody.
    Received,
    /// Paid to others.
    Sent,
    /// From itself to itself.
    Moved,
    /// A masternode's share of a block.
    Reward,
    /// The same, and the block's fees, which the block alone does not tell.
    RewardAndFees,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    height: u64,
    time_ms: u64,
    kind: Kind,
    amount: Amount,
    /// Who is paid, of what was sent.
    to: Option<String>,
    txid: Option<TxId>,
}

/// Reads the newest `blocks` blocks; newest entry first.
pub(super) fn read(
    client: &Client,
    genesis: &Genesis,
    address: Address,
    blocks: u64,
) -> anyhow::Result<Vec<Entry>> {
    let tip: u64 = client.get("getblockcount")?;
    let lowest = tip.saturating_sub(blocks.saturating_sub(1)).max(1);
    let validators = ValidatorSet::from_genesis(genesis);
    let mut entries = Vec::new();
    let mut parent_time_ms = match lowest {
        1 => genesis.time_ms,
        _ => block(client, lowest - 1)?.header.time_ms,
    };
    for height in lowest..=tip {
        let block = block(client, height)?;
        let mut found = of_block(genesis, &validators, parent_time_ms, &block, address);
        entries.append(&mut found);
        parent_time_ms = block.header.time_ms;
    }
    entries.reverse();
    Ok(entries)
}

fn block(client: &Client, height: u64) -> anyhow::Result<Block> {
    let hex: Value = client.call("getblock", json!([height, 0]))?;
    let bytes = hex::decode(hex.as_str().unwrap_or_default())?;
    Ok(codec::decode(&bytes)?)
}

/// What one block did to an address.
fn of_block(
    genesis: &Genesis,
    validators: &ValidatorSet,
    parent_time_ms: u64,
    block: &Block,
    address: Address,
) -> Vec<Entry> {
    let entry = |kind, amount, to, txid| Entry {
        height: block.header.height.0,
        time_ms: block.header.time_ms,
        kind,
        amount,
        to,
        txid,
    };
    let mut entries = Vec::new();
    let proposer = &block.header.proposer;
    let shares = reward_outputs(
        genesis,
        validators,
        proposer,
        parent_time_ms,
        block.header.time_ms,
        Amount::ZERO,
    );
    let shares = shares.unwrap_or_default().into_iter().flatten();
    let share = Amount::checked_sum(
        shares
            .filter(|output| output.address == address)
            .map(|output| output.amount),
    );
    let proposed = validators
        .get(proposer)
        .is_some_and(|(_, one)| one.payout == address);
    let with_fees = proposed && !block.transactions.is_empty();
    if let Some(share) = share.filter(|share| with_fees || *share > Amount::ZERO) {
        let kind = match with_fees {
            true => Kind::RewardAndFees,
            false => Kind::Reward,
        };
        entries.push(entry(kind, share, None, None));
    }
    for transaction in &block.transactions {
        let mut inputs = transaction.inputs.iter();
        let own = inputs.any(|input| Address::of(&input.public_key) == address);
        let sum = |ours: bool| {
            let chosen = transaction.outputs.iter();
            let chosen = chosen.filter(|output| (output.address == address) == ours);
            Amount::checked_sum(chosen.map(|output| output.amount)).unwrap_or(Amount::ZERO)
        };
        let mut others = transaction.outputs.iter();
        let other = others.find(|output| output.address != address);
        let to = other.map(|output| output.address.to_text(genesis.network));
        let txid = Some(transaction.id());
        match (own, sum(false), sum(true)) {
            (true, Amount::ZERO, kept) => entries.push(entry(Kind::Moved, kept, None, txid)),
            (true, sent, _) => entries.push(entry(Kind::Sent, sent, to, txid)),
            (false, _, Amount::ZERO) => {}
            (false, _, received) => entries.push(entry(Kind::Received, received, None, txid)),
        }
    }
    entries
}

/// The lines that people read.
pub(super) fn describe(entries: &[Entry], blocks: u64, network: Network) -> String {
    if entries.is_empty() {
        return format!("nothing in the newest {blocks} blocks of {network}; --blocks reads more");
    }
    let now_ms = SystemClock.now_ms();
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            let what = match entry.kind {
                Kind::Received => "received",
                Kind::Sent => "sent",
                Kind::Moved => "to itself",
                Kind::Reward => "reward",
                Kind::RewardAndFees => "reward, and fees",
            };
            let with = match (&entry.to, &entry.txid) {
                (Some(to), _) => format!("to {to}"),
                (None, Some(txid)) => format!("in {txid}"),
                (None, None) => String::new(),
            };
            vec![
                entry.height.to_string(),
                output::duration(now_ms.saturating_sub(entry.time_ms) / 1_000),
                what.into(),
                entry.amount.to_string(),
                with,
            ]
        })
        .collect();
    output::table(
        &["BLOCK", "AGO", "WHAT", "TIME", "WITH"],
        &rows,
        str::to_owned,
    )
}
