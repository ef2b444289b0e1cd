//! `slipstream get`: the converged value of a key.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use slipstream_core::client::{ClientOptions, Filter, ReadError, Value};
use slipstream_core::config::Reconnect;
use slipstream_core::message::Kind;
use slipstream_core::read::ReadRequest;

use super::connecting::{Speak, bare, duration, ended, goodbye, not_connected, options};
use crate::client::Client;
use crate::daemon::failed::Failed;

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
        let (url, timeout) = (&self.url, self.timeout);
        let options = options(url, self.protocol);
        // Whoever waits for a value is soon told that it will not come.
        let reconnect = Reconnect { max_attempts: 1, ..options.reconnect };
        let client = Client::new(url, ClientOptions { timeout, reconnect, ..options });
        let filter = match &self.tags[..] {
            [] => Filter::none(),
            tags => Filter::none().tags(tags),
        };
        let asking = async {
            let reader = client.publisher_as(filter).await;
            let reader = reader.map_err(|error| not_connected(url, &error))?;
            let answer = reader.read(&self.key, kind).await;
            Ok::<_, Failed>((reader, answer))
        };
        let answer = tokio::time::timeout(timeout.saturating_mul(2), asking).await;
        let (reader, answer) = answer.map_err(|_| {
            Failed::general(format!("{} did not answer within {timeout:?}", bare(url)))
        })??;
        goodbye(&reader).await;
        answer.map_err(|error| match error {
            ReadError::Refused(refused) => {
                let message = format!("{} refused to read {}: {refused}", bare(url), self.key);
                Failed::general(message)
            }
            ReadError::Ended(why) => ended(url, &why),
            error => Failed::general(format!("{}: {error}", bare(url))),
        })
    }
}

fn read_kind(name: &str) -> Result<Kind, Failed> {
    let kind = Kind::from_name(name).filter(|kind| ReadRequest::name_of(*kind).is_some());
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
