//! Who may import whom: the order of the modules is a rule, not a habit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Module and what it may import besides itself, `env` and `types`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("env", &[]),
    ("types", &[]),
    ("wire", &[]),
    ("ledger", &[]),
    ("store", &["ledger"]),
    ("net", &["wire"]),
    ("chain", &["ledger", "store"]),
    ("mempool", &["wire", "ledger", "net", "chain"]),
    ("sync", &["wire", "net", "chain"]),
    ("consensus", &["wire", "net", "chain", "mempool", "store"]),
    (
        "rpc",
        &["wire", "net", "chain", "mempool", "sync", "consensus"],
    ),
    ("config", &["wire", "net", "rpc"]),
    (
        "node",
        &[
            "wire",
            "ledger",
            "store",
            "net",
            "chain",
            "mempool",
            "sync",
            "consensus",
            "rpc",
            "config",
        ],
    ),
    (
        "cli",
        &[
            "wire",
            "ledger",
            "store",
            "net",
            "chain",
            "mempool",
            "sync",
            "consensus",
            "rpc",
            "config",
            "node",
        ],
    ),
];

/// External crates that only one module may name.
const OWNED_CRATES: &[(&str, &str)] = &[
    ("redb", "store"),
    ("quinn", "net"),
    ("quinn_proto", "net"),
    ("rustls", "net"),
    ("rcgen", "net"),
    ("bincode", "types"),
    ("axum", "rpc"),
    ("hyper", "rpc"),
    ("hyper_util", "rpc"),
    ("futures_core", "rpc"),
    ("prometheus_client", "rpc"),
    ("clap", "cli"),
    ("clap_complete", "cli"),
    ("rustix", "cli"),
    ("ureq", "cli"),
    ("arc_malachitebft_core_consensus", "consensus"),
    ("arc_malachitebft_core_types", "consensus"),
];

#[test]
fn modules_import_only_downwards() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module.as_str();
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: module {module} has no rule", source.path));
            continue;
        };
        for imported in imported_modules(&source.code) {
            let free = [module, "env", "types"].contains(&imported.as_str());
            if !free && !allowed.contains(&imported.as_str()) {
                wrong.push(format!("{}: {module} imports {imported}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_large_dependency_has_one_user() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module.as_str();
        for (name, owner) in OWNED_CRATES {
            let path = format!("{name}::");
            let named = source.code.match_indices(&path).any(|(at, _)| {
                let before = source.code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            if named && module != *owner {
                wrong.push(format!("{}: {module} names {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_in_every_form() {
    let code =
        "use crate::chain::Chain; use crate::{net::{A, b}, store, types::X}; crate::rpc::f()";
    let found: Vec<String> = imported_modules(code).into_iter().collect();
    assert_eq!(found, ["chain", "net", "rpc", "store", "types"]);
}

/// A source file without its comment lines.
struct Source {
    module: String,
    path: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "the sources were not found");
    files
        .into_iter()
        .filter(|file| !is_test(file.strip_prefix(&root).expect("files lie below the root")))
        .filter_map(|file| {
            let inside = file.strip_prefix(&root).expect("files lie below the root");
            let first = inside.components().next().expect("a file has a name");
            let module = first.as_os_str().to_string_lossy().replace(".rs", "");
            let text = std::fs::read_to_string(&file).expect("sources are readable");
            let code: Vec<&str> = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            (module != "lib" && module != "main").then(|| Source {
                module,
                path: inside.display().to_string(),
                code: code.join("\n"),
            })
        })
        .collect()
}

/// A module's tests and fuzz targets may use what the module may not: no node is built with them.
fn is_test(file: &Path) -> bool {
    let apart = ["tests", "fuzzing"];
    let stem = file.file_stem().unwrap_or_default();
    let mut parts = file.components().map(|part| part.as_os_str());
    apart.iter().any(|name| stem == *name)
        || parts.any(|part| apart.iter().any(|name| part == *name))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the entry is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The top-level modules that code names through `crate::`, groups included.
fn imported_modules(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        for name in path_heads(after) {
            let word: String = name
                .trim()
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            if !word.is_empty() {
                found.insert(word);
            }
        }
    }
    found
}

/// The first segments after `crate::`: one, or the members of a group at its own depth.
fn path_heads(after: &str) -> Vec<&str> {
    let Some(group) = after.strip_prefix('{') else {
        return vec![after];
    };
    let (mut depth, mut start, mut heads) = (1, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (c == ',' && depth == 1) {
            heads.push(&group[start..at]);
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    heads
}
