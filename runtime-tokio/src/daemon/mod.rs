//! The daemon: what the `slipstream` binary is besides the library.
//!
//! Configuration, logs, metrics, the admin endpoint, signals and the command line. Nothing here
//! knows how messages travel; it asks the node through [`crate::Node`].

mod admin;
pub(crate) mod admin_client;
mod cli;
pub(crate) mod commands;
pub mod config;
mod digits;
pub(crate) mod failed;
pub mod logging;
pub mod metrics;
mod reload;
mod run;

use std::process::ExitCode;

pub use failed::Failed;

/// The whole of the `slipstream` binary.
pub fn main() -> ExitCode {
    match commands::execute(cli::parse()) {
        Ok(code) => code,
        Err(failed) => {
            complain(&failed);
            ExitCode::from(failed.code)
        }
    }
}

/// Tells what failed; if even standard error is gone, or not read, there is nobody to tell.
fn complain(failed: &Failed) {
    use std::io::Write;
    if failed.message.is_empty() {
        return;
    }
    let line = format!("slipstream: {failed}\n");
    logging::in_time(move || {
        let _gone = std::io::stderr().write_all(line.as_bytes());
    });
}
