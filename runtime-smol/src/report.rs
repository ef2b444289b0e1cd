//! Hands what the node tells its operator to `tracing` and `metrics`.

use std::time::Duration;

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

/// Enters a measurement in its histogram.
pub(crate) fn observe(observation: &Observation) {
    match observation {
        Observation::PublishAck { took, count } => {
            histogram!("slipstream_publish_ack_seconds").record_many(seconds(*took), *count);
        }
        Observation::Propagation { origin, took, count } => {
            let origin = origin.as_str().to_owned();
            histogram!("slipstream_propagation_seconds", "origin" => origin)
                .record_many(seconds(*took), *count);
        }
        Observation::Commit { took, messages } => {
            histogram!("slipstream_store_commit_seconds").record(seconds(*took));
            histogram!("slipstream_store_batch_messages").record(*messages as f64);
        }
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
