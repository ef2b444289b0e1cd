//! What the commands that connect as an application have in common: protocol and query string.

use std::fmt::Write as _;

use clap::ValueEnum;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use slipstream_core::io::Protocol;

/// What stays as it is in a query string; a comma in a value would be taken for a separator.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// How a command speaks to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Speak {
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
pub(super) fn with_query(url: &str, parameters: &[(&str, &[&str])]) -> String {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let bare = address.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'));
    let mut url = format!("{address}{}?{query}", if bare { "/" } else { "" });
    for (name, items) in parameters {
        if !url.ends_with(['?', '&']) {
            url.push('&');
        }
        let items: Vec<_> =
            items.iter().map(|item| utf8_percent_encode(item, ESCAPED).to_string()).collect();
        // Writing to a string does not fail.
        let _ = write!(url, "{name}={}", items.join(","));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_added_to_what_is_there() {
        assert_eq!(with_query("ws://a:1", &[("keys", &[])]), "ws://a:1/?keys=");
        assert_eq!(
            with_query("ws://a:1/x?token=t", &[("tags", &["a", "b"]), ("client", &["c"])]),
            "ws://a:1/x?token=t&tags=a,b&client=c"
        );
        assert_eq!(
            with_query("ws://a/", &[("keys", &["order:", "a,b &å"])]),
            "ws://a/?keys=order:,a%2Cb%20%26%C3%A5"
        );
    }
}
