//! Never sign twice: decides whether this node may sign at a height, and keeps `consensus.state`.
//!
//! Before the first signature of a height its log is opened durably and then its number is written
//! to the file, and before anything that it signed leaves, how many entries the log then has. So
//! after a crash a height that the file names has a log that is at least so long, or the log was
//! lost, or an older copy is in its place; and a file that is missing on a chain that has blocks was
//! lost. In all these cases the node follows and signs nothing where it may have signed before.
//!
//! A node without the file takes the chain for new when nobody tells it of a block, and signs at
//! height 1. The file then says [`UNPROVEN`] until the height is finalized with this node's part in
//! it: else a node that lost everything, and was told of the chain too late, would have made itself
//! a file that a restart takes for its own history.
//!
//! There is no marker for "this key has never signed", with which such a node need not wait for a
//! live height: at the first start it cannot be told from one that lost everything, and written when
//! the key is made it would come back with the backup that is made then.
//!
//! The file is text, so that a person can read it; it names the chain and the key, so that it is
//! not taken for another's.

use std::sync::Arc;

use super::bodies::MAX_AHEAD_MS;
use crate::env::{DurableFile, Offload};
use crate::types::{ConsensusKey, GenesisHash, Height};

/// A block older than this when it is decided does not show that the network is live.
const LIVE_WITHIN_MS: u64 = 60_000;

const TITLE: &str = "timed consensus state v1";

/// A last line: the height was begun without the file, as the first of a chain taken for new.
const UNPROVEN: &str = "unproven";

/// Why the state file stops the node.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It cannot be read or written.
    #[error("{file} cannot be {action}: {source}")]
    Io {
        /// Which file.
        file: String,
        /// "read" or "written".
        action: &'static str,
        /// The system's words.
        source: std::io::Error,
    },
    /// Its content is not what this software writes.
    #[error(
        "{file} is damaged ({detail}); remove it (an older copy would allow signing twice): without \
         it the node signs nothing until it has seen one height finalized live"
    )]
    Damaged {
        /// Which file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// It belongs to another chain or key.
    #[error("{file} is of {what} {found}, but this node runs {expected}")]
    Foreign {
        /// Which file.
        file: String,
        /// "genesis" or "consensus key".
        what: &'static str,
        /// What the file names.
        found: String,
        /// What this node has.
        expected: String,
    },
}

/// Whether a masternode could start with the file as it is; a missing one is no error.
pub fn check_state(
    file: &dyn DurableFile,
    genesis: &GenesisHash,
    key: &ConsensusKey,
) -> Result<(), StateFileError> {
    read(file, genesis, key).map(drop)
}

fn read(
    file: &dyn DurableFile,
    genesis: &GenesisHash,
    key: &ConsensusKey,
) -> Result<Option<Written>, StateFileError> {
    let content = file.load().map_err(|source| StateFileError::Io {
        file: file.name(),
        action: "read",
        source,
    })?;
    let parse = |content: Vec<u8>| Written::parse(&content, genesis, key, &file.name());
    content.map(parse).transpose()
}

/// The rules and what they remember.
pub(super) struct Guard {
    file: Arc<dyn DurableFile>,
    offload: Offload,
    genesis: GenesisHash,
    key: ConsensusKey,
    unsafe_sign: bool,
    /// This machine's time at the start, Unix milliseconds.
    started_ms: u64,
    /// What the file says; `None` while there is no file.
    written: Option<Written>,
    /// Whether there was no file at start, or an unproven one: then it says nothing about what was
    /// signed before.
    began_without: bool,
    /// Nothing is signed up to this height, and why.
    blocked: Option<(Height, String)>,
    /// Of a start without the file: whether a height has been finalized live since.
    seen_live: bool,
    /// Of a start without the file: whether the chain is known to have blocks.
    chain_has_blocks: bool,
    /// Nothing is signed at all any more, and why.
    stopped: Option<String>,
}

/// What stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// The last height that may have been signed.
    height: Height,
    /// How many entries its log had, its opening included, when this node last signed.
    entries: u64,
    /// See [`UNPROVEN`].
    unproven: bool,
}

impl Guard {
    /// Reads the file. `tip` is the committed tip.
    pub(super) async fn load(
        file: Arc<dyn DurableFile>,
        offload: Offload,
        genesis: GenesisHash,
        key: ConsensusKey,
        tip: Height,
        unsafe_sign: bool,
        started_ms: u64,
    ) -> Result<Self, StateFileError> {
        let reader = file.clone();
        let reading = move || read(&*reader, &genesis, &key);
        let written = offload.run(reading).await?;
        let height = written.map(|written| written.height);
        let blocked = height.filter(|height| *height > tip.next()).map(|height| {
            let why = format!(
                "{} names height {height}, but the chain here ends at {tip}: this node has signed \
                 on a chain that it no longer holds",
                file.name()
            );
            (height, why)
        });
        Ok(Self {
            file,
            offload,
            genesis,
            key,
            unsafe_sign,
            started_ms,
            written,
            began_without: written.is_none_or(|written| written.unproven),
            blocked,
            seen_live: false,
            chain_has_blocks: tip > Height::GENESIS,
            stopped: None,
        })
    }

    /// Why nothing may be signed at a height; `None` when it may.
    pub(super) fn refusal(&self, height: Height) -> Option<String> {
        if let Some(why) = &self.stopped {
            return Some(why.clone());
        }
        if self.unsafe_sign {
            return None;
        }
        if let Some((up_to, why)) = &self.blocked
            && height <= *up_to
        {
            return Some(format!("{why}; nothing is signed up to height {up_to}"));
        }
        let chain_has_blocks = self.chain_has_blocks || height > Height(1);
        (self.may_have_lost_state() && chain_has_blocks).then(|| {
            format!(
                "{} was missing{}; nothing is signed until a height has been finalized live",
                self.file.name(),
                if self.is_unproven() {
                    " when this node signed at height 1, and nothing shows that it was new then"
                } else {
                    " at start"
                }
            )
        })
    }

    /// Whether this node began without the file, and nothing has shown yet that it follows the
    /// chain: either the chain is new, or this node may have signed what it does not know.
    pub(super) fn may_have_lost_state(&self) -> bool {
        self.began_without && !self.seen_live && !self.unsafe_sign
    }

    /// Whether the file says that something may have been signed at this height.
    pub(super) fn may_have_signed(&self, height: Height) -> bool {
        self.written.is_some_and(|written| written.height >= height)
    }

    /// How many entries the log of this height must have, at least.
    pub(super) fn entries_signed(&self, height: Height) -> u64 {
        let written = self.written.filter(|written| written.height == height);
        written.map_or(0, |written| written.entries)
    }

    fn is_unproven(&self) -> bool {
        self.written.is_some_and(|written| written.unproven)
    }

    /// The log of a height at which something may have been signed cannot be used.
    pub(super) fn log_lost(&mut self, height: Height, detail: &str) {
        let written = self.written.map_or(height, |written| written.height);
        let up_to = written.max(height);
        self.blocked = Some((up_to, detail.to_owned()));
    }

    /// Writes the height, durably. Call it after the height's log is open and before signing.
    pub(super) async fn open(&mut self, height: Height) -> Result<(), StateFileError> {
        if self.may_have_signed(height) {
            return Ok(());
        }
        let written = Written {
            height,
            entries: 0,
            unproven: self.may_have_lost_state(),
        };
        self.write(written).await
    }

    /// Writes, durably, how long the log of the open height is. Call it when it holds something
    /// that this node signed, before that is sent.
    pub(super) async fn signed(&mut self, entries: u64) -> Result<(), StateFileError> {
        match self.written {
            Some(written) => self.write(Written { entries, ..written }).await,
            None => Ok(()),
        }
    }

    /// Whether a block of this time, decided now by votes that were received, shows that the network
    /// is live: it was proposed after this start, so nothing that follows it was signed before. Else
    /// one peer could decide with old votes a height after which this node has signed. Proposers'
    /// clocks may be ahead as far as they let each other's be, and so may they be of this one.
    ///
    /// `signing`: this node signs at the height, without the file the first of a chain that it takes
    /// for new. Then a recent block does: the first block of all is of their first seconds.
    pub(super) fn shows_live(&self, time_ms: u64, now_ms: u64, signing: bool) -> bool {
        let after_start = time_ms > self.started_ms.saturating_add(MAX_AHEAD_MS);
        (after_start || signing)
            && time_ms <= now_ms.saturating_add(MAX_AHEAD_MS)
            && now_ms < time_ms.saturating_add(LIVE_WITHIN_MS)
    }

    /// A height was decided by votes that were received, and its block shows that the network is live;
    /// or this node's own logged precommit is part of what decided it. Call it before the block is
    /// committed: with it goes the log, and then nothing shows it any more.
    pub(super) async fn finalized_live(&mut self) -> Result<(), StateFileError> {
        self.seen_live = true;
        let unproven = self.written.filter(|written| written.unproven);
        match unproven {
            None => Ok(()),
            Some(written) => {
                let unproven = false;
                self.write(Written {
                    unproven,
                    ..written
                })
                .await
            }
        }
    }

    async fn write(&mut self, written: Written) -> Result<(), StateFileError> {
        let content = written.to_text(&self.genesis, &self.key);
        let file = self.file.clone();
        self.offload
            .run(move || file.replace(content.as_bytes()))
            .await
            .map_err(|source| StateFileError::Io {
                file: self.file.name(),
                action: "written",
                source,
            })?;
        self.written = Some(written);
        Ok(())
    }

    /// A verified certificate shows it: a height that has been started may no longer be signed.
    pub(super) fn chain_has_blocks(&mut self) {
        self.chain_has_blocks = true;
    }

    /// Stops signing for the rest of this process. The first reason stays.
    pub(super) fn stop(&mut self, reason: String) {
        if self.stopped.is_none() {
            tracing::error!(%reason, "signing stopped");
            self.stopped = Some(reason);
        }
    }
}

impl Written {
    pub(super) fn to_text(self, genesis: &GenesisHash, key: &ConsensusKey) -> String {
        let Written {
            height,
            entries,
            unproven,
        } = self;
        let mut text =
            format!("{TITLE}\ngenesis {genesis}\nkey {key}\nheight {height}\nentries {entries}\n");
        if unproven {
            text += &format!("{UNPROVEN}\n");
        }
        text
    }

    pub(super) fn parse(
        content: &[u8],
        genesis: &GenesisHash,
        key: &ConsensusKey,
        file: &str,
    ) -> Result<Written, StateFileError> {
        let damaged = |detail: &str| StateFileError::Damaged {
            file: file.to_owned(),
            detail: detail.to_owned(),
        };
        let text = std::str::from_utf8(content).map_err(|_| damaged("it is not text"))?;
        let mut lines: Vec<&str> = text.lines().collect();
        let unproven = lines.last() == Some(&UNPROVEN);
        if unproven {
            lines.pop();
        }
        let [title, genesis_line, key_line, height_line, entries_line] = lines[..] else {
            return Err(damaged("it does not have five lines"));
        };
        if title != TITLE {
            return Err(damaged("its first line is not known"));
        }
        let field = |line: &str, name: &'static str| -> Result<String, StateFileError> {
            let value = line
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(' '));
            value
                .map(str::to_owned)
                .ok_or_else(|| damaged(&format!("the line {name:?} is missing")))
        };
        let foreign = |what, found: String, expected: String| StateFileError::Foreign {
            file: file.to_owned(),
            what,
            found,
            expected,
        };
        let found = field(genesis_line, "genesis")?;
        if found != genesis.to_string() {
            return Err(foreign("genesis", found, genesis.to_string()));
        }
        let found = field(key_line, "key")?;
        if found != key.to_string() {
            return Err(foreign("consensus key", found, key.to_string()));
        }
        let number = |line, name| {
            let number = field(line, name)?.parse();
            number.map_err(|_| damaged(&format!("its {name} is not a number")))
        };
        let written = Written {
            height: Height(number(height_line, "height")?),
            entries: number(entries_line, "entries")?,
            unproven,
        };
        // Without its last line break the last number may have lost digits.
        if written.to_text(genesis, key) != text {
            return Err(damaged("it is not written as this software writes it"));
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests;
