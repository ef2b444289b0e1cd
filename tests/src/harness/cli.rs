//! Runs of the binary that end by themselves: `pub`, `sub`, `check` and the others.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{self, Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::machine::own_variables;
use super::{PATIENCE, until};

/// A command line.
#[derive(Debug)]
pub struct Command {
    process: process::Command,
}

/// A command that runs. It is killed if it is dropped before its end.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// A command that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Command {
    /// `slipstream` with these arguments and nothing on standard input.
    pub fn new(binary: &str, args: &[&str]) -> Self {
        let mut process = process::Command::new(binary);
        process.args(args).stdin(Stdio::null());
        for name in own_variables() {
            process.env_remove(name);
        }
        Self { process }
    }

    /// Reads standard input from a file.
    #[must_use]
    pub fn input(mut self, path: &Path) -> Self {
        self.process.stdin(File::open(path).expect("the input is there"));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.process.env(name, value);
        self
    }

    /// Starts it.
    pub fn spawn(mut self) -> Running {
        let process = self.process.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn().expect("the binary can be started");
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        Running { child, stdout, stderr }
    }

    /// Runs it to its end.
    pub fn run(self) -> Finished {
        self.spawn().wait(PATIENCE)
    }
}

impl Running {
    /// Waits for the end.
    ///
    /// # Panics
    /// If it does not come within `patience`.
    pub fn wait(mut self, patience: Duration) -> Finished {
        let mut status = None;
        until("a command to end", patience, || {
            status = self.child.try_wait().expect("an own child can be waited for");
            status.is_some()
        });
        let read = |thread: Option<JoinHandle<String>>| {
            thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
        };
        Finished {
            code: status.and_then(|status| status.code()),
            stdout: read(self.stdout.take()),
            stderr: read(self.stderr.take()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// Standard output of a command that did what it should.
    ///
    /// # Panics
    /// If the exit code is not 0.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Reads a pipe to its end, so that the command never waits for the test.
fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
