//! Machines whose power fails at a chosen point, or whose disk fills up.

use super::*;
use crate::disk::Fate;
use crate::power::Point;

impl World {
    /// The points that a node has passed since its start.
    pub fn points(&self, node: usize) -> Vec<Point> {
        self.running(node).power.passed()
    }

    /// A machine's power fails once it has passed so many points since its start.
    pub fn power_fails_after(&mut self, node: usize, points: usize) {
        let text = format!("{} is to lose power after point {points}", name(node));
        self.journal.event(text);
        self.running(node).power.fail_after(points);
    }

    /// Waits until a machine's power has failed, and takes it down; false when it does not happen
    /// within `limit`.
    pub async fn down_within(&mut self, node: usize, limit: Duration) -> bool {
        let power = self.running(node).power.clone();
        let failed = timeout(limit, power.failed()).await.is_ok();
        if failed {
            self.crash(node);
        }
        failed
    }

    /// A machine's disk takes so many more changes and then says that it is full. Waits for its
    /// node's end; a node that writes nothing within `limit` is stopped. Then there is room again.
    pub async fn disk_is_full_for(&mut self, node: usize, changes: usize, limit: Duration) {
        let text = format!("the disk of {} takes {changes} more changes", name(node));
        self.journal.event(text);
        let disk = self.machines[node].disk.clone();
        disk.fail_after(changes, ErrorKind::StorageFull);
        let mut running = self.take(node);
        let ended = match timeout(limit, running.node.wait()).await {
            Ok(ended) => format!("{ended:?}"),
            Err(_) => "it wrote nothing".into(),
        };
        self.journal
            .event(format!("{} is down: {ended}", name(node)));
        running.power.cut();
        self.machines[node].disk = disk.after_crash(|_| Fate::Kept);
    }

    /// What a machine's disk holds.
    pub fn disk(&self, node: usize) -> Disk {
        self.machines[node].disk.clone()
    }

    /// A machine that does not run gets an older disk, and keeps its small files.
    pub fn restore(&mut self, node: usize, image: &Disk) {
        let machine = &mut self.machines[node];
        assert!(machine.running.is_none(), "{} runs", name(node));
        machine.disk = Disk::with(image.content());
    }

    /// The same without `consensus.state`; its operator may force it to sign.
    pub fn forget(&mut self, node: usize, image: &Disk, unsafe_sign: bool) {
        self.restore(node, image);
        let machine = &mut self.machines[node];
        machine.consensus_state = FileInMemory::default();
        machine.unsafe_sign = unsafe_sign;
    }
}
