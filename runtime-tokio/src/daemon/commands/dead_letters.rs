//! `slipstream dead-letters`: look at them, hand them over again, or delete them.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::table::{table, time};
use crate::daemon::admin_client::{AdminArgs, AdminClient};
use crate::daemon::failed::Failed;

/// Dead letters that are listed at once, if no other number is named.
const PAGE: usize = 100;

/// Arguments of `dead-letters`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  slipstream dead-letters list\n  \
                        slipstream dead-letters show 7\n  \
                        slipstream dead-letters replay --all")]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    action: DeadLettersAction,
}

#[derive(Debug, Subcommand)]
enum DeadLettersAction {
    /// List dead letters in the order of their numbers
    #[command(after_help = "Example:\n  slipstream dead-letters list --after 100 --limit 50")]
    List {
        #[command(flatten)]
        admin: AdminArgs,
        /// Start behind this number
        #[arg(long, default_value_t = 0, value_name = "ID")]
        after: u64,
        /// At most so many
        #[arg(long, default_value_t = PAGE, value_name = "N")]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one with its value
    #[command(after_help = "Example:\n  slipstream dead-letters show 7 --json | jq .value")]
    Show {
        /// Number of the dead letter
        id: u64,
        #[command(flatten)]
        admin: AdminArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Hand one, or all, to their sessions again
    #[command(after_help = "Examples:\n  slipstream dead-letters replay 7\n  \
                            slipstream dead-letters replay --all")]
    Replay(Which),
    /// Delete one, or all, for good
    #[command(after_help = "Examples:\n  slipstream dead-letters purge 7\n  \
                            slipstream dead-letters purge --all")]
    Purge(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// Number of the dead letter
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<u64>,
    /// All that there are now
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What is read of a dead letter; the value stays as it was written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LetterRow<'a> {
    id: u64,
    session: String,
    reason: String,
    attempts: u32,
    first_error: String,
    last_error: String,
    first_at_ms: u64,
    died_at_ms: u64,
    #[serde(rename = "type")]
    kind: String,
    message_id: String,
    key: String,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    message_path: Vec<String>,
    targeted_tags: Vec<String>,
    version: String,
}

impl DeadLetters {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        match self.action {
            DeadLettersAction::List { admin, after, limit, json } => {
                list(&admin, after, limit, json)?
            }
            DeadLettersAction::Show { id, admin, json } => show(&admin, id, json)?,
            DeadLettersAction::Replay(which) => {
                let client = AdminClient::new(&which.admin.url)?;
                each(&client, &which, "replayed", |id| {
                    client.post(&format!("/dead-letters/{id}/replay"))
                })?;
            }
            DeadLettersAction::Purge(which) => {
                let client = AdminClient::new(&which.admin.url)?;
                each(&client, &which, "purged", |id| {
                    client.delete(&format!("/dead-letters/{id}"))
                })?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Lists page by page: one answer holds as much as the node wants to hold.
fn list(admin: &AdminArgs, after: u64, limit: usize, json: bool) -> Result<(), Failed> {
    let client = AdminClient::new(&admin.url)?;
    let mut out = std::io::stdout();
    let heading =
        ["ID", "SESSION", "TYPE", "MESSAGE", "KEY", "REASON", "ATTEMPTS", "DIED", "LAST ERROR"];
    let (mut table, mut pages) = (table(&heading), Vec::new());
    let (mut last, mut found) = (after, 0);
    while found < limit {
        let body = page(&client, last, limit - found)?;
        let letters: Vec<LetterRow<'_>> = client.parse(&body)?;
        let Some(end) = letters.last() else { break };
        last = end.id;
        found += letters.len();
        for letter in &letters {
            table.add_row([
                letter.id.to_string(),
                letter.session.clone(),
                letter.kind.clone(),
                letter.message_id.clone(),
                letter.key.clone(),
                letter.reason.clone(),
                letter.attempts.to_string(),
                time(letter.died_at_ms),
                letter.last_error.clone(),
            ]);
        }
        if json {
            let all: Vec<Box<RawValue>> = client.parse(&body)?;
            pages.extend(all);
        }
    }
    if json {
        writeln!(out, "{}", serde_json::to_string(&pages).map_err(std::io::Error::from)?)?;
    } else if found == 0 {
        writeln!(out, "no dead letters")?;
    } else {
        writeln!(out, "{}", table.trim_fmt())?;
        if found == limit {
            writeln!(out, "there may be more: --after {last}")?;
        }
    }
    Ok(())
}

fn page(client: &AdminClient, after: u64, limit: usize) -> Result<String, Failed> {
    client.get(&format!("/dead-letters?after={after}&limit={}", limit.min(PAGE)))
}

fn show(admin: &AdminArgs, id: u64, json: bool) -> Result<(), Failed> {
    let client = AdminClient::new(&admin.url)?;
    let body = client.get(&format!("/dead-letters/{id}"))?;
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{}", body.trim_end())?;
    } else {
        write_letter(&mut out, &client.parse(&body)?)?;
    }
    Ok(())
}

fn write_letter(out: &mut impl Write, letter: &LetterRow<'_>) -> std::io::Result<()> {
    for (name, text) in [
        ("id", letter.id.to_string()),
        ("session", letter.session.clone()),
        ("reason", letter.reason.clone()),
        ("attempts", letter.attempts.to_string()),
        ("first handed over", time(letter.first_at_ms)),
        ("died", time(letter.died_at_ms)),
        ("first error", letter.first_error.clone()),
        ("last error", letter.last_error.clone()),
        ("message", format!("{} {}", letter.kind, letter.message_id)),
        ("version", letter.version.clone()),
        ("path", letter.message_path.join(",")),
        ("tags", letter.targeted_tags.join(",")),
        ("key", letter.key.clone()),
        ("value", letter.value.map_or("", RawValue::get).to_owned()),
    ] {
        writeln!(out, "{name:<18} {text}")?;
    }
    Ok(())
}

/// Does something with the one that was named, or with all that there are at the beginning: what
/// dies again meanwhile is left for the next time.
fn each(
    client: &AdminClient,
    which: &Which,
    done: &str,
    order: impl Fn(u64) -> Result<String, Failed>,
) -> Result<(), Failed> {
    let mut out = std::io::stdout();
    let ids = match which.id {
        Some(id) => vec![id],
        None => all(client)?,
    };
    for id in &ids {
        order(*id)?;
        writeln!(out, "{done} {id}")?;
    }
    if ids.is_empty() {
        writeln!(out, "no dead letters")?;
    }
    Ok(())
}

/// The numbers of all dead letters.
fn all(client: &AdminClient) -> Result<Vec<u64>, Failed> {
    let mut ids = Vec::new();
    loop {
        let after = ids.last().copied().unwrap_or(0);
        let body = page(client, after, PAGE)?;
        let letters: Vec<LetterRow<'_>> = client.parse(&body)?;
        if letters.is_empty() {
            return Ok(ids);
        }
        ids.extend(letters.iter().map(|letter| letter.id));
    }
}
