//! The upgrade of a connection to WebSocket, as far as it is decided here (RFC 6455 section 4): who
//! may connect, and who is taken for a node.
//!
//! Shells read and write the HTTP, by their library; headers come as they look them up.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::app::ConnectError;
use crate::config::Limits;
use crate::io::Protocol;
use crate::wire::application::{negotiate, origin_allowed};

/// What connections are accepted by.
#[derive(Debug)]
pub struct Rules {
    /// Origins of web pages that may connect.
    pub allowed_origins: Vec<String>,
    /// Whether the listener is on loopback.
    pub loopback: bool,
    /// Limits of the node.
    pub limits: Limits,
    /// Connections that may be unfinished at a time ([`crate::host::slots`]).
    pub unfinished: usize,
}

/// Why a request is not upgraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRefusal {
    /// Status of the response: number and name.
    pub status: &'static str,
    /// For people.
    pub reason: String,
}

impl UpgradeRefusal {
    /// What came is no HTTP, or too much of it.
    pub fn bad(reason: String) -> Self {
        Self { status: "400 Bad Request", reason }
    }

    /// What came is no upgrade to WebSocket, for this reason. `asked`: it is meant to be one.
    fn no_websocket(asked: bool, reason: &str) -> Self {
        let status = if asked { "400 Bad Request" } else { "426 Upgrade Required" };
        let reason = format!("{reason}; this is the WebSocket endpoint of a Slipstream node");
        Self { status, reason }
    }

    /// The whole response. It names the version that is spoken here (RFC 6455 section 4.4).
    pub fn response(&self) -> String {
        let Self { status, reason } = self;
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: {VERSION}\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{reason}\n",
            reason.len() + 1
        )
    }
}

/// What was agreed on with whoever asked for an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed<'a> {
    /// What is spoken.
    pub protocol: Protocol,
    /// The subprotocol to confirm.
    confirmed: Option<&'static str>,
    /// `Sec-WebSocket-Key`: what the answer must prove to have read.
    pub key: &'a str,
}

impl Agreed<'_> {
    /// The whole response; `accept` is what follows from the key.
    pub fn response(&self, accept: &str) -> String {
        let mut response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n"
        );
        if let Some(name) = self.confirmed {
            response.extend(["Sec-WebSocket-Protocol: ", name, "\r\n"]);
        }
        response.push_str("\r\n");
        response
    }
}

impl Rules {
    /// Whether a request may be upgraded, and what is agreed on. `headers` are all values of a
    /// header, `None` for one that is not text.
    ///
    /// # Errors
    /// [`UpgradeRefusal`] if the page's origin is unknown, what is asked for is no WebSocket, or no
    /// subprotocol is known.
    pub fn judge<'a>(
        &self,
        headers: impl Fn(&'static str) -> Vec<Option<&'a str>>,
    ) -> Result<Agreed<'a>, UpgradeRefusal> {
        let known = |origin: Option<&str>| {
            origin.is_some_and(|it| origin_allowed(it, self.loopback, &self.allowed_origins))
        };
        if !headers("Origin").into_iter().all(known) {
            let reason = "pages of this origin may not connect; add it to listen.allowed_origins";
            return Err(UpgradeRefusal { status: "403 Forbidden", reason: reason.into() });
        }
        let key = asked_for(&headers)?;
        let offered: Option<Vec<_>> = headers("Sec-WebSocket-Protocol").into_iter().collect();
        let offered = offered
            .ok_or_else(|| UpgradeRefusal::bad("Sec-WebSocket-Protocol is not text".into()))?;
        let (protocol, confirmed) = negotiate(Some(&offered.join(",")))
            .map_err(|unknown| UpgradeRefusal::bad(unknown.to_string()))?;
        Ok(Agreed { protocol, confirmed, key })
    }
}

/// The version of WebSocket that is spoken.
const VERSION: &str = "13";

/// The key of a request that asks for a WebSocket (RFC 6455 section 4.2.1).
fn asked_for<'a>(
    headers: &impl Fn(&'static str) -> Vec<Option<&'a str>>,
) -> Result<&'a str, UpgradeRefusal> {
    let asks = holds(&headers("Upgrade"), "websocket");
    let refused = |reason| Err(UpgradeRefusal::no_websocket(asks, reason));
    if !asks {
        return refused("there is no Upgrade: websocket");
    }
    if !holds(&headers("Connection"), "Upgrade") {
        return refused("there is no Connection: Upgrade");
    }
    if only(&headers("Sec-WebSocket-Version")) != Some(VERSION) {
        return refused("Sec-WebSocket-Version is not 13");
    }
    match only(&headers("Sec-WebSocket-Key")) {
        Some(key) if is_key(key) => Ok(key),
        Some(_) | None => refused("Sec-WebSocket-Key is not the Base64 of 16 bytes"),
    }
}

/// Whether a header that is a list, on any number of lines, holds this token in any case (RFC 9110
/// sections 5.6.1 and 7.8).
fn holds(lines: &[Option<&str>], token: &str) -> bool {
    items(lines).any(|item| item.eq_ignore_ascii_case(token))
}

/// The items of a header that is a list.
fn items<'a>(lines: &[Option<&'a str>]) -> impl Iterator<Item = &'a str> {
    let items = lines.iter().flatten().flat_map(|line| line.split(',')).map(trimmed);
    items.filter(|item| !item.is_empty())
}

/// Whether a header that is a list names anything, were it only what cannot be read.
fn names_any(lines: &[Option<&str>]) -> bool {
    lines.contains(&None) || items(lines).next().is_some()
}

/// The value of a header that is there once.
fn only<'a>(lines: &[Option<&'a str>]) -> Option<&'a str> {
    match lines {
        [Some(line)] => Some(trimmed(line)),
        _ => None,
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Whether this is the Base64 of 16 bytes.
fn is_key(key: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.len() == 24 && key.strip_suffix("==").is_some_and(|key| key.bytes().all(is_digit))
}

/// Whether a response with this status only goes before another one (RFC 9110 section 15.2).
pub fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}

/// Whether a response is that of a node which speaks `protocol`. `headers` are all values of a
/// header, `None` for one that is not text; `accept` is what `Sec-WebSocket-Accept` must be, `body`
/// as much of it as has come.
///
/// # Errors
/// [`ConnectError::Refused`] or [`ConnectError::NotANode`].
pub fn check<'a>(
    status: u16,
    headers: impl Fn(&'static str) -> Vec<Option<&'a str>>,
    accept: &str,
    protocol: Protocol,
    body: &[u8],
) -> Result<(), ConnectError> {
    let not_a_node = |reason: String| Err(ConnectError::NotANode(reason));
    if status != 101 {
        let reason = String::from_utf8_lossy(&body[..body.len().min(500)]).trim().to_owned();
        Err(ConnectError::Refused { status, reason })
    } else if !holds(&headers("Upgrade"), "websocket")
        || !holds(&headers("Connection"), "Upgrade")
        || only(&headers("Sec-WebSocket-Accept")) != Some(accept)
    {
        not_a_node("the answer is no WebSocket upgrade".into())
    } else if names_any(&headers("Sec-WebSocket-Extensions")) {
        not_a_node("it confirms a WebSocket extension that was not asked for".into())
    } else if only(&headers("Sec-WebSocket-Protocol")) != Some(protocol.name()) {
        not_a_node(format!("it does not speak {}", protocol.name()))
    } else {
        Ok(())
    }
}
#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    type Lines<'a> = Vec<(&'static str, &'a str)>;

    /// All values of a header, as a shell looks them up.
    fn values<'a>(lines: &Lines<'a>, name: &str) -> Vec<Option<&'a str>> {
        lines.iter().filter(|(other, _)| *other == name).map(|(_, value)| Some(*value)).collect()
    }

    /// `lines` with the values of the first header replaced by these.
    fn with<'a>(lines: &Lines<'a>, name: &'static str, values: &[&'a str]) -> Lines<'a> {
        let rest = lines.iter().filter(|(other, _)| *other != name).copied();
        rest.chain(values.iter().map(|value| (name, *value))).collect()
    }

    fn request() -> Lines<'static> {
        vec![
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ]
    }

    fn judged<'a>(lines: &Lines<'a>) -> Result<Agreed<'a>, UpgradeRefusal> {
        let limits = Limits::default();
        let (allowed_origins, unfinished) = (Vec::new(), 8);
        let rules = Rules { allowed_origins, loopback: true, limits, unfinished };
        rules.judge(|name| values(lines, name))
    }

    fn response() -> Lines<'static> {
        vec![
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Accept", ACCEPT),
            ("Sec-WebSocket-Protocol", "slipstream.postcard.v1"),
        ]
    }

    fn checked(lines: &Lines<'_>) -> Result<(), ConnectError> {
        check(101, |name| values(lines, name), ACCEPT, Protocol::Postcard, &[])
    }

    // keeps: upgrade-headers
    #[test]
    fn headers_of_an_upgrade_are_lists_in_requests_and_answers() {
        for (name, ways) in [
            ("Connection", &["keep-alive, Upgrade"][..]),
            ("Connection", &["keep-alive", "UPGRADE"]),
            ("Connection", &["\tupgrade\t,,\tclose "]),
            ("Upgrade", &["h2c, websocket"]),
            ("Upgrade", &["h2c", "WebSocket\t"]),
            ("Sec-WebSocket-Key", &[" dGhlIHNhbXBsZSBub25jZQ==\t"]),
            ("Sec-WebSocket-Accept", &["\ts3pPLMBiTxaQ9kYGzzhZRbK+xOo= "]),
            ("Sec-WebSocket-Extensions", &["", " , "]),
        ] {
            assert!(judged(&with(&request(), name, ways)).is_ok(), "{name}: {ways:?}");
            assert_eq!(checked(&with(&response(), name, ways)), Ok(()), "{name}: {ways:?}");
        }
    }

    #[test]
    fn a_request_without_one_of_its_tokens_is_refused() {
        for (name, ways, status) in [
            ("Connection", &[][..], "400"),
            ("Connection", &["keep-alive"], "400"),
            ("Connection", &["Upgrades", "no upgrade"], "400"),
            ("Upgrade", &[], "426"),
            ("Upgrade", &["h2c, websockets"], "426"),
            ("Sec-WebSocket-Version", &[], "400"),
            ("Sec-WebSocket-Version", &["8"], "400"),
            ("Sec-WebSocket-Version", &["8, 13"], "400"),
            ("Sec-WebSocket-Key", &[], "400"),
            ("Sec-WebSocket-Key", &["short"], "400"),
            ("Sec-WebSocket-Key", &[KEY, KEY], "400"),
            ("Sec-WebSocket-Protocol", &["mqtt"], "400"),
            ("Origin", &["https://evil.example"], "403"),
        ] {
            let refusal = judged(&with(&request(), name, ways)).expect_err(name);
            assert!(refusal.status.starts_with(status), "{name}: {ways:?}: {refusal:?}");
            // Whoever speaks another version learns which one is spoken here.
            assert!(refusal.response().contains("\r\nSec-WebSocket-Version: 13\r\n"));
        }
    }

    #[test]
    fn an_answer_confirms_what_was_agreed_on_and_nothing_else() {
        let plain = request();
        let agreed = judged(&plain).expect("an upgrade");
        assert_eq!((agreed.protocol, agreed.key), (Protocol::Json, KEY));
        assert_eq!(
            agreed.response(ACCEPT),
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
        let offers = ["mqtt", "slipstream.postcard.v1"];
        let offering = with(&plain, "Sec-WebSocket-Protocol", &offers);
        let agreed = judged(&offering).expect("an upgrade");
        let confirmed = "\r\nSec-WebSocket-Protocol: slipstream.postcard.v1\r\n\r\n";
        assert!(agreed.response(ACCEPT).ends_with(confirmed));
    }

    #[test]
    fn an_answer_without_a_token_or_with_an_extension_is_no_nodes() {
        for (name, ways) in [
            ("Connection", &[][..]),
            ("Connection", &["keep-alive"]),
            ("Upgrade", &["h2c"]),
            ("Sec-WebSocket-Accept", &[]),
            ("Sec-WebSocket-Accept", &["S3pPLMBiTxaQ9kYGzzhZRbK+xOo="]),
            ("Sec-WebSocket-Accept", &[ACCEPT, ACCEPT]),
            ("Sec-WebSocket-Extensions", &["permessage-deflate"]),
            ("Sec-WebSocket-Protocol", &[]),
            ("Sec-WebSocket-Protocol", &["slipstream.json.v1"]),
        ] {
            let outcome = checked(&with(&response(), name, ways));
            assert!(matches!(outcome, Err(ConnectError::NotANode(_))), "{name}: {ways:?}");
        }
        // One that cannot be read was not asked for either.
        let headers = |name: &'static str| match name {
            "Sec-WebSocket-Extensions" => vec![None],
            _ => values(&response(), name),
        };
        let outcome = check(101, headers, ACCEPT, Protocol::Postcard, &[]);
        assert!(matches!(outcome, Err(ConnectError::NotANode(_))));
        assert!([100, 102, 103, 199].into_iter().all(is_interim));
        assert!(![99, 101, 200, 426].into_iter().any(is_interim));
    }
}
