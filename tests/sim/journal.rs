//! What happened in one run: a hash over every packet and event, the last events as text, and the
//! invariants that were broken.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Events kept as text for a failure's report.
const LINES: usize = 60;

/// The journal of one run.
pub struct Journal {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    trace: blake3::Hasher,
    packets: u64,
    lines: VecDeque<String>,
    violations: Vec<String>,
}

impl Journal {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// Virtual time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A packet that was sent, and whether it will arrive. Its bytes are not part of the trace: TLS
    /// draws its own randomness.
    pub fn packet(&self, from: SocketAddr, to: SocketAddr, length: usize, arrives: bool) {
        let mut note = [0; 40];
        note[..8].copy_from_slice(&(self.elapsed().as_nanos() as u64).to_le_bytes());
        note[8..16].copy_from_slice(&(length as u64).to_le_bytes());
        note[16] = u8::from(arrives);
        for (at, address) in [(17, from), (28, to)] {
            if let std::net::IpAddr::V4(ip) = address.ip() {
                note[at..at + 4].copy_from_slice(&ip.octets());
            }
            note[at + 4..at + 6].copy_from_slice(&address.port().to_le_bytes());
        }
        let mut state = self.state.lock().unwrap();
        state.trace.update(&note);
        state.packets += 1;
    }

    /// Something that a person would want to read.
    pub fn event(&self, text: impl AsRef<str>) {
        let line = format!(
            "{:>12.3} s  {}",
            self.elapsed().as_secs_f64(),
            text.as_ref()
        );
        let mut state = self.state.lock().unwrap();
        state.trace.update(line.as_bytes());
        if state.lines.len() == LINES {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
    }

    /// An invariant is broken.
    pub fn violation(&self, text: impl AsRef<str>) {
        self.event(format!("VIOLATION: {}", text.as_ref()));
        let line = format!("{:.3} s: {}", self.elapsed().as_secs_f64(), text.as_ref());
        self.state.lock().unwrap().violations.push(line);
    }

    pub fn violations(&self) -> Vec<String> {
        self.state.lock().unwrap().violations.clone()
    }

    /// The hash over everything so far.
    pub fn trace(&self) -> blake3::Hash {
        self.state.lock().unwrap().trace.finalize()
    }

    /// How many packets were sent.
    pub fn packets(&self) -> u64 {
        self.state.lock().unwrap().packets
    }

    /// The last events, oldest first.
    pub fn last_events(&self) -> String {
        let state = self.state.lock().unwrap();
        Vec::from_iter(state.lines.iter().cloned()).join("\n")
    }
}
