//! The node's one local port: JSON-RPC 2.0 over HTTP (`POST /`), `GET /metrics`, `GET /health`, and a
//! live page (`GET /`, fed by `GET /events`).
//!
//! It serves this machine only. The `Host` header must be a loopback address or `localhost`, an
//! `Origin` header must be the RPC's own, and a `Sec-Fetch-Site` header, with which browsers say whose
//! page asks, must name this port's or none: a web page of another site cannot reach it, not even by a
//! name that it points at 127.0.0.1. Methods that change the node need the secret of
//! `rpc.cookie`, new at each start, as HTTP Basic.
//!
//! Limits: 1 MiB of request, 50 calls in a batch, 64 connections (more wait in the
//! system's queue; one that asks for nothing within 3 s is closed), 32 calls waiting for an event
//! and 8 pages (more are refused).

mod context;
mod cookie;
mod finality;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod http;
mod jsonrpc;
mod listener;
mod live;
mod logging;
mod methods;
mod metrics;
mod page;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::env::{DurableFile, Entropy};

pub use context::{NodeDescription, Reload, RpcContext};
pub use cookie::{Cookie, USER};
pub use logging::LogControl;

/// What the RPC takes from outside.
pub struct RpcEnvironment {
    /// The bound socket.
    pub listener: tokio::net::TcpListener,
    /// `rpc.cookie`.
    pub cookie: Arc<dyn DurableFile>,
    /// What is logged; `None` when the program around the node keeps that to itself.
    pub log: Option<Arc<dyn LogControl>>,
}

/// Why the RPC could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The cookie cannot be written.
    #[error("{file} cannot be written: {source}")]
    Cookie {
        /// The file.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The socket failed.
    #[error("the RPC's socket failed: {0}")]
    Socket(#[from] std::io::Error),
}

/// Starts the RPC: writes a new cookie and serves until `cancel`. Returns the address it has.
pub fn start(
    context: RpcContext,
    environment: RpcEnvironment,
    entropy: &Entropy,
    cancel: CancellationToken,
) -> Result<
    (
        SocketAddr,
        impl Future<Output = Result<(), RpcError>> + Send + 'static,
    ),
    RpcError,
> {
    let address = environment.listener.local_addr()?;
    let cookie = Cookie::new(entropy);
    cookie
        .write(&*environment.cookie)
        .map_err(|source| RpcError::Cookie {
            file: environment.cookie.name(),
            source,
        })?;
    let (live, observer) = live::channel(&context);
    let calls = methods::Calls::new(context, environment.log, cancel.clone(), live);
    let observing = observer.run(calls.clone(), cancel.clone());
    let service = http::Service::new(calls, methods::all(), cookie, address);
    let serving = http::serve(environment.listener, service, cancel);
    let running = async {
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            () = &mut serving => return Ok(()),
            // It ends at `cancel`, and with it the streams that serving would wait for.
            () = observing => {}
        }
        serving.await;
        Ok(())
    };
    Ok((address, running))
}
