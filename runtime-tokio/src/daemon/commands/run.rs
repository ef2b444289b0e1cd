//! `slipstream run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::daemon::config;
use crate::daemon::failed::Failed;
use crate::daemon::run::Once;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slipstream run -c /etc/slipstream/slipstream.toml\n  \
    slipstream run -c slipstream.toml --accept-missing-log\n  \
    slipstream run -c slipstream.toml --rename-node\n\n\
    SIGHUP reloads peers, tags and log level; SIGTERM ends it. The last two are for one start that \
    was refused: without the log of a node that was killed, what is missing is lost; a database \
    that was another node's serves this one from then on.")]
pub(crate) struct RunArgs {
    /// The configuration
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    once: Once,
}

impl RunArgs {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        let settings = config::load(&self.config)?;
        crate::daemon::run::run(&self.config, settings, self.once)
    }
}
