//! What the commands that connect as an application have in common: protocol, query string, and
//! when to connect again.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use slipstream_core::client::QueryString;
use slipstream_core::io::{CloseCode, Protocol};

use crate::daemon::Failed;
use crate::daemon::connection::ConnectionError;

/// First wait before something is tried again, and the longest one.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

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

/// `url` with more query parameters, each a list; an empty list is written as `name=`.
pub(crate) fn with_query(url: &str, parameters: &[(&str, &[&str])]) -> String {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let bare = address.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'));
    let mut query = QueryString::behind(query);
    for (name, items) in parameters {
        match *name {
            "keys" => query.add_keys(items.iter().copied()),
            name => query.add(name, items.iter().copied()),
        }
    }
    format!("{address}{}?{}", if bare { "/" } else { "" }, query.as_str())
}

/// A duration with its unit, as an argument.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 30s or 5m"))
}

/// Whether a connection that failed like this may come about at another time
/// (`docs/src/protocol.md`, close codes).
pub(crate) fn may_pass(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::Closed { code, .. } => CloseCode::may_come_back(*code),
        ConnectionError::Lost(_) => true,
        ConnectionError::Connect { source, .. } => source.may_pass(),
        ConnectionError::Codec(_) => false,
    }
}

/// What to tell of a connection to `url` that failed.
pub(crate) fn told(url: &str, error: &ConnectionError) -> Failed {
    match error {
        ConnectionError::Connect { .. } => Failed::general(error.to_string()),
        ConnectionError::Closed { .. } | ConnectionError::Lost(_) | ConnectionError::Codec(_) => {
            Failed::general(format!("{}: {error}", bare(url)))
        }
    }
}

/// A URL without its query string, which may hold a token.
pub(crate) fn bare(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

/// Doubling waits, until there was no success for too long.
#[derive(Debug)]
pub(crate) struct BackOff {
    limit: Duration,
    end: Option<Instant>,
    next: Duration,
}

impl BackOff {
    /// Gives up when `limit` has passed since the first failure after a success.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, end: None, next: WAITS.0 }
    }

    /// It works again.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::new(self.limit);
    }

    /// How long to wait, at least as long as asked for; `None`: give up.
    pub(crate) fn wait(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let now = Instant::now();
        // A limit beyond what the clock can tell is none.
        let end = self.end.or_else(|| now.checked_add(self.limit));
        self.end = end;
        let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(now));
        if left.is_zero() {
            return None;
        }
        let wait = self.next.max(asked.unwrap_or_default()).min(left);
        self.next = (self.next * 2).min(WAITS.1);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let mut back_off = BackOff::new(Duration::from_secs(60));
        assert_eq!(back_off.wait(None), Some(WAITS.0));
        assert_eq!(back_off.wait(None), Some(WAITS.0 * 2));
        assert_eq!(back_off.wait(Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        back_off.succeeded();
        assert_eq!(back_off.wait(None), Some(WAITS.0));
        assert_eq!(BackOff::new(Duration::ZERO).wait(None), None);
        assert!(BackOff::new(Duration::MAX).wait(None).is_some());
    }

    #[test]
    fn what_an_application_should_not_repeat_is_final() {
        let closed = |code| ConnectionError::Closed { code, reason: String::new(), by_node: true };
        for code in [1001, 1006, 4408, 4429] {
            assert!(may_pass(&closed(code)), "{code}");
        }
        for code in [4400, 4401, 4403, 4409, 4413] {
            assert!(!may_pass(&closed(code)), "{code}");
        }
    }

    #[test]
    fn parameters_are_added_to_what_is_there() {
        assert_eq!(with_query("ws://a:1", &[("keys", &[])]), "ws://a:1/?keys=");
        assert_eq!(
            with_query("ws://a:1/x?token=t", &[("tags", &["a", "b"]), ("client", &["c"])]),
            "ws://a:1/x?token=t&tags=a,b&client=c"
        );
        assert_eq!(
            with_query("ws://a/?tags=x&", &[("keys", &["order:", "a,b &å", "inv:"])]),
            "ws://a/?tags=x&keys=order%3A,inv%3A&key=a%2Cb%20%26%C3%A5"
        );
    }
}
