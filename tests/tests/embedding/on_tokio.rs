//! The shell on tokio.

use std::time::Duration;

pub use slipstream_tokio as shell;

/// Runs a scenario to its end.
pub fn run(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(scenario);
}

/// What comes within ten seconds.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("it takes too long")
}

#[path = "scenarios.rs"]
mod scenarios;
