//! Connections: how many are held, and how long one may take to ask for something.
//!
//! At most [`MAX_CONNECTIONS`] at a time; further ones wait in the system's queue. One that has not
//! sent the head of a request within [`REQUEST_LIMIT`], its first or its next, is closed: else as many
//! that ask for nothing would lock everybody out. How long an answer takes is not bounded here, so
//! that pages may listen.

use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The most connections held at a time.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// How long the head of a request may take to arrive, and then its body; the caller is on this machine.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(3);

/// Serves until `cancel`, and then the answers under way to their end. Dropping it ends them too.
pub(super) async fn serve(mut listener: TcpListener, router: Router, cancel: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            (stream, _) = Listener::accept(&mut listener), if connections.len() < MAX_CONNECTIONS => {
                connections.spawn(connection(stream, router.clone(), cancel.clone()));
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

async fn connection(stream: TcpStream, router: Router, cancel: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = cancel.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(reason = %error, "a connection to the RPC ended early");
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        tracing::error!(reason = %panic, "a connection to the RPC failed");
    }
}
