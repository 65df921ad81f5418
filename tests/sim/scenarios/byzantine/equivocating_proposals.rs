//! Proposes two valid blocks in every turn and votes for both. Either everybody is sent both, or
//! every half of the network one of them, each with its votes, and the precommit goes to one node
//! alone: that one may decide by itself, and nobody may decide anything else.

use timed::types::{Block, Height, Round, VoteKind};
use timed::wire::ConsensusMessage;

use super::*;
use crate::puppet::{Agreeable, Behaviour, Stage};
use crate::run::scenario;
use crate::world::Plan;

scenarios! {
    two_proposals_to_everybody_are_evidence_everywhere,
    a_different_block_for_each_half_never_forks,
    two_of_seven_that_propose_to_halves_never_fork,
}

#[derive(Default)]
struct TwoProposals {
    split: bool,
    /// The turns that were taken; votes for their blocks are sent with them.
    taken: Option<(Height, Round)>,
    agreeable: Agreeable,
}

impl Behaviour for TwoProposals {
    fn turn(&mut self, stage: &mut Stage, round: Round, block: Block) {
        // Another time in the same slot leaves everything else as it is.
        let mut other = block.clone();
        other.header.time_ms += 1;
        self.taken = Some((block.header.height, round));
        let halves: [Vec<usize>; 2] = [0, 1].map(|half| {
            let others = stage.others().into_iter();
            others.filter(|to| !self.split || to % 2 == half).collect()
        });
        let (height, alone) = (block.header.height, halves[0][0]);
        for (half, block) in halves.iter().zip([block, other]) {
            stage.propose(half, &block, round);
            let prevote = stage.vote(VoteKind::Prevote, height, round, Some(block.hash()));
            stage.send_all(half, &prevote);
            let precommit = stage.vote(VoteKind::Precommit, height, round, Some(block.hash()));
            match self.split {
                false => stage.send_all(half, &precommit),
                true if half.contains(&alone) => {
                    stage.send(alone, &precommit);
                }
                true => {}
            }
        }
        stage.act();
    }

    fn heard(&mut self, stage: &mut Stage, _from: usize, message: &ConsensusMessage) {
        if let Some((kind, height, round, block)) = self.agreeable.answer(message)
            && self.taken != Some((height, round))
        {
            let vote = stage.vote(kind, height, round, block);
            stage.send_all(&stage.others(), &vote);
        }
    }
}

fn two_proposals_to_everybody_are_evidence_everywhere(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.puppet(2, TwoProposals::default()).await;
        begin(world).await;
        let made = goes_on(world, 300 * SECOND).await;
        assert!(made >= 45, "{made} heights");
        assert!(world.acts(2) >= 10, "{} turns", world.acts(2));
        let sentences = all_hold_evidence(world, &[2]).await;
        let proposals = sentences.iter().any(|one| one.contains("two proposals"));
        assert!(proposals, "{sentences:?}");
    });
}

fn to_halves() -> TwoProposals {
    TwoProposals {
        split: true,
        ..TwoProposals::default()
    }
}

fn a_different_block_for_each_half_never_forks(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.puppet(3, to_halves()).await;
        begin(world).await;
        let made = goes_on(world, 300 * SECOND).await;
        assert!(made >= 40, "{made} heights");
        assert!(world.acts(3) >= 10, "{} turns", world.acts(3));
    });
}

fn two_of_seven_that_propose_to_halves_never_fork(seed: u64) {
    scenario(Plan::new(7), seed, async |world: &mut World| {
        world.puppet(2, to_halves()).await;
        world.puppet(3, to_halves()).await;
        begin(world).await;
        let made = goes_on(world, 240 * SECOND).await;
        assert!(made >= 25, "{made} heights");
        for puppet in [2, 3] {
            assert!(world.acts(puppet) >= 5, "{} turns", world.acts(puppet));
        }
    });
}
