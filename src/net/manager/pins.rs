//! Pins in the manager: who may speak is decided at once, what is to be remembered is written by a
//! task of its own. The actor never waits for the disk.
//!
//! Changes are written one after the other, since each is made from what the one before left. Those
//! that wait are bounded by what causes them: handshakes in progress with configured addresses, and
//! commands of the operator.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Manager;
use crate::net::handshake::Authenticated;
use crate::net::pins::{Admission, Change, Decision, PinError, not_stored};
use crate::net::{Identity, InstallError};
use crate::types::{MasternodeDirectory, NodeId, PeerIp};
use crate::wire::{CloseCode, CloseReason};

type Reply<T> = oneshot::Sender<T>;

/// A change of what is remembered.
pub(in crate::net) enum PinOrder {
    /// Store the key of an address at its first contact.
    Trust {
        /// The peer's address.
        ip: PeerIp,
        /// The key that it has proved to hold.
        node_id: NodeId,
        /// The answer: refused when something else has been decided meanwhile.
        reply: Reply<Result<(), CloseReason>>,
    },
    /// Drop the first-use pin of an address; the answer is whether there was one.
    Forget {
        /// The address.
        ip: PeerIp,
        /// The answer.
        reply: Reply<Result<bool, InstallError>>,
    },
    /// Other records, and with them perhaps another key of this node's.
    Install {
        /// All records.
        directory: MasternodeDirectory,
        /// The new key and certificate; `None` keeps the one in force.
        identity: Option<Box<Identity>>,
        /// The answer.
        reply: Reply<Result<(), InstallError>>,
    },
}

/// What waits to be written, and what is being written.
#[derive(Default)]
pub(super) struct PinWrites {
    waiting: VecDeque<PinOrder>,
    /// At most one.
    writing: JoinSet<Written>,
}

/// A change whose write is over.
pub(super) struct Written {
    order: PinOrder,
    change: Change,
    result: Result<(), PinError>,
}

impl PinWrites {
    /// The next write that is over; `None` when none is in progress.
    pub(super) async fn join_next(&mut self) -> Option<Result<Written, tokio::task::JoinError>> {
        self.writing.join_next().await
    }
}

impl Manager {
    /// Queues a change.
    pub(super) fn order_pins(&mut self, order: PinOrder) {
        self.state.pin_writes.waiting.push_back(order);
        self.write_next();
    }

    /// What this key is worth from this address, bans included.
    pub(super) fn decide(&self, ip: PeerIp, node_id: NodeId) -> Result<Decision, CloseReason> {
        if let Some(reason) = self.banned(ip) {
            return Err(reason);
        }
        let decision = self.pins.decide(ip, node_id)?;
        match decision {
            Decision::Admit(Admission::Masternode { index })
                if self.config.own_masternode == Some(index) =>
            {
                let detail = format!("{ip} has the other key of the receiver's own record");
                Err(CloseReason::new(CloseCode::SelfConnection, detail))
            }
            _ => Ok(decision),
        }
    }

    /// Whether what a handshake was begun with and decided by still holds. A peer can draw its
    /// handshake out, and bans and records change meanwhile.
    pub(super) fn still_holds(&self, new: &Authenticated) -> Result<(), CloseReason> {
        let decision = self.decide(new.ip, new.node_id)?;
        let admitted = match new.masternode {
            Some(index) => Admission::Masternode { index },
            None => Admission::Unpinned,
        };
        let windows_fit = new.recorded == new.masternode.is_some();
        if decision == Decision::Admit(admitted) && windows_fit {
            return Ok(());
        }
        let detail =
            "records or pins changed during the handshake: a new one goes by what holds now";
        Err(CloseReason::new(CloseCode::Operator, detail))
    }

    /// Starts the next write unless one is in progress.
    fn write_next(&mut self) {
        while self.state.pin_writes.writing.is_empty() {
            let Some(order) = self.state.pin_writes.waiting.pop_front() else {
                return;
            };
            let change = match &order {
                PinOrder::Trust { ip, node_id, .. } => match self.decide(*ip, *node_id) {
                    Ok(Decision::FirstContact) => Ok(self.pins.trusting(*ip, *node_id)),
                    settled => {
                        if let PinOrder::Trust { reply, .. } = order {
                            drop(reply.send(settled.map(|_| ())));
                        }
                        continue;
                    }
                },
                PinOrder::Forget { ip, .. } => match self.pins.forgetting(*ip) {
                    Some(change) => Ok(change),
                    None => {
                        answer(order, Ok(false));
                        continue;
                    }
                },
                PinOrder::Install {
                    directory,
                    identity,
                    ..
                } => {
                    let own = identity.as_ref().map_or(self.own, |one| one.node_id());
                    self.pins.replacing(directory.clone(), own)
                }
            };
            match change {
                Err(error) => answer(order, Err(error)),
                Ok(change) => {
                    let offload = self.offload;
                    self.state.pin_writes.writing.spawn(async move {
                        let (change, result) = offload
                            .run(move || {
                                let result = change.store();
                                (change, result)
                            })
                            .await;
                        Written {
                            order,
                            change,
                            result,
                        }
                    });
                }
            }
        }
    }

    /// A write is over: its change is in force, or refused.
    pub(super) fn written(&mut self, written: Written) {
        let Written {
            order,
            change,
            result,
        } = written;
        match result {
            Err(error) => answer(order, Err(error)),
            Ok(()) => self.adopt(order, change),
        }
        self.write_next();
    }

    fn adopt(&mut self, order: PinOrder, change: Change) {
        match order {
            PinOrder::Install {
                identity, reply, ..
            } => {
                // The certificate first: it alone can still fail.
                let swapped = match &identity {
                    Some(identity) => self.endpoint.present(identity),
                    None => Ok(()),
                };
                let installed = swapped.map_err(InstallError::from).map(|()| {
                    self.pins.adopt(change);
                    if let Some(identity) = identity {
                        self.own = identity.node_id();
                    }
                    self.records_changed();
                });
                drop(reply.send(installed));
            }
            order => {
                if let PinOrder::Trust { ip, node_id, .. } = &order {
                    tracing::info!(
                        peer.ip = %ip,
                        pin = %node_id,
                        "first contact of a configured address: pin stored"
                    );
                }
                self.pins.adopt(change);
                answer(order, Ok(true));
            }
        }
    }

    /// Other records are in force: connections that they no longer allow end, those of peers that
    /// have become masternodes are made anew, all others go on untouched.
    fn records_changed(&mut self) {
        let now = (Instant::now(), self.clock.now_ms());
        let directory = self.pins.directory();
        let own = self.config.own_masternode;
        let own_record = own.and_then(|index| directory.record(index));
        self.state
            .known
            .use_records(directory, own_record.map(|record| record.ip), now);
        for peer in self.state.registry.values() {
            let facts = peer.facts();
            let (ip, node) = (facts.ip, facts.node_id);
            let recorded = directory.by_pin(&node);
            match (peer.masternode(), recorded) {
                // It moves, or has a newer record: what it proved still holds.
                (Some(was), Some((index, record))) if was == index => {
                    peer.hold_record(record.serial);
                    if record.ip != ip {
                        tracing::info!(
                            peer.ip = %ip,
                            peer.name = record.name,
                            recorded.ip = %record.ip,
                            "its record names another address: this connection stays, the next \
                             one must come from there"
                        );
                    }
                    continue;
                }
                _ => {}
            }
            match self.pins.decide(ip, node) {
                Err(reason) => peer.end(reason),
                Ok(Decision::Admit(Admission::Masternode { .. })) => {
                    let detail = "its masternode record was installed: a new connection has all \
                                  streams";
                    peer.end(CloseReason::new(CloseCode::Operator, detail));
                }
                Ok(_) if peer.masternode().is_some() => {
                    let detail = "its masternode record was removed";
                    peer.end(CloseReason::new(CloseCode::Operator, detail));
                }
                Ok(_) => {}
            }
        }
        self.state.known_changed = true;
        self.published.view.send_modify(|view| {
            view.directory = std::sync::Arc::new(self.pins.directory().clone());
            view.own = self.own;
        });
        tracing::info!(pin = %self.own.short(), "masternode records and certificate are in force");
    }
}

/// Tells who asked. Whoever has gone away has no use for it.
fn answer(order: PinOrder, result: Result<bool, PinError>) {
    match order {
        PinOrder::Trust { ip, reply, .. } => {
            let result = result.map(|_| ());
            drop(reply.send(result.map_err(|error| not_stored(ip, &error))));
        }
        PinOrder::Forget { reply, .. } => drop(reply.send(result.map_err(InstallError::from))),
        PinOrder::Install { reply, .. } => {
            let result = result.map(|_| ());
            drop(reply.send(result.map_err(InstallError::from)));
        }
    }
}
