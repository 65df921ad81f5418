//! A deterministic simulation of complete nodes: a network in memory, virtual time, disks that lose
//! unsynced writes, everything drawn from one seed. See `docs/simulation.md`.
//!
//! - `wire`, `disk`, `world`: the network, the disks, the nodes and the faults;
//! - `power`: a machine's power, which can fail at any point at which something is written or sent;
//! - `puppet`: masternodes that do not keep the rules;
//! - `journal`, `check`, `signatures`, `run`: the trace, the invariants, and how a scenario is run and
//!   repeated;
//! - `scenarios`: one short story per test.

#![expect(clippy::unwrap_used, reason = "this is a test, helpers included")]

mod check;
mod disk;
mod journal;
mod power;
mod puppet;
mod run;
mod scenarios;
mod signatures;
mod wire;
mod world;

/// Whether the largest stories have their full size.
const FULL_SIZES: bool = cfg!(not(debug_assertions));
