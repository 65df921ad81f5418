//! Starting the network, and the handle to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::RngExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::bans::{BanError, BanList, Bans};
use super::bodies;
use super::confirm::Confirmation;
use super::connection::Surroundings;
use super::endpoint::Endpoint;
use super::handshake::HandshakeContext;
use super::manager::{
    Ask, BanOrder, KnownPeers, KnownRecord, MAILBOX, Manager, PinOrder, Published, State, View, Why,
};
use super::peer::Peer;
use super::pins::PinPolicy;
use super::queue::{FrameQueue, Pushed};
use super::{
    Direction, HalfOpen, Identity, Inbound, InstallError, KnownPeer, NetConfig, NetCounts,
    NetEnvironment, NetError, PeerInfo, SendError, SyncError, SyncResponses,
};
use crate::env::WallClock;
use crate::types::{Ban, Height, MasternodeDirectory, NodeId, PeerIp, Tip};
use crate::wire::{
    BodyHeader, CloseReason, ConsensusMessage, FrameError, StreamKind, SyncRequest,
    TransactionsMessage, encode_frame,
};

/// A cheap handle to the running network.
#[derive(Clone)]
pub struct NetHandle {
    view: watch::Receiver<View>,
    changes: watch::Receiver<u64>,
    bans: watch::Receiver<BanList>,
    mailbox: mpsc::Sender<Ask>,
    clock: Arc<dyn WallClock>,
    pub(super) admission: Admission,
}

/// Starts the network; must be called on a tokio runtime. The future is the network itself: it ends after `cancel`, when all
/// connections are closed, or with the error that stopped it.
pub fn start(
    config: NetConfig,
    identity: Identity,
    directory: MasternodeDirectory,
    environment: NetEnvironment,
    inbound: Inbound,
    tip: watch::Receiver<Tip>,
    cancel: CancellationToken,
) -> Result<
    (
        NetHandle,
        impl Future<Output = Result<(), NetError>> + Send + 'static,
    ),
    NetError,
> {
    let own = identity.node_id();
    let known = known_peers(&config, &directory, environment.clock.now_ms());
    let masternodes = directory.len();
    let pins = PinPolicy::open(
        environment.pins.clone(),
        directory,
        config
            .configured_peers
            .iter()
            .map(|one| PeerIp::from(*one))
            .collect::<BTreeSet<_>>(),
        config.accept_unpinned,
        own,
    )?;
    let endpoint = Endpoint::start(&identity, &environment, &config.timing)?;
    let (mailbox_in, mailbox) = mpsc::channel(MAILBOX);
    let bans = Bans::new(config.bans.clone(), environment.clock.now_ms());
    let published = Published::new(own, &pins, bans.list(environment.clock.now_ms()));
    let admission = Admission::default();
    let handle = NetHandle {
        view: published.view.subscribe(),
        changes: published.changes.subscribe(),
        bans: published.bans.subscribe(),
        mailbox: mailbox_in.clone(),
        clock: environment.clock.clone(),
        admission: admission.clone(),
    };
    let mut random = environment.entropy.rng("network");
    let manager = Manager {
        handshake: Arc::new(HandshakeContext {
            network: config.network,
            genesis: config.genesis,
            role: config.role,
            listen_port: config.listen_port,
            agent: config.agent.clone(),
            instance: random.random(),
            clock: environment.clock.clone(),
            tip: tip.clone(),
            timeout: config.timing.handshake_timeout,
            mailbox: mailbox_in.clone(),
        }),
        surroundings: Arc::new(Surroundings {
            inbound,
            tip,
            reach: published.reach.subscribe(),
            changes: published.changes.clone(),
            masternodes,
            own_role: config.role,
            mailbox: mailbox_in,
        }),
        config,
        own,
        endpoint,
        pins,
        mailbox,
        published,
        clock: environment.clock,
        offload: environment.offload,
        random,
        state: State::new(known, bans, admission),
    };
    Ok((handle, manager.run(cancel)))
}

/// Whom to dial from the start: masternodes, configured peers, and those of an earlier run.
fn known_peers(config: &NetConfig, directory: &MasternodeDirectory, now_ms: u64) -> KnownPeers {
    let own_record = config
        .own_masternode
        .and_then(|index| directory.record(index));
    let own_ip = own_record.map(|record| record.ip).or(config.own_ip);
    let mut known = KnownPeers::new(own_ip, own_record.is_some(), config.timing);
    let now = (Instant::now(), now_ms);
    for (_, record) in directory.records() {
        let address = record.ip.with_port(record.port);
        known.add(address, Why::Recorded(record.name.clone()), now);
    }
    for address in &config.configured_peers {
        known.add(*address, Why::Configured, now);
    }
    for address in &config.earlier_peers {
        known.add(*address, Why::Earlier, now);
    }
    known
}

impl NetHandle {
    /// Queues a message on a masternode's consensus stream. When the queue is full, the oldest
    /// height in it is dropped first, and counted.
    pub fn send_consensus(&self, to: PeerIp, message: ConsensusMessage) -> Result<(), SendError> {
        let kind = StreamKind::Consensus;
        let peer = self.peer(to)?;
        let queue = (peer.consensus.as_ref()).ok_or(SendError::NoStream { peer: to, kind })?;
        let height = match &message {
            ConsensusMessage::Vote(vote) => vote.height,
            ConsensusMessage::Proposal(proposal) => proposal.height,
            ConsensusMessage::Polka(certificate) => certificate.height,
            ConsensusMessage::Round(certificate) => certificate.height,
            ConsensusMessage::Commit(certificate) => certificate.height,
            ConsensusMessage::GetBody { height, .. } => *height,
            &ConsensusMessage::Consumed {
                stream,
                bytes,
                at_us,
            } => {
                queue.confirm(stream, Confirmation { bytes, at_us });
                return Ok(());
            }
        };
        self.push(&peer, queue, kind, height, encode_frame(kind, &message))
    }

    /// Queues a block body for a stream of its own. A newer round's body displaces the oldest
    /// round's that waits.
    pub fn send_body(
        &self,
        to: PeerIp,
        header: BodyHeader,
        block: Arc<Vec<u8>>,
    ) -> Result<(), SendError> {
        let kind = StreamKind::Proposal;
        let peer = self.peer(to)?;
        let queue = (peer.bodies.as_ref()).ok_or(SendError::NoStream { peer: to, kind })?;
        if !bodies::fits(&block) {
            let length = block.len();
            return Err(SendError::TooLong { kind, length });
        }
        let dropped = queue.push(header, block);
        peer.meter.dropped(dropped.unwrap_or(1));
        dropped
            .map(|_| ())
            .ok_or(SendError::QueueFull { peer: to, kind })
    }

    /// Queues a message on a peer's transactions stream.
    pub fn send_transactions(
        &self,
        to: PeerIp,
        message: TransactionsMessage,
    ) -> Result<(), SendError> {
        let kind = StreamKind::Transactions;
        let peer = self.peer(to)?;
        let frame = encode_frame(kind, &message);
        self.push(&peer, &peer.transactions, kind, Height::GENESIS, frame)
    }

    /// Opens a sync stream and sends the request; waits while four are already open to that peer.
    pub async fn request_sync(
        &self,
        to: PeerIp,
        request: SyncRequest,
    ) -> Result<SyncResponses, SyncError> {
        let peer = self.peer(to)?;
        SyncResponses::open(peer, request).await
    }

    /// The registered connections, ascending by address.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let peers = self.view.borrow().peers.clone();
        peers.values().map(|peer| peer.info()).collect()
    }

    /// The registered connections' addresses, connection ids and tip heights, ascending by address:
    /// what follows every change can be had without the rest.
    pub fn tips(&self) -> Vec<(PeerIp, u64, Height)> {
        let peers = self.view.borrow().peers.clone();
        let tips = peers
            .values()
            .map(|peer| (peer.ip(), peer.id(), peer.tip_height()));
        tips.collect()
    }

    /// Everyone known, connected or not, ascending by address.
    pub fn known_peers(&self) -> Vec<KnownPeer> {
        let known = self.view.borrow().known.clone();
        let now_ms = self.clock.now_ms();
        let bans = self.bans.borrow().clone();
        let shown = |record: &Arc<KnownRecord>| {
            let mut shown = record.shown(now_ms);
            let held = bans.bans.iter().find(|ban| ban.ip == shown.ip);
            if let Some(ban) = held.filter(|ban| ban.holds(now_ms)) {
                shown.explanation =
                    format!("{}; `timed unban {}` lifts it", ban.sentence(), ban.ip);
            }
            shown
        };
        known.values().map(shown).collect()
    }

    /// Refused and failed handshakes of the last hour, newest first, at most 100: when (Unix
    /// milliseconds), who, who dialed, why.
    pub fn refused(&self) -> Vec<(u64, PeerIp, Direction, CloseReason)> {
        let refused = self.view.borrow().refused.clone();
        let hour_ago_ms = self
            .clock
            .now_ms()
            .saturating_sub(super::manager::REFUSED_FOR_MS);
        (refused.shown().rev())
            .filter(|one| one.at_ms >= hour_ago_ms)
            .map(|one| (one.at_ms, one.ip, one.direction, one.reason.clone()))
            .collect()
    }

    /// What was counted since the network started.
    pub fn counts(&self) -> Arc<NetCounts> {
        self.view.borrow().counts.clone()
    }

    /// The handshakes of arrivals that are in progress.
    pub fn half_open(&self) -> HalfOpen {
        self.admission.half_open()
    }

    /// Bans an address: its connection ends with the reason, and it is neither taken nor dialed
    /// until the ban is over or lifted. Gives the number of the published list that has it.
    pub async fn ban(&self, ban: Ban) -> Result<u64, BanError> {
        let (reply, answer) = oneshot::channel();
        let order = Ask::Ban(BanOrder::Add { ban, reply });
        let asked = self.mailbox.send(order).await;
        asked.map_err(|_| BanError::Stopping)?;
        answer.await.map_err(|_| BanError::Stopping)?
    }

    /// Lifts the ban of an address, or all of them, completely: it is dialed at once if it is one
    /// of those that this node dials. Gives how many there were and the number of the published list.
    pub async fn unban(&self, ip: Option<PeerIp>) -> Result<(usize, u64), BanError> {
        let (reply, answer) = oneshot::channel();
        let order = Ask::Ban(BanOrder::Lift { ip, reply });
        let asked = self.mailbox.send(order).await;
        asked.map_err(|_| BanError::Stopping)?;
        answer.await.map_err(|_| BanError::Stopping)
    }

    /// Puts other records in force, and with `identity` another certificate for every handshake from
    /// now on. Refused as a whole, with everything left as it was, when a record is older than one
    /// that was seen. Connections that the records still allow go on untouched.
    pub async fn install(
        &self,
        directory: MasternodeDirectory,
        identity: Option<Identity>,
    ) -> Result<(), InstallError> {
        let (reply, answer) = oneshot::channel();
        let order = Ask::Pins(PinOrder::Install {
            directory,
            identity: identity.map(Box::new),
            reply,
        });
        let asked = self.mailbox.send(order).await;
        asked.map_err(|_| InstallError::Stopping)?;
        answer.await.map_err(|_| InstallError::Stopping)?
    }

    /// Drops the first-use pin of a configured address; whether there was one.
    pub async fn forget(&self, ip: PeerIp) -> Result<bool, InstallError> {
        let (reply, answer) = oneshot::channel();
        let order = Ask::Pins(PinOrder::Forget { ip, reply });
        let asked = self.mailbox.send(order).await;
        asked.map_err(|_| InstallError::Stopping)?;
        answer.await.map_err(|_| InstallError::Stopping)?
    }

    /// The masternode records in force.
    pub fn directory(&self) -> Arc<MasternodeDirectory> {
        self.view.borrow().directory.clone()
    }

    /// The pin of the certificate that this node presents.
    pub fn pin(&self) -> NodeId {
        self.view.borrow().own
    }

    /// The bans in force, ascending by address.
    pub fn bans(&self) -> Vec<Ban> {
        let now_ms = self.clock.now_ms();
        let list = self.bans.borrow();
        let held = list.bans.iter().filter(|ban| ban.holds(now_ms));
        held.cloned().collect()
    }

    /// Follows the bans, to keep them.
    pub fn watch_bans(&self) -> watch::Receiver<BanList> {
        self.bans.clone()
    }

    /// Changes whenever a peer connects, disconnects or has a new tip.
    pub fn watch_peers(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Ends a peer's connection with a reason; it may come back.
    pub fn disconnect(&self, peer: PeerIp, reason: CloseReason) -> Result<(), SendError> {
        self.peer(peer)?.end(reason);
        Ok(())
    }

    fn peer(&self, ip: PeerIp) -> Result<Arc<Peer>, SendError> {
        let peers = self.view.borrow().peers.clone();
        peers
            .get(&ip)
            .cloned()
            .ok_or_else(|| SendError::UnknownPeer {
                peer: ip,
                connected: peers.keys().copied().collect(),
            })
    }

    fn push(
        &self,
        peer: &Peer,
        queue: &FrameQueue,
        kind: StreamKind,
        height: Height,
        frame: Result<Vec<u8>, FrameError>,
    ) -> Result<(), SendError> {
        let ip = peer.ip();
        let frame = frame.map_err(|error| match error {
            FrameError::TooLong { kind, length } => SendError::TooLong { kind, length },
            FrameError::Empty { .. } | FrameError::Codec { .. } => {
                unreachable!("encoding gives at least a tag, and fails only by length")
            }
        })?;
        match queue.push(height, frame) {
            Pushed::Queued { dropped } => {
                peer.meter.dropped(dropped);
                Ok(())
            }
            Pushed::Refused => {
                peer.meter.dropped(1);
                Err(SendError::QueueFull { peer: ip, kind })
            }
            // Ending, which the registry will say in a moment; or the peer takes no such stream.
            Pushed::Closed if peer.quic().close_reason().is_some() => {
                let peers = self.view.borrow().peers.clone();
                let connected = peers.keys().copied().filter(|one| *one != ip).collect();
                Err(SendError::UnknownPeer {
                    peer: ip,
                    connected,
                })
            }
            Pushed::Closed => Err(SendError::NoStream { peer: ip, kind }),
        }
    }
}
