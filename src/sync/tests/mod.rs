//! Whole syncs: real chains, the real server, and a network that is a few channels.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::actor::Actor;
use super::io::{Answer, Network};
use super::server::{self, MAX_SERVED_PER_PEER, Serve};
use super::{SyncFailure, SyncStatus};
use crate::chain::generator::commit_segment;
use crate::chain::testing::TestNet;
use crate::chain::{Chain, ChainError};
use crate::env::Offload;
use crate::types::{EncodedBody, Height};
use crate::wire::{SyncRequest, SyncResponse};

mod fake;
mod sockets;

use fake::*;

/// A node that syncs from fake peers.
struct Node {
    chain: Chain,
    net: FakeNet,
    status: watch::Receiver<SyncStatus>,
    end: tokio::task::JoinHandle<Result<(), SyncFailure>>,
    cancel: CancellationToken,
    started: Instant,
}

impl Node {
    fn start(chain: Chain, net: FakeNet, masternode: bool, cancel: CancellationToken) -> Self {
        let (sender, status) = watch::channel(SyncStatus::default());
        let actor = Actor::new(
            chain.clone(),
            net.clone(),
            Offload::Inline,
            masternode,
            sender,
        );
        let end = tokio::spawn(actor.run(cancel.clone()));
        let started = Instant::now();
        Self {
            chain,
            net,
            status,
            end,
            cancel,
            started,
        }
    }

    /// Waits until the tip is there; how long it took, in virtual time since the start.
    async fn reaches(&self, height: u64) -> Duration {
        let mut tip = self.chain.watch_tip();
        let reached = tip.wait_for(|tip| tip.height >= Height(height));
        tokio::time::timeout(Duration::from_secs(600), reached)
            .await
            .expect("it gets there")
            .expect("the chain lives");
        self.started.elapsed()
    }

    /// Waits until nothing is being fetched.
    async fn rests(&mut self) -> SyncStatus {
        let resting = self.status.wait_for(|status| !status.syncing).await;
        resting.expect("sync lives").clone()
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.end.await.expect("no panic").expect("no failure");
    }
}

async fn grown(net: &TestNet, blocks: usize) -> Chain {
    let chain = net.chain().await;
    net.grow(&chain, blocks).await;
    chain
}

/// Another chain with the same blocks, so that the two can grow apart.
async fn copy(net: &TestNet, of: &Chain) -> Chain {
    let chain = net.chain().await;
    for height in 1..=of.tip().height.0 {
        let block = of.block(Height(height)).await.unwrap().unwrap();
        let certificate = net.certify(&block.header);
        chain.commit(Arc::new(block), certificate).await.unwrap();
    }
    chain
}

#[tokio::test(start_paused = true)]
async fn a_node_stuck_at_height_0_while_the_others_stand_at_2480() {
    let test = TestNet::new(&[1, 1, 1]);
    let source = test.chain().await;
    for _ in 0..2480 {
        test.extend(&source, Vec::new()).await;
    }
    let cancel = CancellationToken::new();
    let net = FakeNet::new(&cancel, [(); 3].map(|()| (source.clone(), honest as Twist)));
    let mut node = Node::start(test.chain().await, net, false, cancel);
    let took = node.reaches(2480).await;
    assert!(
        took < Duration::from_secs(5),
        "{took:?} with 10 ms a round trip"
    );
    assert_eq!(node.chain.tip(), source.tip());
    let status = node.rests().await;
    assert_eq!((status.height, status.target), (Height(2480), Height(2480)));
    assert_eq!((status.synced_blocks, status.replaced), (2480, vec![]));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_has_each_new_block_at_once() {
    let test = TestNet::new(&[1]);
    let source = grown(&test, 3).await;
    let cancel = CancellationToken::new();
    let net = FakeNet::new(&cancel, [(source.clone(), honest as Twist)]);
    let node = Node::start(test.chain().await, net, false, cancel);
    node.reaches(3).await;
    for height in 4..10 {
        let before = Instant::now();
        test.grow(&source, 1).await;
        node.net.announce();
        node.reaches(height).await;
        assert!(before.elapsed() < 10 * RTT, "headers, then the body");
    }
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_masternode_that_is_one_behind_waits_for_consensus() {
    let test = TestNet::new(&[1]);
    let source = grown(&test, 1).await;
    let cancel = CancellationToken::new();
    let net = FakeNet::new(&cancel, [(source.clone(), honest as Twist)]);
    let node = Node::start(test.chain().await, net, true, cancel);
    let took = node.reaches(1).await;
    assert!(took >= Duration::from_secs(2), "{took:?}");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn it_resumes_in_the_middle_of_a_segment() {
    let test = TestNet::new(&[1]);
    let source = grown(&test, 300).await;
    let cancel = CancellationToken::new();
    let net = FakeNet::new(&cancel, [(source.clone(), honest as Twist)]);
    let start = test.chain().await;
    let mut part = Vec::new();
    for height in 1..=100 {
        let block = source.block(Height(height)).await.unwrap().unwrap();
        let certificate = test.certify(&block.header);
        part.push((Arc::new(block), certificate));
    }
    let bodies = crate::chain::testing::bodies(&part);
    commit_segment(&start, test.segment(&part), bodies)
        .await
        .unwrap();
    let mut node = Node::start(start, net, false, cancel);
    node.reaches(300).await;
    assert_eq!(node.chain.tip(), source.tip());
    assert_eq!(node.rests().await.synced_blocks, 200);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_wrong_is_set_aside_with_its_reason() {
    let test = TestNet::new(&[1, 1, 1]);
    let source = grown(&test, 70).await;
    let cases: [(Twist, &str); 4] = [
        (unsigned, "power 1 of 3 is not enough"),
        (tampered, "but the header commits to"),
        (
            shifted,
            "69 headers from height 2 on for a request of 1 to 256",
        ),
        (twice, "sent headers instead of a certificate"),
    ];
    for (twist, reason) in cases {
        let cancel = CancellationToken::new();
        // The lowest address is asked first.
        let peers = [(source.clone(), twist), (source.clone(), honest as Twist)];
        let net = FakeNet::new(&cancel, peers);
        let mut node = Node::start(test.chain().await, net, false, cancel);
        let took = node.reaches(70).await;
        assert!(took < Duration::from_secs(2), "{reason}: {took:?}");
        let replaced = node.rests().await.replaced;
        assert_eq!(replaced[0].0, ip(2));
        assert!(replaced[0].1.contains(reason), "{:?}", replaced[0]);
        node.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_lies_about_its_height_or_falls_silent_stalls_nothing() {
    let test = TestNet::new(&[1]);
    let (source, empty) = (grown(&test, 300).await, test.chain().await);
    for twist in [honest as Twist, silent] {
        let cancel = CancellationToken::new();
        let peers = [(empty.clone(), twist), (source.clone(), honest)];
        let mut net = FakeNet::new(&cancel, peers);
        let liar = Arc::get_mut(&mut net.peers).unwrap().get_mut(&ip(2));
        liar.unwrap().claim = Some(Height(1_000_000_000));
        let node = Node::start(test.chain().await, net, false, cancel);
        let took = node.reaches(300).await;
        assert!(took < Duration::from_secs(10), "{took:?}");
        node.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_that_consensus_commits_meanwhile_do_no_harm() {
    let test = TestNet::new(&[1]);
    let source = grown(&test, 120).await;
    let cancel = CancellationToken::new();
    let net = FakeNet::new(&cancel, [(source.clone(), honest as Twist)]);
    let node = Node::start(test.chain().await, net, true, cancel);
    for height in 1..=120 {
        let block = source.block(Height(height)).await.unwrap().unwrap();
        let certificate = test.certify(&block.header);
        match node.chain.commit(Arc::new(block), certificate).await {
            Ok(_) | Err(ChainError::NotNext { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    node.reaches(120).await;
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_certified_block_on_another_parent_stops_the_node() {
    let test = TestNet::new(&[1]);
    let ours = grown(&test, 5).await;
    let theirs = copy(&test, &ours).await;
    test.grow(&ours, 1).await;
    // Another block 6: no payment in it.
    test.extend(&theirs, Vec::new()).await;
    test.extend(&theirs, Vec::new()).await;
    let cancel = CancellationToken::new();
    let net = FakeNet::new(&cancel, [(theirs.clone(), honest as Twist)]);
    let node = Node::start(ours.clone(), net, false, cancel);
    let failure = node.end.await.unwrap().unwrap_err();
    let SyncFailure::Chain(ChainError::Fork {
        height,
        ours: at_home,
        theirs: abroad,
    }) = failure
    else {
        panic!("{failure}");
    };
    assert_eq!((height, at_home), (Height(6), ours.tip().hash));
    assert_eq!(
        abroad,
        theirs.headers(Height(6), Height(6)).await.unwrap()[0].hash()
    );
}

/// A server and what a peer hears from it.
async fn ask(chain: &Chain, request: SyncRequest) -> Vec<SyncResponse> {
    let cancel = CancellationToken::new();
    let net = FakeNet::new(&cancel, [(chain.clone(), honest as Twist)]);
    let mut answer = net.request(ip(2), request).await.unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = answer.next().await.unwrap() {
        frames.push(frame);
    }
    cancel.cancel();
    frames
}

#[tokio::test(start_paused = true)]
async fn the_server_ends_headers_where_it_holds_a_certificate() {
    let test = TestNet::new(&[1]);
    let source = grown(&test, 6).await;
    let (first, last) = (Height(3), Height(256));
    let frames = ask(&source, SyncRequest::Headers { first, last }).await;
    let headers = source.headers(first, Height(6)).await.unwrap();
    let certificate = source.certificate(Height(6)).await.unwrap().unwrap();
    assert_eq!(
        frames,
        [
            SyncResponse::Headers(headers),
            SyncResponse::Certificate(certificate)
        ]
    );

    // The first two blocks of a segment of three: their certificate is not stored.
    let partial = test.chain().await;
    let blocks = {
        let other = test.chain().await;
        test.grow(&other, 3).await
    };
    let bodies = crate::chain::testing::bodies(&blocks[..2]);
    commit_segment(&partial, test.segment(&blocks), bodies)
        .await
        .unwrap();
    let (first, last) = (Height(1), Height(256));
    let tip = Height(2);
    assert_eq!(
        ask(&partial, SyncRequest::Headers { first, last }).await,
        [SyncResponse::NotHeld { tip }]
    );
}

#[tokio::test(start_paused = true)]
async fn the_server_sends_a_frame_a_body_and_says_what_it_does_not_hold() {
    let test = TestNet::new(&[1]);
    let source = grown(&test, 3).await;
    let (first, last) = (Height(2), Height(4));
    let frames = ask(&source, SyncRequest::Bodies { first, last }).await;
    let mut expected = Vec::new();
    for height in [2, 3] {
        let block = source.block(Height(height)).await.unwrap().unwrap();
        expected.push(SyncResponse::Body(EncodedBody::of(&block.transactions)));
    }
    expected.push(SyncResponse::NotHeld { tip: Height(3) });
    assert_eq!(frames, expected);
}

#[tokio::test(start_paused = true)]
async fn one_peer_cannot_take_all_places_of_the_server() {
    let test = TestNet::new(&[1]);
    let source = grown(&test, 5).await;
    let cancel = CancellationToken::new();
    let (requests, serve) = mpsc::channel(4);
    tokio::spawn(server::serve(source, serve, cancel.clone()));
    let (first, last) = (Height(1), Height(5));
    let request = SyncRequest::Bodies { first, last };
    let mut answers = Vec::new();
    // Nobody reads the answers, so each keeps its place.
    for _ in 0..MAX_SERVED_PER_PEER + 1 {
        let (sink, frames) = mpsc::channel(1);
        let serve = Serve {
            peer: ip(9),
            request,
            answer: FakeSink(sink),
        };
        assert!(requests.send(serve).await.is_ok(), "the server lives");
        answers.push(frames);
    }
    let refused = answers.pop().unwrap().recv().await;
    assert!(refused.is_none(), "dropped without a frame");
    let (sink, mut frames) = mpsc::channel(1);
    let serve = Serve {
        peer: ip(10),
        request,
        answer: FakeSink(sink),
    };
    assert!(requests.send(serve).await.is_ok(), "the server lives");
    assert!(frames.recv().await.is_some(), "another peer is served");
    cancel.cancel();
}

/// Four peers take all places and read nothing; a fifth is served all the same, and so is a sixth.
#[tokio::test(start_paused = true)]
async fn places_without_progress_go_to_those_who_wait() {
    let test = TestNet::new(&[1]);
    let source = grown(&test, 5).await;
    let cancel = CancellationToken::new();
    let (requests, serve) = mpsc::channel(4);
    tokio::spawn(server::serve(source, serve, cancel.clone()));
    let request = SyncRequest::Bodies {
        first: Height(1),
        last: Height(5),
    };
    let mut unread = Vec::new();
    for peer in [1, 2, 3, 4] {
        for _ in 0..MAX_SERVED_PER_PEER {
            let (sink, frames) = mpsc::channel(1);
            let serve = Serve {
                peer: ip(peer),
                request,
                answer: FakeSink(sink),
            };
            assert!(requests.send(serve).await.is_ok(), "the server lives");
            unread.push(frames);
        }
    }
    for peer in [5, 6] {
        let (sink, mut frames) = mpsc::channel(1);
        let serve = Serve {
            peer: ip(peer),
            request,
            answer: FakeSink(sink),
        };
        let asked = tokio::time::Instant::now();
        assert!(requests.send(serve).await.is_ok(), "the server lives");
        for height in 1..=5 {
            assert!(frames.recv().await.is_some(), "the body of {height}");
        }
        assert!(asked.elapsed() <= Duration::from_secs(5));
    }
    cancel.cancel();
}
