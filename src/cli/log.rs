//! What a running node logs, and `timed log`.

use std::io;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use serde_json::json;
use timed::config::Config;
use timed::node::NodeFiles;
use timed::node::files::{DataDir, load_config};
use timed::rpc::LogControl;
use timed::sync::PROGRESS_LOG;
use tracing_subscriber::EnvFilter;

use super::bar::Bar;
use super::client::Client;
use super::{Environment, output};

/// The consensus engine logs every vote at info; a filter that names it shows them again.
const QUIET: &str = "arc_malachitebft_core_consensus=warn";

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// error, warn, info, debug, trace, or parts of the node: info,timed::net=debug [default: only show]
    #[arg(value_name = "LEVEL")]
    filter: Option<String>,
}

pub(super) fn run(environment: &Environment, arguments: &Arguments) -> anyhow::Result<()> {
    let client = Client::of(&environment.data_dir)?;
    let filter = client.call("loglevel", json!([arguments.filter]))?;
    if environment.json {
        return output::json(&json!({ "log": filter }));
    }
    let filter = super::status::text(&filter);
    output::line(match arguments.filter {
        None => filter,
        Some(_) => format!("logging {filter} until the node stops; \"log\" in timed.toml keeps it"),
    });
    Ok(())
}

/// The log of this process.
pub(super) struct Log {
    /// Given on the command line: `timed.toml` does not change it.
    fixed: bool,
    /// A bar shows the progress of sync, so the log does not.
    with_bar: bool,
    filter: Mutex<String>,
    set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl Log {
    /// Starts it on the standard error, above the bar, as the command line or `timed.toml` says.
    pub(super) fn start(
        asked: Option<&str>,
        as_json: bool,
        files: &NodeFiles,
        bar: &Bar,
    ) -> anyhow::Result<Arc<Self>> {
        let (text, source) = match asked {
            Some(filter) => (filter, "--log".to_owned()),
            None => (files.config.log.as_str(), setting(&files.dir)),
        };
        let with_bar = bar.is_drawn();
        let parsed = parse(text, with_bar).context(source)?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(parsed)
            .with_writer(bar.clone());
        let set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync> = if as_json {
            let log = log.json().with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        } else {
            let colored = io::IsTerminal::is_terminal(&io::stderr());
            let log = log.with_ansi(colored).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        };
        Ok(Arc::new(Self {
            fixed: asked.is_some(),
            with_bar,
            filter: Mutex::new(text.to_owned()),
            set,
        }))
    }

    /// Follows `timed.toml` again, unless the command line says what to log.
    pub(super) fn reread(&self, environment: &Environment) {
        if self.fixed {
            return;
        }
        let config = load_config(&DataDir::new(&environment.data_dir));
        let set = config
            .map_err(|error| error.to_string())
            .and_then(|config| self.set(&config.log));
        if let Err(reason) = set {
            tracing::error!(%reason, "what is logged stays as it was");
        }
    }
}

/// Whether a node could log what `timed.toml` says.
pub(super) fn check_setting(dir: &DataDir, config: &Config) -> anyhow::Result<()> {
    parse(&config.log, false).context(setting(dir)).map(drop)
}

/// How messages name the setting.
fn setting(dir: &DataDir) -> String {
    format!("log in {}", dir.config().display())
}

impl LogControl for Log {
    fn filter(&self) -> String {
        self.filter.lock().expect("no holder panics").clone()
    }

    fn set(&self, filter: &str) -> Result<(), String> {
        let parsed = parse(filter, self.with_bar).map_err(|error| format!("{error:#}"))?;
        let mut current = self.filter.lock().expect("no holder panics");
        (self.set)(parsed)?;
        filter.clone_into(&mut current);
        Ok(())
    }
}

/// A filter as written. A bare word would be taken for a module of that name, which logs nothing.
fn parse(text: &str, with_bar: bool) -> anyhow::Result<EnvFilter> {
    const ADVICE: &str = "is not a log filter; write for example info, or info,timed::net=debug";
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',') {
        let level = directive
            .rsplit_once('=')
            .map_or(directive, |(_, level)| level);
        let known = levels.iter().any(|one| level.eq_ignore_ascii_case(one));
        let names_target = directive.contains("::") && !directive.contains('=');
        if !known && !names_target {
            anyhow::bail!("{text:?} {ADVICE}");
        }
    }
    let mut all = format!("{QUIET},{text}");
    if with_bar {
        all += &format!(",{PROGRESS_LOG}=off");
    }
    let filter = EnvFilter::builder().parse(all);
    filter.with_context(|| format!("{text:?} {ADVICE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_and_parts_and_nothing_else() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,timed::net=debug",
            "timed::net",
            "debug,quinn=warn",
        ] {
            parse(good, true).unwrap();
        }
        for bad in [
            "",
            "loud",
            "info,",
            "timed::net=loud",
            "info,loud",
            "info\n",
        ] {
            let error = format!("{:#}", parse(bad, true).unwrap_err());
            assert!(
                error.contains("is not a log filter; write for example"),
                "{bad:?}: {error}"
            );
        }
    }
}
