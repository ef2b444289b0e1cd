//! Hands what the node tells its operator to `tracing` and `metrics`.

use metrics::histogram;
use slipstream_core::event::{Event, Level};
use slipstream_core::io::Observation;

/// Writes an event to the log, at its level, under the target `slipstream`.
pub(crate) fn event(event: &Event) {
    match event.level() {
        Level::Debug => tracing::debug!(target: "slipstream", "{event}"),
        Level::Info => tracing::info!(target: "slipstream", "{event}"),
        Level::Warn => tracing::warn!(target: "slipstream", "{event}"),
        Level::Error => tracing::error!(target: "slipstream", "{event}"),
    }
}

/// Enters a measurement in its histograms.
pub(crate) fn observe(observation: &Observation) {
    for (name, origin, value, count) in observation.entries() {
        let histogram = match origin {
            Some(origin) => histogram!(name, "origin" => origin.to_owned()),
            None => histogram!(name),
        };
        histogram.record_many(value, count);
    }
}
