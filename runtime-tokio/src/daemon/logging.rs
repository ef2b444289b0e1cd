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

use super::config::{LogFormat, LogSettings};

/// Lines that wait to be written, at most: a few megabytes.
const MAX_LINES: usize = 8192;

/// How long the last lines of a process may take.
const LAST_LINES: Duration = Duration::from_millis(1500);

/// Why a text is no log level or filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{filter}` is not a log level or filter: {reason}")]
pub(super) struct BadFilter {
    filter: String,
    reason: String,
}

/// Reads a level (`debug`) or a filter (`info,slipstream_core=debug`).
///
/// # Errors
/// [`BadFilter`] if it is neither; also for a bare word that is no level, which the filter
/// language takes for the name of a module.
pub(super) fn parse_filter(filter: &str) -> Result<EnvFilter, BadFilter> {
    let bad = |reason: String| BadFilter { filter: filter.to_owned(), reason };
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in filter.split(',').map(str::trim) {
        let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part));
        if !is_level && !part.contains(['=', '[', ']', '}']) {
            return Err(bad(format!("`{part}` is none of {}", LEVELS.join(", "))));
        }
    }
    EnvFilter::try_new(filter).map_err(|error| bad(error.to_string()))
}

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
        self.reload
            .reload(parsed)
            .map_err(|error| BadFilter { filter: filter.to_owned(), reason: error.to_string() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_pass_and_typing_errors_do_not() {
        for good in ["info", "DEBUG", "off", "warn,slipstream_core=debug", "a::b=trace"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "debgu", "info,debgu", "a=debgu", "info,"] {
            assert!(parse_filter(bad).is_err(), "{bad}");
        }
    }
}
