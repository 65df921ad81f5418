//! What a restart finds: the log of the height that was being decided, its replay, and what forbids signing.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Host, Presence, Setup, propose};
use crate::consensus::bodies::Bodies;
use crate::consensus::book::Book;
use crate::consensus::engine::Engine;
use crate::consensus::guard::Guard;
use crate::consensus::ports::Ports;
use crate::consensus::relay::Peers;
use crate::consensus::timers::Timers;
use crate::consensus::wal::{self, Entry, LogBuffer};
use crate::consensus::{ConsensusError, ConsensusStatus};
use crate::store::WalContent;
use crate::types::codec;
use crate::types::{ConsensusKey, Round};

impl<P: Ports> Host<P> {
    /// Reads what earlier runs left; replays the log of the tip's next height if it holds entries.
    pub(super) async fn recover(
        setup: Setup,
        ports: P,
        status: watch::Sender<ConsensusStatus>,
    ) -> Result<Self, ConsensusError> {
        let own = ConsensusKey::from(&setup.key);
        let Some((position, _)) = setup.validators.get(&own) else {
            return Err(ConsensusError::NotAMasternode { key: own });
        };
        let tip = ports.tip();
        let height = tip.height.next();
        let guard = Guard::load(
            setup.state,
            setup.offload,
            setup.genesis_hash,
            own,
            tip.height,
            setup.unsafe_sign,
            setup.clock.now_ms(),
        )
        .await?;
        let now = Instant::now();
        let validators = setup.validators;
        let evidence = ports.evidence().await?.len() as u64;
        let mut host = Self {
            own,
            engine: Engine::new(setup.key, setup.genesis_hash, validators.clone(), height),
            guard,
            peers: Peers::new(position, validators.validators().len()),
            bodies: Bodies::new(setup.genesis.clone(), validators.clone()),
            timers: Timers::default(),
            tasks: JoinSet::new(),
            checks: BTreeMap::new(),
            ready: ports.watch_ready(),
            status,
            tip,
            height,
            running: false,
            log_opened: false,
            recovered: Vec::new(),
            log: LogBuffer::new(false),
            book: Book::new(height, validators.clone()),
            next_book: Book::new(height.next(), validators.clone()),
            decision: None,
            build: propose::Build::default(),
            last_start: now,
            last_commit: None,
            last_body: None,
            committed_at: now,
            reminded: BTreeMap::new(),
            served: BTreeMap::new(),
            presence: Presence::default(),
            evidence,
            highest_round: Round(0),
            genesis: setup.genesis,
            genesis_hash: setup.genesis_hash,
            validators,
            clock: setup.clock,
            ports,
        };
        host.count_presence();
        host.enter_height(tip);
        host.load_log().await?;
        if !host.recovered.is_empty() {
            host.start_height().await?;
        }
        Ok(host)
    }

    /// Loads the log of the current height. A log that cannot be used, or that is missing where
    /// this node may have signed, forbids signing at this height.
    async fn load_log(&mut self) -> Result<(), ConsensusError> {
        let loaded = match self.ports.wal_load(self.height).await {
            Ok(content) => self.decode_log(content),
            Err(error) if error.is_damaged_wal() => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        match loaded {
            Ok(Some(entries)) => {
                self.log_opened = true;
                self.recovered = entries;
            }
            Ok(None) if self.guard.may_have_signed(self.height) => {
                let lost = format!(
                    "the consensus log of height {} is lost, but this node may have signed there",
                    self.height
                );
                self.guard.log_lost(self.height, &lost);
            }
            Ok(None) => {}
            Err(damage) => self.guard.log_lost(self.height, &damage),
        }
        if let Some(reason) = self.guard.refusal(self.height) {
            tracing::warn!(height = %self.height, %reason, "this masternode signs nothing");
        }
        Ok(())
    }

    fn decode_log(&mut self, content: WalContent) -> Result<Option<Vec<Entry>>, String> {
        let decoded = wal::decode(self.height, &content.entries);
        let entries = decoded.map_err(|damage| damage.to_string())?;
        let (held, signed) = (
            content.entries.len() as u64,
            self.guard.entries_signed(self.height),
        );
        if held < signed && held > 0 {
            return Err(format!(
                "the consensus log of height {} has {held} entries, but it had {signed} when this \
                 node signed there: it is an older copy",
                self.height
            ));
        }
        let now = Instant::now();
        for (hash, bytes) in content.bodies {
            self.bodies
                .restore(hash, bytes, now)
                .map_err(|error| format!("a body in the consensus log: {error}"))?;
        }
        for entry in entries.iter().flatten() {
            if let Entry::Stopped(reason) = entry {
                self.guard.log_lost(self.height, reason);
            }
        }
        Ok(entries)
    }

    /// Before the first signature of a height: its log is opened, then `consensus.state` names it.
    pub(super) async fn open_log(&mut self, entries: &[Entry]) -> Result<(), ConsensusError> {
        self.refuse_where_signed();
        let signing = self.guard.refusal(self.height).is_none();
        self.engine.set_signing(signing);
        if !signing {
            self.log = LogBuffer::new(false);
            return Ok(());
        }
        if !self.log_opened {
            // Whoever forces this node to sign over a log that cannot be used gives it up.
            let opened = codec::encode(&Entry::Opened(self.height));
            self.ports.wal_begin(self.height, opened).await?;
            self.log_opened = true;
        }
        self.guard.open(self.height).await?;
        let bodies = entries.iter().filter_map(|entry| match entry {
            Entry::Value(value) => self
                .bodies
                .content(self.height, value.block)
                .map(|_| value.block),
            _ => None,
        });
        self.log = LogBuffer::replaying(entries, bodies, &self.own);
        if entries.is_empty() {
            self.log.end_replay();
        }
        Ok(())
    }

    /// What is held of the own key when its height is begun here was signed in a life of which no log
    /// is left.
    fn refuse_where_signed(&mut self) {
        let height = self.height;
        if self.guard.refusal(height).is_none() && self.book.holds_any_of(&self.own) {
            let reason = format!(
                "messages of this node's own key at height {height} were received before it began \
                 there: it has lost state"
            );
            tracing::warn!(%height, %reason, "this masternode signs nothing");
            self.guard.log_lost(height, &reason);
        }
    }

    /// Fills the book and the bodies from a log, as the messages did when they came.
    pub(super) fn note_recovered(&mut self, entries: &[Entry]) {
        let now = Instant::now();
        for entry in entries {
            match entry {
                Entry::Vote(vote) => {
                    self.book.add_vote(*vote);
                }
                Entry::Proposal(proposal) => {
                    self.book.add_proposal(*proposal);
                    let (block, round) = (proposal.block, proposal.round);
                    self.bodies.name(self.height, block, round, None, None, now);
                }
                Entry::Polka(polka) => {
                    self.book.add_polka(polka.clone());
                    self.bodies
                        .certify(self.height, polka.block, polka.round, None, now);
                }
                Entry::Value(value) => {
                    self.bodies.restore_verdict(value, now);
                    if value.proposer == self.own && value.valid {
                        self.build.note_built(value.round, value.block);
                    }
                }
                Entry::Opened(_) | Entry::Stopped(_) | Entry::Timeout(_) => {}
            }
        }
    }
}
