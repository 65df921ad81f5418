//! Commands as an operator runs them, and nodes that run beside them.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// A folder in which commands are run.
pub struct Place {
    root: TempDir,
}

/// What a command did.
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The JSON value in the last line.
    pub fn json(&self) -> Value {
        let last = self.stdout.lines().next_back().unwrap();
        serde_json::from_str(last).unwrap()
    }

    /// The command failed with one sentence that says this.
    #[track_caller]
    pub fn failed_with(&self, expected: &str) {
        assert_eq!(self.code, 1, "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.starts_with("timed: "), "{}", self.stderr);
        assert!(self.stderr.contains(expected), "{}", self.stderr);
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{}", self.stderr);
    }
}

impl Place {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            root: TempDir::new().unwrap(),
        }
    }

    /// Masternodes of one chain, each in the folder of its name.
    pub fn with_masternodes(masternodes: &[(&str, &str)]) -> Self {
        let place = Self::new();
        std::fs::create_dir(place.path("public")).unwrap();
        for (name, ip) in masternodes {
            place.must(&format!(
                "init --data-dir {name} --network dev --name {name} --ip {ip}"
            ));
            place.share(name, "public");
        }
        place.must("genesis build --certs public --network dev --output genesis.toml");
        for (name, _) in masternodes {
            place.install(name);
        }
        place
    }

    /// Gives a node the chain and everybody's public files.
    pub fn install(&self, name: &str) {
        self.must(&format!(
            "genesis install --data-dir {name} --genesis genesis.toml --certs public"
        ));
    }

    /// Copies a node's public files into a folder.
    pub fn share(&self, name: &str, folder: &str) {
        for suffix in ["masternode.toml", "pem"] {
            let file = format!("{name}.{suffix}");
            let from = self.path(name).join("certs").join(&file);
            std::fs::copy(from, self.path(folder).join(&file)).unwrap();
        }
    }

    /// Runs a command in the folder.
    pub fn run(&self, arguments: &str) -> Done {
        let output = Command::new(env!("CARGO_BIN_EXE_timed"))
            .args(arguments.split_whitespace())
            .current_dir(self.root.path())
            .env("HOME", self.root.path())
            // A proxy is never used.
            .env("http_proxy", "http://127.0.0.1:1")
            .output()
            .unwrap();
        Done {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The same for a command that must not fail.
    #[track_caller]
    pub fn must(&self, arguments: &str) -> Done {
        let done = self.run(arguments);
        assert_eq!(done.code, 0, "{arguments}: {}{}", done.stdout, done.stderr);
        done
    }

    /// Where a file of the folder is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Replaces some text of a file.
    pub fn edit(&self, name: &str, old: &str, new: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(old), "{text}");
        std::fs::write(self.path(name), text.replace(old, new)).unwrap();
    }

    /// Makes a file its owner's alone.
    pub fn closed(&self, name: &str) {
        let owner = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), owner).unwrap();
    }

    /// Starts the masternode in the folder of its name and waits until it runs.
    pub fn start(&self, name: &str) -> Running {
        self.start_as(name, &format!("masternode {name}"))
    }

    /// Starts the full node in a folder and waits until it runs.
    pub fn start_full(&self, name: &str) -> Running {
        self.start_as(name, "full node")
    }

    /// Starts the node in a folder and waits until its first line says what it should.
    pub fn start_as(&self, name: &str, banner_says: &str) -> Running {
        let log = self.path(&format!("{name}.log"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_timed"))
            .args(["run", "--data-dir", name])
            .current_dir(self.root.path())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut banner = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut banner).unwrap();
        let log = std::fs::read_to_string(log).unwrap();
        assert!(banner.contains(banner_says), "{banner}{log}");
        Running(child)
    }
}

/// A running node; killed when it is dropped.
pub struct Running(pub Child);

impl Running {
    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits until it has ended.
    pub fn exit_code(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}
