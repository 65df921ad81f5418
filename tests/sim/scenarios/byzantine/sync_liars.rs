//! Takes its part in consensus as it should, and lies to whoever asks it for blocks. A node that has
//! lost everything catches up all the same, and knows who lied.

use std::sync::{Arc, Mutex};

use timed::chain::Chain;
use timed::net::SyncServe;
use timed::types::{
    Block, CommitCertificate, EncodedBody, Height, Round, Signature, Tip, Vote, VoteKind,
};
use timed::wire::{ConsensusMessage, SyncRequest, SyncResponse};

use super::*;
use crate::puppet::{Agreeable, Behaviour, Stage, bogus_transaction};
use crate::run::scenario;
use crate::world::{Plan, address};

scenarios! {
    wrong_bodies_are_refused_and_their_sender_named,
    wrong_certificates_are_refused_and_their_sender_named,
    a_certificate_below_quorum_is_refused_and_its_sender_named,
    a_forged_branch_is_refused_and_its_sender_named,
    answers_that_end_early_are_asked_of_others,
    answers_with_too_much_are_refused_and_their_sender_named,
    answers_that_never_come_are_asked_of_others,
    a_tip_that_there_is_not_stops_nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// A transaction that the header does not name.
    WrongBody,
    /// One signature of the certificate is another's.
    WrongCertificate,
    /// The certificate has signatures of two thirds, not of more.
    BelowQuorum,
    /// The last header is another block's, certified by the liar alone.
    Forged,
    /// Half of the answer, ended as if it were whole.
    TooShort,
    /// One frame more than asked for.
    TooLong,
    /// The request is held, and nothing comes.
    Nothing,
    /// It announces a thousand blocks more than there are, and answers nothing.
    WrongTip,
}

struct Liar {
    lie: Lie,
    /// Requests that are held open for ever.
    kept: Arc<Mutex<Vec<SyncServe>>>,
    agreeable: Agreeable,
}

impl Liar {
    fn new(lie: Lie) -> Self {
        Self {
            lie,
            kept: Arc::default(),
            agreeable: Agreeable::default(),
        }
    }
}

impl Behaviour for Liar {
    fn heard(&mut self, stage: &mut Stage, _from: usize, message: &ConsensusMessage) {
        if let Some((kind, height, round, block)) = self.agreeable.answer(message) {
            stage.send_all(&stage.others(), &stage.vote(kind, height, round, block));
        }
    }

    fn turn(&mut self, stage: &mut Stage, round: Round, block: Block) {
        let to = stage.others();
        let (height, hash) = (block.header.height, block.hash());
        stage.propose(&to, &block, round);
        for kind in [VoteKind::Prevote, VoteKind::Precommit] {
            stage.send_all(&to, &stage.vote(kind, height, round, Some(hash)));
        }
    }

    fn asked(&mut self, stage: &mut Stage, request: SyncServe) -> Option<SyncServe> {
        stage.act();
        if matches!(self.lie, Lie::Nothing | Lie::WrongTip) {
            self.kept.lock().unwrap().push(request);
            return None;
        }
        let sign = {
            let (key, genesis) = (stage.key.clone(), stage.chain.genesis_hash());
            move |height, block| {
                let kind = VoteKind::Precommit;
                Vote::sign(&key, &genesis, kind, height, Round(0), Some(block))
            }
        };
        let (chain, lie) = (stage.chain.clone(), self.lie);
        tokio::spawn(async move { answer(chain, request, lie, sign).await });
        None
    }

    fn tip(&self, truth: Tip) -> Tip {
        let above = u64::from(self.lie == Lie::WrongTip) * 1_000;
        Tip {
            height: Height(truth.height.0 + above),
            ..truth
        }
    }
}

/// Sends the false answer as far as the asker takes it; `None` when it has given up.
async fn answer(
    chain: Chain,
    serve: SyncServe,
    lie: Lie,
    sign: impl Fn(Height, timed::types::BlockHash) -> Vote,
) -> Option<()> {
    let mut to = serve.answer;
    let (first, last) = serve.request.range();
    let mut responses = Vec::new();
    if let SyncRequest::Headers { .. } = serve.request {
        let certificate = chain.last_certificate(first, last).await.ok()??;
        let headers = chain.headers(first, certificate.height).await.ok()?;
        responses.push(SyncResponse::Headers(headers));
        responses.push(SyncResponse::Certificate(certificate));
    } else {
        for height in (first.0..=last.0).map(Height) {
            responses.push(SyncResponse::Body(chain.encoded_body(height).await.ok()??));
        }
    }
    falsify(&mut responses, lie, sign);
    for response in responses {
        to.send(&response).await.ok()?;
    }
    to.finish().ok()
}

fn falsify(
    responses: &mut Vec<SyncResponse>,
    lie: Lie,
    sign: impl Fn(Height, timed::types::BlockHash) -> Vote,
) {
    match (lie, &mut responses[..]) {
        (Lie::WrongBody, bodies) => {
            for body in bodies {
                if let SyncResponse::Body(body) = body {
                    let mut transactions = body.decode();
                    transactions.push(bogus_transaction(1));
                    *body = EncodedBody::of(&transactions);
                }
            }
        }
        (Lie::WrongCertificate, [_, SyncResponse::Certificate(certificate)]) => {
            certificate.signatures[0].1 = Signature([1; 64]);
        }
        (Lie::BelowQuorum, [_, SyncResponse::Certificate(certificate)]) => {
            certificate.signatures.truncate(4);
        }
        (
            Lie::Forged,
            [
                SyncResponse::Headers(headers),
                SyncResponse::Certificate(certificate),
            ],
        ) => {
            let header = headers.last_mut().expect("there is one");
            header.time_ms += 1;
            let vote = sign(header.height, header.hash());
            *certificate = CommitCertificate {
                height: header.height,
                round: Round(0),
                block: header.hash(),
                signatures: vec![(vote.voter, vote.signature)],
            };
        }
        (Lie::TooShort, _) => responses.truncate(responses.len() / 2),
        (Lie::TooLong, _) => responses.push(SyncResponse::Body(EncodedBody::of(&[]))),
        _ => {}
    }
}

/// Two of seven lie. Another one starts many heights late and asks them first, because they have
/// the lowest addresses.
fn with_liars(seed: u64, lie: Lie, named: &'static str) {
    scenario(Plan::new(7), seed, async |world: &mut World| {
        for puppet in [0, 1] {
            world.puppet(puppet, Liar::new(lie)).await;
        }
        for node in 2..6 {
            world.start(node).await;
        }
        world.run(10 * SECOND).await;
        for node in 2..6 {
            world.pay(node).await;
            world.run(40 * SECOND).await;
        }
        let behind = world.height(2);
        assert!(behind.0 >= 28, "{behind}");
        world.start(6).await;
        world.connected_within(20 * SECOND).await;
        world.level_within(30 * SECOND).await;
        let replaced = world
            .node(6)
            .sync()
            .watch_status()
            .borrow()
            .replaced
            .clone();
        assert!(world.acts(0) + world.acts(1) > 0, "nobody was asked");
        let by_liar = |(who, why): &(timed::types::PeerIp, String)| {
            (0..2).any(|liar| *who == address(liar).into()) && why.contains(named)
        };
        assert!(replaced.iter().any(by_liar), "{replaced:?}");
        for (who, why) in replaced {
            let honest = (2..6).any(|node| who == address(node).into());
            assert!(!honest, "{who} is blamed: {why}");
        }
        goes_on(world, 30 * SECOND).await;
    });
}

fn wrong_bodies_are_refused_and_their_sender_named(seed: u64) {
    with_liars(seed, Lie::WrongBody, "the header commits to");
}

fn wrong_certificates_are_refused_and_their_sender_named(seed: u64) {
    with_liars(seed, Lie::WrongCertificate, "certificate");
}

fn a_certificate_below_quorum_is_refused_and_its_sender_named(seed: u64) {
    with_liars(seed, Lie::BelowQuorum, "certificate");
}

fn a_forged_branch_is_refused_and_its_sender_named(seed: u64) {
    with_liars(seed, Lie::Forged, "certificate");
}

fn answers_that_end_early_are_asked_of_others(seed: u64) {
    with_liars(seed, Lie::TooShort, "instead of");
}

fn answers_with_too_much_are_refused_and_their_sender_named(seed: u64) {
    with_liars(seed, Lie::TooLong, "instead of the end");
}

fn answers_that_never_come_are_asked_of_others(seed: u64) {
    with_liars(seed, Lie::Nothing, "");
}

fn a_tip_that_there_is_not_stops_nobody(seed: u64) {
    with_liars(seed, Lie::WrongTip, "");
}
