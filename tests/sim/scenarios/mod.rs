//! The stories. Each says what happens and what must be true; the invariants of `check` are held
//! throughout every one of them.

mod clocks;
mod genesis;
mod partition;
mod quiet;
mod reach;
mod restart;
mod trace;
