//! `slipstream sessions`: who is owed messages here, and ending that.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::daemon::admin_client::{AdminArgs, AdminClient, segment};
use crate::daemon::failed::Failed;

/// Arguments of `sessions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  slipstream sessions list\n  \
                        slipstream sessions forget app:pi-1")]
pub(crate) struct SessionsArgs {
    #[command(subcommand)]
    action: SessionsAction,
}

#[derive(Debug, Subcommand)]
enum SessionsAction {
    /// List named sessions and peers
    #[command(after_help = "Example:\n  slipstream sessions list --json")]
    List {
        #[command(flatten)]
        admin: AdminArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End a session for good: what it is owed and its dead letters are deleted
    #[command(after_help = "Example:\n  slipstream sessions forget peer:gcp-1")]
    Forget {
        /// `app:NAME`, `peer:NAME` or just NAME
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

impl SessionsArgs {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        let mut out = std::io::stdout();
        match self.action {
            SessionsAction::List { admin, json } => {
                let client = AdminClient::new(&admin.url)?;
                let body = client.get("/sessions")?;
                if json {
                    writeln!(out, "{}", body.trim_end())?;
                } else {
                    writeln!(out, "{}", super::status::sessions(&client.parse(&body)?))?;
                }
            }
            SessionsAction::Forget { name, admin } => {
                let client = AdminClient::new(&admin.url)?;
                client.delete(&format!("/sessions/{}", segment(&name)))?;
                writeln!(out, "forgot session {name}")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
