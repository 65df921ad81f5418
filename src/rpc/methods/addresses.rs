//! What an address holds: for wallets.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Calls, methods};
use crate::rpc::jsonrpc::{CallError, Method, Params};
use crate::types::{Address, Amount, OutPoint, TxId, TxOutput};

/// The most outputs in one answer, the largest first.
const MAX_OUTPUTS: usize = 2_000;

pub(super) fn methods() -> Vec<Method<Calls>> {
    methods! {
        Read getaddressbalance("address"): "what an address holds in final blocks, and what waiting transactions spend of it",
        Read getaddressutxos("address"): "its unspent outputs, at most 2000, the largest first, with the waiting transaction that spends each",
    }
}

/// An unspent output and the waiting transaction that spends it.
type Held = (OutPoint, TxOutput, Option<TxId>);

async fn getaddressbalance(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let text: String = params.required("address")?;
    let held = held(&calls, calls.address(&text)?).await?;
    let sum = |spent: bool| {
        let chosen = held
            .iter()
            .filter(|(_, _, spender)| spender.is_some() == spent);
        Amount::checked_sum(chosen.map(|(_, output, _)| output.amount))
            .ok_or_else(|| CallError::internal("the outputs add up to more than an amount holds"))
    };
    Ok(json!({
        "address": text,
        "balance": Amount::checked_sum([sum(false)?, sum(true)?]),
        "spendable": sum(false)?,
        "being_spent": sum(true)?,
        "outputs": held.len(),
    }))
}

async fn getaddressutxos(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let text: String = params.required("address")?;
    let mut held = held(&calls, calls.address(&text)?).await?;
    held.sort_by_key(|(outpoint, output, _)| (std::cmp::Reverse(output.amount), *outpoint));
    let total = held.len();
    held.truncate(MAX_OUTPUTS);
    let utxos = held.iter().map(|(outpoint, output, spender)| {
        json!({
            "txid": outpoint.txid,
            "index": outpoint.index,
            "amount": output.amount,
            "spent_by": spender,
        })
    });
    Ok(json!({
        "address": text,
        "height": calls.node.chain.tip().height,
        "total": total,
        "utxos": utxos.collect::<Vec<_>>(),
    }))
}

async fn held(calls: &Calls, address: Address) -> Result<Vec<Held>, CallError> {
    let outputs = calls.node.chain.outputs_of(address).await;
    let outputs = outputs.map_err(CallError::internal)?;
    let spenders = spenders(calls).await;
    let held = outputs.into_iter().map(|(outpoint, output)| {
        let spender = spenders.get(&outpoint).copied();
        (outpoint, output, spender)
    });
    Ok(held.collect())
}

/// Which waiting transaction spends what.
pub(super) async fn spenders(calls: &Calls) -> BTreeMap<OutPoint, TxId> {
    let mempool = &calls.node.mempool;
    let mut spenders = BTreeMap::new();
    for waiting in mempool.list().await {
        if let Some(transaction) = mempool.get(waiting.txid).await {
            let inputs = transaction.inputs.iter();
            spenders.extend(inputs.map(|input| (input.outpoint, waiting.txid)));
        }
    }
    spenders
}
