//! Votes as the others do, but up to eight seconds late: most of its votes come in a later round or
//! after their height was decided.

use std::collections::BTreeMap;

use rand::RngExt;
use timed::wire::ConsensusMessage;

use super::*;
use crate::puppet::{Agreeable, Behaviour, Stage};
use crate::run::scenario;
use crate::world::Plan;

scenarios! {
    late_votes_stop_nobody,
    late_votes_of_three_of_ten_stop_nobody,
}

#[derive(Default)]
struct Late {
    /// What is sent when; the number tells apart what is sent at one time.
    waiting: BTreeMap<(Instant, u64), ConsensusMessage>,
    number: u64,
    agreeable: Agreeable,
}

impl Behaviour for Late {
    fn heard(&mut self, stage: &mut Stage, _from: usize, message: &ConsensusMessage) {
        if let Some((kind, height, round, block)) = self.agreeable.answer(message) {
            let at = Instant::now() + SECOND * stage.random.random_range(0..=8);
            let vote = stage.vote(kind, height, round, block);
            self.number += 1;
            self.waiting.insert((at, self.number), vote);
        }
    }

    fn tick(&mut self, stage: &mut Stage) {
        while let Some(first) = self.waiting.first_entry()
            && first.key().0 <= Instant::now()
        {
            let vote = first.remove();
            if let ConsensusMessage::Vote(vote) = &vote
                && vote.height < stage.height()
            {
                stage.act();
            }
            stage.send_all(&stage.others(), &vote);
        }
    }
}

fn late_votes_stop_nobody(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.puppet(3, Late::default()).await;
        begin(world).await;
        let made = goes_on(world, 300 * SECOND).await;
        assert!(made >= 50, "{made} heights");
        assert!(world.acts(3) >= 50, "{} late votes", world.acts(3));
    });
}

fn late_votes_of_three_of_ten_stop_nobody(seed: u64) {
    scenario(Plan::new(10), seed, async |world: &mut World| {
        for puppet in [0, 1, 2] {
            world.puppet(puppet, Late::default()).await;
        }
        begin(world).await;
        let made = goes_on(world, 120 * SECOND).await;
        assert!(made >= 15, "{made} heights");
    });
}
