//! The process itself.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Calls, methods};
use crate::rpc::jsonrpc::{Access, CallError, Method, Params};

pub(super) fn methods() -> Vec<Method<Calls>> {
    methods! {
        Read help("method"): "this list, or one method of it",
        Read uptime(): "seconds since the node started",
        Change stop(): "stops the node cleanly",
    }
}

async fn help(_: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let method: Option<String> = params.optional("method")?;
    help_text(method.as_deref()).map(Value::String)
}

/// One line for each method, or for one.
pub(super) fn help_text(only: Option<&str>) -> Result<String, CallError> {
    let lines: Vec<String> = super::all()
        .iter()
        .filter(|method| only.is_none_or(|only| only == method.name))
        .map(|method| {
            let cookie = match method.access {
                Access::Read => "",
                Access::Change => " (needs the cookie)",
            };
            let params = method.params.join(", ");
            format!("{}({params}): {}{cookie}", method.name, method.help)
        })
        .collect();
    match only {
        Some(name) if lines.is_empty() => Err(CallError::unknown_method(name)),
        _ => Ok(lines.join("\n")),
    }
}

async fn uptime(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    let node = &calls.node;
    let up_ms = node.clock.now_ms().saturating_sub(node.started_at_ms);
    Ok(json!(up_ms / 1_000))
}

async fn stop(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    tracing::info!("asked to stop over the RPC");
    calls.node.stop_requested.cancel();
    Ok(json!("timed is stopping"))
}
