//! `slipstream run`: a node, its admin endpoint and the signals, from start to exit code.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slipstream_shell::{remedy, room};
use slipstream_store_sqlite::OpenError;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::admin::{self, Admin};
use super::config::Settings;
use super::failed::{EXIT_FAILED, EXIT_USAGE, Failed};
use super::logging;
use super::logging::LogHandle;
use super::metrics::Metrics;
use super::reload::Reloader;
use crate::{Exit, Node, Options, StartError};

/// Between two turns of housekeeping for histograms.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Exit code: storage that can no longer be trusted.
const EXIT_STORAGE: u8 = 3;

/// What an operator decides for one start.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Once {
    /// Make the database of another node.id this node's
    #[arg(long)]
    pub(crate) rename_node: bool,
    /// Take a database that was not closed without its write-ahead log, and lose what is missing
    #[arg(long)]
    pub(crate) accept_missing_log: bool,
}

/// Runs a node with these settings, read from `file`, until it is told to stop. `once` counts for
/// this start.
///
/// # Errors
/// [`Failed`] says what was in the way, and carries the exit code.
pub(super) fn run(file: &Path, settings: Settings, once: Once) -> Result<ExitCode, Failed> {
    let log = logging::init(&settings.log).map_err(|error| Failed::general(error.to_string()))?;
    let outcome = run_logged(file, settings, once, &log);
    log.end();
    outcome
}

fn run_logged(
    file: &Path,
    settings: Settings,
    once: Once,
    log: &LogHandle,
) -> Result<ExitCode, Failed> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = %settings.node.id,
        listen = %settings.listen.address,
        admin = %settings.listen.admin,
        data_dir = %settings.node.data_dir.display(),
        "starting"
    );
    let metrics = Metrics::install().map_err(|error| Failed::general(error.to_string()))?;
    raise_descriptors();
    let places = room(&settings.options().config).map_err(cannot_start)?.operators;
    let allowed_hosts = settings.listen.allowed_hosts.clone();
    let admin = Arc::new(Admin::new(log.clone(), metrics, allowed_hosts));
    let address = settings.listen.admin;
    let address = admin::start(address, places, admin.clone()).map_err(|error| {
        Failed::usage(format!(
            "cannot listen on {address} for the admin endpoint: {error}; {} (listen.admin)",
            remedy(&error)
        ))
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::general(format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(live(file, settings, once, admin, address));
    // What may still be under way, such as the opening of a store, is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn live(
    file: &Path,
    settings: Settings,
    once: Once,
    admin: Arc<Admin>,
    address: SocketAddr,
) -> Result<ExitCode, Failed> {
    let mut signals = Signals::new()?;
    tokio::spawn(upkeep(admin.clone()));
    let Once { rename_node, accept_missing_log } = once;
    let options = Options { rename_node, accept_missing_log, ..settings.options() };
    let node = tokio::select! {
        started = Node::start(options) => started.map_err(cannot_start)?,
        signal = signals.end() => {
            // A store that is being opened is as safe as one that is killed.
            tracing::info!(signal, "stopped before the node had started");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let id = settings.node.id.clone();
    let log = admin.log.clone();
    let reloader = Arc::new(Reloader::new(file.to_owned(), settings, node.clone(), log));
    admin.started(node.clone(), reloader.clone());
    tracing::info!(node = %id, listen = %node.local_addr(), admin = %address, "ready");
    until_the_end(node, signals, &reloader).await
}

fn cannot_start(error: StartError) -> Failed {
    Failed { code: exit_code(&error), message: error.to_string() }
}

/// Exit code of a process that ends because of this: 3 for storage that cannot be trusted, 2 for
/// what another configuration mends, 1 for the rest.
fn exit_code(error: &StartError) -> u8 {
    match error {
        StartError::Listen { .. } | StartError::Peer(_) | StartError::Descriptors { .. } => {
            EXIT_USAGE
        }
        StartError::Store(error) => match error {
            OpenError::InUse { .. }
            | OpenError::Foreign { .. }
            | OpenError::Newer { .. }
            | OpenError::Older { .. }
            | OpenError::Permission { .. }
            | OpenError::ReadOnly { .. }
            | OpenError::Dangling { .. }
            | OpenError::OtherNode { .. }
            | OpenError::Directory { .. } => EXIT_USAGE,
            _ => EXIT_STORAGE,
        },
        // `Internal`, and whatever a later version adds.
        _ => EXIT_FAILED,
    }
}

/// Lets this process open as many files as it is allowed to: the limit that a shell sets by default
/// is meant for programs that cannot take more.
fn raise_descriptors() {
    let allowed = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit { current: allowed, maximum: allowed };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

async fn upkeep(admin: Arc<Admin>) {
    let mut ticks = tokio::time::interval(METRICS_UPKEEP);
    let mut told = 0;
    loop {
        ticks.tick().await;
        admin.metrics.upkeep();
        let dropped = admin.log.dropped_lines();
        if dropped > told {
            let lines = dropped - told;
            tracing::warn!(lines, "log lines were dropped: standard error was not read in time");
            // Said again if this line was dropped, too.
            if admin.log.dropped_lines() == dropped {
                told = dropped;
            }
        }
    }
}

/// The signals that mean something here.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failed> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failed::general(format!("cannot take signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Returns which signal asks for the end.
    async fn end(&mut self) -> &'static str {
        tokio::select! {
            Some(()) = self.terminate.recv() => "SIGTERM",
            Some(()) = self.interrupt.recv() => "SIGINT",
            else => std::future::pending().await,
        }
    }
}

/// Carries out what signals say until the node has ended.
async fn until_the_end(
    node: Node,
    mut signals: Signals,
    reloader: &Reloader,
) -> Result<ExitCode, Failed> {
    let mut stopping = false;
    let exit = loop {
        let signal = tokio::select! {
            exit = node.ended() => break exit,
            Some(()) = signals.terminate.recv() => "SIGTERM",
            Some(()) = signals.interrupt.recv() => {
                if stopping {
                    return Err(Failed::general("interrupted again: ended without waiting"));
                }
                "SIGINT"
            }
            Some(()) = signals.hang_up.recv() => {
                // The outcome is logged there.
                let _outcome = reloader.reload().await;
                continue;
            }
        };
        if !stopping {
            stopping = true;
            tracing::info!(signal, "stopping; SIGINT ends at once from now on");
            // A node that has ended already is what was asked for.
            let _ = node.stop().await;
        }
    };
    match exit {
        Exit::Stopped => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        Exit::Halted(failure) => {
            let message = format!("{failure}; check the disk, then start the node again");
            tracing::error!(%failure, "halted: the store can no longer be trusted");
            Err(Failed { code: EXIT_STORAGE, message })
        }
        Exit::Failed => {
            tracing::error!("the event loop ended by a fault");
            Err(Failed::general("the event loop ended by a fault of the program"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_a_matter_of_configuration() {
        let code = |error: OpenError| exit_code(&StartError::Store(error));
        let (owner, user) = (String::from("root"), String::from("pi"));
        let path = || "data/slipstream.db".into();
        let denied = OpenError::Permission {
            path: path(),
            owner: owner.clone(),
            mode: 0,
            user: user.clone(),
        };
        assert_eq!(code(denied), EXIT_USAGE);
        assert_eq!(code(OpenError::ReadOnly { path: path(), owner, user }), EXIT_USAGE);
        assert_eq!(code(OpenError::Dangling { path: path(), target: path() }), EXIT_USAGE);
        assert_eq!(code(OpenError::Damaged { path: path(), what: "it" }), EXIT_STORAGE);
    }
}
