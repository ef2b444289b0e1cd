//! `slipstream status`: a node at one glance.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::table::{bytes, cell, duration, table};
use crate::daemon::admin_client::{AdminArgs, AdminClient};
use crate::daemon::failed::Failed;

/// Between two looks with `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Clears a terminal and goes to its top left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  slipstream status\n  \
                        slipstream status --admin http://10.0.0.7:7401 --watch\n  \
                        slipstream status --json | jq .counters")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Look again every two seconds, until interrupted
    #[arg(long)]
    watch: bool,
}

impl StatusArgs {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        let client = AdminClient::new(&self.admin.url)?;
        let mut out = std::io::stdout();
        loop {
            let body = client.get("/status")?;
            if self.json {
                writeln!(out, "{}", body.trim_end())?;
            } else {
                let clear = if self.watch && out.is_terminal() { CLEAR } else { "" };
                write!(out, "{clear}{}", page(&client.parse(&body)?))?;
            }
            out.flush()?;
            if !self.watch {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(WATCH_EVERY);
        }
    }
}

fn page(status: &Value) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_page(&mut page, status);
    page
}

fn write_page(page: &mut String, status: &Value) -> std::fmt::Result {
    let store = &status["store"];
    writeln!(
        page,
        "node {} {}, up {}, tags {}, group {}, incarnation {}",
        cell(&status["node"]),
        cell(&status["version"]),
        duration(&status["uptime_ms"]),
        cell(&status["tags"]),
        cell(&status["cluster_group"]),
        cell(&status["incarnation"]),
    )?;
    writeln!(
        page,
        "store {} of {}, {} messages up to {}, durability {}",
        bytes(&store["used_bytes"]),
        bytes(&store["max_bytes"]),
        cell(&store["rows"]),
        cell(&store["head"]),
        cell(&status["durability"]),
    )?;
    if let Some(reason) = status["refusing"].as_str() {
        writeln!(page, "PUBLISHERS ARE REFUSED: {reason}")?;
    }
    if status["shutting_down"].as_bool() == Some(true) {
        writeln!(page, "SHUTTING DOWN")?;
    }
    writeln!(page, "\n{}", links(&status["links"]))?;
    writeln!(page, "\n{}", topology(&status["topology"]))?;
    writeln!(page, "\n{}", sessions(&status["sessions"]))
}

fn links(links: &Value) -> String {
    let links = links.as_array().map(Vec::as_slice).unwrap_or_default();
    if links.is_empty() {
        return "no links".to_owned();
    }
    let heading =
        ["LINK", "ROLE", "NAME", "STATE", "REMOTE", "RTT", "UP", "IN", "OUT", "LAST ERROR"];
    let mut table = table(&heading);
    for link in links {
        let rtt = link["rtt_ms"].as_f64().map_or("-".to_owned(), |ms| format!("{ms:.1}ms"));
        table.add_row([
            cell(&link["link"]),
            cell(&link["role"]),
            cell(&link["name"]),
            cell(&link["state"]),
            cell(&link["remote"]),
            rtt,
            duration(&link["up_ms"]),
            bytes(&link["received_bytes"]),
            bytes(&link["sent_bytes"]),
            cell(&link["last_error"]),
        ]);
    }
    table.trim_fmt()
}

/// The mesh as this node knows it.
fn topology(topology: &Value) -> String {
    let mut table = table(&["NODE", "REACHABLE", "TAGS", "LINKED TO"]);
    for node in topology.as_array().into_iter().flatten() {
        table.add_row([
            cell(&node["node"]),
            cell(&node["reachable"]),
            if node["any_tag"] == true { "any".to_owned() } else { cell(&node["tags"]) },
            cell(&node["links"]),
        ]);
    }
    table.trim_fmt()
}

/// The table of sessions, here and in `slipstream sessions list`.
pub(super) fn sessions(sessions: &Value) -> String {
    let sessions = sessions.as_array().map(Vec::as_slice).unwrap_or_default();
    if sessions.is_empty() {
        return "no sessions".to_owned();
    }
    let heading = [
        "SESSION",
        "CONNECTED",
        "AWAY",
        "TAGS",
        "BEHIND",
        "IN FLIGHT",
        "OLDEST",
        "DELIVERED",
        "REPEATED",
        "DEAD",
    ];
    let mut table = table(&heading);
    for session in sessions {
        let dead = session["dead_letters"].as_object().into_iter().flat_map(|by| by.values());
        let dead: u64 = dead.filter_map(Value::as_u64).sum();
        // Where an entry is there, its link says so.
        let gone = session["configuration"].as_str().filter(|said| *said != "configured");
        table.add_row([
            format!(
                "{}{}",
                cell(&session["name"]),
                gone.map_or(String::new(), |gone| { format!(" ({gone})") })
            ),
            cell(&session["connected"]),
            duration(&session["away_ms"]),
            cell(&session["tags"]),
            cell(&session["behind"]),
            cell(&session["in_flight"]),
            duration(&session["oldest_ms"]),
            cell(&session["delivered_total"]),
            cell(&session["retransmits_total"]),
            dead.to_string(),
        ]);
    }
    table.trim_fmt()
}
