use std::future::Future;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::super::credit::START_BYTES;
use super::*;

const PACKET: u64 = 1_400;
const LARGE: usize = 1 << 20;

fn bulk() -> Arc<Bulk> {
    Bulk::new(1 << 20, 0, || Path {
        rtt: Duration::from_millis(40),
        least_rtt: Duration::from_millis(40),
        window: 1 << 20,
        packet: PACKET,
    })
}

/// A confirmation of so many bytes.
fn told(bytes: u64) -> Confirmation {
    Confirmation { bytes, at_us: 0 }
}

/// Writes are whole packets, so the last one may not fit.
fn fills(written: u64, bound: u64) -> bool {
    written <= bound && written + PACKET > bound
}

/// What a stream gets without waiting.
fn at_once(stream: &BulkStream, wanted: usize) -> u64 {
    let acquired = std::pin::pin!(stream.acquire(wanted));
    match acquired.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(granted) => granted as u64,
        Poll::Pending => 0,
    }
}

fn all(stream: &BulkStream) -> u64 {
    std::iter::repeat_with(|| at_once(stream, LARGE))
        .take_while(|granted| *granted > 0)
        .sum()
}

#[tokio::test(start_paused = true)]
async fn the_bound_holds_over_all_streams_and_a_confirmation_lets_the_next_chunk_out() {
    let bulk = bulk();
    let one = bulk.open(3, BulkClass::Proposal);
    let other = bulk.open(7, BulkClass::Proposal);
    assert_eq!(at_once(&one, 10_000), 10_000);
    assert!(fills(10_000 + all(&other), START_BYTES));
    assert!(fills(bulk.summary().unconfirmed, START_BYTES));
    let blocked = async { one.acquire(LARGE).await };
    tokio::pin!(blocked);
    let waited = tokio::time::timeout(Duration::from_secs(9), &mut blocked).await;
    assert!(waited.is_err());
    bulk.confirm(7, told(4_000)).unwrap();
    assert!(blocked.await >= 2_700);
    drop(other);
    assert!(bulk.summary().unconfirmed <= bulk.summary().credit);
}

#[tokio::test(start_paused = true)]
async fn sync_that_stalls_leaves_the_reserve_to_block_bodies() {
    let bulk = bulk();
    let sync = bulk.open(0, BulkClass::Sync);
    assert!(fills(all(&sync), START_BYTES));
    let body = bulk.open(3, BulkClass::Proposal);
    assert!(fills(all(&body), START_BYTES / 4));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_waits_goes_before_sync_unless_it_stalls() {
    let bulk = bulk();
    let (sync, body) = (
        bulk.open(0, BulkClass::Sync),
        bulk.open(3, BulkClass::Proposal),
    );
    assert!(fills(all(&body), START_BYTES));
    let body_waits = body.acquire(LARGE);
    let sync_waits = sync.acquire(LARGE);
    tokio::pin!(body_waits, sync_waits);
    let nobody = tokio::time::timeout(Duration::from_millis(1), async {
        tokio::select! { _ = &mut body_waits => {}, _ = &mut sync_waits => {} }
    });
    assert!(nobody.await.is_err());
    bulk.confirm(3, told(8_000)).unwrap();
    tokio::select! {
        biased;
        _ = &mut sync_waits => panic!("sync went first"),
        granted = &mut body_waits => assert!(granted >= 6_700),
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_leaves_the_others_their_part() {
    let bulk = bulk();
    let streams: Vec<BulkStream> = (0..4)
        .map(|id| bulk.open(id * 4, BulkClass::Sync))
        .collect();
    // The first takes everything, and confirms nothing but what makes the others take part.
    let taken = all(&streams[0]);
    assert!(fills(taken, START_BYTES));
    let waits: Vec<_> = streams[1..]
        .iter()
        .map(|one| Box::pin(one.acquire(LARGE)))
        .collect();
    let mut others = Box::pin(futures_join(waits));
    let nothing = tokio::time::timeout(Duration::from_millis(1), &mut others);
    assert!(nothing.await.is_err());
    streams[0].confirm(told(taken - 1_000)).unwrap();
    let granted = others.await;
    assert!(
        granted.iter().all(|one| *one >= PACKET as usize / 2),
        "{granted:?}"
    );
    let most = granted.iter().max().unwrap();
    assert!(*most <= 2 * START_BYTES as usize / 4, "{granted:?}");
}

/// All of some futures, polled in order.
async fn futures_join<F: Future<Output = usize> + Unpin>(mut all: Vec<F>) -> Vec<usize> {
    let mut done = vec![None; all.len()];
    std::future::poll_fn(move |context| {
        for (one, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(granted) = std::pin::Pin::new(one).poll(context)
            {
                *done = Some(granted);
            }
        }
        let finished: Option<Vec<usize>> = done.iter().copied().collect();
        finished.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_move_is_told_after_the_limit_and_one_that_moves_never() {
    let bulk = bulk();
    let stream = bulk.open(0, BulkClass::Sync);
    assert_eq!(at_once(&stream, 1_000), 1_000);
    let started = Instant::now();
    let moving = async {
        for bytes in 1..=100 {
            tokio::time::sleep(Duration::from_secs(19)).await;
            stream.confirm(told(bytes)).unwrap();
        }
    };
    tokio::select! {
        biased;
        () = stream.stalled() => panic!("it moves"),
        () = moving => {}
    }
    stream.stalled().await;
    let last = Duration::from_secs(1_900);
    assert_eq!(started.elapsed(), last + STALL_LIMIT);
    stream.confirm(told(1_000)).unwrap();
    let idle = tokio::time::timeout(Duration::from_secs(3_600), stream.stalled());
    assert!(idle.await.is_err(), "nothing is outstanding");
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_one_byte_a_second_gets_no_more_than_the_start() {
    let bulk = bulk();
    let stream = bulk.open(0, BulkClass::Sync);
    let mut written = all(&stream);
    for confirmed in 1..=3_600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stream.confirm(told(confirmed)).unwrap();
        written += all(&stream);
        assert!(written - confirmed <= 2 * START_BYTES);
    }
}

#[tokio::test]
async fn a_confirmation_beyond_what_was_written_is_refused() {
    let bulk = bulk();
    let stream = bulk.open(3, BulkClass::Proposal);
    assert_eq!(stream.acquire(100).await, 100);
    assert!(bulk.confirm(3, told(101)).is_err());
    assert!(bulk.confirm(11, told(1)).is_err());
    bulk.confirm(3, told(100)).unwrap();
    stream.all_confirmed().await;
    drop(stream);
    // Late, for a stream that is over.
    bulk.confirm(3, told(100)).unwrap();
}

proptest! {
    #[test]
    fn what_is_unconfirmed_is_the_sum_over_open_streams_and_within_the_bound(
        steps in proptest::collection::vec((0u64..4, 1u64..40_000, any::<bool>()), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let bulk = bulk();
        let mut open: BTreeMap<u64, (BulkStream, u64, u64)> = BTreeMap::new();
        let allowed = || {
            let state = bulk.state();
            state.credit.bytes() + state.reserve()
        };
        let mut most = allowed();
        for (id, bytes, body) in steps {
            let class = if body { BulkClass::Proposal } else { BulkClass::Sync };
            let entry = open.entry(id).or_insert_with(|| (bulk.open(id, class), 0, 0));
            match at_once(&entry.0, bytes as usize) {
                0 if bytes % 3 == 0 => drop(open.remove(&id)),
                0 => {
                    entry.2 = entry.1;
                    entry.0.confirm(told(entry.1)).unwrap();
                }
                granted => entry.1 += granted,
            }
            let expected: u64 = open.values().map(|(_, written, confirmed)| written - confirmed).sum();
            let summary = bulk.summary();
            prop_assert_eq!(summary.unconfirmed, expected);
            // The bound may have become smaller since.
            most = most.max(allowed());
            prop_assert!(expected <= most, "{} of {}", expected, most);
        }
    }
}
