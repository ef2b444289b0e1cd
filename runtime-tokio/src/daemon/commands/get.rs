//! `slipstream get`: the converged value of a key.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use slipstream_core::message::Kind;
use slipstream_core::read::Read;

use super::connecting::{Speak, bare, duration, told, with_query};
use crate::daemon::Failed;
use crate::daemon::connection::{Connection, ConnectionOptions};
use slipstream_core::client::{ClientOptions, Value};

/// Arguments of `get`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slipstream get order:123\n  \
    slipstream get order:123 --tags azure --kind SK --json\n\n\
    Prints the newest value of the key that this node knows among the tag sets that match. Fails \
    if there is none.")]
pub(crate) struct Get {
    /// Key
    key: String,
    /// Node to ask
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:7400/")]
    url: String,
    /// Read as an application with these tags; without them, with those of the node
    #[arg(long, value_delimiter = ',', value_name = "TAG,TAG")]
    tags: Vec<String>,
    /// Fail unless it is SK, SA or SW
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Print the whole result, also of a key that has no value
    #[arg(long)]
    json: bool,
    /// How long to wait for the node
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    timeout: Duration,
    /// What to speak
    #[arg(long, value_enum, default_value_t = Speak::Postcard)]
    protocol: Speak,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    key: &'a str,
    found: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
}

impl Get {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        let kind = self.kind.as_deref().map(read_kind).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failed::general(format!("cannot start: {error}")))?;
        let value = runtime.block_on(self.ask(kind))?;
        let (found, url) = (value.value.is_some(), bare(&self.url));
        if self.json {
            writeln!(std::io::stdout(), "{}", printed(&value)?)?;
        } else if let Some(value) = &value.value {
            writeln!(std::io::stdout(), "{value}")?;
        }
        if found {
            return Ok(ExitCode::SUCCESS);
        }
        let why = if value.kind.is_some() { "was deleted" } else { "has no value that matches" };
        Err(Failed::general(format!("{} {why} at {url}", self.key)))
    }

    async fn ask(&self, kind: Option<Kind>) -> Result<Value, Failed> {
        let tags: Vec<&str> = self.tags.iter().map(String::as_str).collect();
        let mut parameters: Vec<(&str, &[&str])> = vec![("keys", &[])];
        if !tags.is_empty() {
            parameters.push(("tags", &tags));
        }
        let url = with_query(&self.url, &parameters);
        let timeout = self.timeout;
        let client = ClientOptions { timeout, ..ClientOptions::default() };
        let options = ConnectionOptions { protocol: self.protocol.into(), client };
        let asking = async {
            let mut client = Connection::connect(&url, &options).await?;
            let answer = client.get(&self.key, kind).await;
            // It ends in any case.
            let _ = client.sender.close().await;
            answer
        };
        let answer = tokio::time::timeout(timeout.saturating_mul(2), asking).await;
        let answer = answer.map_err(|_| {
            Failed::general(format!("{} did not answer within {timeout:?}", bare(&url)))
        })?;
        answer.map_err(|error| told(&url, &error))?.map_err(|refused| {
            let message = format!("{} refused to read {}: {refused}", bare(&url), self.key);
            Failed::general(message)
        })
    }
}

fn read_kind(name: &str) -> Result<Kind, Failed> {
    let kind = Kind::from_name(name).filter(|kind| Read::name_of(*kind).is_some());
    kind.ok_or_else(|| Failed::usage(format!("{name} is no kind that is read: SK, SA or SW")))
}

fn printed(value: &Value) -> Result<String, Failed> {
    let failed = |error: serde_json::Error| Failed::general(error.to_string());
    let raw = value.value.as_deref().map(serde_json::from_str::<&RawValue>);
    let printed = Printed {
        key: &value.key,
        found: value.value.is_some(),
        kind: value.kind.as_deref(),
        value: raw.transpose().map_err(failed)?,
        version: value.version.as_deref(),
    };
    serde_json::to_string(&printed).map_err(failed)
}
