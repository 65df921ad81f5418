//! The binary: parses the command line and does what it says.

mod cli;

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Gives what a burst took back to the system within seconds; glibc's keeps it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
