//! What the node logs, read and changed while it runs.

use serde_json::{Map, Value};

use super::jsonrpc::CallError;

/// The parts whose debug messages `logging` turns on and off, as Bitcoin's categories.
pub(super) const PARTS: [&str; 8] = [
    "chain",
    "consensus",
    "mempool",
    "net",
    "node",
    "rpc",
    "store",
    "sync",
];

/// The log's filter, kept by whoever started the log.
pub trait LogControl: Send + Sync {
    /// What is logged now, such as `info,timed::net=debug`.
    fn filter(&self) -> String;
    /// Changes it until the node stops; gives a sentence when the text is no filter.
    fn set(&self, filter: &str) -> Result<(), String>;
}

/// A filter with the debug messages of some parts added and of others taken away, also from what
/// the filter says of all.
pub(super) fn changed(filter: &str, include: &[&str], exclude: &[&str]) -> String {
    let named = |part: &str| format!("timed::{part}");
    let touched = |directive: &str| {
        let parts = include.iter().chain(exclude);
        let target = directive.split('=').next().unwrap_or(directive);
        parts.into_iter().any(|part| target == named(part))
    };
    let kept = filter.split(',').filter(|directive| !touched(directive));
    let added = include.iter().filter(|part| !exclude.contains(part));
    let added = added.map(|part| format!("{}=debug", named(part)));
    let mut directives: Vec<String> = kept.map(str::to_owned).chain(added).collect();
    let left = shown(&directives.join(","));
    let still = PARTS
        .iter()
        .filter(|part| exclude.contains(part) && left[*part] == true);
    directives.extend(still.map(|part| format!("{}=info", named(part))));
    directives.join(",")
}

/// For each part, whether a filter shows its debug messages.
pub(super) fn shown(filter: &str) -> Value {
    let of = |part: &str| {
        let target = format!("timed::{part}");
        let mut level = "";
        let mut specific = 0;
        for directive in filter.split(',') {
            let (name, one) = directive.split_once('=').unwrap_or(("", directive));
            let applies = name.is_empty() || target == name || name == "timed";
            if applies && name.len() >= specific {
                (level, specific) = (one, name.len());
            }
        }
        matches!(level.to_ascii_lowercase().as_str(), "debug" | "trace")
    };
    let parts: Map<String, Value> = PARTS
        .iter()
        .map(|part| ((*part).to_owned(), Value::Bool(of(part))))
        .collect();
    Value::Object(parts)
}

/// The named parts; `all` and `1` stand for every one, as in Bitcoin.
pub(super) fn parts(names: &[String]) -> Result<Vec<&str>, CallError> {
    let mut parts = Vec::new();
    for name in names {
        match name.as_str() {
            "all" | "1" => parts.extend(PARTS),
            one if PARTS.contains(&one) => parts.push(one),
            other => {
                let all = PARTS.join(", ");
                let other: String = other.chars().take(40).collect();
                let detail = format!("no part {other:?}; there are: all, {all}");
                return Err(CallError::invalid_params(detail));
            }
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_added_once_and_taken_away() {
        let more = changed("info", &["net", "sync"], &[]);
        assert_eq!(more, "info,timed::net=debug,timed::sync=debug");
        assert_eq!(
            changed(&more, &["net"], &[]),
            "info,timed::sync=debug,timed::net=debug"
        );
        assert_eq!(changed(&more, &[], &["net"]), "info,timed::sync=debug");
        assert_eq!(
            changed(&more, &["rpc"], &["rpc", "sync"]),
            "info,timed::net=debug"
        );
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.into())
                .collect::<Vec<String>>()
        };
        assert_eq!(parts(&names(&["all"])).unwrap(), PARTS);
        assert!(
            parts(&names(&["nets"]))
                .unwrap_err()
                .message
                .contains("there are: all, chain")
        );
    }

    #[test]
    fn a_part_is_taken_away_from_what_is_said_of_all() {
        for (all, without) in [
            ("debug", "debug,timed::net=info"),
            ("info,timed=trace", "info,timed=trace,timed::net=info"),
            ("trace,timed::net=debug", "trace,timed::net=info"),
        ] {
            assert_eq!(changed(all, &[], &["net"]), without);
            assert_eq!(shown(without)["net"], false);
            assert_eq!(changed(without, &[], &["net"]), without);
        }
        let back = changed("debug,timed::net=info", &["net"], &[]);
        assert_eq!(shown(&back)["net"], true);
        let all: Vec<&str> = PARTS.to_vec();
        let quiet = changed("debug", &[], &all);
        assert_eq!(shown(&quiet), shown("info"));
    }

    #[test]
    fn what_is_shown_follows_the_most_specific_directive() {
        let shown = shown("info,timed::net=debug,arc_malachitebft_core_consensus=trace");
        assert_eq!(shown["net"], true);
        assert_eq!(shown["consensus"], false);
        let shown = super::shown("debug,timed::net=warn");
        assert_eq!(
            (&shown["net"], &shown["sync"]),
            (&false.into(), &true.into())
        );
        let shown = super::shown("warn,timed=trace");
        assert_eq!(shown["store"], true);
    }
}
