//! Signs two votes in every slot: one as the others vote, and one against it. Either everybody is sent
//! both, or every node one of them only. Its own proposals are honest, so that its blocks are wanted.

use rand::RngExt;
use timed::types::{Block, BlockHash, Height, Round, VoteKind};
use timed::wire::ConsensusMessage;

use super::*;
use crate::puppet::{Agreeable, Behaviour, Stage};
use crate::run::scenario;
use crate::world::Plan;

scenarios! {
    two_votes_to_everybody_are_evidence_everywhere,
    a_different_vote_for_each_half_stops_nobody,
    three_of_ten_that_vote_twice_stop_nobody,
}

#[derive(Default)]
struct TwoVotes {
    /// Even nodes get the one, odd ones the other.
    split: bool,
    agreeable: Agreeable,
}

impl TwoVotes {
    fn say_both(
        &self,
        stage: &mut Stage,
        kind: VoteKind,
        height: Height,
        round: Round,
        block: Option<BlockHash>,
    ) {
        let contrary = match block {
            Some(_) => None,
            None => Some(BlockHash(stage.random.random())),
        };
        let votes = [block, contrary].map(|block| stage.vote(kind, height, round, block));
        for to in stage.others() {
            if self.split {
                stage.send(to, &votes[to % 2]);
                continue;
            }
            let first = stage.random.random_range(0..2);
            stage.send(to, &votes[first]);
            stage.send(to, &votes[1 - first]);
        }
    }
}

impl Behaviour for TwoVotes {
    fn heard(&mut self, stage: &mut Stage, _from: usize, message: &ConsensusMessage) {
        let Some((kind, height, round, block)) = self.agreeable.answer(message) else {
            return;
        };
        // Its precommits leave with its prevotes: later ones would come after the decision.
        if height < stage.height() || kind == VoteKind::Precommit {
            return;
        }
        for kind in [kind, VoteKind::Precommit] {
            self.say_both(stage, kind, height, round, block);
        }
        stage.act();
    }

    fn turn(&mut self, stage: &mut Stage, round: Round, block: Block) {
        stage.propose(&stage.others(), &block, round);
    }
}

fn two_votes_to_everybody_are_evidence_everywhere(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.puppet(3, TwoVotes::default()).await;
        begin(world).await;
        let made = goes_on(world, 300 * SECOND).await;
        assert!(made >= 55, "{made} heights");
        assert!(world.acts(3) >= 50, "{} slots", world.acts(3));
        let sentences = all_hold_evidence(world, &[3]).await;
        let votes = |of: &str| sentences.iter().any(|one| one.contains(of));
        assert!(
            votes("two prevotes") && votes("two precommits"),
            "{sentences:?}"
        );
    });
}

fn a_different_vote_for_each_half_stops_nobody(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        let behaviour = TwoVotes {
            split: true,
            ..TwoVotes::default()
        };
        world.puppet(0, behaviour).await;
        begin(world).await;
        let made = goes_on(world, 300 * SECOND).await;
        assert!(made >= 55, "{made} heights");
        assert!(world.acts(0) >= 50, "{} slots", world.acts(0));
    });
}

fn three_of_ten_that_vote_twice_stop_nobody(seed: u64) {
    scenario(Plan::new(10), seed, async |world: &mut World| {
        let puppets = [1, 5, 9];
        for (puppet, split) in puppets.into_iter().zip([false, true, false]) {
            let behaviour = TwoVotes {
                split,
                ..TwoVotes::default()
            };
            world.puppet(puppet, behaviour).await;
        }
        begin(world).await;
        let made = goes_on(world, 120 * SECOND).await;
        assert!(made >= 20, "{made} heights");
        all_hold_evidence(world, &[1, 9]).await;
    });
}
