//! Faults at one system call of a daemon: it is killed there, or the call fails.
//!
//! strace counts the calls of each thread by itself. A daemon opens its store on a thread of its
//! own and commits on another one, so the first calls of a kind fall into the start, later ones
//! into the work, and the last into the end.

use std::fs;
use std::time::Duration;

use super::Daemon;

/// A fault, and the system calls that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    calls: String,
    effect: String,
    when: String,
    also_shown: &'static str,
    in_data_only: bool,
}

impl Injection {
    /// SIGKILL instead of the `nth` of these calls (names joined by commas).
    pub fn kill(calls: &str, nth: usize) -> Self {
        Self {
            calls: calls.to_owned(),
            effect: "signal=SIGKILL".to_owned(),
            when: nth.to_string(),
            also_shown: "",
            in_data_only: false,
        }
    }

    /// An error of these calls; `when` is `3` for the third, `3..9`, or `3+` for all from there.
    pub fn fail(calls: &str, errno: &str, when: &str) -> Self {
        Self { effect: format!("error={errno}"), when: when.to_owned(), ..Self::kill(calls, 0) }
    }

    /// These calls take twenty seconds more, and so does the end of a process that waits for one;
    /// `when` as in [`Injection::fail`].
    pub fn delay(calls: &str, when: &str) -> Self {
        Self::delay_by(Duration::from_secs(20), calls, when)
    }

    /// These calls take so much more; `when` as in [`Injection::fail`].
    pub fn delay_by(more: Duration, calls: &str, when: &str) -> Self {
        let effect = format!("delay_enter={}", more.as_micros());
        Self { effect, when: when.to_owned(), ..Self::kill(calls, 0) }
    }

    /// Counts only calls that name a file of the database.
    #[must_use]
    pub fn in_data(mut self) -> Self {
        self.in_data_only = true;
        self
    }

    /// Shows these calls in the trace too.
    #[must_use]
    pub fn showing(mut self, calls: &'static str) -> Self {
        self.also_shown = calls;
        self
    }

    /// Starts a node with the fault waiting for it; the next start is a plain one again.
    pub fn start(&self, node: &mut Daemon) {
        let trace = node.trace_file();
        // A trace of an earlier start would be taken for this one's.
        let _ = fs::remove_file(&trace);
        // The tracer is a grandchild, so that the node stays the child of the test. Its filter
        // (--seccomp-bpf) would be faster, but then signals are not injected.
        let mut through: Vec<String> =
            ["strace", "-D", "-f", "-q", "-s", "256"].map(str::to_owned).to_vec();
        through.extend(["-o".to_owned(), trace.to_string_lossy().into_owned()]);
        let shown = if self.also_shown.is_empty() { "" } else { "," };
        through.push("-e".to_owned());
        through.push(format!("trace={}{shown}{}", self.calls, self.also_shown));
        through.push("-e".to_owned());
        through.push(format!("inject={}:{}:when={}", self.calls, self.effect, self.when));
        if self.in_data_only {
            let folder = node.data_dir();
            for file in ["", "slipstream.db", "slipstream.db-wal", "slipstream.db-journal"] {
                // Without the slash at the end that joining nothing would leave.
                let path = if file.is_empty() { folder.clone() } else { folder.join(file) };
                through.extend(["-P".to_owned(), path.to_string_lossy().into_owned()]);
            }
        }
        node.spawn_through(&through);
    }
}

impl Daemon {
    /// The calls of the last start under an [`Injection`], one a line, in order.
    pub fn trace(&self) -> String {
        fs::read(self.trace_file())
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn trace_file(&self) -> std::path::PathBuf {
        self.config_file().with_file_name("trace")
    }
}
