//! `timed doctor`: what is right and what is not, in sentences, each fault with the next step.
//!
//! It changes nothing. What stands in files and what the machine allows is checked whether or not
//! the node runs; what only a running node knows is asked over its RPC. To each masternode that is
//! not connected it sends up to three UDP packets that any QUIC server answers, so that "nobody is
//! there" and "somebody refuses" are told apart even while the node is stopped.

mod advice;
mod files;
mod machine;
mod network;
mod probe;

use std::process::ExitCode;

use serde::Serialize;
use timed::env::{SystemClock, WallClock};
use timed::node::files::{DataDir, DataDirLock};

use super::client::Client;
use super::{Environment, output};

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Good,
    /// Could not be checked, or is only to be known.
    Note,
    /// Will become a fault, or is one for somebody else.
    Warning,
    /// Keeps the node from doing what it is for.
    Fault,
}

/// One sentence about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    level: Level,
    about: &'static str,
    sentence: String,
    /// What to do about it.
    next: Option<String>,
}

impl Finding {
    fn good(about: &'static str, sentence: impl Into<String>) -> Self {
        Self::of(Level::Good, about, sentence.into(), None)
    }

    fn note(about: &'static str, sentence: impl Into<String>) -> Self {
        Self::of(Level::Note, about, sentence.into(), None)
    }

    fn warning(about: &'static str, sentence: impl Into<String>, next: impl Into<String>) -> Self {
        Self::of(Level::Warning, about, sentence.into(), Some(next.into()))
    }

    fn fault(about: &'static str, sentence: impl Into<String>, next: impl Into<String>) -> Self {
        Self::of(Level::Fault, about, sentence.into(), Some(next.into()))
    }

    /// An error whose sentence already says what to do.
    fn error(about: &'static str, error: &impl std::fmt::Display) -> Self {
        Self::of(Level::Fault, about, error.to_string(), None)
    }

    fn of(level: Level, about: &'static str, sentence: String, next: Option<String>) -> Self {
        Self {
            level,
            about,
            sentence,
            next,
        }
    }
}

/// Checks everything. Exits with 1 when there is a fault.
pub(super) fn run(environment: &Environment) -> anyhow::Result<ExitCode> {
    let dir = DataDir::new(&environment.data_dir);
    let now_ms = SystemClock.now_ms();
    // Before the node is asked: one that hangs holds its directory and its ports all the same.
    let held = DataDirLock::is_held(&dir);
    let mut findings = Vec::new();
    let known = files::check(&dir, now_ms, &mut findings);
    let client = Client::for_view(&environment.data_dir).ok();
    let asked = client
        .as_ref()
        .map(|client| network::Running::ask(client, &known, held));
    let running = asked.transpose().unwrap_or_else(|other| {
        findings.push(other);
        None
    });
    let running = running.flatten();
    let in_use = held || running.is_some();
    if !in_use {
        files::check_state_file(&dir, &known, &mut findings);
    }
    machine::check(&dir, &known, in_use, &mut findings);
    network::check(&known, running.as_ref(), in_use, &mut findings);
    let faults = findings.iter().filter(|one| one.level == Level::Fault);
    let code = ExitCode::from(u8::from(faults.count() > 0));
    if environment.json {
        output::json(&findings)?;
    } else {
        output::line(describe(&findings));
    }
    Ok(code)
}

fn describe(findings: &[Finding]) -> String {
    let width = findings
        .iter()
        .map(|one| one.about.len())
        .max()
        .unwrap_or(0);
    let mut lines = Vec::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Good => output::green("ok  "),
            Level::Note => output::dim("-   "),
            Level::Warning => output::yellow("look"),
            Level::Fault => output::red("BAD "),
        };
        let about = finding.about;
        let indent = width + 6;
        let mut text = output::wrap(&finding.sentence, indent);
        if let Some(next) = &finding.next {
            let next = output::wrap(&format!("-> {next}"), indent);
            text = format!("{text}\n{:indent$}{next}", "");
        }
        lines.push(format!("{mark} {about:width$} {text}"));
    }
    let count = |level| findings.iter().filter(|one| one.level == level).count();
    let sum = match (count(Level::Fault), count(Level::Warning)) {
        (0, 0) => "nothing is wrong".to_owned(),
        (faults, warnings) => format!("faults: {faults}, to look at: {warnings}"),
    };
    lines.push(sum);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_stay_within_100_columns_and_are_counted() {
        let findings = [
            Finding::good("genesis", "as it should be"),
            Finding::fault("beta", "word ".repeat(60), "step ".repeat(60)),
        ];
        let text = describe(&findings);
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
        assert!(text.ends_with("faults: 1, to look at: 0"), "{text}");
        assert!(describe(&findings[..1]).ends_with("nothing is wrong"));
    }
}
