//! Why a command did not do what it was asked, and the exit code for it.

use super::config::ConfigError;

/// Exit code: failed.
pub(super) const EXIT_FAILED: u8 = 1;

/// Exit code: wrong usage or configuration.
pub(super) const EXIT_USAGE: u8 = 2;

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

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}
