//! Peers and connections.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Calls, methods};
use crate::net::{Direction, PeerInfo};
use crate::rpc::jsonrpc::{CallError, Method, Params};
use crate::types::{Ban, BannedBy, PeerIp};
use crate::wire::messages::PROTOCOL_VERSIONS;
use crate::wire::{CloseCode, CloseReason, StreamKind};

/// How long a ban lasts whose length is not said: a day, as in Bitcoin.
const DEFAULT_BAN_MS: u64 = 86_400_000;

/// The last time that a ban may end: the end of the year 9999.
const MAX_TIME_MS: u64 = 253_402_300_799_000;

pub(super) fn methods() -> Vec<Method<Calls>> {
    methods! {
        Read getnetworkinfo(): "this node on the network: its address, pin, connections, recent refusals",
        Read getpeerinfo(): "every connected peer: direction, round-trip times, tip, bytes by stream, queues, how it last ended",
        Read getknownpeers(): "every known peer, connected or not, with a sentence that explains it",
        Read getconnectioncount(): "the number of connected peers",
        Read listbanned(): "every banned address: since when, until when, by whom, why",
        Change setban("address", "command", "bantime", "absolute", "reason"):
            "command add: bans an IP address for bantime seconds (86400 without one), or until that Unix time with absolute true; command remove: lifts its ban",
        Change clearbanned(): "lifts all bans",
        Change forgetpin("address"): "drops the first-use pin of a configured address; true when there was one",
        Change reloadcerts(): "puts what certs/, node.key and node.pem say now in force, without a restart",
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
        "pin": node.net.pin(),
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
    value["pinned"] = json!(peer.masternode.is_some());
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
    let text: String = params.required("address")?;
    // As Bitcoin's clients name it; a peer is its address alone.
    let with_port = text.parse::<SocketAddr>().map(PeerIp::from);
    let peer = match with_port {
        Ok(peer) => peer,
        Err(_) => address(&text).map_err(CallError::not_connected)?,
    };
    let reason = CloseReason::new(CloseCode::Operator, "disconnected by the operator");
    let result = calls.node.net.disconnect(peer, reason);
    result.map_err(|error| CallError::not_connected(error.to_string()))?;
    tracing::info!(peer.ip = %peer, "disconnected by the operator");
    Ok(Value::Null)
}

fn address(text: &str) -> Result<PeerIp, String> {
    text.parse().map_err(|_| {
        let text: String = text.chars().take(60).collect();
        format!("{text:?} is not an IP address, such as 203.0.113.7")
    })
}

async fn forgetpin(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let text: String = params.required("address")?;
    let ip = address(&text).map_err(CallError::wrong_address)?;
    let had = calls.node.net.forget(ip).await;
    let had = had.map_err(|error| CallError::rejected(error.to_string()))?;
    tracing::info!(peer.ip = %ip, had, "first-use pin dropped by the operator");
    Ok(json!(had))
}

async fn reloadcerts(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let reloaded = (calls.node.reload)().await;
    reloaded.map(Value::String).map_err(CallError::rejected)
}

async fn listbanned(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let now_s = calls.node.clock.now_ms() / 1_000;
    let bans = calls.node.net.bans().into_iter();
    let shown = bans.map(|ban| {
        let (since, until) = (ban.since_ms / 1_000, ban.until_ms / 1_000);
        json!({
            "address": ban.ip,
            "ban_created": since,
            "banned_until": until,
            "ban_duration": until.saturating_sub(since),
            "time_remaining": until.saturating_sub(now_s),
            "by": ban.by,
            "reason": ban.reason,
        })
    });
    Ok(shown.collect())
}

async fn setban(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let text: String = params.required("address")?;
    let ip = address(&text).map_err(CallError::wrong_address)?;
    let command: String = params.required("command")?;
    let bantime: Option<u64> = params.optional("bantime")?;
    let absolute = params.optional("absolute")?.unwrap_or(false);
    let reason: Option<String> = params.optional("reason")?;
    let version = match command.as_str() {
        "add" => {
            let now_ms = calls.node.clock.now_ms();
            let until_ms = match (bantime.filter(|time| *time > 0), absolute) {
                (None, false) => now_ms + DEFAULT_BAN_MS,
                (None, true) => return Err(CallError::invalid_params("bantime is missing")),
                (Some(seconds), true) => seconds.saturating_mul(1_000),
                (Some(seconds), false) => now_ms.saturating_add(seconds.saturating_mul(1_000)),
            };
            if until_ms <= now_ms {
                let detail = "the time in bantime has passed already";
                return Err(CallError::invalid_params(detail));
            }
            let reason = reason.as_deref().unwrap_or("no reason given");
            let times = (now_ms, until_ms.min(MAX_TIME_MS));
            let ban = Ban::new(ip, times, BannedBy::Operator, reason);
            let banned = calls.node.net.ban(ban).await;
            banned.map_err(|error| CallError::rejected(error.to_string()))?
        }
        "remove" => match lift(&calls, Some(ip)).await? {
            (0, _) => return Err(CallError::wrong_address(format!("{ip} is not banned"))),
            (_, version) => version,
        },
        other => {
            let detail = format!("command {other:?} must be \"add\" or \"remove\"");
            return Err(CallError::invalid_params(detail));
        }
    };
    until_stored(&calls, version).await?;
    Ok(Value::Null)
}

async fn clearbanned(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let (_, version) = lift(&calls, None).await?;
    until_stored(&calls, version).await?;
    Ok(Value::Null)
}

async fn lift(calls: &Calls, ip: Option<PeerIp>) -> Result<(usize, u64), CallError> {
    let lifted = calls.node.net.unban(ip).await;
    lifted.map_err(|error| CallError::rejected(error.to_string()))
}

/// Waits until a list of bans is on disk, so that what is said to be done outlives a crash.
async fn until_stored(calls: &Calls, version: u64) -> Result<(), CallError> {
    let mut stored = calls.node.bans_stored.clone();
    let waited = stored.wait_for(|stored| *stored >= version).await;
    waited.map_err(|_| CallError::busy("the node is stopping"))?;
    Ok(())
}
