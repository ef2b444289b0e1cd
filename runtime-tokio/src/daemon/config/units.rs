//! The values that people write as strings: sizes, durations, addresses, names and URLs.
//!
//! Each type accepts only what it can hold, keeps sizes and durations as they were written, so
//! that `check` prints them back unchanged, and never shows the user information of a URL.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Uri;
use bytesize::ByteSize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use slipstream_core::ids::NodeId;
use tracing_subscriber::EnvFilter;

use super::filter::parse_filter;

/// Reads a string with `parse`; `expected` completes "expected ..." where it is no string.
pub(super) fn text<'de, D, T>(
    deserializer: D,
    expected: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    struct SettingVisitor<F>(&'static str, F);

    impl<T, F: Fn(&str) -> Result<T, String>> Visitor<'_> for SettingVisitor<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text)
                .map_err(|reason| E::custom(format_args!("{reason}; expected {}", self.0)))
        }
    }

    deserializer.deserialize_str(SettingVisitor(expected, parse))
}

/// A size in bytes, written with a unit.
#[derive(Debug, Clone)]
pub struct Size {
    bytes: u64,
    text: String,
}

impl Size {
    /// The size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A size that nobody wrote.
    pub(super) fn of(bytes: u64) -> Self {
        Self { bytes, text: format!("{bytes}B") }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let with_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
        match text.parse::<ByteSize>() {
            Ok(size) if with_unit => Ok(Self { bytes: size.as_u64(), text: text.to_owned() }),
            Ok(_) => Err(format!("`{text}` has no unit")),
            Err(_) => Err(format!("`{text}` is not a size")),
        }
    }
}

impl PartialEq for Size {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(
            deserializer,
            "a size with a unit, such as \"64MiB\", \"10GiB\" or \"500kB\"",
            Self::parse,
        )
    }
}

/// A duration, written with a unit.
#[derive(Debug, Clone)]
pub struct SpanText {
    time: Duration,
    text: String,
}

impl SpanText {
    /// The duration.
    pub fn time(&self) -> Duration {
        self.time
    }

    fn parse(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            // "0" alone passes there.
            Ok(time) if text.ends_with(|last: char| last.is_ascii_alphabetic()) => {
                Ok(Self { time, text: text.to_owned() })
            }
            Ok(_) => Err(format!("`{text}` has no unit")),
            Err(error) => Err(format!("`{text}` is not a duration: {error}")),
        }
    }
}

impl PartialEq for SpanText {
    fn eq(&self, other: &Self) -> bool {
        self.time == other.time
    }
}

impl Serialize for SpanText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for SpanText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(
            deserializer,
            "a duration with a unit, such as \"500ms\", \"30s\" or \"24h\"",
            Self::parse,
        )
    }
}

/// Reads a count.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    struct CountVisitor;

    impl Visitor<'_> for CountVisitor {
        type Value = u32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number from 0 to 4294967295")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<u32, E> {
            u32::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
        }
    }

    deserializer.deserialize_i64(CountVisitor)
}

/// Reads a node id.
pub(super) fn node_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
    text(deserializer, "a name such as \"aws-eu-1\"", |text| {
        NodeId::new(text).map_err(|bad| bad.to_string())
    })
}

/// Reads an address to listen on.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    text(deserializer, "an IP address and a port, such as \"127.0.0.1:7400\"", |text| {
        text.parse().map_err(|_| format!("`{text}` is not an address"))
    })
}

/// Reads a log level or filter.
pub(super) fn log_filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, "a level (error, warn, info, debug, trace, off) or a filter", |text| {
        parse_filter(text).map(|_: EnvFilter| text.to_owned()).map_err(|error| error.to_string())
    })
}

/// URL of a peer: `ws://HOST:PORT`, perhaps with user information, which is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerUrl(String);

impl PeerUrl {
    /// The URL with all that it holds, for dialling.
    pub fn secret(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let url = Self(text.to_owned());
        // The parser's own messages are kept out: they may cite what must not be shown.
        let uri: Uri = text.parse().map_err(|_| format!("`{url}` is not a URL"))?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") => {
                return Err(format!("`{url}`: wss (TLS) is not available in this version"));
            }
            Some(_) | None => return Err(format!("`{url}` is not a WebSocket URL")),
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(format!("`{url}` names no host"));
        }
        match uri.port_u16() {
            None | Some(0) => Err(format!("`{url}` names no port")),
            Some(_) => Ok(url),
        }
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.0))
    }
}

/// `text` without user information: whatever stands before an `@` may be a secret, also in what
/// is no URL at all.
pub(crate) fn masked(text: &str) -> Cow<'_, str> {
    let Some(at) = text.rfind('@') else { return Cow::Borrowed(text) };
    let scheme = text[..at].find("://").map_or("", |end| &text[..end + 3]);
    Cow::Owned(format!("{scheme}***{}", &text[at..]))
}

impl fmt::Debug for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PeerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a URL such as \"ws://gcp-1.example:7400\"", Self::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_need_a_unit() {
        assert_eq!(Size::parse("10GiB").expect("good").bytes(), 10 << 30);
        assert_eq!(Size::parse("0B").expect("good").bytes(), 0);
        assert_eq!(SpanText::parse("1m 30s").expect("good").time(), Duration::from_secs(90));
        for bad in ["10", "10GiBB", "", "-1MiB"] {
            assert!(Size::parse(bad).is_err(), "{bad}");
        }
        for bad in ["10", "0", "10 parsecs", "", "-1s"] {
            assert!(SpanText::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_peer_needs_scheme_host_and_port() {
        for good in ["ws://gcp:7400", "ws://[::1]:7400/", "ws://u:p@10.0.0.1:7400/any?x=1"] {
            assert!(PeerUrl::parse(good).is_ok(), "{good}");
        }
        for bad in ["gcp:7400", "http://gcp:7400", "ws://gcp", "ws://:7400", "wss://gcp:7400"] {
            assert!(PeerUrl::parse(bad).is_err(), "{bad}");
        }
    }

    // keeps: no-secrets
    #[test]
    fn user_information_is_never_shown() {
        for (url, shown) in [
            ("ws://me:secret@gcp:7400/x", "ws://***@gcp:7400/x"),
            ("ws://me:sec@ret@gcp:7400/x", "ws://***@gcp:7400/x"),
            ("ws://gcp:7400/a@b", "ws://***@b"),
            ("me:secret@gcp", "***@gcp"),
            ("ws://gcp:7400", "ws://gcp:7400"),
        ] {
            assert_eq!(PeerUrl(url.to_owned()).to_string(), shown);
        }
    }
}
