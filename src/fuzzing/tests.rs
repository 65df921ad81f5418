use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The files in a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_takes_its_seeds() {
    for (name, run) in TARGETS {
        let seeds = files(&folder().join("seeds").join(name));
        assert!(seeds.len() > 1, "{name} has no seeds");
        for seed in seeds {
            let input = std::fs::read(&seed).unwrap();
            // A panic alone does not say which file it was.
            let outcome = std::panic::catch_unwind(|| run(&input));
            assert!(outcome.is_ok(), "{}", seed.display());
        }
    }
}

#[test]
fn every_target_has_its_program_and_seeds() {
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
    let programs: BTreeSet<String> = files(&folder().join("fuzz_targets"))
        .iter()
        .map(stem)
        .collect();
    assert_eq!(programs, names);
    let seeds: BTreeSet<String> = files(&folder().join("seeds")).iter().map(stem).collect();
    assert_eq!(seeds, names);
    for name in &names {
        let program = folder().join("fuzz_targets").join(format!("{name}.rs"));
        let text = std::fs::read_to_string(program).unwrap();
        assert!(
            text.contains(&format!("timed::fuzzing::{name}(input)")),
            "{name}"
        );
    }
}

/// The seeds made from the values of the golden tests are those that are committed.
#[test]
fn the_made_seeds_are_current() {
    for seed in seeds::made() {
        let path = folder().join("seeds").join(seed.target).join(&seed.name);
        let held = std::fs::read(&path).unwrap_or_default();
        assert_eq!(
            held,
            seed.bytes,
            "{}; docs/fuzzing.md says how",
            path.display()
        );
    }
}

#[test]
#[ignore = "writes into the source tree: run it by name after a change of a format"]
fn write_the_made_seeds() {
    for seed in seeds::made() {
        let folder = folder().join("seeds").join(seed.target);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(&seed.name), &seed.bytes).unwrap();
    }
}
