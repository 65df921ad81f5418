//! Sends everything that it ever heard again: votes, proposals and certificates of others, among them
//! those of the receiver itself, of this height and of old ones. Nodes restart meanwhile.

use std::collections::VecDeque;

use rand::RngExt;
use timed::wire::ConsensusMessage;

use super::*;
use crate::puppet::{Behaviour, Stage};
use crate::run::scenario;
use crate::world::Plan;

scenarios! {
    replayed_messages_neither_stop_nor_mislead_anybody,
    a_node_that_restarts_among_replayed_messages_goes_on_signing,
}

/// Messages kept, and messages sent again in a tick of 100 ms.
const KEPT: usize = 2_000;
const SENT: usize = 5;

#[derive(Default)]
struct Replay {
    heard: VecDeque<ConsensusMessage>,
}

impl Behaviour for Replay {
    fn heard(&mut self, _stage: &mut Stage, _from: usize, message: &ConsensusMessage) {
        if self.heard.len() == KEPT {
            self.heard.pop_front();
        }
        self.heard.push_back(message.clone());
    }

    fn tick(&mut self, stage: &mut Stage) {
        for _ in 0..SENT.min(self.heard.len()) {
            // Newer ones more often.
            let age = stage.random.random_range(0..self.heard.len());
            let age = stage.random.random_range(0..=age);
            let message = self.heard[self.heard.len() - 1 - age].clone();
            stage.send_all(&stage.others(), &message);
            stage.act();
        }
    }
}

fn replayed_messages_neither_stop_nor_mislead_anybody(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.puppet(1, Replay::default()).await;
        begin(world).await;
        let made = goes_on(world, 300 * SECOND).await;
        assert!(made >= 50, "{made} heights");
        assert!(world.acts(1) >= 5_000, "{} messages", world.acts(1));
        for node in world.honest() {
            assert_eq!(world.consensus(node).not_signing, None);
        }
    });
}

/// Its own votes from before a crash come back to it: it knows them from its log.
fn a_node_that_restarts_among_replayed_messages_goes_on_signing(seed: u64) {
    scenario(Plan::new(7), seed, async |world: &mut World| {
        world.puppet(2, Replay::default()).await;
        world.puppet(6, Replay::default()).await;
        begin(world).await;
        for node in [0, 1, 3] {
            world.run(30 * SECOND).await;
            world.crash(node);
            world.run(5 * SECOND).await;
            world.start(node).await;
            world.connected_within(90 * SECOND).await;
            world.level_within(30 * SECOND).await;
            assert_eq!(world.consensus(node).not_signing, None);
        }
        world.pay(0).await;
    });
}
