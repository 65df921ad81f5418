//! A node of another chain among the peers.

use std::time::Duration;

use timed::wire::CloseCode;

use crate::run::scenario;
use crate::world::{Plan, TRUE_CHAIN, World};

scenarios! {
    a_node_of_another_chain_is_refused_until_it_has_the_right_genesis,
}

const SECOND: Duration = Duration::from_secs(1);

/// It is refused by its genesis and disturbs nobody; with the right file it is one of them.
fn a_node_of_another_chain_is_refused_until_it_has_the_right_genesis(seed: u64) {
    scenario(Plan::new(5), seed, async |world: &mut World| {
        world.install(4, "another");
        world.start_all().await;
        world.connected_within(20 * SECOND).await;
        world.run(300 * SECOND).await;
        assert_eq!(world.checker.peers(4), 0);
        assert_eq!(world.checker.disconnects(), 0);
        assert!(world.height(0).0 >= 40, "{}", world.height(0));
        let refused = world.node(0).net().refused();
        let by_genesis = |(_, _, _, reason): &_| -> bool {
            let reason: &timed::wire::CloseReason = reason;
            reason.code == CloseCode::WrongGenesis
        };
        assert!(refused.iter().any(by_genesis), "{refused:?}");

        world.stop(4).await;
        world.install(4, TRUE_CHAIN);
        world.start(4).await;
        world.connected_within(90 * SECOND).await;
        world.level_within(30 * SECOND).await;
    });
}
