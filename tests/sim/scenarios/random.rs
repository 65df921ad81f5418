//! Faults as the seed draws them, several at once; then everything heals, and all must be well.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use timed::env::Entropy;

use crate::run::scenario;
use crate::wire::{Link, Rate};
use crate::world::{Plan, World};

scenarios! {
    random_faults_end_and_all_is_well,
}

const SECOND: Duration = Duration::from_secs(1);

/// Payments of one run, at most: the world holds so many outputs to spend.
const PAYMENTS: usize = 60;

/// Voting powers: all equal, one that the others hardly do without, and all different.
const POWERS: [&[u64]; 3] = [&[], &[3], &[10, 7, 9, 4, 8, 5, 6, 3, 2]];

/// Everything is drawn: how many masternodes, their powers and links, and a few minutes of faults.
fn random_faults_end_and_all_is_well(seed: u64) {
    let entropy = Entropy::from_seed(*blake3::hash(&seed.to_le_bytes()).as_bytes());
    let mut random = entropy.rng("faults");
    let masternodes = random.random_range(4..=9);
    let plan = Plan {
        powers: POWERS[random.random_range(0..POWERS.len())],
        link: [Link::CLEAN, Link::INTERNET][random.random_range(0..2)],
        ..Plan::new(masternodes)
    };
    scenario(plan, seed, async |world: &mut World| {
        world.start_all().await;
        world.connected_within(30 * SECOND).await;
        // All sign once: a node that never has cannot be told from one that lost its state.
        world.run(12 * SECOND).await;
        let mut storm = Storm::new(masternodes, random);
        for _ in 0..storm.random.random_range(10..=40) {
            storm.one_fault(world).await;
        }
        storm.end(world).await;
    });
}

/// The faults that are going on.
struct Storm {
    random: ChaCha20Rng,
    down: Vec<bool>,
    payments: usize,
}

impl Storm {
    fn new(masternodes: usize, random: ChaCha20Rng) -> Self {
        Self {
            random,
            down: vec![false; masternodes],
            payments: 0,
        }
    }

    /// One more fault, or the end of one, and some time.
    async fn one_fault(&mut self, world: &mut World) {
        let node = self.any();
        let up = !self.down[node];
        match self.random.random_range(0..12) {
            0 if up => {
                world.crash(node);
                self.down[node] = true;
            }
            1 if up => {
                world.stop(node).await;
                self.down[node] = true;
            }
            2 if up => self.power_fails(world, node).await,
            3 if up => {
                let changes = self.random.random_range(0..40);
                let limit = self.seconds(5, 30);
                world.disk_is_full_for(node, changes, limit).await;
                self.down[node] = true;
            }
            4 if up => {
                // At once: its peers have not noticed yet.
                world.crash(node);
                world.start(node).await;
            }
            5 => self.cut(world, node),
            6 => world.heal(),
            7 => self.links(world, node),
            8 => {
                let ms = self.random.random_range(-5_000..=5_000);
                world.skew(node, ms);
            }
            9 if up => self.pay(world, node).await,
            _ => self.one_starts(world).await,
        }
        if self.random.random_bool(0.5) {
            let payer = self.any();
            self.pay(world, payer).await;
        }
        let time = self.seconds(0, 25);
        world.run(time).await;
    }

    /// At any point at which it writes or sends something.
    async fn power_fails(&mut self, world: &mut World, node: usize) {
        let points = world.points(node).len() + self.random.random_range(0..400);
        world.power_fails_after(node, points);
        let limit = self.seconds(1, 60);
        if !world.down_within(node, limit).await {
            world.crash(node);
        }
        self.down[node] = true;
    }

    fn cut(&mut self, world: &mut World, node: usize) {
        let other = (node + self.random.random_range(1..self.down.len())) % self.down.len();
        match self.random.random_range(0..3) {
            0 => world.cut(node, other),
            1 => world.cut_one_way(node, other),
            _ => {
                let groups = self.random.random_range(2..=3);
                let mut parts = vec![Vec::new(); groups];
                for node in world.all() {
                    parts[self.random.random_range(0..groups)].push(node);
                }
                let parts: Vec<&[usize]> = parts.iter().map(Vec::as_slice).collect();
                world.partition(&parts);
            }
        }
    }

    /// A node's links to all others become bad.
    fn links(&mut self, world: &mut World, node: usize) {
        let rates = [None, Some(Rate::mbit_per_s(2, 100))];
        let link = Link {
            delay: Duration::from_millis(self.random.random_range(1..=400)),
            jitter: Duration::from_millis(self.random.random_range(0..=100)),
            loss: self.random.random_range(0..=1_000),
            duplication: self.random.random_range(0..=500),
            reordering: self.random.random_range(0..=500),
            reordering_delay: Duration::from_millis(100),
            rate: rates[self.random.random_range(0..2)],
        };
        world.bad_links(node, link);
    }

    async fn pay(&mut self, world: &mut World, node: usize) {
        if !self.down[node] && self.payments < PAYMENTS {
            self.payments += 1;
            world.pay(node).await;
        }
    }

    async fn one_starts(&mut self, world: &mut World) {
        if let Some(node) = self.down.iter().position(|down| *down) {
            world.start(node).await;
            self.down[node] = false;
        }
    }

    /// Everything heals; the chain goes on, and every node has a part in it.
    async fn end(&mut self, world: &mut World) {
        world.heal();
        world.good_links();
        for node in world.all() {
            world.skew(node, 0);
            if std::mem::take(&mut self.down[node]) {
                world.start(node).await;
            }
        }
        world.connected_within(90 * SECOND).await;
        world.all_sign_within(120 * SECOND).await;
        world.level_within(30 * SECOND).await;
        let healed = world.height(0);
        let payer = self.any();
        world.pay(payer).await;
        world.run(60 * SECOND).await;
        assert!(world.height(0).0 >= healed.0 + 8, "{}", world.height(0));
        world.level_within(10 * SECOND).await;
    }

    fn any(&mut self) -> usize {
        self.random.random_range(0..self.down.len())
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from * 1_000..=to * 1_000))
    }
}
