//! A node as its operator sees it: the page, metrics, the doctor's sentences.
#![expect(clippy::unwrap_used, reason = "a step that fails must fail its test")]

mod doctor;
mod methods;
mod site;
mod sync;
mod wallet;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// No step of a test takes so long; what hangs fails.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder in which commands are run.
struct Place {
    root: TempDir,
}

/// What a command did.
struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Done {
    fn json(&self) -> Value {
        let last = self.stdout.lines().next_back().unwrap();
        serde_json::from_str(last).unwrap()
    }
}

impl Place {
    fn new() -> Self {
        Self {
            root: TempDir::new().unwrap(),
        }
    }

    /// Masternodes of one chain, each in the folder of its name.
    fn with_masternodes(masternodes: &[(&str, &str)]) -> Self {
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

    fn install(&self, name: &str) {
        self.must(&format!(
            "genesis install --data-dir {name} --genesis genesis.toml --certs public"
        ));
    }

    /// Copies a node's public files into a folder.
    fn share(&self, name: &str, folder: &str) {
        for suffix in ["masternode.toml", "pem"] {
            let file = format!("{name}.{suffix}");
            let from = self.path(name).join("certs").join(&file);
            std::fs::copy(from, self.path(folder).join(&file)).unwrap();
        }
    }

    fn run(&self, arguments: &str) -> Done {
        let output = Command::new(env!("CARGO_BIN_EXE_timed"))
            .args(arguments.split_whitespace())
            .current_dir(self.root.path())
            .env("HOME", self.root.path())
            .output()
            .unwrap();
        Done {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn must(&self, arguments: &str) -> Done {
        let done = self.run(arguments);
        assert_eq!(done.code, 0, "{arguments}: {}{}", done.stdout, done.stderr);
        done
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Starts the masternode in the folder of its name and waits until it runs.
    fn start(&self, name: &str) -> Running {
        self.start_as(name, &format!("masternode {name}"))
    }

    /// Starts the full node in a folder and waits until it runs.
    fn start_full(&self, name: &str) -> Running {
        self.start_as(name, "full node")
    }

    fn start_as(&self, name: &str, banner_says: &str) -> Running {
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
struct Running(Child);

impl Running {
    fn exit_code(mut self) -> Option<i32> {
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

/// Sends `GET path` to a node's RPC port and gives the connection, with the answer unread.
fn open(address: &str, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// The status, the head and the body of an answer.
fn get(address: &str, path: &str, headers: &str) -> (u16, String, String) {
    let mut answer = String::new();
    open(address, path, headers)
        .read_to_string(&mut answer)
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

/// Sends a body to a node's RPC without its cookie; gives the status and the answer.
fn post(address: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
