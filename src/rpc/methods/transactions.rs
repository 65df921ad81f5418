//! Transactions: waiting, final, and how to hand one in.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Calls, methods};
use crate::rpc::jsonrpc::{CallError, Method, Params};
use crate::types::{Height, OutPoint, Transaction, TxId, codec};

/// The longest that a call may wait, in milliseconds.
const MAX_WAIT_MS: u64 = 60_000;

/// How long a call waits when it does not say.
const DEFAULT_WAIT_MS: u64 = 30_000;

pub(super) fn methods() -> Vec<Method<Calls>> {
    methods! {
        Read getrawmempool("verbose"): "ids of the waiting transactions, best fee rate first; verbose: with size and fee",
        Read getmempoolinfo(): "how much waits for a block, and what peers did wrong",
        Read getrawtransaction("txid", "verbose"): "a waiting or final transaction as hex; verbose: taken apart",
        Read gettxout("txid", "index"): "an unspent output of a final block; null when there is none",
        Read gettransactionfinality("txid"): "whether a transaction is final, waiting or unknown",
        Read waittransactionfinality("txid", "timeout_ms"):
            "the same, once it is final or the time (default 30000, at most 60000) has passed",
        Change sendrawtransaction("hex"): "checks a signed transaction, takes it and announces it; gives its id",
    }
}

async fn getrawmempool(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let verbose = params.optional("verbose")?.unwrap_or(false);
    let waiting = calls.node.mempool.list().await;
    match verbose {
        true => serde_json::to_value(waiting).map_err(CallError::internal),
        false => Ok(waiting.iter().map(|one| json!(one.txid)).collect()),
    }
}

async fn getmempoolinfo(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let stats = calls.node.mempool.stats().await;
    serde_json::to_value(stats).map_err(CallError::internal)
}

async fn getrawtransaction(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let txid: TxId = params.required("txid")?;
    let verbose = params.optional("verbose")?.unwrap_or(false);
    let waiting = calls.node.mempool.get(txid).await;
    let (transaction, height) = match waiting {
        Some(transaction) => (transaction, None),
        None => {
            let found = find(&calls, txid).await?;
            let (height, transaction) = found.ok_or_else(|| {
                CallError::not_found(format!("no waiting or final transaction {txid}"))
            })?;
            (transaction, Some(height))
        }
    };
    if !verbose {
        return Ok(json!(hex::encode(codec::encode(&transaction))));
    }
    let mut value = describe(&calls, &transaction);
    value["height"] = json!(height);
    Ok(value)
}

async fn find(calls: &Calls, txid: TxId) -> Result<Option<(Height, Transaction)>, CallError> {
    let chain = &calls.node.chain;
    let found = chain.find_transaction(txid).await;
    let Some((height, position)) = found.map_err(CallError::internal)? else {
        return Ok(None);
    };
    let block = chain.block(height).await.map_err(CallError::internal)?;
    let transaction = block.and_then(|block| {
        let mut transactions = block.transactions.into_iter();
        transactions.nth(position as usize)
    });
    Ok(transaction.map(|transaction| (height, transaction)))
}

/// A transaction, taken apart.
pub(super) fn describe(calls: &Calls, transaction: &Transaction) -> Value {
    let inputs = transaction.inputs.iter().map(|input| {
        json!({
            "txid": input.outpoint.txid,
            "index": input.outpoint.index,
            "public_key": input.public_key,
            "signature": input.signature,
        })
    });
    json!({
        "txid": transaction.id(),
        "version": transaction.version,
        "size": transaction.encoded_bytes(),
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": transaction.outputs.iter().map(|one| calls.output(one)).collect::<Vec<_>>(),
    })
}

async fn gettxout(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let outpoint = OutPoint {
        txid: params.required("txid")?,
        index: params.required("index")?,
    };
    let found = calls.node.chain.outputs(vec![outpoint]).await;
    let found = found.map_err(CallError::internal)?.into_iter().next();
    Ok(found
        .flatten()
        .map_or(Value::Null, |output| calls.output(&output)))
}

async fn sendrawtransaction(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let text: String = params.required("hex")?;
    let bytes = hex::decode(text).map_err(|error| {
        CallError::cannot_decode(format!("the transaction is not hex: {error}"))
    })?;
    let transaction: Transaction =
        codec::decode(&bytes).map_err(|error| CallError::cannot_decode(error.to_string()))?;
    let taken = calls.node.mempool.submit(transaction).await;
    let txid = taken.map_err(|error| CallError::rejected(error.to_string()))?;
    Ok(json!(txid))
}

async fn gettransactionfinality(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    finality(&calls, params.required("txid")?).await
}

async fn waittransactionfinality(
    calls: Arc<Calls>,
    mut params: Params,
) -> Result<Value, CallError> {
    let txid: TxId = params.required("txid")?;
    let wait_ms = params.optional("timeout_ms")?.unwrap_or(DEFAULT_WAIT_MS);
    let wait = Duration::from_millis(wait_ms.min(MAX_WAIT_MS));
    let _permit = calls.waiting.try_acquire().map_err(|_| {
        let most = super::MAX_WAITING;
        CallError::busy(format!("{most} calls are waiting already; ask again later"))
    })?;
    let mut tip = calls.node.chain.watch_tip();
    let until_final = async {
        loop {
            tip.borrow_and_update();
            let now = finality(&calls, txid).await?;
            if now["status"] == "final" || tip.changed().await.is_err() {
                return Ok(now);
            }
        }
    };
    tokio::select! {
        biased;
        () = calls.ending.cancelled() => Err(CallError::busy("the node is stopping")),
        result = tokio::time::timeout(wait, until_final) => match result {
            Ok(result) => result,
            Err(_) => finality(&calls, txid).await,
        },
    }
}

async fn finality(calls: &Calls, txid: TxId) -> Result<Value, CallError> {
    let chain = &calls.node.chain;
    let found = chain.find_transaction(txid).await;
    let Some((height, _)) = found.map_err(CallError::internal)? else {
        let waiting = calls.node.mempool.get(txid).await.is_some();
        let status = if waiting { "waiting" } else { "unknown" };
        return Ok(json!({ "txid": txid, "status": status }));
    };
    let header = chain.headers(height, height).await;
    let header = header.map_err(CallError::internal)?.into_iter().next();
    Ok(json!({
        "txid": txid,
        "status": "final",
        "height": height,
        "block": header.map(|header| header.hash()),
        "time_ms": header.map(|header| header.time_ms),
        "confirmations": chain.tip().height.0.saturating_sub(height.0) + 1,
    }))
}
