use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::ledger::fixture::{ALLOCATED, Ledger, genesis_with_powers};
use crate::mempool::Mempool;
use crate::net::SendError;
use crate::types::{PeerIp, StateCommitment, Tip};
use crate::wire::TransactionsMessage;

const MINUTE: Duration = Duration::from_secs(60);

/// A chain under the test's control.
#[derive(Clone)]
struct FakeChain {
    state: Arc<Mutex<State>>,
    tip: Arc<watch::Sender<Tip>>,
    /// Reads of outputs see the state at once, but their answers wait here.
    gate: Arc<Semaphore>,
    /// How many reads of outputs have seen the state.
    reads: Arc<watch::Sender<u32>>,
}

struct State {
    ledger: Ledger,
    blocks: Vec<Block>,
    /// Outputs that are reported as gone although the ledger has them.
    hidden: BTreeSet<OutPoint>,
    broken: bool,
}

impl FakeChain {
    fn new() -> Self {
        let ledger = Ledger::new(genesis_with_powers(&[1]));
        let (tip, _) = watch::channel(tip_of(&ledger));
        let (reads, _) = watch::channel(0);
        Self {
            state: Arc::new(Mutex::new(State {
                ledger,
                blocks: Vec::new(),
                hidden: BTreeSet::new(),
                broken: false,
            })),
            tip: Arc::new(tip),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            reads: Arc::new(reads),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn payment(&self, from: u8, fee: u64) -> Transaction {
        let state = self.state();
        let input = (state.ledger.allocation(from), from);
        state.ledger.spend(&[input], &[(from, ALLOCATED.0 - fee)])
    }

    /// Commits blocks, the first with these transactions and the others empty, and publishes once.
    fn commit(&self, transactions: Vec<Transaction>, count: usize) {
        let mut candidates = Some(transactions);
        let tip = {
            let mut state = self.state();
            for _ in 0..count {
                let block = state.ledger.advance(candidates.take().unwrap_or_default());
                state.blocks.push(block);
            }
            tip_of(&state.ledger)
        };
        self.tip.send_replace(tip);
    }
}

fn tip_of(ledger: &Ledger) -> Tip {
    Tip {
        height: ledger.parent.height,
        hash: ledger.parent.hash,
        time_ms: ledger.parent.time_ms,
        state: StateCommitment([0; 32]),
    }
}

impl ChainReader for FakeChain {
    fn tip(&self) -> Tip {
        tip_of(&self.state().ledger)
    }

    fn watch_tip(&self) -> watch::Receiver<Tip> {
        self.tip.subscribe()
    }

    async fn block(&self, height: Height) -> Result<Option<Block>, ChainError> {
        let at = usize::try_from(height.0 - 1).unwrap();
        Ok(self.state().blocks.get(at).cloned())
    }

    async fn outputs(&self, outpoints: Vec<OutPoint>) -> Result<Vec<Option<TxOutput>>, ChainError> {
        let outputs = {
            let state = self.state();
            if state.broken {
                let (height, tip) = (Height(9), Height(9));
                return Err(ChainError::NotNext { height, tip });
            }
            let visible = |outpoint: &OutPoint| {
                let output = state.ledger.outputs.get(outpoint).copied();
                output.filter(|_| !state.hidden.contains(outpoint))
            };
            outpoints.iter().map(visible).collect()
        };
        self.reads.send_modify(|reads| *reads += 1);
        let permit = self.gate.acquire().await.unwrap();
        drop(permit);
        Ok(outputs)
    }

    async fn final_height(&self, txid: TxId) -> Result<Option<Height>, ChainError> {
        let state = self.state();
        let holds = |block: &&Block| block.transactions.iter().any(|one| one.id() == txid);
        Ok(state
            .blocks
            .iter()
            .find(holds)
            .map(|block| block.header.height))
    }
}

/// Hands every message to the test.
struct ToTest(mpsc::Sender<(PeerIp, TransactionsMessage)>);

impl Outbox for ToTest {
    fn send(&mut self, to: PeerIp, message: TransactionsMessage) -> Result<(), SendError> {
        self.0
            .try_send((to, message))
            .expect("the test reads what is sent");
        Ok(())
    }
}

/// A running mempool.
struct World {
    chain: FakeChain,
    mempool: Mempool,
    ready: watch::Receiver<bool>,
    inbound: mpsc::Sender<TransactionsEvent>,
    sent: mpsc::Receiver<(PeerIp, TransactionsMessage)>,
    cancel: CancellationToken,
    running: JoinHandle<Result<(), MempoolError>>,
}

impl World {
    fn start() -> Self {
        let chain = FakeChain::new();
        let rules = chain.state().ledger.rules;
        let (ready_sender, ready) = watch::channel(false);
        let (sent_sender, sent) = mpsc::channel(16);
        let (requests, mailbox) = mpsc::channel(16);
        let (inbound, events) = mpsc::channel(16);
        let cancel = CancellationToken::new();
        let outbox = ToTest(sent_sender);
        let actor = Actor::new(chain.clone(), rules, outbox, Offload::Inline, ready_sender);
        let running = tokio::spawn(actor.run(mailbox, events, cancel.clone()));
        Self {
            chain,
            mempool: Mempool {
                requests,
                ready: ready.clone(),
            },
            ready,
            inbound,
            sent,
            cancel,
            running,
        }
    }

    async fn ready_becomes(&mut self, expected: bool) {
        let changed = self.ready.wait_for(|ready| *ready == expected).await;
        changed.expect("the actor runs");
    }

    async fn waiting(&self) -> Vec<TxId> {
        let list = self.mempool.list().await;
        list.into_iter().map(|waiting| waiting.txid).collect()
    }
}

#[tokio::test]
async fn a_submission_waits_until_a_block_contains_it() {
    let mut world = World::start();
    let transaction = world.chain.payment(0, 500);
    let txid = transaction.id();
    assert!(!*world.ready.borrow());
    assert_eq!(world.mempool.submit(transaction.clone()).await, Ok(txid));
    world.ready_becomes(true).await;
    assert_eq!(world.mempool.get(txid).await, Some(transaction.clone()));
    assert_eq!(world.waiting().await, [txid]);
    assert_eq!(world.mempool.stats().await.transactions, 1);
    let selected = world.mempool.select(1_000_000).await;
    assert_eq!(selected, std::slice::from_ref(&transaction));
    world.chain.commit(selected, 1);
    world.ready_becomes(false).await;
    assert_eq!(world.mempool.get(txid).await, None);
    assert_eq!(
        world.mempool.submit(transaction).await,
        Err(MempoolError::AlreadyFinal {
            txid,
            height: Height(1)
        })
    );
}

#[tokio::test]
async fn a_selection_never_shows_what_the_tip_already_contains() {
    let world = World::start();
    let transaction = world.chain.payment(0, 500);
    world.mempool.submit(transaction.clone()).await.unwrap();
    // The actor has had no chance to hear of the block when the request is made.
    world.chain.commit(vec![transaction], 1);
    assert_eq!(world.mempool.select(1_000_000).await, []);
}

#[tokio::test]
async fn a_block_between_the_read_and_the_verdict_still_counts() {
    let mut world = World::start();
    let ours = world.chain.payment(0, 500);
    let theirs = world.chain.payment(0, 900);
    let stays = world.chain.payment(1, 500);
    world.mempool.submit(stays.clone()).await.unwrap();
    // The outputs are read, then a block spends one of them, then the answer arrives.
    world.chain.gate.forget_permits(usize::MAX);
    let reads_before = *world.chain.reads.borrow();
    let mempool = world.mempool.clone();
    let submitted = tokio::spawn(async move { mempool.submit(ours).await });
    let mut reads = world.chain.reads.subscribe();
    let read = reads.wait_for(|reads| *reads > reads_before).await;
    drop(read.expect("the chain is there"));
    world.chain.commit(vec![theirs], 1);
    world.chain.gate.add_permits(1);
    submitted.await.unwrap().unwrap();
    assert_eq!(world.mempool.select(1_000_000).await, [stays]);
    world.ready_becomes(true).await;
}

#[tokio::test]
async fn a_jump_over_many_blocks_checks_the_whole_pool() {
    let mut world = World::start();
    let gone = world.chain.payment(0, 500);
    let confirmed = world.chain.payment(1, 500);
    let stays = world.chain.payment(2, 500);
    for transaction in [&gone, &confirmed, &stays] {
        world.mempool.submit(transaction.clone()).await.unwrap();
    }
    let foreign = world.chain.payment(0, 900);
    let blocks = usize::try_from(MAX_BLOCKS_BEHIND).unwrap() + 1;
    world.chain.commit(vec![foreign, confirmed], blocks);
    let selected = world.mempool.select(1_000_000).await;
    assert_eq!(selected, std::slice::from_ref(&stays));
    // From there on it follows block by block again.
    world.chain.commit(vec![stays], 1);
    world.ready_becomes(false).await;
}

#[tokio::test]
async fn what_is_offered_again_is_checked_against_the_chain_first() {
    let mut world = World::start();
    let bad = world.chain.payment(0, 9_000);
    let good = world.chain.payment(1, 500);
    for transaction in [&bad, &good] {
        world.mempool.submit(transaction.clone()).await.unwrap();
    }
    // However it came about: no block can include the first any more.
    let outpoint = bad.inputs[0].outpoint;
    world.chain.state().hidden.insert(outpoint);
    let offered = [bad, good.clone()];
    assert_eq!(world.mempool.select(1_000_000).await, offered);
    let selected = world.mempool.select(1_000_000).await;
    assert_eq!(selected, std::slice::from_ref(&good));
    let outpoint = good.inputs[0].outpoint;
    world.chain.state().hidden.insert(outpoint);
    assert_eq!(world.mempool.select(1_000_000).await, []);
    world.ready_becomes(false).await;
}

#[tokio::test]
async fn peers_are_told_and_asked_through_the_network() {
    let mut world = World::start();
    let (ours, theirs) = (world.chain.payment(0, 500), world.chain.payment(1, 500));
    let peer: PeerIp = "127.0.0.2".parse().unwrap();
    let message = |message| TransactionsEvent::Message { peer, message };
    let connected = TransactionsEvent::Connected { peer };
    world.inbound.send(connected).await.unwrap();
    let announced = TransactionsMessage::Announce(vec![theirs.id()]);
    world.inbound.send(message(announced)).await.unwrap();
    let asked = TransactionsMessage::Get(vec![theirs.id()]);
    assert_eq!(world.sent.recv().await, Some((peer, asked)));
    let body = TransactionsMessage::Bodies(vec![theirs.clone()]);
    world.inbound.send(message(body)).await.unwrap();
    world.ready_becomes(true).await;
    assert_eq!(world.waiting().await, [theirs.id()]);
    world.mempool.submit(ours.clone()).await.unwrap();
    let told = TransactionsMessage::Announce(vec![ours.id()]);
    assert_eq!(world.sent.recv().await, Some((peer, told)));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_announced_again_though_nothing_else_happens() {
    let mut world = World::start();
    let peer: PeerIp = "127.0.0.2".parse().unwrap();
    let connected = TransactionsEvent::Connected { peer };
    world.inbound.send(connected).await.unwrap();
    let transaction = world.chain.payment(0, 500);
    let told = TransactionsMessage::Announce(vec![transaction.id()]);
    world.mempool.submit(transaction.clone()).await.unwrap();
    assert_eq!(world.sent.recv().await, Some((peer, told.clone())));
    for _ in 0..2 {
        let before = Instant::now();
        let sent = timeout(2 * MINUTE, world.sent.recv()).await;
        assert_eq!(sent, Ok(Some((peer, told.clone()))));
        assert_eq!(before.elapsed().as_secs(), 60);
    }
    // When nothing waits, nothing is sent: only the test's own timer goes off.
    world.chain.commit(vec![transaction], 1);
    world.ready_becomes(false).await;
    let silence = timeout(10 * MINUTE, world.sent.recv()).await;
    assert!(silence.is_err());
}

#[tokio::test]
async fn it_ends_when_it_is_cancelled_and_says_so_to_callers() {
    let world = World::start();
    world.cancel.cancel();
    assert_eq!(world.running.await.unwrap(), Ok(()));
    let transaction = world.chain.payment(0, 500);
    assert_eq!(
        world.mempool.submit(transaction).await,
        Err(MempoolError::Stopped)
    );
    assert_eq!(world.mempool.select(1_000).await, []);
}

#[tokio::test]
async fn it_ends_with_the_reason_when_the_chain_cannot_be_read() {
    let world = World::start();
    let transaction = world.chain.payment(0, 500);
    world.chain.state().broken = true;
    assert_eq!(
        world.mempool.submit(transaction).await,
        Err(MempoolError::Stopped)
    );
    assert!(matches!(
        world.running.await.unwrap(),
        Err(MempoolError::Chain { .. })
    ));
}
