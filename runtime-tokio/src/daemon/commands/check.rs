//! `slipstream check`: is this configuration good, and what does it amount to?

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::daemon::config;
use crate::daemon::failed::Failed;

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  slipstream check -c slipstream.toml\n\n\
                        SLIPSTREAM_SECTION__KEY in the environment overrides a key, as for run.")]
pub(crate) struct Check {
    /// The configuration
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

impl Check {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        let settings = config::load(&self.config)?;
        write!(std::io::stdout(), "{}", settings.to_toml())?;
        Ok(ExitCode::SUCCESS)
    }
}
