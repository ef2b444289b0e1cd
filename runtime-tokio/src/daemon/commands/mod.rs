//! The commands, one file each: its arguments, and what it does with them.
//!
//! A new command is a file, a variant of [`Command`] and an arm in [`execute`]. `bench` and `demo`
//! lie in `crate::tools`, which builds on the daemon and not the daemon on it: only their two
//! variants here know of them.

mod check;
mod clock;
pub(crate) mod connecting;
mod dead_letters;
mod diff;
mod get;
mod publish;
mod run;
mod sessions;
mod status;
mod subscribe;
pub(crate) mod table;
mod whereabouts;

use std::process::ExitCode;

use clap::Subcommand;

use super::failed::Failed;
#[cfg(feature = "tools")]
use crate::tools::{bench, demo};

/// A command with its arguments.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node
    Run(run::RunArgs),
    /// Validate a configuration and print it in full, secrets masked
    Check(check::Check),
    /// Show a node, its links, sessions and store
    Status(status::StatusArgs),
    /// Show where messages with an id are at a node, per session
    Where(whereabouts::Where),
    /// Publish a message, or many from standard input
    Pub(publish::PublishArgs),
    /// Print the value of a key, as this node knows it
    Get(get::Get),
    /// Print what an application is handed
    Sub(subscribe::Subscribe),
    /// Name the keys on which two nodes differ
    Diff(diff::Diff),
    /// Measure throughput and latency
    #[cfg(feature = "tools")]
    Bench(bench::Bench),
    /// Work on messages that a session could not be brought to acknowledge
    DeadLetters(dead_letters::DeadLetters),
    /// List sessions, or end one for good
    Sessions(sessions::SessionsArgs),
    /// Tell a node that its wall clock is right, after it was wrong
    Clock(clock::ClockArgs),
    /// Mistreat a mesh of three nodes and check that nothing is lost or doubled
    #[cfg(feature = "tools")]
    Demo(demo::Demo),
}

/// Carries out a command.
pub(super) fn execute(command: Command) -> Result<ExitCode, Failed> {
    match command {
        Command::Run(run) => run.execute(),
        Command::Check(check) => check.execute(),
        Command::Status(status) => status.execute(),
        Command::Where(whereabouts) => whereabouts.execute(),
        Command::Pub(publish) => publish.execute(),
        Command::Get(get) => get.execute(),
        Command::Sub(subscribe) => subscribe.execute(),
        Command::Diff(diff) => diff.execute(),
        #[cfg(feature = "tools")]
        Command::Bench(bench) => bench.execute(),
        Command::DeadLetters(letters) => letters.execute(),
        Command::Sessions(sessions) => sessions.execute(),
        Command::Clock(clock) => clock.execute(),
        #[cfg(feature = "tools")]
        Command::Demo(demo) => demo.execute(),
    }
}
