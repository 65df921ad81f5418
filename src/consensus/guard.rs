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
mod tests {
    use super::*;
    use crate::env::FileInMemory;

    const GENESIS: GenesisHash = GenesisHash([1; 32]);
    const KEY: ConsensusKey = ConsensusKey([2; 32]);

    const STARTED_MS: u64 = 1_000_000;

    async fn load(file: &FileInMemory, tip: u64, unsafe_sign: bool) -> Guard {
        let file = Arc::new(file.clone());
        Guard::load(
            file,
            Offload::Inline,
            GENESIS,
            KEY,
            Height(tip),
            unsafe_sign,
            STARTED_MS,
        )
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn a_written_height_survives_and_the_next_heights_may_be_signed() {
        let file = FileInMemory::default();
        let mut guard = load(&file, 0, false).await;
        assert!(guard.may_have_lost_state());
        assert_eq!(guard.refusal(Height(1)), None);
        guard.open(Height(1)).await.unwrap();
        assert!(guard.refusal(Height(2)).is_some(), "not by its own file");
        let text = || String::from_utf8(file.load().unwrap().unwrap()).unwrap();
        let expected =
            format!("timed consensus state v1\ngenesis {GENESIS}\nkey {KEY}\nheight 1\n");
        assert_eq!(text(), format!("{expected}entries 0\nunproven\n"));
        guard.finalized_live().await.unwrap();
        guard.signed(4).await.unwrap();
        assert_eq!(text(), format!("{expected}entries 4\n"));
        let guard = load(&file, 0, false).await;
        assert!(guard.may_have_signed(Height(1)));
        assert!(!guard.may_have_signed(Height(2)));
        assert_eq!(guard.entries_signed(Height(1)), 4);
        assert_eq!(guard.entries_signed(Height(2)), 0);
        assert_eq!(guard.refusal(Height(1)), None);
        assert_eq!(guard.refusal(Height(2)), None);
    }

    #[tokio::test]
    async fn without_the_file_nothing_is_signed_before_a_live_height() {
        let mut guard = load(&FileInMemory::default(), 7, false).await;
        assert!(guard.refusal(Height(8)).unwrap().contains("was missing"));
        guard.finalized_live().await.unwrap();
        assert_eq!(guard.refusal(Height(9)), None);
        // At an empty chain it may sign, unless the chain turns out to have blocks.
        let mut guard = load(&FileInMemory::default(), 0, false).await;
        assert_eq!(guard.refusal(Height(1)), None);
        assert!(guard.refusal(Height(2)).is_some());
        guard.chain_has_blocks();
        assert!(guard.refusal(Height(1)).is_some());
    }

    #[tokio::test]
    async fn only_a_recent_block_proposed_after_the_start_shows_a_live_network() {
        let guard = load(&FileInMemory::default(), 7, false).await;
        let live = |time_s: u64, now_s: u64| {
            let [time_ms, now_ms] = [time_s, now_s].map(|s| STARTED_MS + s * 1_000);
            let signing = guard.shows_live(time_ms, now_ms, true);
            let watching = guard.shows_live(time_ms, now_ms, false);
            (signing, watching)
        };
        let by_a_clock_that_is_ahead = live(10, 11);
        assert_eq!(by_a_clock_that_is_ahead, (true, false));
        assert_eq!(live(11, 11), (true, true));
        assert_eq!(live(11, 70), (true, true));
        assert_eq!(live(11, 71), (false, false), "a minute old");
        assert_eq!(live(30, 20), (true, true));
        let nothing_is_old_by_a_clock_that_is_behind = live(31, 20);
        assert_eq!(nothing_is_old_by_a_clock_that_is_behind, (false, false));
    }

    #[tokio::test]
    async fn a_first_height_that_was_not_finalized_here_proves_nothing() {
        let file = FileInMemory::default();
        load(&file, 0, false).await.open(Height(1)).await.unwrap();
        // Still at the first height: it goes on there.
        let guard = load(&file, 0, false).await;
        assert!(guard.may_have_signed(Height(1)));
        assert_eq!(guard.refusal(Height(1)), None);
        // The chain came from elsewhere.
        let mut guard = load(&file, 7, false).await;
        assert!(guard.refusal(Height(8)).unwrap().contains("was missing"));
        guard.finalized_live().await.unwrap();
        assert_eq!(guard.refusal(Height(9)), None);
        assert_eq!(load(&file, 8, false).await.refusal(Height(9)), None);
    }

    #[tokio::test]
    async fn a_file_ahead_of_the_chain_blocks_up_to_its_height() {
        let file = FileInMemory::default();
        load(&file, 0, true).await.open(Height(9)).await.unwrap();
        let guard = load(&file, 7, false).await;
        assert!(guard.refusal(Height(8)).is_some());
        assert!(guard.refusal(Height(9)).is_some());
        assert_eq!(guard.refusal(Height(10)), None);
        assert_eq!(load(&file, 8, false).await.refusal(Height(9)), None);
    }

    #[tokio::test]
    async fn a_lost_log_blocks_its_height_only_and_unsafe_sign_lifts_it() {
        let file = FileInMemory::default();
        load(&file, 0, true).await.open(Height(9)).await.unwrap();
        let mut guard = load(&file, 8, false).await;
        guard.log_lost(Height(9), "lost");
        assert!(guard.refusal(Height(9)).unwrap().contains("lost"));
        assert_eq!(guard.refusal(Height(10)), None);
        let mut guard = load(&file, 8, true).await;
        guard.log_lost(Height(9), "lost");
        assert_eq!(guard.refusal(Height(9)), None);
        // A foreign vote of the own key is not a matter of lost files.
        guard.stop("seen".into());
        assert_eq!(guard.refusal(Height(10)), Some("seen".into()));
    }

    #[tokio::test]
    async fn a_damaged_or_foreign_file_is_an_error_that_names_it() {
        let file = FileInMemory::default();
        let error = |content: String| {
            file.replace(content.as_bytes()).unwrap();
            let file = Arc::new(file.clone());
            async move {
                Guard::load(file, Offload::Inline, GENESIS, KEY, Height(0), false, 0)
                    .await
                    .err()
                    .unwrap()
            }
        };
        assert!(matches!(
            error("height 9".into()).await,
            StateFileError::Damaged { .. }
        ));
        let other = ConsensusKey([3; 32]);
        let content = format!("{TITLE}\ngenesis {GENESIS}\nkey {other}\nheight 9\nentries 0\n");
        assert!(matches!(
            error(content).await,
            StateFileError::Foreign {
                what: "consensus key",
                ..
            }
        ));
        // A number that is none; a last line that may have lost digits; a number in another form.
        for end in ["x\nentries 0\n", "9\nentries 1", "9\nentries +1\n"] {
            let content = format!("{TITLE}\ngenesis {GENESIS}\nkey {KEY}\nheight {end}");
            assert!(matches!(
                error(content).await,
                StateFileError::Damaged { .. }
            ));
        }
    }
}
