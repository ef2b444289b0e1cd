//! The shell on smol.

use std::time::Duration;

pub use slipstream_smol as shell;

/// Runs a scenario to its end.
pub fn run(scenario: impl Future<Output = ()>) {
    smol::block_on(scenario);
}

/// What comes within ten seconds.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    let overdue = async {
        smol::Timer::after(Duration::from_secs(10)).await;
        panic!("it takes too long")
    };
    smol::future::or(what, overdue).await
}

#[path = "scenarios.rs"]
mod scenarios;
