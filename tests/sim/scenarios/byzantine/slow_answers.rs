//! Announces a million blocks and answers every request for some with a frame of four megabytes, one
//! byte every two seconds: there is always progress, and never an end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use quinn::{RecvStream, SendStream};
use timed::types::Height;
use timed::wire::{Hello, KeepaliveMessage, Ping, ReachSet, StreamKind};
use tokio::time::sleep;

use super::*;
use crate::puppet::raw::{Attack, Session, write};
use crate::run::scenario;
use crate::world::{Plan, address};

scenarios! {
    an_endless_slow_answer_does_not_hold_a_node_back,
}

const ANNOUNCED: Height = Height(1_000_000);

const DRIP: Duration = Duration::from_secs(2);

struct SlowAnswers;

impl Attack for SlowAnswers {
    fn hello(&self, hello: Hello) -> Hello {
        Hello {
            tip_height: ANNOUNCED,
            ..hello
        }
    }

    async fn attack(&self, mut session: Session) {
        let (quic, acts) = (session.quic.clone(), session.acts.clone());
        let answering = async {
            let mut dripping = tokio::task::JoinSet::new();
            while let Ok((send, request)) = quic.accept_bi().await {
                acts.fetch_add(1, Ordering::Relaxed);
                dripping.spawn(drip(send, request));
            }
        };
        let pinging = async {
            for nonce in 0.. {
                let ping = KeepaliveMessage::Ping(Ping {
                    nonce,
                    tip_height: ANNOUNCED,
                    tip_hash: timed::types::BlockHash([1; 32]),
                    reach: ReachSet::default(),
                });
                if write(&mut session.keepalive, StreamKind::Keepalive, &ping)
                    .await
                    .is_none()
                {
                    return;
                }
                sleep(5 * SECOND).await;
            }
        };
        tokio::join!(answering, pinging);
    }
}

async fn drip(mut send: SendStream, request: RecvStream) {
    let mut frame = 4_000_000u32.to_le_bytes().to_vec();
    frame.push(0);
    while send.write_all(&frame).await.is_ok() {
        sleep(DRIP).await;
        frame = vec![0];
    }
    drop(request);
}

fn an_endless_slow_answer_does_not_hold_a_node_back(seed: u64) {
    scenario(Plan::new(7), seed, async |world: &mut World| {
        world.raw_puppet(0, &[1, 2, 3, 4, 5, 6], SlowAnswers);
        for node in 1..6 {
            world.start(node).await;
        }
        world.run(10 * SECOND).await;
        for node in 1..6 {
            world.pay(node).await;
            world.run(60 * SECOND).await;
        }
        // At first it reaches nobody else.
        for node in 1..6 {
            world.cut(node, 6);
        }
        world.start(6).await;
        world.run(20 * SECOND).await;
        world.heal();
        world.connected_within(90 * SECOND).await;
        world.level_within(30 * SECOND).await;
        assert!(world.acts(0) > 0, "it was never asked");
        let replaced = world
            .node(6)
            .sync()
            .watch_status()
            .borrow()
            .replaced
            .clone();
        let slow = replaced.iter().any(|(who, _)| *who == address(0).into());
        assert!(slow, "{replaced:?}");
        goes_on(world, 60 * SECOND).await;
    });
}
