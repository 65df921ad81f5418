//! Crashes at every point at which something becomes durable or leaves a node, and lost state.

use super::*;
use crate::consensus::wal;
use crate::env::DurableFile;
use crate::types::{Vote, codec};

const ALL: [usize; 4] = [0, 1, 2, 3];

/// What a restarted node has lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    Nothing,
    /// The log, but not `consensus.state`: as after `--reindex`.
    Log,
    /// The whole database, but not `consensus.state`: the chain is synced again.
    Database,
    /// Both, and the operator forces it to sign.
    EverythingForced,
}

/// Whether the second node signs.
fn signs(world: &World) -> bool {
    world.status(1).not_signing.is_none()
}

/// Kills the second node, and takes its database and `consensus.state`.
fn kill_and_wipe(world: &mut World) {
    world.kill(1);
    let node = &mut world.nodes[1];
    node.state = FileInMemory::default();
    *node.ports.disk.lock().unwrap() = Disk::default();
    node.ports.tip.send_replace(genesis_tip(&world.genesis));
}

/// Runs a network in which one node crashes at its `point`th effect and is started again; returns
/// how many slots were signed twice, or `None` when it never came to that point.
async fn crash_at(powers: &[u64], crashing: usize, point: usize, lost: Lost) -> Option<usize> {
    let mut world = World::new(powers);
    if lost == Lost::EverythingForced {
        // Its peers would show it its own votes from before the crash, alone or in certificates, and
        // it would stop.
        let own = ConsensusKey::from(&key(crashing));
        world.filter(move |_, to, message| {
            to != crashing
                || match message {
                    Some(ConsensusMessage::Vote(vote)) => vote.voter != own,
                    Some(ConsensusMessage::Proposal(proposal)) => proposal.proposer != own,
                    Some(ConsensusMessage::Polka(one)) => one.votes().all(|vote| vote.voter != own),
                    Some(ConsensusMessage::Round(one)) => one.votes().all(|vote| vote.voter != own),
                    Some(ConsensusMessage::Commit(one)) => {
                        one.votes().all(|vote| vote.voter != own)
                    }
                    _ => true,
                }
        });
    }
    *world.nodes[crashing].ports.plan.at.lock().unwrap() = Some(point);
    for node in ALL {
        world.start(node).await;
    }
    let ended = |world: &World| {
        let running = world.nodes[crashing].running.as_ref();
        running.is_some_and(|running| running.actor.is_finished())
    };
    for _ in 0..500 {
        if ended(&world) || world.height(crashing) >= 3 {
            break;
        }
        world.submit();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if !ended(&world) {
        return None;
    }
    world.kill(crashing);
    tokio::time::sleep(Duration::from_millis(700)).await;
    // Whatever the others have decided meanwhile, sync brings: after the log, if there is one, has
    // been replayed.
    let best = ALL.into_iter().max_by_key(|node| world.height(*node));
    let best = best.unwrap();
    let sync_comes_later = matches!(lost, Lost::Nothing | Lost::Database);
    if lost == Lost::Database {
        let node = &world.nodes[crashing];
        *node.ports.disk.lock().unwrap() = Disk::default();
        node.ports.tip.send_replace(genesis_tip(&world.genesis));
    }
    if !sync_comes_later {
        world.give_blocks(best, crashing);
        let mut disk = world.nodes[crashing].ports.disk.lock().unwrap();
        disk.logs.clear();
    }
    if lost == Lost::EverythingForced {
        world.nodes[crashing].state = FileInMemory::default();
        world.nodes[crashing].unsafe_sign = true;
    }
    world.start(crashing).await;
    if sync_comes_later {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.give_blocks(best, crashing);
    }
    if lost == Lost::EverythingForced {
        // A node of so much power that signs twice may stop the chain.
        tokio::time::sleep(Duration::from_secs(20)).await;
        return Some(world.double_signed());
    }
    let goal = world.height(0).max(world.height(crashing)) + 3;
    world.reach(&ALL, goal, 120).await;
    world.assert_agreement();
    world
        .until("signing", 60, |world| {
            world.status(crashing).not_signing.is_none()
        })
        .await;
    Some(world.double_signed())
}

/// Crashes at every `step`th point until the node gets past the heights that are looked at.
async fn matrix(powers: &[u64], crashing: usize, lost: Lost, step: usize) -> (usize, usize) {
    let (mut crashes, mut double_signed) = (0, 0);
    for point in (1..).step_by(step) {
        match crash_at(powers, crashing, point, lost).await {
            Some(doubles) => double_signed += doubles,
            None => break,
        }
        crashes += 1;
    }
    (crashes, double_signed)
}

/// The crashing node holds so much power that nothing is decided without it: whatever it had begun
/// it must finish.
#[tokio::test(start_paused = true)]
async fn no_crash_makes_a_node_sign_twice() {
    let (crashes, double_signed) = matrix(&[10, 20, 30, 40], 3, Lost::Nothing, 1).await;
    assert!(crashes > 50, "{crashes} crashes");
    assert_eq!(double_signed, 0, "in {crashes} crashes");
}

#[tokio::test(start_paused = true)]
async fn a_lost_log_keeps_a_node_from_signing_at_its_height_only() {
    let (crashes, double_signed) = matrix(&[1, 1, 1, 1], 2, Lost::Log, 3).await;
    assert!(crashes > 15, "{crashes} crashes");
    assert_eq!(double_signed, 0, "in {crashes} crashes");
}

#[tokio::test(start_paused = true)]
async fn a_database_destroyed_in_the_middle_of_a_height_leads_to_no_second_signature() {
    let (crashes, double_signed) = matrix(&[1, 1, 1, 1], 2, Lost::Database, 3).await;
    assert!(crashes > 15, "{crashes} crashes");
    assert_eq!(double_signed, 0, "in {crashes} crashes");
}

/// The control: without log and state file, forced to sign, the check finds slots signed twice.
#[tokio::test(start_paused = true)]
async fn the_check_for_double_signing_can_fail() {
    let (_, double_signed) = matrix(&[10, 20, 30, 40], 3, Lost::EverythingForced, 3).await;
    assert!(double_signed > 0);
}

#[tokio::test(start_paused = true)]
async fn without_its_state_file_a_node_signs_again_after_a_live_height() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 5, 20).await;
    world.kill(1);
    world.nodes[1].state = FileInMemory::default();
    world.nodes[1].ports.disk.lock().unwrap().logs.clear();
    world.start(1).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let reason = world.status(1).not_signing.unwrap();
    assert!(reason.contains("consensus.state was missing"), "{reason}");
    let at = world.height(1);
    world.reach(&ALL, at + 4, 60).await;
    world.until("signing", 30, signs).await;
    assert_eq!(world.double_signed(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_everything_waits_for_what_its_peers_know() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 5, 20).await;
    kill_and_wipe(&mut world);
    world.start(1).await;
    // Only one peer at first: too few to believe that the chain is new.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(world.height(1), 0);
    assert_eq!(world.double_signed(), 0);
    assert!(world.status(1).not_signing.is_some());
    world.give_blocks(0, 1);
    let at = world.height(0);
    world.reach(&ALL, at + 4, 60).await;
    world.until("signing", 30, signs).await;
    assert_eq!(world.double_signed(), 0);
}

/// Whatever a node without any state does at height 1, it has no say where it may have had one.
#[tokio::test(start_paused = true)]
async fn a_node_that_lost_everything_signs_nothing_before_a_live_height() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 20, 20).await;
    // The slot boundary of height 1 has long passed, and a transaction waits.
    tokio::time::sleep(Duration::from_secs(7)).await;
    kill_and_wipe(&mut world);
    world.nodes[1].ports.ready.send_replace(true);
    let signed_before = world.signed_by(1);
    world.start(1).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(world.signed_by(1), signed_before);
    assert!(world.status(1).not_signing.is_some());
    world.give_blocks(0, 1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.status(1).not_signing.is_some(), "no live height yet");
    let at = world.height(0);
    world.reach(&ALL, at + 4, 60).await;
    world.until("signing", 30, signs).await;
    assert_eq!(world.double_signed(), 0);
}

/// It signed at height 7, which is still open, and lost everything. One peer shows it votes that decide
/// height 6, as if they had just been cast.
#[tokio::test(start_paused = true)]
async fn a_node_that_lost_everything_takes_no_old_votes_for_a_live_height() {
    let mut world = World::new(&[1, 1, 1, 1]);
    world.filter(|_, _, message| match message {
        Some(ConsensusMessage::Vote(vote)) => {
            vote.height < Height(7) || vote.kind == VoteKind::Prevote
        }
        _ => true,
    });
    for node in ALL {
        world.start(node).await;
    }
    world.reach(&ALL, 6, 20).await;
    world.submit();
    let own = ConsensusKey::from(&key(1));
    let voted = move |world: &World| {
        let slot = (own, Height(7), Round(0), Some(VoteKind::Precommit));
        world.mesh.lock().unwrap().signed.contains_key(&slot)
    };
    world.until("its precommit at height 7", 5, voted).await;
    kill_and_wipe(&mut world);
    world.give_blocks_up_to(0, 1, 5);
    world.filter(|_, _, _| false);
    world.start(1).await;
    let (block, certificate) = world.nodes[0].ports.disk.lock().unwrap().blocks[5].clone();
    for vote in certificate.votes() {
        world.inject(3, 1, ConsensusMessage::Vote(vote));
    }
    let header = BodyHeader {
        height: Height(6),
        round: certificate.round,
        block: block.hash(),
    };
    world.inject_body(3, 1, header, codec::encode(&block));
    world
        .until("height 6", 2, |world| world.height(1) == 6)
        .await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(world.double_signed(), 0);
    assert!(world.status(1).not_signing.is_some());
    world.filter(|_, _, _| true);
    for other in [0, 2, 3] {
        world.cut(1, other);
        world.mend(1, other);
    }
    world.reach(&ALL, 9, 60).await;
    world.until("signing", 30, signs).await;
    assert_eq!(world.double_signed(), 0);
}

/// A node without state hears its own votes from before: it may not sign where it has voted, whatever
/// else it has seen.
#[tokio::test(start_paused = true)]
async fn where_its_own_votes_are_held_a_node_without_them_in_its_log_signs_nothing() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 5, 20).await;
    world.kill(1);
    world.nodes[1].state = FileInMemory::default();
    world.nodes[1].ports.disk.lock().unwrap().logs.clear();
    world.filter(|_, _, _| false);
    world.start(1).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    world.filter(|_, _, _| true);
    assert!(!signs(&world));
    let next = Height(world.height(1) + 2);
    let (kind, genesis) = (VoteKind::Prevote, world.genesis.hash());
    let vote = Vote::sign(&key(1), &genesis, kind, next, Round(0), None);
    world.inject(2, 1, ConsensusMessage::Vote(vote));
    world.reach(&ALL, next.0 - 1, 20).await;
    world
        .until("the reason", 5, |world| {
            let reason = world.status(1).not_signing;
            reason.is_some_and(|why| why.contains("were received"))
        })
        .await;
    world.reach(&ALL, next.0, 20).await;
    world.until("signing", 5, signs).await;
    assert_eq!(world.double_signed(), 0);
}

/// It took the chain for new, signed at height 1 and wrote that; a restart does not make that its
/// history.
#[tokio::test(start_paused = true)]
async fn a_node_that_lost_everything_and_heard_of_the_chain_too_late_signs_nothing_more() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 20, 20).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    kill_and_wipe(&mut world);
    // All that would tell it of blocks is late.
    world.filter(|_, to, message| {
        !(to == 1 && matches!(message, Some(ConsensusMessage::Commit(_))))
    });
    world.start(1).await;
    let began = |world: &World| world.nodes[1].state.load().unwrap().is_some();
    world.until("a first signature", 20, began).await;
    world.kill(1);
    world.give_blocks(0, 1);
    world.filter(|_, _, _| true);
    world.start(1).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let reason = world
        .status(1)
        .not_signing
        .expect("it knows nothing of what it signed");
    assert!(reason.contains("was missing"), "{reason}");
    let at = world.height(0);
    world.reach(&ALL, at + 4, 60).await;
    world.until("signing", 30, signs).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_log_blocks_its_height_and_nothing_is_overwritten() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 5, 20).await;
    world.submit();
    world
        .until("a started height", 5, |world| {
            world.status(1).round.is_some()
        })
        .await;
    world.kill(1);
    let height = Height(world.height(1) + 1);
    let damaged = {
        let mut disk = world.nodes[1].ports.disk.lock().unwrap();
        let log = disk.logs.get_mut(&height).unwrap();
        log.entries.push(vec![1, 2, 3]);
        log.clone()
    };
    world.start(1).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    if world.status(1).height == height {
        let reason = world.status(1).not_signing.unwrap();
        assert!(reason.contains("is damaged"), "{reason}");
        let disk = world.nodes[1].ports.disk.lock().unwrap();
        assert_eq!(disk.logs.get(&height), Some(&damaged));
    }
    world.reach(&ALL, height.0 + 3, 60).await;
    assert_eq!(world.status(1).not_signing, None);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_forced_to_sign_over_a_damaged_log_begins_it_anew() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 5, 20).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Its peers would show it its votes from before.
    world.filter(|_, _, _| false);
    world.submit();
    let started = |world: &World| world.status(1).round.is_some();
    world.until("a started height", 5, started).await;
    world.kill(1);
    let height = Height(world.height(1) + 1);
    let log = |world: &World| {
        let disk = world.nodes[1].ports.disk.lock().unwrap();
        disk.logs[&height].clone()
    };
    let before = log(&world);
    {
        let mut disk = world.nodes[1].ports.disk.lock().unwrap();
        let damaged = disk.logs.get_mut(&height).unwrap();
        damaged.entries.push(vec![1, 2, 3]);
        damaged.bodies.push((BlockHash([9; 32]), vec![1]));
    }
    world.nodes[1].unsafe_sign = true;
    world.start(1).await;
    world.until("the height again", 8, started).await;
    let after = log(&world);
    assert!(!after.bodies.iter().any(|(hash, _)| hash.0 == [9; 32]));
    assert_eq!(after.entries[0], before.entries[0]);
    assert!(wal::decode(height, &after.entries).unwrap().is_some());
    // The next start needs no force.
    world.nodes[1].unsafe_sign = false;
    world.kill(1);
    world.start(1).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(world.status(1).not_signing, None);
}

/// A world of one masternode that crashed when its own precommit had decided height 1, without the body
/// in its log.
async fn decided_without_body() -> World {
    for point in 1.. {
        let mut genesis = genesis(&[1]);
        (genesis.slot_ms, genesis.timeouts.propose_ms) = (100, 10);
        genesis.timeouts.vote_ms = 1;
        let mut world = World::of(genesis);
        *world.nodes[0].ports.plan.at.lock().unwrap() = Some(point);
        world.start(0).await;
        let ended = |world: &World| world.nodes[0].running.as_ref().unwrap().actor.is_finished();
        world.until("the crash", 5, ended).await;
        world.kill(0);
        let disk = world.nodes[0].ports.disk.clone();
        let mut disk = disk.lock().unwrap();
        let log = disk.logs.entry(Height(1)).or_default();
        log.bodies.clear();
        let entries = wal::decode(Height(1), &log.entries).unwrap();
        let precommitted = |entry: &wal::Entry| matches!(entry, wal::Entry::Vote(vote) if vote.kind == VoteKind::Precommit);
        if entries.iter().flatten().any(precommitted) {
            assert!(disk.blocks.is_empty());
            return world;
        }
    }
    unreachable!("it decides");
}

/// Not in virtual time, which would stand still.
#[tokio::test]
async fn a_timer_that_is_due_while_a_decided_body_is_missing_keeps_no_processor_busy() {
    let mut world = decided_without_body().await;
    *world.nodes[0].ports.plan.at.lock().unwrap() = None;
    world.start(0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = world.count("tip_read");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.height(0), 0);
    let turns = world.count("tip_read") - before;
    assert!(turns < 10, "{turns} turns of the loop");
}

#[tokio::test(start_paused = true)]
async fn a_vote_of_the_own_key_from_elsewhere_stops_signing() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 5, 20).await;
    let height = world.status(1).height;
    let vote = Vote::sign(
        &key(1),
        &world.genesis.hash(),
        VoteKind::Prevote,
        height,
        Round(7),
        None,
    );
    world.inject(2, 1, ConsensusMessage::Vote(vote));
    world
        .until("the stop", 1, |world| world.status(1).not_signing.is_some())
        .await;
    let reason = world.status(1).not_signing.unwrap();
    assert!(reason.contains("own key"), "{reason}");
    // It follows all the same.
    let at = world.height(1);
    world.reach(&ALL, at + 10, 60).await;
    let own = ConsensusKey::from(&key(1));
    let mesh = world.mesh.lock().unwrap();
    let last = mesh
        .signed
        .keys()
        .filter(|(voter, ..)| *voter == own)
        .map(|(_, at, ..)| *at);
    assert!(last.max().unwrap() <= height.next());
}

#[tokio::test(start_paused = true)]
async fn signing_can_be_stopped_from_outside() {
    let mut world = World::started(&[1, 1, 1, 1]).await;
    world.reach(&ALL, 3, 20).await;
    let running = world.nodes[0].running.as_ref().unwrap();
    running
        .stop
        .try_send("the record names another machine".into())
        .unwrap();
    world.reach(&ALL, 8, 60).await;
    let reason = world.status(0).not_signing;
    assert_eq!(reason.as_deref(), Some("the record names another machine"));
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_the_actor_cleanly() {
    let mut world = World::started(&[1]).await;
    world.reach(&[0], 3, 20).await;
    let running = world.nodes[0].running.take().unwrap();
    running.cancel.cancel();
    running.actor.await.unwrap().unwrap();
}
