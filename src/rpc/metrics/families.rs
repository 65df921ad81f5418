//! Writes metric families: a name, a sentence, and one value for each set of labels. A family
//! without values is named all the same, so that a dashboard can be made before there are any.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

/// Names and values.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Counts by size, as a histogram has them.
pub(super) struct Distribution {
    /// Upper bounds with their own counts, not cumulative; the last bound is infinite.
    pub(super) buckets: Vec<(f64, u64)>,
    /// The sum of all values.
    pub(super) sum: f64,
}

/// Where families are written.
pub(super) struct Families<'a>(DescriptorEncoder<'a>);

impl<'a> Families<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A value that goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, [(Labels::new(), value)])
    }

    /// The same by labels.
    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, values, |one, value| {
            one.encode_gauge(&value)
        })
    }

    /// A value that only grows; its name gets the suffix `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(Labels::new(), value)])
    }

    /// The same by labels.
    pub(super) fn counters<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, values, |one, value| {
            one.encode_counter::<NoLabelSet, V, f64>(&value, None)
        })
    }

    /// Histograms by labels.
    pub(super) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, Distribution)>,
    ) -> fmt::Result {
        let kind = MetricType::Histogram;
        self.family(name, help, kind, values, |one, value| {
            let count = value.buckets.iter().map(|(_, count)| count).sum();
            one.encode_histogram::<NoLabelSet>(value.sum, count, &value.buckets, None)
        })
    }

    fn family<V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: impl IntoIterator<Item = (Labels, V)>,
        write: impl Fn(&mut MetricEncoder, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            match labels.is_empty() {
                true => write(&mut family, value)?,
                false => write(&mut family.encode_family(&labels)?, value)?,
            }
        }
        Ok(())
    }
}
