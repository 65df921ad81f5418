//! `timed rpc` and `timed stop`.

use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use timed::node::files::{DataDir, DataDirLock, FilesError};

use super::client::Client;
use super::{Environment, output};

/// How often and how many times `stop` looks whether the node has ended: 10 s in all.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const MAX_LOOKS: usize = 200;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The method; "help" lists them
    method: String,
    /// Its parameters in order, each as JSON or plain text
    #[arg(allow_negative_numbers = true)]
    params: Vec<String>,
}

pub(super) fn run(environment: &Environment, arguments: Arguments) -> anyhow::Result<()> {
    let params: Vec<Value> = arguments
        .params
        .iter()
        .map(|text| parameter(text))
        .collect();
    let answer = Client::of(&environment.data_dir)?.call(&arguments.method, json!(params))?;
    if environment.json {
        return output::json(&answer);
    }
    output::line(match answer {
        Value::String(text) => text,
        other => serde_json::to_string_pretty(&other)?,
    });
    Ok(())
}

/// A parameter as typed: JSON when it is, else text. Ids of digits only stay text.
fn parameter(text: &str) -> Value {
    let is_id = text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match serde_json::from_str(text) {
        Ok(value) if !is_id => value,
        _ => Value::String(text.into()),
    }
}

pub(super) fn stop(environment: &Environment) -> anyhow::Result<()> {
    Client::of(&environment.data_dir)?.call("stop", json!([]))?;
    let dir = DataDir::new(&environment.data_dir);
    for _ in 0..MAX_LOOKS {
        match DataDirLock::take(&dir) {
            Ok(_) => {
                if environment.json {
                    return output::json(&json!({ "stopped": true }));
                }
                output::line("stopped");
                return Ok(());
            }
            Err(FilesError::InUse { .. }) => std::thread::sleep(LOOK_INTERVAL),
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the node was asked to stop, but still runs after 10 seconds: see its log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_json_or_text() {
        assert_eq!(parameter("12"), json!(12));
        assert_eq!(parameter("true"), json!(true));
        assert_eq!(parameter("127.0.0.1"), json!("127.0.0.1"));
        let digits = "1".repeat(64);
        assert_eq!(parameter(&digits), json!(digits));
    }
}
