//! Masternodes that break the rules.

use super::*;
use crate::consensus::book::Evidence;
use crate::types::{Proposal, RoundCertificate, Vote, codec};

const ALL: [usize; 4] = [0, 1, 2, 3];
const POWERS: [u64; 4] = [10, 20, 30, 40];

#[tokio::test(start_paused = true)]
async fn equivocating_votes_are_stored_as_evidence_and_counted() {
    let mut world = World::started(&POWERS).await;
    world.reach(&ALL, 3, 20).await;
    let height = world.status(1).height;
    for block in [3, 4] {
        let vote = Vote::sign(
            &key(0),
            &world.genesis.hash(),
            VoteKind::Prevote,
            height,
            Round(5),
            Some(BlockHash([block; 32])),
        );
        world.inject(0, 1, ConsensusMessage::Vote(vote));
    }
    world
        .until("evidence", 2, |world| world.status(1).evidence == 1)
        .await;
    let stored = world.nodes[1].ports.disk.lock().unwrap().evidence[0].clone();
    let evidence: Evidence = codec::decode(&stored).unwrap();
    let sentence = evidence.sentence(&ValidatorSet::from_genesis(&world.genesis));
    assert!(
        sentence.starts_with("node-0 signed two prevotes at height"),
        "{sentence}"
    );
    world.reach(&ALL, 10, 60).await;
    // A restart still knows.
    world.kill(1);
    world.start(1).await;
    world
        .until("the count", 1, |world| world.status(1).evidence == 1)
        .await;
}

#[tokio::test(start_paused = true)]
async fn evidence_that_comes_again_after_a_restart_is_counted_once() {
    let mut world = World::started(&POWERS).await;
    world.reach(&ALL, 3, 20).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let height = world.status(1).height;
    for _ in 0..2 {
        world.kill(1);
        world.start(1).await;
        for block in [3, 4] {
            let block = Some(BlockHash([block; 32]));
            let (kind, genesis) = (VoteKind::Prevote, world.genesis.hash());
            let vote = Vote::sign(&key(0), &genesis, kind, height, Round(5), block);
            world.inject(0, 1, ConsensusMessage::Vote(vote));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let status = world.status(1);
        assert_eq!((status.height, status.evidence), (height, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn two_proposals_of_one_round_are_evidence_and_the_chain_goes_on() {
    let mut world = World::started(&POWERS).await;
    world.reach(&ALL, 3, 20).await;
    let validators = ValidatorSet::from_genesis(&world.genesis);
    let height = world.status(1).height;
    let proposer = validators.proposer(height, Round(1)).key;
    let (index, _) = validators.get(&proposer).unwrap();
    let victim = (index + 1) % 4;
    for block in [3, 4] {
        let proposal = Proposal::sign(
            &key(index),
            &world.genesis.hash(),
            height,
            Round(1),
            BlockHash([block; 32]),
            None,
        );
        world.inject(index, victim, ConsensusMessage::Proposal(proposal));
    }
    world
        .until("evidence", 2, |world| world.status(victim).evidence == 1)
        .await;
    world.reach(&ALL, 10, 60).await;
}

#[tokio::test(start_paused = true)]
async fn an_invalid_block_costs_its_proposer_the_round() {
    let mut world = World::new(&POWERS);
    *world.nodes[2].ports.make_invalid.lock().unwrap() = true;
    for node in ALL {
        world.start(node).await;
    }
    world.reach(&ALL, 12, 120).await;
    world.assert_agreement();
    let byzantine = ConsensusKey::from(&key(2));
    let blocks = world.blocks(0);
    assert!(
        blocks
            .iter()
            .all(|block| block.header.proposer != byzantine)
    );
    let blamed = world.status(0).blamed;
    assert!(
        matches!(&blamed[..], [one] if one.name == "node-2" && one.last.contains("an invalid block")),
        "{blamed:?}"
    );
}

/// The body of a block that nobody proposed, and a stripped body of one that somebody did, must not
/// stall anything.
#[tokio::test(start_paused = true)]
async fn bodies_that_nothing_names_do_not_stall_the_chain() {
    let mut world = World::started(&POWERS).await;
    world.reach(&ALL, 3, 20).await;
    for round in 0..20 {
        let height = world.status(1).height;
        let ports = world.nodes[0].ports.clone();
        let block = ports
            .build_block((&key(0)).into(), world.genesis.time_ms + 1, 1_000)
            .await
            .unwrap();
        let header = BodyHeader {
            height,
            round: Round(round % 3),
            block: block.hash(),
        };
        let bytes = codec::encode(&block);
        for to in [1, 2, 3] {
            let mut mesh = world.mesh.lock().unwrap();
            mesh.send_body(0, node_ip(to), header, &bytes);
        }
        world.reach(&ALL, height.0, 20).await;
    }
    assert_eq!(world.status(1).highest_round, Round(0));
}

#[tokio::test(start_paused = true)]
async fn rubbish_neither_stops_nor_enters_a_node() {
    let mut world = World::started(&POWERS).await;
    world.reach(&ALL, 3, 20).await;
    let genesis = world.genesis.hash();
    let stranger = SigningKey::from_bytes(&[77; 32]);
    for number in 0..200u32 {
        let height = Height(world.status(1).height.0 + u64::from(number % 4));
        let block = Some(BlockHash([number as u8; 32]));
        let kind = VoteKind::Precommit;
        let mut forged = Vote::sign(&key(0), &genesis, kind, height, Round(number), block);
        forged.signature.0[5] ^= 1;
        let foreign = Vote::sign(&stranger, &genesis, kind, height, Round(0), block);
        let huge = Vote::sign(&key(0), &genesis, kind, height, Round(u32::MAX), block);
        let not_its_turn = Proposal::sign(
            &key(0),
            &genesis,
            height,
            Round(number % 5),
            BlockHash([1; 32]),
            Some(Round(number)),
        );
        let empty = RoundCertificate {
            height,
            round: Round(number),
            precommit: true,
            votes: Vec::new(),
        };
        let weak = CommitCertificate {
            height,
            round: Round(0),
            block: BlockHash([1; 32]),
            signatures: vec![(forged.voter, forged.signature)],
        };
        for message in [
            ConsensusMessage::Vote(forged),
            ConsensusMessage::Vote(foreign),
            ConsensusMessage::Vote(huge),
            ConsensusMessage::Proposal(not_its_turn),
            ConsensusMessage::Round(empty),
            ConsensusMessage::Commit(weak),
            ConsensusMessage::GetBody {
                height,
                block: BlockHash([9; 32]),
            },
        ] {
            world.inject(0, 1, message);
        }
    }
    world
        .until("the blame", 2, |world| {
            let blamed = world.status(1).blamed;
            matches!(&blamed[..], [one] if one.name == "node-0" && one.count >= 64)
        })
        .await;
    // Node 1 no longer hears node 0; it goes on with what the others pass on.
    world.reach(&ALL, 15, 60).await;
    world.assert_agreement();
}

#[tokio::test(start_paused = true)]
async fn votes_for_rounds_far_ahead_are_not_kept_even_when_the_own_key_signed_them() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 3, 20).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (height, genesis) = (world.status(1).height, world.genesis.hash());
    for voter in [0, 1] {
        for round in (1_000..1_200).chain([9]) {
            let kind = VoteKind::Prevote;
            let vote = Vote::sign(&key(voter), &genesis, kind, height, Round(round), None);
            world.inject(2, 1, ConsensusMessage::Vote(vote));
        }
    }
    world
        .until("the stop", 1, |world| world.status(1).not_signing.is_some())
        .await;
    // A peer that connects is given what is held of both keys.
    let (given, seen) = std::sync::mpsc::channel();
    world.filter(move |from, to, message| {
        if let Some(ConsensusMessage::Vote(vote)) = message
            && from == 1
            && to == 0
        {
            given.send((vote.voter, vote.round)).unwrap();
        }
        true
    });
    world.cut(0, 1);
    world.mend(0, 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.status(1).height, height);
    let rounds: std::collections::BTreeSet<_> = seen.try_iter().collect();
    let expected = [0, 1].map(|voter| (ConsensusKey::from(&key(voter)), Round(9)));
    assert_eq!(rounds, expected.into());
}
