//! Structured logs on standard error, with a level that can change while the process runs.
//!
//! A thread of its own writes the lines. While nobody reads them, as many as `MAX_LINES` wait,
//! further ones are dropped and counted: whoever logs never waits, also at the end of the process.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::panic;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::config::{BadFilter, LogFormat, LogSettings, parse_filter};

/// Lines that wait to be written, at most: a few megabytes.
const MAX_LINES: usize = 8192;

/// How long the last lines of a process may take.
const LAST_LINES: Duration = Duration::from_millis(1500);

/// Changes the level of this process's log, and ends it.
#[derive(Clone)]
pub struct LogHandle {
    reload: reload::Handle<EnvFilter, Registry>,
    dropped: ErrorCounter,
    /// What writes the lines, until the end.
    writer: Arc<Mutex<Option<WorkerGuard>>>,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogHandle").field(&self.filter()).finish()
    }
}

impl LogHandle {
    /// The filter in force.
    pub(super) fn filter(&self) -> String {
        self.reload.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Puts another filter in force.
    ///
    /// # Errors
    /// [`BadFilter`] leaves the old one in force.
    pub(super) fn set(&self, filter: &str) -> Result<(), BadFilter> {
        let parsed = parse_filter(filter)?;
        self.reload.reload(parsed).map_err(|error| BadFilter::new(filter, error.to_string()))
    }

    /// Lines dropped since the start, because nobody read those before them.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }

    /// Writes what still waits, if somebody reads it. Nothing is logged any more after that.
    pub fn end(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        in_time(move || drop(writer));
    }
}

/// Does what may wait for a reader of standard error, and waits for that, but not for long.
pub(super) fn in_time(work: impl FnOnce() + Send + 'static) {
    let (done, when_done) = mpsc::channel::<()>();
    let worker = thread::Builder::new().spawn(move || {
        work();
        drop(done);
    });
    if worker.is_ok() {
        // The other end is dropped when it is done.
        let _done_or_not = when_done.recv_timeout(LAST_LINES);
    }
}

/// Logs panics instead of writing them to standard error, where they would wait for a reader.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let backtrace = matches!(backtrace.status(), BacktraceStatus::Captured)
            .then(|| tracing::field::display(&backtrace));
        tracing::error!(%panic, backtrace, "a fault of the program");
    }));
}

/// Begins to log.
///
/// # Errors
/// If something in this process logs already.
///
/// # Panics
/// Never: the level is checked when the configuration is loaded.
pub fn init(settings: &LogSettings) -> Result<LogHandle, TryInitError> {
    let filter = parse_filter(&settings.level).expect("the level is checked when it is loaded");
    let (filter, reload) = reload::Layer::new(filter);
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(writer);
    let lines = match settings.format {
        // There is one node in this process: its span says nothing.
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            lines.with_current_span(false).with_span_list(false).boxed()
        }
        LogFormat::Text => lines.boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    log_panics();
    Ok(LogHandle { reload, dropped, writer: Arc::new(Mutex::new(Some(guard))) })
}
