//! Masternodes that break the rules.

use super::fakes::HEAVY_STATE;
use super::*;
use crate::consensus::book::Evidence;
use crate::types::vote::RoundVote;
use crate::types::{PolkaCertificate, Proposal, RoundCertificate, Vote, codec};

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

/// Certificates that all but the first masternode of four of equal power have signed, round
/// certificates of both kinds among them; the last vote may be another's.
fn certificates(world: &World, block: BlockHash) -> Vec<ConsensusMessage> {
    let (height, round) = (Height(world.height(0) + 1), Round(5));
    let (genesis, mut signers) = (world.genesis.hash(), [1, 2, 3].map(key));
    signers.sort_by_key(|key| ConsensusKey::from(key));
    let votes = |kind| {
        let sign = |key| Vote::sign(key, &genesis, kind, height, round, Some(block));
        signers.iter().map(sign).collect::<Vec<Vote>>()
    };
    let signatures = |kind| {
        votes(kind)
            .iter()
            .map(|one| (one.voter, one.signature))
            .collect()
    };
    let entered = |kind| {
        let in_certificate = |vote: &Vote| RoundVote {
            kind: vote.kind,
            block: vote.block,
            voter: vote.voter,
            signature: vote.signature,
        };
        ConsensusMessage::Round(RoundCertificate {
            height,
            round,
            precommit: kind == VoteKind::Precommit,
            votes: votes(kind).iter().map(in_certificate).collect(),
        })
    };
    vec![
        ConsensusMessage::Polka(PolkaCertificate {
            height,
            round,
            block,
            signatures: signatures(VoteKind::Prevote),
        }),
        entered(VoteKind::Prevote),
        entered(VoteKind::Precommit),
        ConsensusMessage::Commit(CommitCertificate {
            height,
            round,
            block,
            signatures: signatures(VoteKind::Precommit),
        }),
    ]
}

/// A world at rest before its next height, whose nodes hear no longer of each other.
async fn at_rest() -> World {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 3, 20).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.filter(|_, _, _| false);
    world
}

#[tokio::test(start_paused = true)]
async fn a_vote_that_only_a_certificate_holds_is_compared_with_what_its_voter_says() {
    for certificate in 0..4 {
        for certificate_first in [false, true] {
            let mut world = at_rest().await;
            let certificate = certificates(&world, BlockHash([3; 32])).remove(certificate);
            let (height, genesis) = (Height(world.height(0) + 1), world.genesis.hash());
            let said = [VoteKind::Prevote, VoteKind::Precommit].map(|kind| {
                let vote = Vote::sign(&key(2), &genesis, kind, height, Round(5), None);
                ConsensusMessage::Vote(vote)
            });
            let mut messages: Vec<ConsensusMessage> = said.into();
            let at = if certificate_first { 0 } else { messages.len() };
            messages.insert(at, certificate.clone());
            for message in messages {
                world.inject(3, 0, message);
            }
            let found = |world: &World| world.status(0).evidence == 1;
            world.until(&format!("{certificate:?}"), 1, found).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_vote_of_the_own_key_in_a_certificate_stops_signing() {
    for certificate in 0..4 {
        let mut world = at_rest().await;
        let certificate = certificates(&world, BlockHash([3; 32])).remove(certificate);
        world.inject(3, 1, certificate.clone());
        let stopped = |world: &World| world.status(1).not_signing.is_some();
        world.until(&format!("{certificate:?}"), 1, stopped).await;
        let reason = world.status(1).not_signing.unwrap();
        assert!(reason.contains("own key"), "{reason}");
        assert_eq!(world.status(0).not_signing, None);
    }
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

/// Signs for one masternode, to others, blocks that take long to check.
async fn propose_heavy(world: &World, by: usize, rounds: &[u32], to: &[usize]) {
    let (own, ports) = (ConsensusKey::from(&key(by)), &world.nodes[by].ports);
    let height = Height(world.height(by) + 1);
    for (number, round) in rounds.iter().enumerate() {
        let time_ms = ports.tip.borrow().time_ms + 1 + number as u64;
        let mut block = ports.build_block(own, time_ms, 1_000).await.unwrap();
        block.header.state = HEAVY_STATE;
        let (round, genesis) = (Round(*round), world.genesis.hash());
        let proposal = Proposal::sign(&key(by), &genesis, height, round, block.hash(), None);
        let header = BodyHeader {
            height,
            round,
            block: block.hash(),
        };
        for to in to {
            world.inject(by, *to, ConsensusMessage::Proposal(proposal));
            world.inject_body(by, *to, header, codec::encode(&block));
        }
    }
}

/// The rounds up to the tenth in which it is a masternode's turn.
fn rounds_of(world: &World, index: usize) -> Vec<u32> {
    let validators = ValidatorSet::from_genesis(&world.genesis);
    let (height, own) = (
        Height(world.height(index) + 1),
        ConsensusKey::from(&key(index)),
    );
    let turns = (0..=10).filter(|round| validators.proposer(height, Round(*round)).key == own);
    turns.collect()
}

#[tokio::test(start_paused = true)]
async fn blocks_of_rounds_to_come_hold_up_no_block_of_this_one() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 4, 20).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let byzantine = (0..4)
        .find(|index| rounds_of(&world, *index)[0] > 0)
        .unwrap();
    let rounds = rounds_of(&world, byzantine);
    let twice = [rounds.clone(), rounds].concat();
    let honest: Vec<usize> = ALL.into_iter().filter(|one| *one != byzantine).collect();
    propose_heavy(&world, byzantine, &twice, &honest).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let at = world.height(0);
    world.submit();
    let done = move |world: &World| honest.iter().all(|one| world.height(*one) > at);
    world.until("the block", 1, done).await;
    assert_eq!(world.status(0).highest_round, Round(0));
}

/// The proposer of round 0 keeps one node busy with its block; the others decide in round 1.
#[tokio::test(start_paused = true)]
async fn a_decided_block_waits_for_no_check_of_another() {
    let mut world = World::new(&[1; 7]);
    let (busy, heavy) = (0, Duration::from_secs(60));
    world.nodes[busy].ports.heavy = heavy;
    let all: Vec<usize> = (0..7).collect();
    for node in &all {
        world.start(*node).await;
    }
    world.reach(&all, 7, 20).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let first = (1..7).find(|index| rounds_of(&world, *index)[0] == 0);
    let byzantine = first.expect("height 8 is not the busy node's turn");
    world.filter(move |from, _, _| from != byzantine);
    propose_heavy(&world, byzantine, &[0, 0], &[busy]).await;
    let at = world.height(busy);
    world
        .until("the decision of the others", 20, |world| {
            world.height(6) > at
        })
        .await;
    world
        .until("the same here", 1, |world| world.height(busy) > at)
        .await;
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
