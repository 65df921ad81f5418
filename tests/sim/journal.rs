//! What happened in one run: a hash over every packet and event, the last events as text, and the
//! invariants that were broken.
//!
//! The hash does not see the order of what happens at one and the same instant: tokio wakes the
//! waiters of a watch channel in an order that it draws at random, and a stable tokio takes no seed.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::wire::Sent;

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
    /// When the newest notes were taken, and those notes, which are not in the hash yet.
    now: Duration,
    notes: Vec<Vec<u8>>,
    packets: u64,
    lines: VecDeque<String>,
    violations: Vec<String>,
    /// Keys in two places: what they sign twice breaks nothing.
    shared_keys: BTreeSet<String>,
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

    /// A packet that was sent. Its bytes are not part of the trace: TLS draws its own randomness.
    pub fn packet(&self, sent: Sent) {
        let at = self.elapsed();
        let mut note = [0; 40];
        note[..8].copy_from_slice(&(at.as_nanos() as u64).to_le_bytes());
        note[8..16].copy_from_slice(&(sent.bytes as u64).to_le_bytes());
        note[16] = u8::from(sent.arrives);
        for (start, address) in [(17, sent.from), (28, sent.to)] {
            if let IpAddr::V4(ip) = address.ip() {
                note[start..start + 4].copy_from_slice(&ip.octets());
            }
            note[start + 4..start + 6].copy_from_slice(&address.port().to_le_bytes());
        }
        tracing::trace!(?at, ?sent, "packet");
        let mut state = self.state.lock().unwrap();
        state.note(at, note.to_vec());
        state.packets += 1;
    }

    /// Something that a person would want to read.
    pub fn event(&self, text: impl AsRef<str>) {
        let line = format!(
            "{:>12.3} s  {}",
            self.elapsed().as_secs_f64(),
            text.as_ref()
        );
        tracing::debug!("{line}");
        let mut state = self.state.lock().unwrap();
        state.note(self.elapsed(), line.as_bytes().to_vec());
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

    /// From now on two machines have this consensus key, as its `Debug` shows it.
    pub fn share_key(&self, key: String) {
        self.state.lock().unwrap().shared_keys.insert(key);
    }

    pub fn is_shared(&self, key: &str) -> bool {
        self.state.lock().unwrap().shared_keys.contains(key)
    }

    pub fn violations(&self) -> Vec<String> {
        self.state.lock().unwrap().violations.clone()
    }

    /// The hash over everything so far.
    pub fn trace(&self) -> blake3::Hash {
        let mut state = self.state.lock().unwrap();
        state.hash_notes();
        state.trace.finalize()
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

impl State {
    fn note(&mut self, at: Duration, note: Vec<u8>) {
        if at > self.now {
            self.hash_notes();
            self.now = at;
        }
        self.notes.push(note);
    }

    fn hash_notes(&mut self) {
        self.notes.sort_unstable();
        for note in self.notes.drain(..) {
            self.trace.update(&note);
        }
    }
}
