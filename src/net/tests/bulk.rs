//! Block bodies and sync answers: they arrive, and their bound holds.

use super::raw::{Raw, accept_kind, open};
use super::*;
use crate::types::{EncodedBody, Round, Transaction, TxOutput};
use crate::wire::{
    BodyHeader, CloseCode, ConsensusMessage, StreamKind, SyncRequest, SyncResponse, encode_frame,
};

/// Before anything is confirmed.
const BOUND: u64 = 16 * 1024;

fn header(height: u64) -> BodyHeader {
    BodyHeader {
        height: Height(height),
        round: Round(0),
        block: BlockHash([height as u8; 32]),
    }
}

fn bodies(first: u64, last: u64) -> SyncRequest {
    SyncRequest::Bodies {
        first: Height(first),
        last: Height(last),
    }
}

/// A body of about a megabyte.
fn large_body() -> SyncResponse {
    body_of(1_160_000)
}

/// A body of at most so many bytes.
fn body_of(bytes: usize) -> SyncResponse {
    let transaction = Transaction {
        version: 1,
        inputs: Vec::new(),
        outputs: vec![TxOutput {
            amount: Amount(1),
            address: Address([1; 32]),
        }],
    };
    let count = bytes / transaction.encoded_bytes();
    SyncResponse::Body(EncodedBody::of(&vec![transaction; count]))
}

async fn pair(plan: &Plan) -> (Node, Node) {
    let (low, high) = (plan.start(1), plan.start(2));
    low.connected_to(&[high.ip]).await;
    high.connected_to(&[low.ip]).await;
    (low, high)
}

#[tokio::test]
async fn a_body_of_the_largest_block_arrives_whole_and_its_bytes_are_confirmed() {
    let plan = Plan::new(2, 0);
    let (mut low, high) = pair(&plan).await;
    let block: Arc<Vec<u8>> = Arc::new((0..4_000_000u32).map(|at| (at % 251) as u8).collect());
    high.net
        .send_body(low.ip, header(5), block.clone())
        .unwrap();
    let (mut started, mut progressed) = (false, 0);
    loop {
        match low.consensus.recv().await.unwrap() {
            ConsensusEvent::Body {
                header: got, event, ..
            } => {
                assert_eq!(got, header(5));
                match event {
                    BodyEvent::Started { total } => {
                        assert_eq!(total, block.len());
                        started = true;
                    }
                    BodyEvent::Progress { received } => {
                        assert!(received >= progressed + 64 * 1024);
                        progressed = received;
                    }
                    BodyEvent::Complete { bytes } => {
                        assert!(bytes.into_vec() == *block);
                        break;
                    }
                    BodyEvent::Failed => panic!("failed"),
                }
            }
            ConsensusEvent::Connected { .. } | ConsensusEvent::Reach { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(started && progressed > 3_000_000);
    high.until("all confirmed", |peers| peers[0].bulk_unconfirmed == 0)
        .await;
    let too_long = Arc::new(vec![0; 4_000_001]);
    assert!(matches!(
        high.net.send_body(low.ip, header(6), too_long),
        Err(SendError::TooLong { .. })
    ));
}

#[tokio::test]
async fn a_sync_answer_arrives_whole_and_shows_progress() {
    let plan = Plan::new(1, 1);
    let (mut server, client) = pair(&plan).await;
    let asking = tokio::spawn({
        let (net, ip) = (client.net.clone(), server.ip);
        async move { net.request_sync(ip, bodies(1, 3)).await.unwrap() }
    });
    let SyncServe {
        peer,
        request,
        mut answer,
    } = server.sync.recv().await.unwrap();
    assert_eq!((peer, request), (client.ip, bodies(1, 3)));
    let mut responses = asking.await.unwrap();
    let serving = tokio::spawn(async move {
        for _ in 0..3 {
            answer.send(&large_body()).await.unwrap();
        }
        answer.finish().unwrap();
    });
    let mut progress = responses.progress();
    let watching = tokio::spawn(async move {
        let mut steps = 0;
        while progress.changed().await.is_ok() {
            steps += 1;
        }
        steps
    });
    for _ in 0..3 {
        let next = responses.next().await.unwrap();
        assert_eq!(next, Some(large_body()));
    }
    assert_eq!(responses.next().await.unwrap(), None);
    drop(responses);
    assert!(watching.await.unwrap() > 3);
    serving.await.unwrap();
    server
        .until("all confirmed", |peers| peers[0].bulk_unconfirmed == 0)
        .await;
    server.connected_to(&[client.ip]).await;
}

/// What each of several answers has consumed and not confirmed must not add up to the bound: a
/// little more than 21 KiB of each of four are.
#[tokio::test]
async fn answers_side_by_side_do_not_hold_each_other_up() {
    let plan = Plan::new(1, 1);
    let (mut server, client) = pair(&plan).await;
    let body = body_of(22_000);
    let mut open = Vec::new();
    for height in 1..=4 {
        let asked = bodies(height, height + 1);
        let responses = client.net.request_sync(server.ip, asked).await;
        open.push((server.sync.recv().await.unwrap(), responses.unwrap()));
    }
    for _ in 0..2 {
        for (serve, responses) in &mut open {
            serve.answer.send(&body).await.unwrap();
            let next = tokio::time::timeout(PATIENCE / 10, responses.next()).await;
            assert_eq!(next.expect("not held up").unwrap().as_ref(), Some(&body));
        }
    }
}

#[tokio::test]
async fn an_answer_that_its_server_drops_is_an_error_and_not_an_end() {
    let plan = Plan::new(1, 1);
    let (mut server, client) = pair(&plan).await;
    let mut responses = client
        .net
        .request_sync(server.ip, bodies(1, 2))
        .await
        .unwrap();
    let mut serve = server.sync.recv().await.unwrap();
    serve.answer.send(&body_of(0)).await.unwrap();
    let first = responses.next().await.unwrap();
    assert_eq!(first, Some(body_of(0)));
    drop(serve);
    assert!(matches!(
        responses.next().await,
        Err(SyncError::Ended { .. })
    ));
}

#[tokio::test]
async fn a_request_that_is_given_up_frees_the_bound_and_the_server_hears_of_it() {
    let plan = Plan::new(1, 1);
    let (mut server, client) = pair(&plan).await;
    let responses = client
        .net
        .request_sync(server.ip, bodies(1, 9))
        .await
        .unwrap();
    let mut serve = server.sync.recv().await.unwrap();
    let serving = tokio::spawn(async move {
        loop {
            if let Err(error) = serve.answer.send(&large_body()).await {
                return error;
            }
        }
    });
    server
        .until("bulk in flight", |peers| peers[0].bulk_unconfirmed > 0)
        .await;
    drop(responses);
    let error = serving.await.unwrap();
    assert!(matches!(error, SyncError::Ended { .. }), "{error}");
    server
        .until("released", |peers| peers[0].bulk_unconfirmed == 0)
        .await;
}

#[tokio::test]
async fn a_fifth_request_waits_for_one_of_four() {
    let plan = Plan::new(1, 1);
    let (mut server, client) = pair(&plan).await;
    let mut open = Vec::new();
    for height in 1..=4 {
        open.push(
            client
                .net
                .request_sync(server.ip, bodies(height, height))
                .await
                .unwrap(),
        );
        server.sync.recv().await.unwrap();
    }
    let fifth = client.net.request_sync(server.ip, bodies(5, 5));
    tokio::pin!(fifth);
    let waited = tokio::time::timeout(Duration::from_millis(50), &mut fifth).await;
    assert!(waited.is_err());
    open.pop();
    fifth.await.unwrap();
}

#[tokio::test]
async fn a_reader_that_never_confirms_blocks_only_bulk() {
    let mut plan = Plan::new(2, 0);
    plan.timing.ping_interval = Duration::from_millis(20);
    let node = plan.start(1);
    let mut raw = Raw::dial(&plan, 2, 1).await;
    let ip = plan.ip(2);
    node.connected_to(&[ip]).await;
    let block = Arc::new(vec![7; 1_000_000]);
    node.net.send_body(ip, header(1), block).unwrap();
    let mut body = accept_kind(&raw.quic, StreamKind::Proposal).await;
    let stuck = node
        .until("the bound is reached but for a packet", |peers| {
            peers[0].bulk_unconfirmed + 1_500 > BOUND
        })
        .await;
    let written = stuck[0].bulk_unconfirmed;
    assert!(written <= BOUND);
    let id = body.id();
    let reading = tokio::spawn(async move {
        // Everything that comes is read, and none of it confirmed.
        while body.consumed() < written {
            body.step().await.unwrap();
        }
        body
    });
    let body = reading.await.unwrap();
    assert_eq!(body.consumed(), written);
    let mut consensus = open(&raw.quic, StreamKind::Consensus).await;
    let answering = tokio::spawn(async move {
        let reason = raw.answer_pings().await;
        (reason, raw)
    });
    let before = stuck[0].pongs_received;
    let peers = node
        .until("ten more pongs", |peers| {
            peers[0].pongs_received >= before + 10
        })
        .await;
    assert_eq!(peers[0].bulk_unconfirmed, written);

    // A confirmation lets more out; one beyond what was written ends the connection.
    for (bytes, expected) in [(written, None), (u64::MAX, Some("confirmed"))] {
        let message = ConsensusMessage::Consumed {
            stream: id,
            bytes,
            at_us: 0,
        };
        let frame = encode_frame(StreamKind::Consensus, &message).unwrap();
        consensus.write_all(&frame).await.unwrap();
        if expected.is_none() {
            node.until("more was written", |peers| {
                peers[0].streams[StreamKind::Proposal as usize].sent > written
            })
            .await;
        }
    }
    let (reason, _raw) = answering.await.unwrap();
    assert_eq!(reason.code, CloseCode::ProtocolViolation);
    assert!(reason.detail.contains("confirmed"), "{reason}");
    drop(body);
}
