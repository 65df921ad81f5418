//! The process itself.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Calls, methods};
use crate::rpc::jsonrpc::{Access, CallError, Method, Params, first_name};
use crate::rpc::logging::{self as parts, LogControl};

pub(super) fn methods() -> Vec<Method<Calls>> {
    methods! {
        Read help("method"): "this list, or one method of it",
        Read uptime(): "seconds since the node started",
        Change logging("include", "exclude"):
            "turns the debug messages of parts (net, consensus, sync, ..., all) on and off until the node stops; gives which are on",
        Change loglevel("filter"):
            "what is logged; with a filter such as debug or info,timed::net=debug, changes that until the node stops",
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
            let params: Vec<&str> = method
                .params
                .iter()
                .map(|names| first_name(names))
                .collect();
            let params = params.join(", ");
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

async fn logging(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let include: Vec<String> = params.optional("include")?.unwrap_or_default();
    let exclude: Vec<String> = params.optional("exclude")?.unwrap_or_default();
    let (include, exclude) = (parts::parts(&include)?, parts::parts(&exclude)?);
    let log = log(&calls)?;
    if !include.is_empty() || !exclude.is_empty() {
        set(log, &parts::changed(&log.filter(), &include, &exclude))?;
    }
    Ok(parts::shown(&log.filter()))
}

async fn loglevel(calls: Arc<Calls>, mut params: Params) -> Result<Value, CallError> {
    let filter: Option<String> = params.optional("filter")?;
    let log = log(&calls)?;
    if let Some(filter) = filter {
        set(log, &filter)?;
    }
    Ok(json!(log.filter()))
}

fn log(calls: &Calls) -> Result<&dyn LogControl, CallError> {
    let log = calls.log.as_deref();
    log.ok_or_else(|| CallError::rejected("the program around this node keeps its log to itself"))
}

fn set(log: &dyn LogControl, filter: &str) -> Result<(), CallError> {
    log.set(filter).map_err(CallError::invalid_params)?;
    tracing::info!(filter, "the operator changed what is logged");
    Ok(())
}

async fn stop(calls: Arc<Calls>, _: Params) -> Result<Value, CallError> {
    tracing::info!("asked to stop over the RPC");
    calls.node.stop_requested.cancel();
    Ok(json!("timed is stopping"))
}
