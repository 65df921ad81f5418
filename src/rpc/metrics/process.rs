//! What the operating system tells about this process, from Linux' `/proc`; elsewhere there are no
//! values.

use std::fmt;
use std::fs;

use super::Snapshot;
use super::families::{Families, Labels};

/// Clock ticks in a second in `/proc`: fixed by Linux for user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process at one moment; `None` for what the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessFacts {
    resident_bytes: Option<u64>,
    open_files: Option<u64>,
    max_open_files: Option<u64>,
    cpu_seconds: Option<f64>,
}

impl ProcessFacts {
    pub(super) fn read() -> Self {
        let file = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
        Self {
            resident_bytes: file("status").and_then(|text| resident_bytes(&text)),
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| files.count() as u64),
            max_open_files: file("limits").and_then(|text| max_open_files(&text)),
            cpu_seconds: file("stat").and_then(|text| cpu_seconds(&text)),
        }
    }
}

pub(super) fn describe(node: &Snapshot, to: &mut Families) -> fmt::Result {
    let facts = &node.process;
    let one = |value: Option<u64>| value.map(|value| (Labels::new(), value as f64));
    to.gauges(
        "process_resident_memory_bytes",
        "Memory of this process that is in RAM",
        one(facts.resident_bytes),
    )?;
    to.gauges(
        "process_open_fds",
        "Open files and sockets",
        one(facts.open_files),
    )?;
    to.gauges(
        "process_max_fds",
        "The most open files and sockets that the system allows",
        one(facts.max_open_files),
    )?;
    to.counters(
        "process_cpu_seconds",
        "Processor time used since the start",
        facts.cpu_seconds.map(|value| (Labels::new(), value)),
    )
}

/// The line `VmRSS: N kB` of `status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The soft limit in the line `Max open files` of `limits`.
fn max_open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of `stat`, counted behind the name, which may hold spaces and brackets.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_proc_are_read() {
        let status = "Name:\ttimed\nVmHWM:\t  99 kB\nVmRSS:\t   12345 kB\n";
        assert_eq!(resident_bytes(status), Some(12_345 * 1024));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(max_open_files(limits), Some(1024));
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(resident_bytes("nothing"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_files() {
        let facts = ProcessFacts::read();
        assert!(facts.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(facts.open_files.is_some_and(|files| files >= 3));
        assert!(facts.cpu_seconds.is_some());
    }
}
