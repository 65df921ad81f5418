//! Records and certificate at run time: what `certs/` and the node's key files say now is put in
//! force, without touching connections that they still allow.

use std::pin::Pin;
use std::sync::Arc;

use super::files::{self, DataDir, FilesError};
use crate::consensus::ConsensusHandle;
use crate::env::Offload;
use crate::net::{Identity, InstallError, NetHandle};
use crate::types::{Genesis, MasternodeDirectory, NodeId};

/// Re-reads the files; a cheap handle.
#[derive(Clone)]
pub(super) struct Reloader {
    pub(super) dir: DataDir,
    pub(super) genesis: Arc<Genesis>,
    pub(super) own_masternode: Option<usize>,
    pub(super) net: NetHandle,
    pub(super) consensus: Option<ConsensusHandle>,
    pub(super) offload: Offload,
}

/// Why records or a certificate were not put in force. Everything is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The files cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The network refuses them.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// There would be no record of this node.
    #[error("there is no record of this masternode, {name}, among the new ones: put it back")]
    NoOwnRecord {
        /// This node's name in genesis.
        name: String,
    },
    /// The new certificate is not named by this node's record.
    #[error(
        "the certificate with the pin {pin} is not named by the record of {name} (serial {serial}): \
         install first the record that names it"
    )]
    OtherPin {
        /// This node's name in genesis.
        name: String,
        /// The record's serial.
        serial: u64,
        /// The certificate's pin.
        pin: NodeId,
    },
}

impl Reloader {
    /// Reads the files and puts them in force.
    pub(super) async fn reload(&self) -> Result<String, ReloadError> {
        let (dir, genesis) = (self.dir.clone(), self.genesis.clone());
        let read = move || -> Result<_, FilesError> {
            let directory = files::load_directory(&dir, &genesis)?;
            Ok((directory, files::load_identity(&dir)?))
        };
        let (directory, identity) = self.offload.run(read).await?;
        self.install(directory, Some(identity)).await?;
        let net = &self.net;
        let records = net.directory();
        let own = self.own_masternode.and_then(|index| records.record(index));
        let own = own.map_or(String::new(), |record| {
            format!(", this node's own with serial {}", record.serial)
        });
        let (count, pin) = (records.records().count(), net.pin());
        Ok(format!(
            "{count} masternode records in force{own}; certificate with pin {pin}"
        ))
    }

    /// Puts records, and perhaps another certificate, in force.
    ///
    /// A record of this masternode that names neither the present nor the new certificate means that
    /// its key has gone to another machine: the records are installed, and signing stops for good.
    pub(super) async fn install(
        &self,
        directory: MasternodeDirectory,
        identity: Option<Identity>,
    ) -> Result<(), ReloadError> {
        let mut elsewhere = None;
        if let Some(index) = self.own_masternode {
            let name = self.genesis.masternodes[index].name.clone();
            let record = directory.record(index);
            let record = record.ok_or_else(|| ReloadError::NoOwnRecord { name: name.clone() })?;
            let now = self.net.pin();
            let new = identity.as_ref().map_or(now, Identity::node_id);
            if !record.pins.contains(&new) {
                if new != now {
                    return Err(ReloadError::OtherPin {
                        name,
                        serial: record.serial,
                        pin: new,
                    });
                }
                elsewhere = Some(format!(
                    "the record of {name} with serial {} does not name this node's certificate \
                     (pin {now}): the masternode runs on another machine now, or the certificate \
                     was to be rotated first",
                    record.serial
                ));
            }
        }
        self.net.install(directory, identity).await?;
        if let (Some(reason), Some(consensus)) = (elsewhere, &self.consensus) {
            tracing::error!(%reason, "signing stops");
            consensus.stop_signing(reason);
        }
        Ok(())
    }

    /// The same for the RPC.
    pub(super) fn for_rpc(&self) -> crate::rpc::Reload {
        let reloader = self.clone();
        Arc::new(move || {
            let reloader = reloader.clone();
            let reload = async move { reloader.reload().await.map_err(|error| error.to_string()) };
            Box::pin(reload) as Pin<Box<_>>
        })
    }
}
