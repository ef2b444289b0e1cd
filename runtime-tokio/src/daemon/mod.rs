//! The daemon: what the `slipstream` binary is besides the library.
//!
//! Configuration, logs, metrics, the admin endpoint, signals and the command line. Nothing here
//! knows how messages travel; it asks the node through [`crate::Node`].

mod admin;
pub(crate) mod admin_client;
mod cli;
pub(crate) mod commands;
pub mod config;
pub mod logging;
pub mod metrics;
mod reload;
mod run;

use std::process::ExitCode;

/// Hexadecimal digits of a digest where many are listed: 48 bits, so that of a thousand keys no two
/// look alike but once in a hundred million times.
const DIGITS: usize = 12;

/// Exit code: failed.
const EXIT_FAILED: u8 = 1;

/// Exit code: wrong usage or configuration.
const EXIT_USAGE: u8 = 2;

/// Why a command did not do what it was asked: what to tell, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// Exit code of the process.
    pub code: u8,
    /// What was tried, on what, and what to do; empty if there is nobody to tell.
    pub message: String,
}

impl Failed {
    /// Something failed.
    pub(crate) fn general(message: impl Into<String>) -> Self {
        Self { code: EXIT_FAILED, message: message.into() }
    }

    /// It was called in a wrong way, or its configuration is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: EXIT_USAGE, message: message.into() }
    }
}

impl From<std::io::Error> for Failed {
    /// Of writing to standard output. Whoever closed it, as `head` does, wants to hear no more.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { code: 0, message: String::new() };
        }
        Self::general(format!("cannot write to standard output: {error}"))
    }
}

impl From<config::ConfigError> for Failed {
    fn from(error: config::ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

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
