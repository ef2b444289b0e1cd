//! What the commands that connect as an application have in common: what they speak, how they
//! connect and say goodbye, and what they tell of a connection that failed.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use slipstream_core::client::{ClientOptions, ConnectError, Ended};
use slipstream_core::config::Reconnect;
use slipstream_core::io::Protocol;

use crate::client::Publisher;
use crate::daemon::failed::Failed;

/// First wait before a lost connection is opened again, and the longest one.
pub(crate) const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long the node may take to answer a goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a command speaks to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Speak {
    /// Text frames, one JSON object each
    Json,
    /// Binary frames of many records
    Postcard,
}

impl From<Speak> for Protocol {
    fn from(speak: Speak) -> Self {
        match speak {
            Speak::Json => Self::Json,
            Speak::Postcard => Self::Postcard,
        }
    }
}

/// How a command connects to `url`: also with what stands in its query string, and soon again.
pub(crate) fn options(url: &str, protocol: impl Into<Protocol>) -> ClientOptions {
    ClientOptions {
        protocol: protocol.into(),
        query: url.split_once('?').map_or("", |(_, query)| query).to_owned(),
        reconnect: Reconnect { initial: WAITS.0, max: WAITS.1, max_attempts: 0 },
        ..ClientOptions::default()
    }
}

/// [`options`] that say on standard error why another connection is opened.
pub(crate) fn told_options(url: &str, protocol: impl Into<Protocol>) -> ClientOptions {
    let node = bare(url).to_owned();
    let on_lost = move |why: &Ended| say_lost(&node, why);
    ClientOptions { on_lost: Some(Arc::new(on_lost)), ..options(url, protocol) }
}

/// Says on standard error why another connection is opened.
pub(crate) fn say_lost(node: &str, why: &Ended) {
    // If standard error is gone, there is nobody to tell.
    let _gone = writeln!(std::io::stderr(), "{node}: {why}; connecting again");
}

/// Ends an application with close code 1000, after all that it has said. A node that does not
/// answer has still been told.
pub(crate) async fn goodbye(publisher: &Publisher) {
    let _ = tokio::time::timeout(GOODBYE, publisher.clone().close()).await;
}

/// A duration with its unit, as an argument.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 30s or 5m"))
}

/// What to tell of a connection to `url` that could not be opened.
pub(crate) fn not_connected(url: &str, error: &ConnectError) -> Failed {
    match error {
        ConnectError::Ended(why) => ended(url, why),
        error => Failed::general(format!("cannot connect to {}: {error}", bare(url))),
    }
}

/// What to tell of a connection to `url` that has ended.
pub(crate) fn ended(url: &str, why: &Ended) -> Failed {
    Failed::general(format!("{}: {why}", bare(url)))
}

/// A URL without its query string, which may hold a token.
pub(crate) fn bare(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_query_is_sent_and_not_told() {
        let url = "ws://a:1/x?token=secret";
        assert_eq!(options(url, Speak::Json).query, "token=secret");
        let refused = ConnectError::Unreachable("nobody".into());
        let told = not_connected(url, &refused).message;
        assert!(told.starts_with("cannot connect to ws://a:1/x: nobody"), "{told}");
        let closed = Ended::Closed { code: 4401, reason: "who are you?".into() };
        let told = not_connected(url, &closed.into()).message;
        assert_eq!(told, "ws://a:1/x: the connection was closed: 4401 who are you?");
    }
}
