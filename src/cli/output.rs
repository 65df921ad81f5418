//! What people and programs read: tables within 100 columns, or one JSON value.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
pub(super) use timed::types::time::span as duration;

/// The widest line of a table.
const MAX_COLUMNS: usize = 100;

/// Why the standard output takes no more lines, once it does not.
static CLOSED: OnceLock<io::ErrorKind> = OnceLock::new();

/// Prints a line to the standard output. What a command does goes on when nobody reads it any more.
pub(super) fn line(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush());
    if let Err(error) = written
        && CLOSED.set(error.kind()).is_ok()
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("timed: the standard output cannot be written: {error}");
    }
}

/// Whether the standard output takes no more lines.
pub(super) fn is_closed() -> bool {
    CLOSED.get().is_some()
}

/// How a command ended, with what became of its lines. A reader that has gone away had enough; any
/// other reason is a failure, since somebody lacks what was said.
pub(super) fn exit_code(done: ExitCode) -> ExitCode {
    match CLOSED.get() {
        None | Some(io::ErrorKind::BrokenPipe) => done,
        Some(_) => ExitCode::FAILURE,
    }
}

/// Empties the screen of a terminal; elsewhere nothing.
pub(super) fn clear_screen() {
    if io::stdout().is_terminal() {
        line("\x1b[2J\x1b[H");
    }
}

/// Prints a value as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?);
    Ok(())
}

/// Why a command failed, with what a program needs beside the sentence.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub(super) struct Failure {
    pub(super) sentence: String,
    /// An object; "error" is added to it.
    pub(super) facts: Value,
}

/// Prints why a command failed.
pub(super) fn failure(error: &anyhow::Error, as_json: bool) {
    let sentence = sentence(error);
    eprintln!("timed: {sentence}");
    if as_json {
        let failure = error.downcast_ref::<Failure>();
        let mut value = failure.map_or(json!({}), |failure| failure.facts.clone());
        value["error"] = json!(sentence);
        line(value.to_string());
    }
}

/// An error and its causes; a cause that is part of what has been said is not said again.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// Names and values, the values under each other, in as many lines as they need.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = facts
        .iter()
        .map(|(name, value)| format!("{name:width$}  {}", wrap(value, width + 2)));
    lines.collect::<Vec<_>>().join("\n")
}

/// A table: columns as wide as their content; the last one takes as many lines as it needs. The
/// first column is painted, once everything has its place.
pub(super) fn table(header: &[&str], rows: &[Vec<String>], paint: Paint) -> String {
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([header[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let before_last = header.len().saturating_sub(1);
    let indent = widths[..before_last].iter().map(|width| width + 2).sum();
    let line = |row: &[String]| {
        let cells = row[..before_last].iter().zip(&widths);
        let cells = cells.map(|(cell, &width)| format!("{cell:width$}  "));
        let last = row
            .last()
            .map_or_else(String::new, |last| wrap(last, indent));
        let text = cells.collect::<String>() + &last;
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n")
    };
    let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    let mut lines = vec![dim(&line(&header))];
    lines.extend(rows.iter().map(|row| {
        let line = line(row);
        match line.split_at_checked(row[0].len()) {
            Some((first, rest)) => format!("{}{rest}", paint(first)),
            None => line,
        }
    }));
    lines.join("\n")
}

/// Gives a text its colour.
pub(super) type Paint = fn(&str) -> String;

/// A text of at most `width` characters.
pub(super) fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(3)).collect();
    format!("{kept}...")
}

/// A text in lines within the width of a table; all but the first are indented. A word that does not
/// fit behind the indent, such as a hash, stays whole for whoever copies it: it begins further left.
pub(super) fn wrap(text: &str, indent: usize) -> String {
    let width = MAX_COLUMNS.saturating_sub(indent).max(20);
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one from the start");
        if line.is_empty() && columns(word) <= width {
            line.push_str(word);
        } else if !line.is_empty() && columns(line) + 1 + columns(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    let mut wrapped = lines.remove(0);
    for line in &lines {
        let indent = indent.min(MAX_COLUMNS.saturating_sub(columns(line)));
        wrapped += &format!("\n{:indent$}{line}", "");
    }
    wrapped
}

/// How wide a text is on the screen: its colours take no room.
fn columns(text: &str) -> usize {
    let mut in_colour = false;
    let shown = text.chars().filter(|&c| {
        let colour = in_colour || c == '\x1b';
        in_colour = colour && c != 'm';
        !colour
    });
    shown.count()
}

/// Good.
pub(super) fn green(text: &str) -> String {
    coloured(text, "32")
}

/// To look at.
pub(super) fn yellow(text: &str) -> String {
    coloured(text, "33")
}

/// Bad.
pub(super) fn red(text: &str) -> String {
    coloured(text, "1;31")
}

/// Of less weight.
pub(super) fn dim(text: &str) -> String {
    coloured(text, "2")
}

/// Colours are for terminals that have them, and not for people who set NO_COLOR.
fn coloured(text: &str, code: &str) -> String {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let dumb = set("TERM").is_some_and(|term| term == "dumb");
    let wanted = io::stdout().is_terminal() && !dumb && set("NO_COLOR").is_none();
    match wanted {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

/// A duration as a person types it.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time like 500ms, 10s, 2m, 24h or 7d".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = |unit| Duration::from_secs(number.saturating_mul(unit));
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(seconds(1)),
        "m" => Ok(seconds(60)),
        "h" => Ok(seconds(3_600)),
        "d" => Ok(seconds(86_400)),
        _ => Err(wrong()),
    }
}

/// A number of things.
pub(super) fn count(number: impl TryInto<i64>, thing: &str) -> String {
    match number.try_into().unwrap_or(i64::MAX) {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// Bytes for people.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{path}: {source}")]
        struct Unread {
            path: &'static str,
            source: io::Error,
        }
        let unread = Unread {
            path: "i3/certs",
            source: io::Error::from_raw_os_error(17),
        };
        let error = anyhow::Error::from(unread);
        assert_eq!(sentence(&error), "i3/certs: File exists (os error 17)");
        let error = error.context("nothing was installed");
        assert_eq!(
            sentence(&error),
            "nothing was installed: i3/certs: File exists (os error 17)"
        );
    }

    #[test]
    fn one_is_not_many() {
        let shown = [0, 1, 2].map(|number| count(number, "day"));
        assert_eq!(shown, ["0 days", "1 day", "2 days"]);
    }

    #[test]
    fn tables_align_and_stay_within_their_width() {
        let rows = vec![
            vec!["127.0.0.1".into(), "ok".into()],
            vec!["::1".into(), "word ".repeat(30) + &"x".repeat(95)],
            vec!["::2".into(), "y".repeat(95)],
        ];
        let painted = table(&["IP", "WHY"], &rows, |text| format!("<{text}>"));
        assert!(
            painted.contains("\n<127.0.0.1>  ok\n<::1>        word"),
            "{painted}"
        );
        let text = table(&["IP", "WHY"], &rows, str::to_owned);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "IP         WHY");
        assert_eq!(lines[1], "127.0.0.1  ok");
        assert!(lines[3].starts_with("           word word"), "{text}");
        // What does not fit behind the first column is whole, and as far right as it can be.
        assert_eq!(lines[4], format!("     {}", "x".repeat(95)));
        assert_eq!(lines[5..], ["::2", &format!("     {}", "y".repeat(95))]);
        let said = text.split_whitespace();
        assert_eq!(said.filter(|one| *one == "word").count(), 30);
    }

    #[test]
    fn facts_take_as_many_lines_as_they_need_whatever_their_colour() {
        let value = "word ".repeat(30).trim_end().to_owned();
        let red = format!("\x1b[1;31m{value}\x1b[0m");
        assert_eq!((columns(&red), columns("")), (149, 0));
        let plain = facts(&[("a", "b  c".into()), ("long", value)]);
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines[0], "a     b  c");
        assert_eq!(lines.len(), 3);
        assert!(lines[2].starts_with("      word"), "{plain}");
        assert!(lines.iter().all(|line| line.len() <= MAX_COLUMNS));
        let painted = facts(&[("a", "b  c".into()), ("long", red)]);
        assert_eq!(columns(&painted), columns(&plain));
        assert_eq!(painted.lines().count(), 3);
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(9_999), "9999 B");
        assert_eq!(bytes(12_345_678), "12 MB");
    }

    #[test]
    fn typed_durations_have_a_unit() {
        for (text, seconds) in [
            ("10s", 10),
            ("7", 7),
            ("2m", 120),
            ("3h", 10_800),
            ("1d", 86_400),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "s", "-1s", "1.5s", "10w"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
