//! Proposes blocks whose bodies are wrong, one way after the other: none at all, the body of another
//! block, transactions that the header does not name, bytes that are no block, megabytes of them, a
//! block whose state is wrong, one of another proposer, one of the future.

use timed::types::{Block, Round, StateCommitment, VoteKind};
use timed::wire::BodyHeader;

use super::*;
use crate::puppet::{Behaviour, Stage, bogus_transaction};
use crate::run::scenario;
use crate::world::Plan;

scenarios! {
    bogus_bodies_cost_their_proposer_its_rounds,
    bogus_bodies_of_two_of_seven_stop_nobody,
}

/// How many ways there are.
const WAYS: u64 = 8;

#[derive(Default)]
struct Bogus {
    turns: u64,
}

impl Behaviour for Bogus {
    fn turn(&mut self, stage: &mut Stage, round: Round, mut block: Block) {
        let to = stage.others();
        let height = block.header.height;
        let way = self.turns % WAYS;
        self.turns += 1;
        match way {
            5 => block.header.state = StateCommitment([5; 32]),
            6 => block.header.proposer = timed::types::ConsensusKey([6; 32]),
            7 => block.header.time_ms += 60_000,
            _ => {}
        }
        let header = BodyHeader {
            height,
            round,
            block: block.hash(),
        };
        stage.send_all(&to, &stage.proposal(&block, round));
        let prevote = stage.vote(VoteKind::Prevote, height, round, Some(block.hash()));
        stage.send_all(&to, &prevote);
        let bytes = match way {
            0 => None,
            1 => {
                let mut other = block.clone();
                other.header.time_ms += 1;
                Some(timed::types::codec::encode(&other))
            }
            2 => {
                let mut padded = block.clone();
                padded.transactions.push(bogus_transaction(self.turns));
                Some(timed::types::codec::encode(&padded))
            }
            3 => Some(vec![0xff; 300]),
            4 => Some(vec![0; 3_900_000]),
            _ => Some(timed::types::codec::encode(&block)),
        };
        for to in to {
            if let Some(bytes) = &bytes {
                stage.send_bytes(to, header, bytes.clone());
            }
        }
        stage.act();
    }
}

fn bogus_bodies_cost_their_proposer_its_rounds(seed: u64) {
    scenario(Plan::new(4), seed, async |world: &mut World| {
        world.puppet(2, Bogus::default()).await;
        begin(world).await;
        let made = goes_on(world, 400 * SECOND).await;
        assert!(made >= 60, "{made} heights");
        assert!(world.acts(2) >= WAYS, "{} turns", world.acts(2));
    });
}

fn bogus_bodies_of_two_of_seven_stop_nobody(seed: u64) {
    scenario(Plan::new(7), seed, async |world: &mut World| {
        for puppet in [0, 1] {
            world.puppet(puppet, Bogus::default()).await;
        }
        begin(world).await;
        let made = goes_on(world, 300 * SECOND).await;
        assert!(made >= 35, "{made} heights");
        for puppet in [0, 1] {
            assert!(world.acts(puppet) >= 5, "{} turns", world.acts(puppet));
        }
    });
}
