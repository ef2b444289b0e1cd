//! `slipstream pub`: one message from the command line, or many from standard input.

mod input;
mod progress;
mod publisher;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use slipstream_core::client;
use slipstream_core::config::Durability;
use slipstream_core::json::write;
use slipstream_core::message::Kind;
use slipstream_core::value::{NO_VALUE, check_value};

use self::input::{LineBatch, read_standard_input};
use self::progress::Progress;
use self::publisher::{LineFate, LinePublisher, PublishedLine};
use super::connecting::{Speak, bare, duration};
use crate::daemon::failed::Failed;

/// Longest part of a value that an error shows.
const SHOWN: usize = 60;

/// Arguments of `pub`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slipstream pub SK order:123 '{\"total\": 12.50}' --tags azure,gcp\n  \
    slipstream pub SW acquirers '{\"nets\": 0.7, \"bambora\": 0.3}'\n  \
    slipstream pub DK order:123 --tags azure,gcp\n  \
    slipstream pub CMD terminal:9 '\"reboot\"' --ttl 60s\n  \
    slipstream pub - --client importer < messages.ndjson\n\n\
    A line of standard input is a message as applications send it:\n  \
    {\"type\":\"SK\",\"messageId\":\"m-1\",\"key\":\"order:123\",\"value\":1,\
    \"targetedTags\":[\"gcp\"]}\n\n\
    With --client nothing is published twice, even if the connection breaks. Use a name that no \
    subscriber has: a name is connected once, and this one receives nothing.")]
pub(crate) struct PublishArgs {
    /// SK, SA, SW, DK or CMD; `-` reads messages from standard input, one JSON object a line
    kind: String,
    /// Key
    key: Option<String>,
    /// One JSON value; none with DK
    value: Option<String>,
    /// Node to publish at
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:7400/")]
    url: String,
    /// Only for applications and nodes with one of these tags
    #[arg(long, value_delimiter = ',', value_name = "TAG,TAG")]
    tags: Vec<String>,
    /// Name of the message, to publish it again safely
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// How long a CMD is of use
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
    /// Name of a durable session, within which no message is taken twice
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// How long to go on when the connection breaks or messages are refused for now
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    timeout: Duration,
    /// What to speak
    #[arg(long, value_enum, default_value_t = Speak::Postcard)]
    protocol: Speak,
}

impl PublishArgs {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failed::general(format!("cannot start: {error}")))?;
        match (self.kind.as_str(), &self.key, &self.value) {
            ("-", None, None) => runtime.block_on(self.many()),
            ("-", _, _) => Err(Failed::usage("pub - takes keys and values from standard input")),
            ("DK", Some(key), None) => runtime.block_on(self.one("DK", key, NO_VALUE)),
            ("DK", _, Some(_)) => Err(Failed::usage("pub DK takes a key and no value")),
            (kind, Some(key), Some(value)) => runtime.block_on(self.one(kind, key, value)),
            (_, _, _) => Err(Failed::usage(
                "pub needs KIND KEY VALUE, or - alone for standard input; see pub --help",
            )),
        }
    }

    async fn one(&self, kind: &str, key: &str, value: &str) -> Result<ExitCode, Failed> {
        let Some(kind) = Kind::from_name(kind) else {
            let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
            let known = known.join(", ");
            return Err(Failed::usage(format!("{kind} is no kind of message; there are {known}")));
        };
        check_json(value)?;
        let mut publisher = self.publisher().await?;
        let id = match (&self.id, &self.client) {
            (Some(id), _) => id.clone(),
            // So that it can be published again if the connection breaks.
            (None, Some(_)) => format!("{}-1", run_name()?),
            (None, None) => String::new(),
        };
        let item = PublishedLine {
            line: 1,
            kind,
            id: id.into(),
            key: key.into(),
            tags: self.tags.join(","),
            ttl_ms: milliseconds(self.ttl)?,
            body: value,
        };
        let mut answer = None;
        let instance = publisher.instance().to_owned();
        publisher.publish(vec![item], &mut |_, fate| answer = Some(fate)).await?;
        publisher.close().await;
        match answer {
            Some(LineFate::Answered(Ok(receipt))) => {
                let receipt = ReceiptJson::of(&receipt, &instance);
                let receipt = serde_json::to_string(&receipt);
                let receipt = receipt.map_err(|error| Failed::general(error.to_string()))?;
                writeln!(std::io::stdout(), "{receipt}")?;
                Ok(ExitCode::SUCCESS)
            }
            Some(LineFate::Answered(Err(refused))) => {
                let url = bare(&self.url);
                Err(Failed::general(format!("{url} refused to publish {key}: {refused}")))
            }
            Some(LineFate::Superseded) | None => {
                Err(Failed::general(format!("{key} was not answered")))
            }
        }
    }

    async fn many(&self) -> Result<ExitCode, Failed> {
        if self.id.is_some() || self.ttl.is_some() || !self.tags.is_empty() {
            let message = "with pub - each line has its own messageId, ttlMs and targetedTags";
            return Err(Failed::usage(message));
        }
        let mut publisher = self.publisher().await?;
        let run = self.client.as_ref().map(|_| run_name()).transpose()?;
        let mut input = read_standard_input();
        let mut count = Count::new();
        let outcome = loop {
            let Some(lines) = input.recv().await else { break Ok(()) };
            let lines = match lines {
                Ok(lines) => lines,
                Err(reason) => break Err(Failed::general(reason)),
            };
            let batch = LineBatch::parse(&lines, run.as_deref(), publisher.largest());
            for (line, refusal) in &batch.refused {
                count.refuse(*line, refusal.code.as_str(), &refusal.message);
            }
            let note = &mut |line, fate| count.note(line, &fate);
            if let Err(failed) = publisher.publish(batch.items, note).await {
                break Err(failed);
            }
        };
        count.summary();
        outcome?;
        publisher.close().await;
        Ok(if count.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn publisher(&self) -> Result<LinePublisher, Failed> {
        let client = self.client.as_deref();
        LinePublisher::connect(&self.url, client, self.protocol.into(), self.timeout).await
    }
}

fn check_json(value: &str) -> Result<(), Failed> {
    check_value(value).map_err(|bad| {
        let end = value.floor_char_boundary(SHOWN.min(value.len()));
        let shown = &value[..end];
        let more = if end < value.len() { "..." } else { "" };
        Failed::usage(format!(
            "the value {shown}{more} is {bad}; a text needs quotes of its own, and the whole \
             another pair for the shell: '\"hello\"'"
        ))
    })
}

fn milliseconds(ttl: Option<Duration>) -> Result<u64, Failed> {
    match ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)) {
        Some(0) => Err(Failed::usage("--ttl must be at least 1ms")),
        Some(ms) => Ok(ms),
        None => Ok(0),
    }
}

/// A name for ids of this run that no other run has.
fn run_name() -> Result<String, Failed> {
    let random = getrandom::u64()
        .map_err(|error| Failed::general(format!("no random numbers for ids: {error}")))?;
    Ok(format!("pub-{random:016x}"))
}

/// A receipt as a node writes it in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptJson<'a> {
    r#type: &'static str,
    message_id: &'a str,
    origin_instance_id: &'a str,
    source_instance_id: &'a str,
    message_path: [&'a str; 1],
    version: String,
    level: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

impl<'a> ReceiptJson<'a> {
    fn of(receipt: &'a client::Receipt, node: &'a str) -> Self {
        Self {
            r#type: "ACK",
            message_id: &receipt.id,
            origin_instance_id: node,
            source_instance_id: node,
            message_path: [node],
            version: write::version_text(receipt.version, node),
            level: match receipt.level {
                Durability::Full => "durable",
                Durability::Normal => "written",
            },
            duplicate: receipt.duplicate,
        }
    }
}

/// What came of the lines of standard input.
#[derive(Debug)]
struct Count {
    since: Instant,
    published: u64,
    duplicates: u64,
    superseded: u64,
    refused: u64,
    progress: Progress,
}

impl Count {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            published: 0,
            duplicates: 0,
            superseded: 0,
            refused: 0,
            progress: Progress::new(),
        }
    }

    fn note(&mut self, line: u64, fate: &LineFate) {
        self.progress.advance(line);
        match fate {
            LineFate::Answered(Ok(receipt)) => {
                self.published += 1;
                self.duplicates += u64::from(receipt.duplicate);
            }
            LineFate::Answered(Err(refused)) => {
                self.refuse(line, &refused.code, &refused.message);
            }
            LineFate::Superseded => self.superseded += 1,
        }
    }

    fn refuse(&mut self, line: u64, code: &str, message: &str) {
        self.refused += 1;
        self.progress.interrupt(|| {
            // If even standard error is gone, there is nobody to tell.
            let _gone = writeln!(std::io::stderr(), "line {line}: {code}: {message}");
        });
    }

    /// Says on standard error what came of it all.
    fn summary(&self) {
        self.progress.finish();
        let mut text = format!("published {} messages", self.published);
        for (count, what) in [
            (self.duplicates, "there already"),
            (self.superseded, "refused for a while and then superseded by later lines"),
            (self.refused, "refused"),
        ] {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        let seconds = self.since.elapsed().as_secs_f64();
        let _gone = writeln!(std::io::stderr(), "{text}, in {seconds:.1} s");
    }
}

#[cfg(test)]
mod tests {
    use slipstream_core::clock::Hlc;
    use slipstream_core::time::WallMs;

    use super::*;

    #[test]
    fn a_value_that_is_no_json_is_told_how_to_quote() {
        for good in ["1.10", "\"hello\"", "{\"a\": 1e400}", "null"] {
            assert_eq!(check_json(good), Ok(()));
        }
        for bad in ["hello", "{not json", "", "1 2"] {
            let failed = check_json(bad).expect_err(bad);
            assert_eq!(failed.code, 2);
            assert!(failed.message.contains("'\"hello\"'"), "{failed}");
        }
        let long = check_json(&"å".repeat(500)).expect_err("no JSON");
        assert!(long.message.len() < 400, "{long}");
    }

    #[test]
    fn a_receipt_reads_as_that_of_a_node() {
        let receipt = client::Receipt {
            id: "m-1".to_owned().into(),
            version: Hlc::at(WallMs(1)),
            duplicate: false,
            level: Durability::Full,
        };
        assert_eq!(
            serde_json::to_string(&ReceiptJson::of(&receipt, "aws")).ok().as_deref(),
            Some(concat!(
                r#"{"type":"ACK","messageId":"m-1","originInstanceId":"aws","#,
                r#""sourceInstanceId":"aws","messagePath":["aws"],"#,
                r#""version":"000000000001-0000-aws","level":"durable"}"#
            ))
        );
    }
}
