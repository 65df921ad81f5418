//! Asks a running node over its RPC.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use timed::node::files::{DataDir, load_config};
use timed::rpc::Cookie;

/// The longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// The longest wait for an answer; above the longest waiting call.
const ANSWER_LIMIT: Duration = Duration::from_secs(75);

/// The same of what only shows the node: a person waits, and no such answer takes long.
const VIEW_LIMIT: Duration = Duration::from_secs(5);

/// The longest answer, in bytes: a whole block with its transactions taken apart.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// The RPC's code for a caller whose secret is not its own.
const UNAUTHORIZED: i64 = -32001;

/// Somebody answers who has written another secret than the one in this node's folder.
#[derive(Debug, thiserror::Error)]
#[error(
    "the node that answers at http://{address} has another secret than {cookie}: it is another node; \
     give each node on this machine its own rpc_port in timed.toml"
)]
pub(super) struct OtherNode {
    address: SocketAddr,
    cookie: String,
}

/// The node has answered that it does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{method}: {message}")]
pub(super) struct Refusal {
    method: String,
    message: String,
}

/// A node's RPC.
pub(super) struct Client {
    agent: ureq::Agent,
    address: SocketAddr,
    limit: Duration,
    dir: DataDir,
}

impl Client {
    /// The node of a data directory.
    pub(super) fn of(data_dir: &Path) -> anyhow::Result<Self> {
        Self::answering_within(data_dir, ANSWER_LIMIT)
    }

    /// The same for what only shows the node.
    pub(super) fn for_view(data_dir: &Path) -> anyhow::Result<Self> {
        Self::answering_within(data_dir, VIEW_LIMIT)
    }

    /// The node of a data directory, with another longest wait for an answer.
    pub(super) fn answering_within(data_dir: &Path, limit: Duration) -> anyhow::Result<Self> {
        let dir = DataDir::new(data_dir);
        let address = load_config(&dir)?.rpc_addr();
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_global(Some(limit))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            address,
            limit,
            dir,
        })
    }

    /// Where the node is asked.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Calls a method.
    pub(super) fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let url = format!("http://{}/", self.address);
        let mut post = self.agent.post(&url);
        let cookie = self.cookie()?;
        if let Some(cookie) = &cookie {
            post = post.header("Authorization", cookie.authorization().as_str());
        }
        let mut response = post
            .send_json(&request)
            .map_err(|error| self.explain(&error))?;
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES);
        match response_status(&body.read_to_string()?)? {
            Ok(result) => Ok(result),
            Err((Some(UNAUTHORIZED), _)) if cookie.is_some() => Err(OtherNode {
                address: self.address,
                cookie: self.cookie_path().display().to_string(),
            }
            .into()),
            Err((_, message)) => Err(Refusal {
                method: method.into(),
                message,
            }
            .into()),
        }
    }

    /// Calls a method without parameters and reads its answer as `T`.
    pub(super) fn get<T: DeserializeOwned>(&self, method: &str) -> anyhow::Result<T> {
        let answer = self.call(method, json!([]))?;
        serde_json::from_value(answer)
            .with_context(|| format!("the node's answer to {method} is not as expected"))
    }

    /// The secret of the node that wrote it last; `None` when there is none or it is not ours to
    /// read, which most methods do not need.
    fn cookie(&self) -> anyhow::Result<Option<Cookie>> {
        match std::fs::read_to_string(self.cookie_path()) {
            Ok(content) => Ok(Cookie::from_file(&content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(None),
            Err(error) => bail!("{}: {error}", self.cookie_path().display()),
        }
    }

    fn cookie_path(&self) -> PathBuf {
        self.dir.rpc_cookie()
    }

    fn explain(&self, error: &ureq::Error) -> anyhow::Error {
        let dir = self.dir.root().display();
        match error {
            ureq::Error::Timeout(_) => anyhow!(
                "the node at http://{} did not answer within {} seconds: see its log, and ask \
                 \"timed doctor --data-dir {dir}\"",
                self.address,
                self.limit.as_secs()
            ),
            error => anyhow!(
                "the node is not running: no answer at http://{} ({error}); \
                 start it with: timed run --data-dir {dir}",
                self.address
            ),
        }
    }
}

/// The result in an answer, or the error in it: its code and its sentence.
fn response_status(body: &str) -> anyhow::Result<Result<Value, (Option<i64>, String)>> {
    let Ok(mut answer) = serde_json::from_str::<Value>(body) else {
        bail!("the node's answer is not JSON: {}", body.trim());
    };
    Ok(match answer.get("error") {
        Some(error) if !error.is_null() => {
            let message = error["message"].as_str().unwrap_or("unknown error");
            Err((error["code"].as_i64(), message.to_owned()))
        }
        _ => Ok(answer["result"].take()),
    })
}
