//! Hands what a node tells its operator to `tracing` and `metrics`.

use metrics::histogram;
use slipstream_core::client::Ended;
use slipstream_core::event::{Event, Level};
use slipstream_core::io::Observation;
use slipstream_core::runtime::LogSink;
use slipstream_core::store::StoreFailure;

/// Log lines have the target `slipstream`, histograms the names of the core.
#[derive(Debug, Clone, Copy)]
pub struct Tracing;

impl LogSink for Tracing {
    fn report(event: &Event) {
        match event.level() {
            Level::Debug => tracing::debug!(target: "slipstream", "{event}"),
            Level::Info => tracing::info!(target: "slipstream", "{event}"),
            Level::Warn => tracing::warn!(target: "slipstream", "{event}"),
            Level::Error => tracing::error!(target: "slipstream", "{event}"),
        }
    }

    fn observe(observation: &Observation) {
        for (name, origin, value, count) in observation.entries() {
            let histogram = match origin {
                Some(origin) => histogram!(name, "origin" => origin.to_owned()),
                None => histogram!(name),
            };
            histogram.record_many(value, count);
        }
    }

    fn lost(why: &Ended) {
        tracing::debug!(target: "slipstream", %why, "connecting again");
    }

    fn not_closed(failure: &StoreFailure) {
        tracing::error!(target: "slipstream", error = %failure, "closing the store");
    }
}
