//! What every node has signed and said, taken from an event that consensus emits before it sends: a
//! witness that needs nobody to have received both of two conflicting signatures.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::journal::Journal;

/// The target of the event.
const TARGET: &str = "timed::signed";

/// A slot is one voter's at one height and round, and of one kind.
type Slot = (String, u64, u64, String);

/// Sees every signature of a run.
pub struct Signatures {
    journal: Arc<Journal>,
    said: Mutex<BTreeMap<Slot, String>>,
}

impl Signatures {
    /// The observer, as a part of the run's log.
    pub fn observe<S>(journal: Arc<Journal>) -> impl Layer<S>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        let said = Mutex::default();
        let targets = Targets::new().with_target(TARGET, LevelFilter::TRACE);
        Self { journal, said }.with_filter(targets)
    }

    fn note(&self, signed: Signed) {
        let Signed {
            voter,
            height,
            round,
            kind,
            block,
        } = signed;
        let slot = (voter, height, round, kind);
        let mut said = self.said.lock().unwrap();
        let Some(before) = said.get(&slot) else {
            said.insert(slot, block);
            return;
        };
        if *before != block && !self.journal.is_shared(&slot.0) {
            let (voter, height, round, kind) = slot;
            self.journal.violation(format!(
                "{voter} signed twice: {kind} at height {height}, round {round}, of {before} and of {block}"
            ));
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Signatures {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut signed = Signed::default();
        event.record(&mut signed);
        self.note(signed);
    }
}

#[derive(Default)]
struct Signed {
    voter: String,
    height: u64,
    round: u64,
    kind: String,
    block: String,
}

impl Visit for Signed {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "height" => self.height = value,
            "round" => self.round = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "voter" => self.voter = value,
            "kind" => self.kind = value,
            "block" => self.block = value,
            _ => {}
        }
    }
}
