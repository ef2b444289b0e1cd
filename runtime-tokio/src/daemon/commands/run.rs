//! `slipstream run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::daemon::{Failed, config};

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  slipstream run -c /etc/slipstream/slipstream.toml\n\n\
                        SIGHUP reloads peers, tags and log level; SIGTERM ends it.")]
pub(crate) struct Run {
    /// The configuration
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

impl Run {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        let settings = config::load(&self.config)?;
        crate::daemon::run::run(&self.config, settings)
    }
}
