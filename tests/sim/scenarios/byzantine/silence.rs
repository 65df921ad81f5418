//! Is connected, answers pings, serves sync, and says nothing, neither to everybody nor, in the
//! selective form, to all but one.

use timed::types::{Block, Round};
use timed::wire::ConsensusMessage;

use super::*;
use crate::puppet::{Agreeable, Behaviour, Stage};
use crate::run::scenario;
use crate::world::Plan;

scenarios! {
    a_silent_masternode_costs_its_own_rounds_only,
    two_silent_of_seven_cost_their_own_rounds_only,
    a_masternode_that_talks_to_one_only_stops_nobody,
}

struct Silent;

impl Behaviour for Silent {
    fn turn(&mut self, stage: &mut Stage, _round: Round, _block: Block) {
        stage.act();
    }
}

/// Talks to one masternode as an honest one would, and to nobody else.
struct TalksTo {
    friend: usize,
    agreeable: Agreeable,
}

impl Behaviour for TalksTo {
    fn heard(&mut self, stage: &mut Stage, _from: usize, message: &ConsensusMessage) {
        if let Some((kind, height, round, block)) = self.agreeable.answer(message) {
            stage.send(self.friend, &stage.vote(kind, height, round, block));
        }
    }

    fn turn(&mut self, stage: &mut Stage, round: Round, block: Block) {
        stage.propose(&[self.friend], &block, round);
        stage.act();
    }
}

fn a_silent_masternode_costs_its_own_rounds_only(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.puppet(1, Silent).await;
        begin(world).await;
        let from = world.height(0).next();
        let made = goes_on(world, 300 * SECOND).await;
        assert!(made >= 50, "{made} heights");
        assert!(world.acts(1) >= 10, "{} turns", world.acts(1));
        let latest = world.latest_round(0, from, world.height(0)).await;
        assert_eq!(latest, Round(1), "the round after its own");
    });
}

fn two_silent_of_seven_cost_their_own_rounds_only(seed: u64) {
    scenario(Plan::new(7), seed, async |world: &mut World| {
        world.puppet(4, Silent).await;
        world.puppet(5, Silent).await;
        begin(world).await;
        let from = world.height(0).next();
        let made = goes_on(world, 300 * SECOND).await;
        assert!(made >= 40, "{made} heights");
        let latest = world.latest_round(0, from, world.height(0)).await;
        assert_eq!(latest, Round(2), "the round after both of theirs");
    });
}

fn a_masternode_that_talks_to_one_only_stops_nobody(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        let behaviour = TalksTo {
            friend: 0,
            agreeable: Agreeable::default(),
        };
        world.puppet(2, behaviour).await;
        begin(world).await;
        let made = goes_on(world, 300 * SECOND).await;
        assert!(made >= 45, "{made} heights");
        assert!(world.acts(2) >= 10, "{} turns", world.acts(2));
    });
}
