//! What changes while somebody looks: the observer of the running node, and the events that pages
//! get from it.
//!
//! One actor. It samples throughput and round-trip times every [`SAMPLE_EVERY`] into a history of
//! ten minutes, so that a page that is opened later has something to plot, and measures how long
//! blocks, and transactions that were submitted here, take to become final. While pages are open it sends them the whole state, at most every
//! [`STATE_EVERY`]. A page that does not keep up misses states, never blocks anything.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::sse::Event;
use futures_core::Stream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::context::RpcContext;
use super::finality::{Finality, Followed};
use super::jsonrpc::{Method, Params};
use super::methods::{self, Calls};
use crate::net::{PeerInfo, StreamBytes};
use crate::types::{Height, Tip, TxId};

/// The most pages that are served at a time.
const MAX_PAGES: usize = 8;

/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// How many samples are kept: ten minutes.
const MAX_SAMPLES: usize = 300;

/// The least time between two states.
const STATE_EVERY: Duration = Duration::from_millis(500);

/// How many blocks a page shows.
const RECENT_BLOCKS: u64 = 12;

/// How many submitted transactions wait to be followed; a further one is not measured.
const SUBMITTED_QUEUE: usize = 256;

/// How many events wait for one page; a further one is left out.
const PAGE_QUEUE: usize = 4;

/// A cheap handle to the observer.
pub(super) struct Live {
    finality: watch::Receiver<Finality>,
    submitted: mpsc::Sender<(TxId, Instant)>,
    newcomers: mpsc::Sender<mpsc::Sender<Event>>,
    places: Arc<Semaphore>,
}

impl Live {
    /// How long blocks and transactions took to become final.
    pub(super) fn finality(&self) -> Finality {
        *self.finality.borrow()
    }

    /// A transaction was taken here just now. When very many are, some are not measured.
    pub(super) fn submitted(&self, txid: TxId) {
        if let Err(error) = self.submitted.try_send((txid, Instant::now())) {
            tracing::trace!(%txid, reason = %error, "its finality is not measured");
        }
    }

    /// Events for one page; `None` when too many are open.
    pub(super) fn subscribe(&self) -> Option<Events> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let (events_in, events) = mpsc::channel(PAGE_QUEUE);
        self.newcomers.try_send(events_in).ok()?;
        Some(Events {
            events,
            _place: place,
        })
    }
}

/// The events of one page; it ends with the observer.
pub(super) struct Events {
    events: mpsc::Receiver<Event>,
    _place: OwnedSemaphorePermit,
}

#[cfg(test)]
impl Events {
    /// What a test sends, in a place of its own.
    pub(super) fn of(events: mpsc::Receiver<Event>) -> Self {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned();
        Self {
            events,
            _place: place.expect("nobody has taken it"),
        }
    }
}

impl Stream for Events {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(context).map(|event| event.map(Ok))
    }
}

/// The actor's state.
pub(super) struct Observer {
    newcomers: mpsc::Receiver<mpsc::Sender<Event>>,
    tip: watch::Receiver<Tip>,
    finality: watch::Sender<Finality>,
    submitted: mpsc::Receiver<(TxId, Instant)>,
    followed: Followed,
    methods: Vec<Method<Calls>>,
    pages: Vec<mpsc::Sender<Event>>,
    samples: VecDeque<Value>,
    /// Bytes at the last sample, by connection.
    counted: BTreeMap<u64, [StreamBytes; 5]>,
    /// When that was; `None` before the first.
    counted_at: Option<Instant>,
    /// Newest first.
    blocks: VecDeque<(Height, Value)>,
}

/// A handle, and the actor behind it, which does not run yet.
pub(super) fn channel(node: &RpcContext) -> (Live, Observer) {
    let (newcomers_in, newcomers) = mpsc::channel(MAX_PAGES);
    let (submitted_in, submitted) = mpsc::channel(SUBMITTED_QUEUE);
    let finality = watch::Sender::new(Finality::default());
    let live = Live {
        finality: finality.subscribe(),
        submitted: submitted_in,
        newcomers: newcomers_in,
        places: Arc::new(Semaphore::new(MAX_PAGES)),
    };
    let mut tip = node.chain.watch_tip();
    tip.mark_unchanged();
    let observer = Observer {
        newcomers,
        tip,
        finality,
        submitted,
        followed: Followed::default(),
        methods: methods::all(),
        pages: Vec::new(),
        samples: VecDeque::new(),
        counted: BTreeMap::new(),
        counted_at: None,
        blocks: VecDeque::new(),
    };
    (live, observer)
}

impl Observer {
    /// Runs until `cancel`.
    pub(super) async fn run(mut self, calls: Arc<Calls>, cancel: CancellationToken) {
        let mut next_sample = Instant::now();
        let mut next_state = Instant::now();
        let mut news = false;
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                Some(page) = self.newcomers.recv() => {
                    let history = Value::Array(self.samples.iter().cloned().collect());
                    self.pages.push(page.clone());
                    send(&page, &event("history", &history));
                    news = true;
                }
                Some((txid, submitted)) = self.submitted.recv() => {
                    self.followed.add(txid, submitted);
                    // It may be final already.
                    self.observe_submitted(&calls).await;
                }
                changed = self.tip.changed() => match changed {
                    Ok(()) => {
                        self.observe_tip(&calls);
                        self.observe_submitted(&calls).await;
                        news = true;
                    }
                    // The chain has ended; the node is about to.
                    Err(_) => return cancel.cancelled().await,
                },
                () = sleep_until(next_sample) => {
                    self.sample(&calls);
                    next_sample = Instant::now() + SAMPLE_EVERY;
                    news = true;
                }
                () = sleep_until(next_state), if news && !self.pages.is_empty() => {
                    let state = self.state(&calls).await;
                    self.broadcast(&event("state", &state));
                    next_state = Instant::now() + STATE_EVERY;
                    news = false;
                }
            }
        }
    }

    /// A block has become final, or several.
    fn observe_tip(&mut self, calls: &Calls) {
        let tip = *self.tip.borrow_and_update();
        let node = calls.node();
        if node.sync.watch_status().borrow().syncing {
            return;
        }
        let took_ms = node.clock.now_ms().saturating_sub(tip.time_ms);
        self.finality
            .send_modify(|finality| finality.blocks.observe(took_ms));
    }

    /// Which of the transactions that were submitted here have become final.
    async fn observe_submitted(&mut self, calls: &Calls) {
        let took_ms = self.followed.finished(&calls.node().chain).await;
        if took_ms.is_empty() {
            return;
        }
        self.finality.send_modify(|finality| {
            for took_ms in took_ms {
                finality.transactions.observe(took_ms);
            }
        });
    }

    fn sample(&mut self, calls: &Calls) {
        let node = calls.node();
        let peers = node.net.peers();
        let (mut sent, mut received) = ([0u64; 5], [0u64; 5]);
        for peer in &peers {
            // A connection that is new since the last sample counts from its start.
            let before = self
                .counted
                .get(&peer.connection)
                .copied()
                .unwrap_or_default();
            for (at, now) in peer.streams.iter().enumerate() {
                sent[at] += now.sent.saturating_sub(before[at].sent);
                received[at] += now.received.saturating_sub(before[at].received);
            }
        }
        let streams = peers.iter().map(|peer| (peer.connection, peer.streams));
        self.counted = streams.collect();
        let Some(since) = self.counted_at.replace(Instant::now()) else {
            // What went before is no rate.
            return;
        };
        let elapsed = since.elapsed().as_secs_f64().max(0.001);
        let rate = |bytes: [u64; 5]| bytes.map(|one| (one as f64 / elapsed).round());
        let rtt = peers
            .iter()
            .filter_map(|peer| Some((shown_name(peer), json!(peer.rtt?.last_us))));
        let sample = json!({
            "time_ms": node.clock.now_ms(),
            "sent": rate(sent),
            "received": rate(received),
            "rtt_us": rtt.collect::<serde_json::Map<_, _>>(),
        });
        self.broadcast(&event("sample", &sample));
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Everything that a page shows: the answers of the methods that anybody may call.
    async fn state(&mut self, calls: &Arc<Calls>) -> Value {
        self.follow_blocks(calls).await;
        let blocks: Vec<&Value> = self.blocks.iter().map(|(_, block)| block).collect();
        json!({
            "now_ms": calls.node().clock.now_ms(),
            "uptime": self.ask(calls, "uptime").await,
            "chain": self.ask(calls, "getblockchaininfo").await,
            "network": self.ask(calls, "getnetworkinfo").await,
            "peers": self.ask(calls, "getpeerinfo").await,
            "known": self.ask(calls, "getknownpeers").await,
            "masternodes": self.ask(calls, "masternodelist").await,
            "consensus": self.ask(calls, "getconsensusinfo").await,
            "sync": self.ask(calls, "getsyncinfo").await,
            "mempool": calls.node().mempool.stats().await,
            "blocks": blocks,
        })
    }

    async fn follow_blocks(&mut self, calls: &Arc<Calls>) {
        let tip = calls.node().chain.tip().height.0;
        let oldest = tip.saturating_sub(RECENT_BLOCKS - 1).max(1);
        let held = self.blocks.front().map_or(0, |(height, _)| height.0);
        for height in oldest.max(held + 1)..=tip {
            let params = Params::one("block", json!(height));
            let block = self.call(calls, "getblock", params).await;
            self.blocks.push_front((Height(height), block));
        }
        self.blocks.truncate(RECENT_BLOCKS as usize);
    }

    async fn ask(&self, calls: &Arc<Calls>, method: &str) -> Value {
        self.call(calls, method, Params::none()).await
    }

    /// The result of a method, or null while it has none.
    async fn call(&self, calls: &Arc<Calls>, name: &str, params: Params) -> Value {
        let method = self.methods.iter().find(|method| method.name == name);
        let method = method.expect("the observer asks methods that exist");
        match (method.call)(calls.clone(), params).await {
            Ok(value) => value,
            Err(error) => {
                tracing::debug!(
                    method = name,
                    code = error.code,
                    error = error.message,
                    "no answer for the page"
                );
                Value::Null
            }
        }
    }

    fn broadcast(&mut self, event: &Event) {
        self.pages.retain(|page| send(page, event));
    }
}

/// Whether the page is still there.
fn send(page: &mpsc::Sender<Event>, event: &Event) -> bool {
    match page.try_send(event.clone()) {
        Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
        Err(mpsc::error::TrySendError::Closed(_)) => false,
    }
}

fn event(name: &str, value: &Value) -> Event {
    Event::default().event(name).data(value.to_string())
}

/// How plots name a peer.
fn shown_name(peer: &PeerInfo) -> String {
    peer.name.clone().unwrap_or_else(|| peer.ip.to_string())
}
