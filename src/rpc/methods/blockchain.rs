//! Blocks and the chain's tip.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Calls, methods};
use crate::rpc::jsonrpc::{CallError, Method, Params};
use crate::types::{Block, BlockHash, Height, codec};

pub(super) fn methods() -> Vec<Method<Calls>> {
    methods! {
        Read getblockchaininfo(): "the chain, its tip and how far this node has synced",
        Read getblockcount(): "the height of the newest final block",
        Read getblockhash("height"): "the hash of the final block at a height",
        Read getblock("block|blockhash", "verbosity|verbose"):
            "a final block by hash or height; verbosity 0 or false: bytes as hex, 1 or true: ids (default), 2: whole transactions",
    }
}

async fn getblockchaininfo(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let chain = &calls.node.chain;
    let genesis = chain.genesis();
    let tip = chain.tip();
    let sync = calls.node.sync.watch_status().borrow().clone();
    Ok(json!({
        "chain": genesis.network,
        "chain_id": genesis.chain_id,
        "genesis_hash": chain.genesis_hash(),
        "genesis_time_ms": genesis.time_ms,
        "slot_ms": genesis.slot_ms,
        "blocks": tip.height,
        "bestblockhash": tip.hash,
        "time_ms": tip.time_ms,
        "state": tip.state,
        "headers": sync.target.max(tip.height),
        "initialblockdownload": sync.syncing,
        "validators_hash": chain.validators().hash(),
        "total_power": chain.validators().total_power(),
        "min_fee_per_kb": genesis.min_fee_per_kb,
    }))
}

async fn getblockcount(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    Ok(json!(calls.node.chain.tip().height))
}

async fn getblockhash(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let height: Height = params.required("height")?;
    Ok(json!(block_at(&calls, height).await?.hash()))
}

async fn getblock(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let height = match params.required::<Value>("block")? {
        Value::String(text) => {
            let hash: BlockHash = text
                .parse()
                .map_err(|error| CallError::invalid_params(format!("{error}")))?;
            let height = calls.node.chain.height_of(hash).await;
            height
                .map_err(CallError::internal)?
                .ok_or_else(|| CallError::not_found(format!("no final block {hash}")))?
        }
        number => serde_json::from_value(number).map_err(|_| {
            CallError::invalid_params("parameter \"block\" must be a block hash or a height")
        })?,
    };
    let verbosity = params.verbosity("verbosity")?.unwrap_or(1);
    let block = block_at(&calls, height).await?;
    match verbosity {
        0 => Ok(json!(hex::encode(codec::encode(&block)))),
        verbosity => describe(&calls, &block, verbosity).await,
    }
}

async fn block_at(calls: &Calls, height: Height) -> Result<Block, CallError> {
    let chain = &calls.node.chain;
    let found = chain.block(height).await.map_err(CallError::internal)?;
    found.ok_or_else(|| {
        let tip = chain.tip().height;
        CallError::out_of_range(format!(
            "no block at height {height}; blocks are 1 to {tip}"
        ))
    })
}

async fn describe(calls: &Calls, block: &Block, verbosity: u8) -> Result<Value, CallError> {
    let header = &block.header;
    let chain = &calls.node.chain;
    let validators = chain.validators();
    let certificate = chain
        .certificate(header.height)
        .await
        .map_err(CallError::internal)?;
    let name = |key| validators.get(key).map(|(_, one)| one.name.clone());
    let transactions: Vec<Value> = match verbosity {
        1 => block
            .transactions
            .iter()
            .map(|one| json!(one.id()))
            .collect(),
        _ => {
            let all = block.transactions.iter();
            all.map(|one| super::transactions::describe(calls, one))
                .collect()
        }
    };
    Ok(json!({
        "hash": block.hash(),
        "height": header.height,
        "confirmations": chain.tip().height.0.saturating_sub(header.height.0) + 1,
        "version": header.version,
        "time_ms": header.time_ms,
        "previousblockhash": header.parent,
        "proposer": header.proposer,
        "proposer_name": name(&header.proposer),
        "transactions_root": header.transactions_root,
        "state": header.state,
        "validators_hash": header.validators,
        "size": codec::encode(block).len(),
        "nTx": block.transactions.len(),
        "tx": transactions,
        "certificate": certificate.as_ref().map(|certificate| json!({
            "round": certificate.round,
            "signers": certificate.signatures.iter().map(|(key, _)| name(key)).collect::<Vec<_>>(),
        })),
    }))
}
