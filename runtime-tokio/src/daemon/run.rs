//! `slipstream run`: a node, its admin endpoint and the signals, from start to exit code.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slipstream_store_sqlite::OpenError;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::admin::{self, Admin};
use super::config::Settings;
use super::logging::LogHandle;
use super::metrics::Metrics;
use super::reload::Reloader;
use super::{EXIT_FAILED, EXIT_USAGE, Failed, logging};
use crate::node::{remedy, room};
use crate::{Exit, Node, StartError, listen};

/// Between two turns of housekeeping for histograms.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Exit code: storage that can no longer be trusted.
const EXIT_STORAGE: u8 = 3;

/// Runs a node with these settings, read from `file`, until it is told to stop.
///
/// # Errors
/// [`Failed`] says what was in the way, and carries the exit code.
pub(super) fn run(file: &Path, settings: Settings) -> Result<ExitCode, Failed> {
    let log = logging::init(&settings.log).map_err(|error| Failed::general(error.to_string()))?;
    let metrics = Metrics::install().map_err(|error| Failed::general(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::general(format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(live(file, settings, log.clone(), metrics));
    // What may still be under way, such as the answer to an operator, is not waited for.
    runtime.shutdown_background();
    log.end();
    outcome
}

async fn live(
    file: &Path,
    settings: Settings,
    log: LogHandle,
    metrics: Metrics,
) -> Result<ExitCode, Failed> {
    let since = Instant::now();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = %settings.node.id,
        listen = %settings.listen.address,
        admin = %settings.listen.admin,
        data_dir = %settings.node.data_dir.display(),
        "starting"
    );
    raise_descriptors();
    let options = settings.options();
    let places = room(&options.config).map_err(cannot_start)?.operators;
    let signals = Signals::new()?;
    let listener = bind_admin(&settings).await?;
    let node = Node::start(options).await.map_err(cannot_start)?;
    let admin_address =
        listener.local_addr().map_err(|error| Failed::general(error.to_string()))?;
    let id = settings.node.id.clone();
    let allowed_hosts = settings.listen.allowed_hosts.clone();
    let reloader = Reloader::new(file.to_owned(), settings, node.clone(), log.clone());
    let reloader = Arc::new(reloader);
    let admin = Arc::new(Admin {
        node: node.clone(),
        log,
        metrics,
        reloader: reloader.clone(),
        allowed_hosts,
        since,
    });
    tokio::spawn(upkeep(admin.clone()));
    tokio::spawn(admin::serve(listener, places, admin));
    tracing::info!(node = %id, listen = %node.local_addr(), admin = %admin_address, "ready");
    until_the_end(node, signals, &reloader).await
}

fn cannot_start(error: StartError) -> Failed {
    Failed { code: error.exit_code(), message: error.to_string() }
}

impl StartError {
    /// Exit code of a process that ends because of this: 3 for storage that cannot be trusted, 2
    /// for what another configuration mends, 1 for the rest.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. } | Self::Peer(_) | Self::Descriptors { .. } => EXIT_USAGE,
            Self::Store(error) => match error {
                OpenError::InUse { .. }
                | OpenError::Foreign { .. }
                | OpenError::Newer { .. }
                | OpenError::Older { .. }
                | OpenError::Directory { .. } => EXIT_USAGE,
                _ => EXIT_STORAGE,
            },
            Self::Internal(_) => EXIT_FAILED,
        }
    }
}

async fn bind_admin(settings: &Settings) -> Result<TcpListener, Failed> {
    let address = settings.listen.admin;
    listen::bind(address).await.map_err(|error| {
        Failed::usage(format!(
            "cannot listen on {address} for the admin endpoint: {error}; {} (listen.admin)",
            remedy(&error)
        ))
    })
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
