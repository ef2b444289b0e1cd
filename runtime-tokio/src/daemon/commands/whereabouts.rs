//! `slipstream where`: the fate of a message at one node.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::table::{cell, table};
use crate::daemon::admin_client::{AdminArgs, AdminClient, segment};
use crate::daemon::failed::Failed;

/// Arguments of `where`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  slipstream where m-1 --admin http://127.0.0.1:7401")]
pub(crate) struct Where {
    /// The `messageId`
    message_id: String,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Where {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        let client = AdminClient::new(&self.admin.url)?;
        let body = client.get(&format!("/where/{}", segment(&self.message_id)))?;
        let found: Vec<Value> = client.parse(&body)?;
        let mut out = std::io::stdout();
        if self.json {
            writeln!(out, "{}", body.trim_end())?;
        } else {
            for message in &found {
                write_message(&mut out, message)?;
            }
        }
        if found.is_empty() {
            return Err(Failed::general(format!(
                "no message {} at {}: it never came here, or it was settled and its room was \
                 needed (store.history_max_bytes); ask the node that accepted it",
                self.message_id, self.admin.url
            )));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write_message(out: &mut impl Write, message: &Value) -> std::io::Result<()> {
    writeln!(
        out,
        "{} {} {}, version {}, path {}, tags {}, position {}{}{}",
        cell(&message["messageId"]),
        cell(&message["kind"]),
        cell(&message["key"]),
        cell(&message["version"]),
        cell(&message["messagePath"]),
        cell(&message["targetedTags"]),
        cell(&message["position"]),
        if message["superseded"].as_bool() == Some(true) { ", superseded" } else { "" },
        if message["expired"].as_bool() == Some(true) { ", expired" } else { "" },
    )?;
    let mut fates = table(&["SESSION", "FATE", "ATTEMPTS"]);
    for fate in message["sessions"].as_array().into_iter().flatten() {
        fates.add_row([cell(&fate["session"]), cell(&fate["fate"]), cell(&fate["attempts"])]);
    }
    writeln!(out, "{}\n", fates.trim_fmt())
}
