//! Several flows through one queue: another program's download, several peers on one uplink.

use super::*;
use crate::wire::BodyHeader;

/// A hub whose peers know nobody else, behind one uplink of 20 Mbit/s; 40 ms to each.
async fn hub(peers: u8, window: Duration) -> (Plan, Host, Vec<Host>) {
    let mut plan = Plan::new(peers + 1, 0);
    plan.timing = NetTiming {
        ping_interval: Duration::from_millis(100),
        ..often(window)
    };
    let wire = sim::clean_wire();
    wire.share_uplink(&[plan.address(1)], Rate::mbit_per_s(20, 100));
    let mut hosts = (1..=peers + 1).map(|seed| {
        let known = (plan.records.iter().enumerate())
            .filter(|(at, _)| seed == 1 || *at == 0 || *at == usize::from(seed) - 1);
        let known: Vec<_> = known.map(|(_, record)| record.clone()).collect();
        let directory = MasternodeDirectory::new(&plan.genesis, known).unwrap();
        Host::run(sim::start_knowing(&plan, seed, directory, &wire))
    });
    let hub = hosts.next().unwrap();
    let leaves: Vec<Host> = hosts.collect();
    hub.connected_to(usize::from(peers)).await;
    for leaf in &leaves {
        leaf.connected_to(1).await;
    }
    (plan, hub, leaves)
}

#[test]
fn eight_peers_on_one_uplink() {
    virtually(async {
        let window = Duration::from_secs(30);
        let (_plan, hub, leaves) = hub(8, window).await;
        for leaf in &leaves {
            hub.vote(leaf.ip, VOTE_EVERY);
            leaf.download(hub.ip, 2);
        }
        sleep(Duration::from_secs(3)).await;
        hub.forget_votes();
        let received = || -> Vec<f64> {
            leaves
                .iter()
                .map(|leaf| leaf.downloaded(hub.ip) as f64)
                .collect()
        };
        let before = received();
        sleep(window).await;
        let parts: Vec<f64> = received()
            .iter()
            .zip(before)
            .map(|(after, before)| after - before)
            .collect();
        let (jain, p99) = (fairness(&parts), hub.vote_p99());
        let bulk = parts.iter().sum::<f64>() / (30.0 * 2_500_000.0);
        println!("8 peers: vote p99 {p99:?}, fairness {jain}, bulk {bulk}, {parts:?}");
        assert!(p99 <= Duration::from_millis(100), "{p99:?}");
        assert!(jain >= 0.9, "{jain} {parts:?}");
        assert!(bulk >= 0.88, "{bulk}");
    });
}

#[test]
fn votes_to_fifty_peers_do_not_wait_behind_a_block_to_the_first() {
    virtually(async {
        let (_plan, hub, leaves) = hub(50, Duration::from_secs(10)).await;
        let header = BodyHeader {
            height: Height(1),
            round: Round(0),
            block: BlockHash([1; 32]),
        };
        for leaf in &leaves {
            hub.vote(leaf.ip, VOTE_EVERY);
        }
        sleep(Duration::from_secs(1)).await;
        hub.forget_votes();
        hub.net
            .send_body(leaves[0].ip, header, Arc::new(vec![7; 4_000_000]))
            .unwrap();
        while leaves[0].bodies.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        let p99 = hub.vote_p99();
        println!("votes to 50 peers beside a block of 4 MB: p99 {p99:?}");
        assert!(p99 <= Duration::from_millis(100), "{p99:?}");
    });
}

/// What a sync and a foreign download have of an uplink from 5 s to 25 s after the sync's start, and the
/// votes' p99. Without the bound, a plain QUIC stream takes the sync's place.
fn beside(start_ms: u64, bound: bool) -> (f64, f64, Duration) {
    virtually(async move {
        // Seeds 1 and 2 are nodes, the others other programs; 1, 3 and 5 send through one queue.
        let mut plan = Plan::new(6, 0);
        plan.timing = NetTiming::RECOMMENDED;
        let wire = sim::clean_wire();
        let senders = [plan.address(1), plan.address(3), plan.address(5)];
        wire.share_uplink(&senders, Rate::mbit_per_s(20, 100));
        let known = plan.records[..2].to_vec();
        let directory = MasternodeDirectory::new(&plan.genesis, known).unwrap();
        let [one, other] =
            [1, 2].map(|seed| Host::run(sim::start_knowing(&plan, seed, directory.clone(), &wire)));
        one.connected_to(1).await;
        other.connected_to(1).await;
        let foreign = plain_flow(&plan, &wire, 3, 4, None).await;
        sleep(Duration::from_millis(start_ms)).await;
        one.vote(other.ip, VOTE_EVERY);
        let plain = match bound {
            true => {
                other.download(one.ip, 4);
                None
            }
            false => Some(plain_flow(&plan, &wire, 5, 6, None).await),
        };
        let received = || {
            let ours = match &plain {
                None => other.downloaded(one.ip),
                Some(plain) => plain.load(Ordering::Relaxed),
            };
            [ours, foreign.load(Ordering::Relaxed)]
        };
        sleep(Duration::from_secs(5)).await;
        let before = received();
        sleep(Duration::from_secs(20)).await;
        let after = received();
        let [ours, theirs] =
            [0, 1].map(|at| (after[at] - before[at]) as f64 / (20.0 * 2_500_000.0));
        (ours, theirs, one.vote_p99())
    })
}

/// The looks are at fixed times of the day: a sync that starts at any distance from one gets its part.
#[test]
fn beside_a_download_of_another_program() {
    let mut parts = Vec::new();
    for (start_ms, bound) in [
        (3_000, false),
        (500, true),
        (1_500, true),
        (3_000, true),
        (5_000, true),
        (8_000, true),
    ] {
        let (ours, theirs, p99) = beside(start_ms, bound);
        let which = if bound { "a sync" } else { "plain QUIC" };
        println!(
            "{which} {start_ms} ms after a foreign download: {ours:.3}, theirs {theirs:.3}, vote p99 {p99:?}"
        );
        if bound {
            parts.push(ours);
        }
    }
    // 0.2 is the aim. Which of the two loses a packet when the queue is full is chance, so one run alone
    // may fall a little below.
    let mean = parts.iter().sum::<f64>() / parts.len() as f64;
    assert!(mean >= 0.22, "{parts:?}");
    assert!(parts.iter().all(|part| *part >= 0.15), "{parts:?}");
}
