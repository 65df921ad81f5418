//! Transactions: waiting, final, and how to hand one in.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Calls, methods};
use crate::mempool::WaitingTransaction;
use crate::rpc::jsonrpc::{CallError, Method, Params};
use crate::types::{Amount, Height, OutPoint, Transaction, TxId, TxOutput, codec};

/// The longest that a call may wait, in milliseconds.
const MAX_WAIT_MS: u64 = 60_000;

/// How long a call waits when it does not say.
const DEFAULT_WAIT_MS: u64 = 30_000;

/// The most blocks that a fee is estimated for.
const MAX_TARGET: usize = 100;

/// More than what a block has besides its transactions.
const BLOCK_HEAD_BYTES: usize = 1_000;

/// What a fee's estimate leaves room for: an ordinary transfer of several inputs.
const SMALL_TRANSACTION_BYTES: usize = 1_000;

pub(super) fn methods() -> Vec<Method<Calls>> {
    methods! {
        Read getrawmempool("verbose"): "ids of the waiting transactions, best fee rate first; verbose: with size and fee",
        Read getmempoolinfo(): "how much waits for a block, and what peers did wrong",
        Read getrawtransaction("txid", "verbose|verbosity"):
            "a waiting or final transaction as hex; verbose true, 1 or 2: taken apart",
        Read gettxout("txid", "index|n", "include_mempool"):
            "an unspent output of a final block; null when there is none; include_mempool true: of a waiting transaction too, and none that one spends",
        Read gettransactionfinality("txid"): "whether a transaction is final, waiting or unknown",
        Read waittransactionfinality("txid", "timeout_ms"):
            "the same, once it is final or the time (default 30000, at most 60000) has passed",
        Read estimatesmartfee("conf_target"):
            "the fee for 1000 bytes that puts a transaction among the next conf_target blocks (1 to 100), judged by what waits now; what comes later may outbid it",
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

async fn estimatesmartfee(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let blocks: usize = params.required("conf_target")?;
    if !(1..=MAX_TARGET).contains(&blocks) {
        let detail = format!("conf_target must be 1 to {MAX_TARGET} blocks");
        return Err(CallError::invalid_params(detail));
    }
    let genesis = calls.node.chain.genesis();
    let waiting = calls.node.mempool.list().await;
    let block_bytes = (genesis.max_block_bytes as usize).saturating_sub(BLOCK_HEAD_BYTES);
    let outbids = fee_to_outbid(&waiting, blocks * block_bytes);
    Ok(json!({
        "feerate": outbids.unwrap_or(Amount::ZERO).max(genesis.min_fee_per_kb),
        "blocks": blocks,
    }))
}

/// The lowest fee for 1,000 bytes with which a small transaction is among the first so many bytes
/// of what waits, best rate first; `None` when there is room for it without outbidding anybody.
fn fee_to_outbid(waiting: &[WaitingTransaction], bytes: usize) -> Option<Amount> {
    let room = bytes.saturating_sub(SMALL_TRANSACTION_BYTES);
    let mut before = 0;
    let last = waiting.iter().find(|one| {
        before += one.bytes;
        before > room
    })?;
    let rate = u128::from(last.fee.0) * 1_000 / last.bytes.max(1) as u128 + 1;
    Some(Amount(u64::try_from(rate).unwrap_or(u64::MAX)))
}

async fn getrawtransaction(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let txid: TxId = params.required("txid")?;
    let verbosity = params.verbosity("verbose")?.unwrap_or(0);
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
    if verbosity == 0 {
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
    let with_waiting = params.optional("include_mempool")?.unwrap_or(false);
    let found = calls.node.chain.outputs(vec![outpoint]).await;
    let found = found.map_err(CallError::internal)?.into_iter().next();
    let mut found = found.flatten();
    if with_waiting {
        if found.is_none() {
            found = waiting_output(&calls, outpoint).await;
        }
        let spenders = super::addresses::spenders(&calls).await;
        found = found.filter(|_| !spenders.contains_key(&outpoint));
    }
    Ok(found.map_or(Value::Null, |output| calls.output(&output)))
}

async fn waiting_output(calls: &Calls, outpoint: OutPoint) -> Option<TxOutput> {
    let transaction = calls.node.mempool.get(outpoint.txid).await?;
    let mut outputs = transaction.outputs.into_iter();
    outputs.nth(outpoint.index as usize)
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
    calls.live.submitted(txid);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Waiting transactions of 1,000 bytes with these fees, best first.
    fn waiting(fees: &[u64]) -> Vec<WaitingTransaction> {
        let one = |fee: &u64| WaitingTransaction {
            txid: TxId([1; 32]),
            bytes: 1_000,
            fee: Amount(*fee),
        };
        fees.iter().map(one).collect()
    }

    #[test]
    fn a_fee_outbids_exactly_what_would_take_its_place() {
        assert_eq!(fee_to_outbid(&[], 0), None);
        let waiting = waiting(&[900, 700, 500]);
        assert_eq!(fee_to_outbid(&waiting, 4_000), None);
        assert_eq!(fee_to_outbid(&waiting, 3_999), Some(Amount(501)));
        assert_eq!(fee_to_outbid(&waiting, 3_000), Some(Amount(501)));
        assert_eq!(fee_to_outbid(&waiting, 2_000), Some(Amount(701)));
        assert_eq!(fee_to_outbid(&waiting, 1_000), Some(Amount(901)));
        // Not even it alone has room: above everybody.
        assert_eq!(fee_to_outbid(&waiting, 10), Some(Amount(901)));
    }
}
