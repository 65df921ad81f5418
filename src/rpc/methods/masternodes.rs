//! Masternodes, consensus and sync.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Calls, methods};
use crate::rpc::jsonrpc::{CallError, Method, Params};

pub(super) fn methods() -> Vec<Method<Calls>> {
    methods! {
        Read masternodelist(): "the masternodes of genesis: power, payout, record, whether connected",
        Read masternodestatus(): "this node as a masternode: its record, whether it signs and why not",
        Read getconsensusinfo(): "the height and round being decided, the quorum, evidence of double signing",
        Read getsyncinfo(): "how far this node is behind and whom it fetches from",
    }
}

async fn masternodelist(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let node = &calls.node;
    let (peers, directory) = (node.net.peers(), node.net.directory());
    let validators = node.chain.validators().validators().iter();
    let list = validators.enumerate().map(|(index, validator)| {
        let record = directory.record(index);
        let peer = peers.iter().find(|peer| peer.masternode == Some(index));
        json!({
            "name": validator.name,
            "consensus_key": validator.key,
            "power": validator.power,
            "payout": validator.payout.to_text(calls.network()),
            "ip": record.map(|record| record.ip),
            "port": record.map(|record| record.port),
            "pins": record.map(|record| &record.pins),
            "serial": record.map(|record| record.serial),
            "own": node.node.masternode == Some(index),
            "connected": peer.is_some(),
            "tip_height": peer.map(|peer| peer.tip_height),
        })
    });
    Ok(list.collect())
}

async fn masternodestatus(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let node = &calls.node;
    let status = node
        .consensus
        .as_ref()
        .map(|one| one.watch_status().borrow().clone());
    let directory = node.net.directory();
    let record = node
        .node
        .masternode
        .and_then(|index| directory.record(index));
    Ok(json!({
        "masternode": node.node.masternode.is_some(),
        "name": node.node.name,
        "pin": node.net.pin(),
        "record": record.map(|record| json!({
            "serial": record.serial,
            "ip": record.ip,
            "port": record.port,
            "pins": record.pins,
            "consensus_key": record.consensus_key,
            "payout": record.payout.to_text(calls.network()),
        })),
        "signing": status.as_ref().is_some_and(|status| status.not_signing.is_none()),
        "not_signing": status.and_then(|status| status.not_signing),
    }))
}

async fn getconsensusinfo(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let Some(consensus) = &calls.node.consensus else {
        return Ok(json!({ "masternode": false }));
    };
    let status = consensus.watch_status().borrow().clone();
    let mut value = serde_json::to_value(&status).map_err(CallError::internal)?;
    value["masternode"] = json!(true);
    value["quorum"] = json!(status.quorum_sentence());
    value["evidence_list"] = json!(consensus.evidence().await);
    Ok(value)
}

async fn getsyncinfo(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let status = calls.node.sync.watch_status().borrow().clone();
    let mut value = serde_json::to_value(&status).map_err(CallError::internal)?;
    value["behind"] = json!(status.behind());
    value["sentence"] = json!(status.sentence());
    Ok(value)
}
