//! What waits is announced again: a peer that had no room for it gets it later.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Two nodes, and a payment that waits at the first only: the second was full when it was announced,
/// and has room since.
fn turned_away() -> (World, Transaction) {
    let mut world = World::new(2, &[]);
    let limits = PoolLimits {
        transactions: 1,
        ..PoolLimits::RECOMMENDED
    };
    world.cores[1] = Core::new(world.ledger.rules, limits);
    world.connect(0, 1);
    let better = world.payment(0, 900);
    let payment = world.payment(1, 500);
    world.submit(0, better.clone()).unwrap();
    world.submit(0, payment.clone()).unwrap();
    assert_eq!(world.ids(1), [better.id()]);
    assert_eq!(world.bodies, 2, "the payment was sent too, and refused");
    world.block(vec![better]);
    world.settle();
    assert_eq!(world.ids(0), [payment.id()]);
    assert!(world.ids(1).is_empty());
    (world, payment)
}

#[test]
fn a_peer_whose_pool_was_full_hears_of_it_again_and_gets_it() {
    let (mut world, payment) = turned_away();
    world.pass(MINUTE - Duration::from_secs(1));
    assert!(world.ids(1).is_empty());
    // A round begins each minute, so it has to wait for one or two.
    world.pass(MINUTE + Duration::from_secs(1));
    assert_eq!(world.ids(1), [payment.id()]);
    assert_eq!(world.bodies, 3);
}

#[test]
fn what_is_submitted_again_is_announced_again_at_once() {
    let (mut world, payment) = turned_away();
    assert_eq!(world.submit(0, payment.clone()), Ok(payment.id()));
    assert_eq!(world.ids(1), [payment.id()]);
    // Everybody is told, also who has it by now; what comes from a peer is not told again.
    let announced = (
        ip(0),
        ip(1),
        TransactionsMessage::Announce(vec![payment.id()]),
    );
    let (reply, _verdict) = oneshot::channel();
    world.cores[0].submit(payment.clone(), reply);
    world.check_batches();
    world.flush();
    assert_eq!(world.wire, [announced]);
    world.settle();
    world.deliver(1, 0, bodies(&[&payment]));
    world.check_batches();
    world.flush();
    assert!(world.wire.is_empty());
}

#[test]
fn a_first_submission_is_announced_once() {
    let mut world = World::new(2, &[]);
    world.cores[0].on_event(TransactionsEvent::Connected { peer: ip(1) }, world.now);
    let payment = world.payment(0, 500);
    let mut verdicts = Vec::new();
    for _ in 0..2 {
        let (reply, verdict) = oneshot::channel();
        world.cores[0].submit(payment.clone(), reply);
        verdicts.push(verdict);
    }
    world.check_batches();
    world.flush();
    let announced = (
        ip(0),
        ip(1),
        TransactionsMessage::Announce(vec![payment.id()]),
    );
    assert_eq!(world.wire, [announced]);
}
