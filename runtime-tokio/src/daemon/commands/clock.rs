//! `slipstream clock`: an operator's word on the wall clock of a node.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Deserialize;

use crate::daemon::admin_client::{AdminArgs, AdminClient};
use crate::daemon::failed::Failed;

/// Arguments of `clock`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  slipstream clock reset --admin http://127.0.0.1:7401")]
pub(crate) struct ClockArgs {
    #[command(subcommand)]
    action: ClockAction,
}

#[derive(Debug, Subcommand)]
enum ClockAction {
    /// Say that the wall clock is right now: what was stamped in the future is stamped anew
    #[command(
        after_help = "Set the clock right first. Where the node has peers, wait until it is \
                            linked to them: what they hold of a key wins over what was stamped in \
                            the future. Again, if it is interrupted: it goes on.\n\n\
                            Example:\n  slipstream clock reset --admin http://127.0.0.1:7401"
    )]
    Reset {
        #[command(flatten)]
        admin: AdminArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What came of it.
#[derive(Debug, Deserialize)]
struct Reset {
    restamped: u64,
    lowered_ms: u64,
    refusing: Option<String>,
}

impl ClockArgs {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        let ClockAction::Reset { admin, json } = self.action;
        let client = AdminClient::new(&admin.url)?;
        let body = client.post("/clock/reset")?;
        let mut out = std::io::stdout();
        if json {
            writeln!(out, "{}", body.trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        let Reset { restamped, lowered_ms, refusing } = client.parse(&body)?;
        writeln!(out, "the clock is taken for right: {lowered_ms} ms ahead are forgotten")?;
        writeln!(out, "values stamped anew: {restamped}")?;
        if let Some(refusing) = refusing {
            writeln!(out, "publishers are refused for a while: {refusing}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
