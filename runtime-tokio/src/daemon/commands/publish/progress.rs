//! How far `pub -` is: told on standard error, and only if that is a terminal.
//!
//! A moving line with the feature `tools`, and a line every few seconds without it.

#[cfg(feature = "tools")]
pub(super) use self::bar::Progress;
#[cfg(not(feature = "tools"))]
pub(super) use self::lines::Progress;

#[cfg(feature = "tools")]
mod bar {
    use indicatif::{ProgressBar, ProgressStyle};

    /// Shows how many lines were answered, and how many a second.
    #[derive(Debug)]
    pub(in super::super) struct Progress(ProgressBar);

    impl Progress {
        pub(in super::super) fn new() -> Self {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} lines, {per_sec}") {
                bar.set_style(style);
            }
            Self(bar)
        }

        /// Notes that this line was answered.
        pub(in super::super) fn advance(&mut self, line: u64) {
            self.0.set_position(line);
        }

        /// Makes room for what else is written to standard error.
        pub(in super::super) fn interrupt(&self, write: impl FnOnce()) {
            self.0.suspend(write);
        }

        /// Takes the moving line away.
        pub(in super::super) fn finish(&self) {
            self.0.finish_and_clear();
        }
    }
}

#[cfg(not(feature = "tools"))]
mod lines {
    use std::io::{IsTerminal, Write};
    use std::time::{Duration, Instant};

    /// Between two lines about progress.
    const PAUSE: Duration = Duration::from_secs(5);

    /// Says now and then how many lines were answered.
    #[derive(Debug)]
    pub(in super::super) struct Progress {
        is_seen: bool,
        told: Instant,
    }

    impl Progress {
        pub(in super::super) fn new() -> Self {
            Self { is_seen: std::io::stderr().is_terminal(), told: Instant::now() }
        }

        /// Notes that this line was answered.
        pub(in super::super) fn advance(&mut self, line: u64) {
            if self.is_seen && self.told.elapsed() >= PAUSE {
                self.told = Instant::now();
                // If even standard error is gone, there is nobody to tell.
                let _gone = writeln!(std::io::stderr(), "{line} lines");
            }
        }

        /// Writes at once: no line of this one has to be made room for.
        pub(in super::super) fn interrupt(&self, write: impl FnOnce()) {
            write();
        }

        /// Leaves what was written.
        pub(in super::super) fn finish(&self) {}
    }
}
