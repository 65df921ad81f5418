//! Networks of honest nodes: progress, slots, cut links, missing bodies, nodes that are behind.

use super::*;

const ALL: [usize; 4] = [0, 1, 2, 3];
const POWERS: [u64; 4] = [10, 20, 30, 40];

#[tokio::test(start_paused = true)]
async fn four_nodes_reach_many_heights_without_a_failed_round() {
    let mut world = World::started(&POWERS).await;
    world.reach(&ALL, 100, 100).await;
    world.assert_agreement();
    for node in ALL {
        assert_eq!(
            world.status(node).highest_round,
            Round(0),
            "{}",
            world.describe()
        );
        assert_eq!(world.status(node).not_signing, None);
    }
    assert_eq!(world.double_signed(), 0);
    assert_eq!(world.count("get_body"), 0);
    // Four blocks a second at most, and each proposer in its turn.
    let blocks = world.blocks(0);
    let elapsed = blocks[99].header.time_ms - blocks[0].header.time_ms;
    assert!(elapsed >= 99 * 240, "{elapsed} ms");
    let validators = ValidatorSet::from_genesis(&world.genesis);
    for block in &blocks {
        let turn = validators.proposer(block.header.height, Round(0)).key;
        assert_eq!(block.header.proposer, turn);
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_masternode_makes_blocks() {
    let mut world = World::started(&[5]).await;
    world.reach(&[0], 20, 20).await;
    let sentence = world.status(0).quorum_sentence();
    assert_eq!(sentence, "quorum: power 5 of 5");
}

#[tokio::test(start_paused = true)]
async fn without_transactions_a_block_comes_at_each_slot_and_with_one_at_once() {
    let mut world = World::started(&POWERS).await;
    world
        .until("three slots", 30, |world| world.height(0) >= 3)
        .await;
    let slot_ms = world.genesis.slot_ms;
    for (at, block) in world.blocks(0).iter().enumerate() {
        let after = block.header.time_ms - world.genesis.time_ms;
        assert_eq!(after / slot_ms, at as u64 + 1, "one block a slot");
        assert!(after % slot_ms < 100, "at its start");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let submitted = Instant::now();
    world.submit();
    world
        .until("the block", 2, |world| world.height(0) >= 4)
        .await;
    assert!(submitted.elapsed() < Duration::from_millis(500));
    assert_eq!(world.blocks(0)[3].transactions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cut_link_is_relayed_around_and_costs_no_round() {
    for (a, b) in [(2, 3), (0, 3), (0, 1)] {
        let mut world = World::started(&POWERS).await;
        world.reach(&ALL, 5, 20).await;
        world.cut(a, b);
        world.reach(&ALL, 60, 60).await;
        world.assert_agreement();
        for node in ALL {
            let status = world.status(node);
            assert_eq!(
                status.highest_round,
                Round(0),
                "{a}-{b}: {}",
                world.describe()
            );
            assert_eq!(status.power_present, 100);
        }
        world.mend(a, b);
        world.reach(&ALL, 80, 30).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_its_proposer_does_not_deliver_comes_from_another() {
    let mut world = World::started(&POWERS).await;
    // Nothing is decided without node 3, and it does not get the bodies of node 2.
    world.filter(|from, to, message| message.is_some() || (from, to) != (2, 3));
    world.reach(&ALL, 30, 90).await;
    assert!(world.count("get_body") > 0);
    world.assert_agreement();
    assert_eq!(world.status(0).highest_round, Round(0));
}

#[tokio::test(start_paused = true)]
async fn when_a_proposer_is_down_its_rounds_fail_and_the_chain_goes_on() {
    let mut world = World::started(&POWERS).await;
    world.reach(&ALL, 5, 20).await;
    world.kill(1);
    let rest = [0, 2, 3];
    world.reach(&rest, 25, 120).await;
    world.assert_agreement();
    assert!(world.status(3).highest_round > Round(0));
    let status = world.status(3);
    assert_eq!(
        (status.power_present, status.missing),
        (80, vec!["node-1".to_owned()])
    );
    // It comes back one or more heights behind; here nothing syncs, so it is given the blocks.
    world.give_blocks(3, 1);
    world.start(1).await;
    let goal = world.height(3) + 20;
    world.reach(&ALL, goal, 60).await;
}

#[tokio::test(start_paused = true)]
async fn below_quorum_nothing_is_decided_and_the_status_says_who_is_missing() {
    let mut world = World::started(&POWERS).await;
    world.reach(&ALL, 3, 20).await;
    world.kill(3);
    let at = world.height(0);
    world.submit();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.height(0) <= at + 1);
    assert_eq!(
        world.status(0).quorum_sentence(),
        "no quorum: power 60 of 100, missing: node-3"
    );
    world.start(3).await;
    world.reach(&ALL, at + 10, 60).await;
    assert_eq!(world.double_signed(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_one_height_behind_is_brought_up_by_the_certificate() {
    let mut world = World::started(&POWERS).await;
    world.reach(&ALL, 5, 20).await;
    world.kill(0);
    let behind = world.height(0);
    world.reach(&[1, 2, 3], behind + 1, 30).await;
    // Nothing waits any more: the others rest until the next slot.
    let at = world.height(3);
    world.give_blocks_up_to(3, 0, at - 1);
    let decided_before = world.count("commit");
    world.start(0).await;
    world
        .until("the decision", 3, |world| world.height(0) >= at)
        .await;
    assert!(world.count("commit") > decided_before);
    world.assert_agreement();
}

#[tokio::test(start_paused = true)]
async fn a_tip_that_sync_moves_takes_the_engine_along() {
    let mut world = World::started(&POWERS).await;
    world.reach(&ALL, 3, 20).await;
    for other in [1, 2, 3] {
        world.cut(0, other);
    }
    world.reach(&[1, 2, 3], 20, 60).await;
    world.give_blocks(3, 0);
    world
        .until("the move", 1, |world| world.status(0).height > Height(20))
        .await;
    for other in [1, 2, 3] {
        world.mend(0, other);
    }
    world.reach(&ALL, 40, 60).await;
    world.assert_agreement();
}

#[tokio::test(start_paused = true)]
async fn a_proposer_whose_clock_is_far_ahead_loses_its_rounds_only() {
    let mut world = World::new(&POWERS);
    world.nodes[1].ahead_ms = 60_000;
    for node in ALL {
        world.start(node).await;
    }
    world.reach(&ALL, 20, 200).await;
    world.assert_agreement();
    let fast = ConsensusKey::from(&key(1));
    assert!(
        world
            .blocks(0)
            .iter()
            .all(|block| block.header.proposer != fast)
    );
    assert!(world.status(0).highest_round > Round(0));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_a_little_behind_costs_nothing() {
    let mut world = World::new(&POWERS);
    world.nodes[1].ahead_ms = 9_000;
    for node in ALL {
        world.start(node).await;
    }
    world.reach(&ALL, 30, 100).await;
    assert_eq!(world.status(0).highest_round, Round(0));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_makes_progress_holds_the_propose_timer_back() {
    let mut genesis = genesis(&POWERS);
    genesis.max_block_bytes = 4_000_000;
    let mut world = World::of(genesis);
    // Longer than the propose timeout of 3 s, within the bound of 7.2 s.
    world.mesh.lock().unwrap().body_time = Duration::from_secs(5);
    for node in ALL {
        world.start(node).await;
    }
    world.reach(&ALL, 8, 80).await;
    for node in ALL {
        assert_eq!(world.status(node).highest_round, Round(0));
    }
    // Beyond the bound the round fails.
    world.mesh.lock().unwrap().body_time = Duration::from_secs(9);
    world
        .until("a failed round", 30, |world| {
            world.status(0).highest_round > Round(0)
        })
        .await;
}

/// Round 0 of height 5 ends with a polka that only node 2 knows, and node 3 has neither proposal nor
/// body. Node 2 proposes the same block again in round 1; node 3 fetches the body.
#[tokio::test(start_paused = true)]
async fn a_block_with_a_polka_is_proposed_again_and_its_body_fetched() {
    let mut world = World::new(&[1, 1, 1, 1]);
    let validators = ValidatorSet::from_genesis(&world.genesis);
    let proposer = |round| validators.proposer(Height(5), Round(round)).key;
    assert_eq!(proposer(0), ConsensusKey::from(&key(1)));
    assert_eq!(proposer(1), ConsensusKey::from(&key(2)));
    let watched = world.nodes[1].ports.tip.clone();
    world.filter(move |from, to, message| {
        let at_five = watched.borrow().height == Height(4);
        match message {
            Some(ConsensusMessage::Vote(vote)) => {
                let withheld = (vote.height, vote.round) == (Height(5), Round(0))
                    && vote.kind == VoteKind::Prevote
                    && vote.block.is_some();
                !(withheld && from == 2 && to < 2)
            }
            Some(ConsensusMessage::Proposal(proposal)) => {
                let first = (proposal.height, proposal.round) == (Height(5), Round(0));
                !(first && to == 3)
            }
            None => !(at_five && (from, to) == (1, 3)),
            _ => true,
        }
    });
    for node in ALL {
        world.start(node).await;
    }
    world.reach(&ALL, 8, 60).await;
    world.assert_agreement();
    let disk = world.nodes[3].ports.disk.lock().unwrap();
    let (block, certificate) = &disk.blocks[4];
    assert_eq!(certificate.round, Round(1));
    assert_eq!(
        block.header.proposer,
        ConsensusKey::from(&key(1)),
        "the same block"
    );
    drop(disk);
    assert!(world.count("get_body") > 0);
    assert_eq!(world.status(0).highest_round, Round(1));
}

/// Node 3 waits for the body of height 5 while the others decide height 6; it has their votes for
/// height 6, but not the proposal.
#[tokio::test(start_paused = true)]
async fn a_quorum_that_was_held_before_the_height_started_decides_it() {
    let mut world = World::new(&[1, 1, 1, 1]);
    let withheld = Arc::new(Mutex::new(true));
    let bodies = withheld.clone();
    let watched = world.nodes[3].ports.tip.clone();
    world.filter(move |_, to, message| {
        let early = watched.borrow().height < Height(4);
        match message {
            _ if to != 3 || early => true,
            Some(ConsensusMessage::Proposal(proposal)) => proposal.height != Height(6),
            Some(ConsensusMessage::Commit(_)) => false,
            Some(_) => true,
            None => !*bodies.lock().unwrap(),
        }
    });
    for node in ALL {
        world.start(node).await;
    }
    world.reach(&[0, 1, 2], 6, 60).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.height(3), 4);
    *withheld.lock().unwrap() = false;
    world.give_blocks_up_to(0, 3, 5);
    world
        .until("height 6", 1, |world| world.height(3) >= 6)
        .await;
}

/// Node 3 is two heights behind and holds the certificate of the tip, but nothing else of it.
#[tokio::test(start_paused = true)]
async fn the_body_under_an_early_certificate_is_fetched() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 4, 20).await;
    for other in [0, 1, 2] {
        world.cut(3, other);
    }
    world.reach(&[0, 1, 2], 9, 60).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.filter(|_, to, message| {
        to != 3 || matches!(message, None | Some(ConsensusMessage::Commit(_)))
    });
    let at = world.height(0);
    world.give_blocks_up_to(0, 3, at - 2);
    for other in [0, 1, 2] {
        world.mend(3, other);
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.give_blocks_up_to(0, 3, at - 1);
    world
        .until("the tip", 3, |world| world.height(3) >= at)
        .await;
}

#[tokio::test(start_paused = true)]
async fn requests_for_bodies_that_never_were_cost_one_read_a_second() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 4, 20).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, height) = (world.count("block_read"), Height(2));
    for number in 0..100 {
        let block = BlockHash([number; 32]);
        world.inject(2, 1, ConsensusMessage::GetBody { height, block });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.count("block_read") - before, 1);
}
