//! All new files of a step or none.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{SetupError, failed};
use crate::node::keys;

/// What a step has created; removed again when it is dropped before the step is complete. What cannot
/// be removed is named by the next run, which refuses to overwrite it.
#[derive(Default)]
pub(super) struct Created {
    files: Vec<PathBuf>,
    /// The outer ones first.
    folders: Vec<PathBuf>,
}

impl Created {
    /// Makes a folder that only its owner may enter, and those above it; what exists is left as it is.
    pub(super) fn folder(&mut self, path: &Path) -> Result<(), SetupError> {
        let missing = path.ancestors().take_while(|folder| {
            // The empty path is the present folder.
            !folder.as_os_str().is_empty() && !folder.exists()
        });
        let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        for folder in missing.into_iter().rev() {
            let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
            made.map_err(failed(&folder))?;
            self.folders.push(folder);
        }
        Ok(())
    }

    /// Writes a new file that only its owner may read.
    pub(super) fn secret(&mut self, path: PathBuf, content: &str) -> Result<(), SetupError> {
        let written = keys::write_new(&path, content, 0o600);
        self.add(path, written)
    }

    /// Writes a new file that everyone may read.
    pub(super) fn public(&mut self, path: PathBuf, content: &str) -> Result<(), SetupError> {
        let written = keys::write_new(&path, content, 0o644);
        self.add(path, written)
    }

    fn add(&mut self, path: PathBuf, written: io::Result<()>) -> Result<(), SetupError> {
        written.map_err(failed(&path))?;
        self.files.push(path);
        Ok(())
    }

    /// The step is complete: everything stays. Gives the files.
    pub(super) fn keep(mut self) -> Vec<PathBuf> {
        self.folders.clear();
        std::mem::take(&mut self.files)
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        for file in self.files.iter().rev() {
            std::fs::remove_file(file).ok();
        }
        for folder in self.folders.iter().rev() {
            // Not one in which somebody else has put something meanwhile.
            std::fs::remove_dir(folder).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_step_leaves_what_was_there_before() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        let mut created = Created::default();
        created.folder(&folder).unwrap();
        created.secret(folder.join("key"), "secret").unwrap();
        let again = created.public(folder.join("key"), "other");
        assert!(matches!(again, Err(SetupError::Io { path, .. }) if path.ends_with("a/b/key")));
        std::fs::write(root.path().join("a/foreign"), "mine").unwrap();
        drop(created);
        assert!(!folder.exists() && root.path().join("a/foreign").exists());

        let mut created = Created::default();
        created.folder(&folder).unwrap();
        created.public(folder.join("record"), "public").unwrap();
        assert_eq!(created.keep(), [folder.join("record")]);
        assert!(folder.join("record").exists());
    }
}
