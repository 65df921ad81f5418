//! What a peer may send on which stream, and what happens otherwise.

use quinn::{ReadError, ReadToEndError, TransportConfig};

use super::raw::{Raw, endpoint, open};
use super::*;
use crate::net::frames::{ABANDONED, FrameWriter};
use crate::net::meter::Meter;
use crate::types::{ConsensusKey, Proposal, Round, TxId};
use crate::wire::{
    CloseCode, ConsensusMessage, KeepaliveMessage, Ping, ReachSet, StreamKind, TransactionsMessage,
    encode_frame,
};

fn get_body(height: u64) -> ConsensusMessage {
    ConsensusMessage::GetBody {
        height: Height(height),
        block: BlockHash([1; 32]),
    }
}

#[tokio::test]
async fn messages_of_every_lifelong_stream_arrive_in_order_after_connected() {
    let plan = Plan::new(2, 0);
    let (mut low, mut high) = (plan.start(1), plan.start(2));
    low.connected_to(&[high.ip]).await;
    high.connected_to(&[low.ip]).await;
    for height in 1..=50 {
        high.net.send_consensus(low.ip, get_body(height)).unwrap();
        let ids = vec![TxId([height as u8; 32])];
        let message = TransactionsMessage::Announce(ids);
        low.net.send_transactions(high.ip, message).unwrap();
    }
    let first = low.consensus.recv().await.unwrap();
    assert!(matches!(
        first,
        ConsensusEvent::Connected { peer, masternode: 1 } if peer == high.ip
    ));
    let mut heights = Vec::new();
    while heights.len() < 50 {
        match low.consensus.recv().await.unwrap() {
            ConsensusEvent::Message { peer, message } => {
                assert_eq!(peer, high.ip);
                let ConsensusMessage::GetBody { height, .. } = message else {
                    panic!("{message:?}")
                };
                heights.push(height.0);
            }
            ConsensusEvent::Reach { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(heights.into_iter().eq(1..=50));
    let first = high.transactions.recv().await.unwrap();
    assert!(matches!(first, TransactionsEvent::Connected { peer } if peer == low.ip));
    for height in 1..=50u8 {
        let event = high.transactions.recv().await.unwrap();
        let TransactionsEvent::Message { message, .. } = event else {
            panic!("{event:?}")
        };
        let expected = TransactionsMessage::Announce(vec![TxId([height; 32])]);
        assert_eq!(message, expected);
    }
    low.stop().await;
    loop {
        match high.consensus.recv().await.unwrap() {
            ConsensusEvent::Disconnected { masternode: 0, .. } => break,
            ConsensusEvent::Connected { .. } | ConsensusEvent::Reach { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_full_node_has_transactions_and_no_consensus_stream() {
    let mut plan = Plan::new(1, 1);
    plan.timing.dial_grace = Duration::ZERO;
    let (mut masternode, full) = (plan.start(1), plan.start(2));
    full.connected_to(&[masternode.ip]).await;
    masternode.connected_to(&[full.ip]).await;
    let error = masternode.net.send_consensus(full.ip, get_body(1));
    assert_eq!(
        error.unwrap_err().to_string(),
        format!(
            "peer {} has no consensus stream: it is not a pinned masternode",
            full.ip
        )
    );
    let message = TransactionsMessage::Get(Vec::new());
    full.net.send_transactions(masternode.ip, message).unwrap();
    masternode.transactions.recv().await.unwrap();
    assert!(matches!(
        masternode.transactions.recv().await.unwrap(),
        TransactionsEvent::Message { .. }
    ));
    assert!(masternode.consensus.try_recv().is_err());
}

/// Runs a raw full node against a masternode, lets it misbehave, and gives the reason that both
/// sides have at the end.
async fn misbehave(bad: impl AsyncFnOnce(&mut Raw)) -> CloseReason {
    let plan = Plan::new(1, 1);
    let node = plan.start(1);
    let mut raw = Raw::dial(&plan, 2, 1).await;
    bad(&mut raw).await;
    let reason = raw.closed().await;
    assert_eq!(reason.code, CloseCode::ProtocolViolation, "{reason}");
    node.until("disconnected", |peers| peers.is_empty()).await;
    let known = node.net.known_peers();
    let known = known.iter().find(|peer| peer.ip == plan.ip(2)).unwrap();
    let (_, _, why) = known.last_end.as_ref().unwrap();
    assert!(why.contains(&reason.detail), "{why}");
    reason
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_connection_before_its_bytes_come() {
    let reason = misbehave(async |raw| {
        let mut stream = open(&raw.quic, StreamKind::Transactions).await;
        let length = StreamKind::Transactions.max_frame_bytes() as u32 + 1;
        stream.write_all(&length.to_le_bytes()).await.unwrap();
        std::mem::forget(stream);
    })
    .await;
    assert_eq!(
        reason.detail,
        "frame of 1048577 bytes on a transactions stream, whose limit is 1048576"
    );
}

#[tokio::test]
async fn a_truncated_frame_ends_the_connection() {
    let reason = misbehave(async |raw| {
        let mut stream = open(&raw.quic, StreamKind::Transactions).await;
        stream.write_all(&[9, 0, 0, 0, 1, 2]).await.unwrap();
        stream.finish().unwrap();
    })
    .await;
    assert_eq!(reason.detail, "a transactions stream ended inside a frame");
}

#[tokio::test]
async fn trailing_bytes_in_a_frame_end_the_connection() {
    let reason = misbehave(async |raw| {
        let mut stream = open(&raw.quic, StreamKind::Transactions).await;
        let message = TransactionsMessage::Announce(Vec::new());
        let mut frame = encode_frame(StreamKind::Transactions, &message).unwrap();
        frame.push(0);
        frame[0] += 1;
        stream.write_all(&frame).await.unwrap();
        std::mem::forget(stream);
    })
    .await;
    assert!(reason.detail.contains("1 trailing bytes"), "{reason}");
}

#[tokio::test]
async fn an_empty_frame_a_second_stream_and_too_many_ids_end_the_connection() {
    let reason = misbehave(async |raw| {
        let mut stream = open(&raw.quic, StreamKind::Transactions).await;
        stream.write_all(&[0; 4]).await.unwrap();
        std::mem::forget(stream);
    })
    .await;
    assert_eq!(reason.detail, "empty frame on a transactions stream");

    let reason = misbehave(async |raw| {
        for _ in 0..2 {
            std::mem::forget(open(&raw.quic, StreamKind::Transactions).await);
        }
    })
    .await;
    assert!(reason.detail.contains("second stream"), "{reason}");

    let reason = misbehave(async |raw| {
        let mut stream = open(&raw.quic, StreamKind::Transactions).await;
        let message = TransactionsMessage::Get(vec![TxId([0; 32]); 1001]);
        let frame = encode_frame(StreamKind::Transactions, &message).unwrap();
        stream.write_all(&frame).await.unwrap();
        std::mem::forget(stream);
    })
    .await;
    assert!(reason.detail.contains("1001 ids"), "{reason}");
}

#[tokio::test]
async fn an_unknown_kind_resets_that_stream_only() {
    let plan = Plan::new(1, 1);
    let node = plan.start(1);
    let mut raw = Raw::dial(&plan, 2, 1).await;
    let mut unknown = raw.quic.open_uni().await.unwrap();
    unknown.write_all(&[99, 1, 2, 3]).await.unwrap();
    let code = unknown.stopped().await.unwrap();
    assert_eq!(code, Some(crate::net::frames::UNKNOWN_KIND));
    let (mut send, mut recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&[98]).await.unwrap();
    let reset = recv.read_to_end(10).await.unwrap_err();
    assert!(reset.to_string().contains("reset"), "{reset}");
    raw.say(&KeepaliveMessage::Tip {
        height: Height(7),
        hash: BlockHash([7; 32]),
    })
    .await;
    node.until("the tip: still connected", |peers| {
        peers[0].tip_height == Height(7)
    })
    .await;
}

#[tokio::test]
async fn only_pinned_masternodes_may_open_consensus_and_proposal_streams() {
    for kind in [StreamKind::Consensus, StreamKind::Proposal] {
        let reason = misbehave(async |raw| {
            std::mem::forget(open(&raw.quic, kind).await);
        })
        .await;
        assert!(
            reason.detail.contains("only pinned masternodes"),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn a_second_hello_and_a_reach_beyond_genesis_end_the_connection() {
    let reason = misbehave(async |raw| {
        let plan = Plan::new(1, 1);
        let hello = raw::hello(&plan, 2, plan.ip(1));
        raw.say(&KeepaliveMessage::Hello(hello)).await;
    })
    .await;
    assert!(reason.detail.contains("second Hello"), "{reason}");

    let reason = misbehave(async |raw| {
        let ping = Ping {
            nonce: 1,
            tip_height: Height(0),
            tip_hash: BlockHash([0; 32]),
            reach: ReachSet::from_iter([5]),
        };
        raw.say(&KeepaliveMessage::Ping(ping)).await;
    })
    .await;
    assert!(reason.detail.contains("masternodes that there are not"));
}

#[tokio::test]
async fn a_masternode_without_a_record_here_loses_its_consensus_stream_only() {
    let plan = Plan::new(2, 0);
    let alone = MasternodeDirectory::new(&plan.genesis, plan.records[..1].to_vec()).unwrap();
    let node = plan.start_as(1, plan.config(1), identity(1, plan.ip(1)), alone);
    let mut raw = Raw::dial(&plan, 2, 1).await;
    let stream = open(&raw.quic, StreamKind::Consensus).await;
    let code = stream.stopped().await.unwrap();
    assert_eq!(code, Some(crate::net::frames::NOT_ALLOWED));
    raw.say(&KeepaliveMessage::Tip {
        height: Height(7),
        hash: BlockHash([7; 32]),
    })
    .await;
    node.until("the tip: still connected", |peers| {
        peers[0].tip_height == Height(7)
    })
    .await;
}

/// Others relay to a masternode what it cannot get itself, and know from its pings what that is.
#[tokio::test]
async fn a_masternode_without_a_consensus_stream_is_not_reached() {
    let mut plan = Plan::new(3, 0);
    plan.timing.ping_interval = Duration::from_millis(20);
    let records = [plan.records[0].clone(), plan.records[2].clone()];
    let without = MasternodeDirectory::new(&plan.genesis, records.to_vec()).unwrap();
    let own = identity(1, plan.ip(1));
    let one = plan.start_as(1, plan.config(1), own, without);
    let two = plan.start(2);
    two.connected_to(&[one.ip]).await;
    let mut three = plan.start(3);
    loop {
        if let ConsensusEvent::Reach { peer, reach } = three.consensus.recv().await.unwrap()
            && peer == two.ip
            && reach.contains(2)
        {
            assert!(
                !reach.contains(0),
                "the first takes no consensus stream of the second"
            );
            break;
        }
    }
}

#[tokio::test]
async fn a_consumer_that_is_behind_holds_back_its_stream_and_no_ping() {
    let mut plan = Plan::new(2, 0);
    plan.timing.ping_interval = Duration::from_millis(20);
    let (low, high) = (plan.start(1), plan.start(2));
    low.connected_to(&[high.ip]).await;
    high.connected_to(&[low.ip]).await;
    // Nobody takes the events: the channels fill, then QUIC's window, then the queue.
    let proposal = |height| {
        ConsensusMessage::Proposal(Proposal {
            height: Height(height),
            round: Round(0),
            block: BlockHash([0; 32]),
            polka_round: None,
            proposer: ConsensusKey([0; 32]),
            signature: Signature([0; 64]),
        })
    };
    let mut height = 0;
    while high.info(low.ip).dropped == 0 {
        height += 1;
        high.net.send_consensus(low.ip, proposal(height)).unwrap();
        tokio::task::yield_now().await;
    }
    let before = high.info(low.ip).pongs_received;
    high.until("more pongs", |peers| peers[0].pongs_received > before + 5)
        .await;
}

#[tokio::test]
async fn a_write_that_is_given_up_half_way_resets_its_stream() {
    let plan = Plan::new(1, 1);
    let acceptor = endpoint(&plan, 1);
    let mut window = TransportConfig::default();
    window.stream_receive_window(8u32.into());
    let accept = async { acceptor.accept().await.unwrap().await.unwrap() };
    let dial = Raw::connect_from(endpoint(&plan, 2), &plan, 2, 1, window);
    let (accepted, (_dialer, dialed)) = tokio::join!(accept, dial);

    let stream = accepted.open_uni().await.unwrap();
    let meter = Arc::new(Meter::new());
    let mut writer = FrameWriter::new(stream, StreamKind::Transactions, meter);
    let mut reader = tokio::select! {
        biased;
        written = writer.write(&[7; 100]) => panic!("the peer grants 8 bytes: {written:?}"),
        stream = dialed.accept_uni() => stream.unwrap(),
    };
    drop(writer);
    let read = reader.read_to_end(100).await;
    assert_eq!(
        read,
        Err(ReadToEndError::Read(ReadError::Reset(ABANDONED))),
        "an end would look like a frame cut short by its program"
    );
}
