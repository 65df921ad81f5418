//! Peers and connections.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Calls, methods};
use crate::net::{Direction, PeerInfo};
use crate::rpc::jsonrpc::{CallError, Method, Params};
use crate::types::PeerIp;
use crate::wire::messages::PROTOCOL_VERSIONS;
use crate::wire::{CloseCode, CloseReason, StreamKind};

pub(super) fn methods() -> Vec<Method<Calls>> {
    methods! {
        Read getnetworkinfo(): "this node on the network: its address, pin, connections, recent refusals",
        Read getpeerinfo(): "every connected peer: direction, round-trip times, tip, bytes by stream, queues, how it last ended",
        Read getknownpeers(): "every known peer, connected or not, with a sentence that explains it",
        Read getconnectioncount(): "the number of connected peers",
        Change disconnectnode("address"): "ends the connection with the peer at an IP address; it may come back",
    }
}

async fn getnetworkinfo(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let node = &calls.node;
    let peers = node.net.peers();
    let count = |direction| {
        peers
            .iter()
            .filter(|peer| peer.direction == direction)
            .count()
    };
    let counts = node.net.counts();
    let refused = node.net.refused().into_iter();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "subversion": node.node.agent,
        "protocol_versions": PROTOCOL_VERSIONS,
        "network": calls.network(),
        "listen": node.node.listen,
        "pin": node.node.pin,
        "name": node.node.name,
        "connections": peers.len(),
        "established_in": counts.established.get(&Direction::Inbound).unwrap_or(&0),
        "established_out": counts.established.get(&Direction::Outbound).unwrap_or(&0),
        "connections_in": count(Direction::Inbound),
        "connections_out": count(Direction::Outbound),
        "connections_masternodes": peers.iter().filter(|peer| peer.masternode.is_some()).count(),
        "refused": refused.map(|(at_ms, ip, direction, reason)| json!({
            "time_ms": at_ms,
            "ip": ip,
            "direction": direction,
            "code": reason.code.name(),
            "reason": reason.detail,
        })).collect::<Vec<_>>(),
    }))
}

async fn getpeerinfo(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let peers = calls.node.net.peers();
    let known = calls.node.net.known_peers();
    let with_history = peers.iter().map(|peer| {
        let mut value = describe(peer)?;
        let record = known.iter().find(|record| record.ip == peer.ip);
        let last = record.and_then(|record| record.last_end.as_ref());
        value["last_disconnect"] = last.map_or(Value::Null, |(at_ms, direction, reason)| {
            json!({ "time_ms": at_ms, "direction": direction, "reason": reason })
        });
        Ok(value)
    });
    with_history.collect()
}

fn describe(peer: &PeerInfo) -> Result<Value, CallError> {
    let mut value = serde_json::to_value(peer).map_err(CallError::internal)?;
    let streams = StreamKind::ALL.iter().zip(&peer.streams);
    let by_name = streams.map(|(kind, bytes)| (kind.name().to_owned(), json!(bytes)));
    value["streams"] = Value::Object(by_name.collect());
    value["bytes_sent"] = json!(peer.streams.iter().map(|one| one.sent).sum::<u64>());
    value["bytes_received"] = json!(peer.streams.iter().map(|one| one.received).sum::<u64>());
    Ok(value)
}

async fn getknownpeers(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    serde_json::to_value(calls.node.net.known_peers()).map_err(CallError::internal)
}

async fn getconnectioncount(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    Ok(json!(calls.node.net.peers().len()))
}

async fn disconnectnode(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let peer: PeerIp = params.required("address")?;
    let reason = CloseReason::new(CloseCode::Operator, "disconnected by the operator");
    let result = calls.node.net.disconnect(peer, reason);
    result.map_err(|error| CallError::not_connected(error.to_string()))?;
    tracing::info!(peer.ip = %peer, "disconnected by the operator");
    Ok(Value::Null)
}
