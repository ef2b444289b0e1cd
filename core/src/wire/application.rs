//! What an application asks for when it connects: subprotocol, origin, and the query string.
//!
//! What stays true: a parameter is understood or refused by name, never passed over, and a token
//! appears in no text that leaves this module. Whether a token is valid is not decided here.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str};
use serde::{Deserialize, Serialize};

use crate::config::Limits;
use crate::types::ids::is_name;
use crate::types::nearest::nearest;
use crate::types::protocol::Protocol;
pub use crate::types::protocol::{JSON_PROTOCOL, POSTCARD_PROTOCOL};
use crate::types::tags::TagSet;

/// All but the unreserved characters of a URL (RFC 3986, section 2.3): what is to be encoded.
pub const RESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Most key prefixes that an application may name.
pub const MAX_KEY_PREFIXES: usize = 1024;

/// Longest bearer token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8192;

/// What an application asks for in the query string of its upgrade
/// request. What it does not say is `None`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ConnectParams {
    /// Name of a durable session.
    pub client: Option<String>,
    /// Its tags; `None`: the node's.
    pub tags: Option<TagSet>,
    /// Prefixes of the keys to receive, sorted; `None`: all, without a prefix: none.
    pub keys: Option<Vec<String>>,
    /// Where a session that is created now begins.
    pub replay: Option<Replay>,
    /// How deliveries are settled.
    pub ack: Option<AckMode>,
    /// Whether it wants only the newest value of a key while it lags.
    pub conflate: bool,
    /// Bearer token. Never to be shown.
    pub token: Option<String>,
}

/// Where a new session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replay {
    /// With what is there, then live.
    All,
    /// Live.
    New,
}

/// How the deliveries of a session are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AckMode {
    /// Every one waits for an ACK.
    Manual,
    /// Handing it to the socket is enough.
    Auto,
}

impl Replay {
    /// As in a query string.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::New => "new",
        }
    }

    /// Reads [`Replay::as_str`].
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::All, Self::New].into_iter().find(|replay| replay.as_str() == name)
    }
}

impl AckMode {
    /// As in a query string.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Auto => "auto",
        }
    }

    /// Reads [`AckMode::as_str`].
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Manual, Self::Auto].into_iter().find(|ack| ack.as_str() == name)
    }

    /// What an application with a name, or without one, gets that does not say.
    pub(crate) fn unless_said(named: bool) -> Self {
        if named { Self::Manual } else { Self::Auto }
    }
}

/// What is in force for an application, as its greeting says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Prefixes of the keys that it receives; `None`: all.
    pub keys: Option<Vec<String>>,
    /// Where its session began.
    pub replay: Replay,
    /// How its deliveries are settled.
    pub ack: AckMode,
    /// Whether it gets only the newest value of a key while it lags.
    pub conflate: bool,
}

impl ConnectParams {
    /// Reads a query string, without its question mark, as builders of URLs write it
    /// (`application/x-www-form-urlencoded`). Lists that are there more than once add up.
    ///
    /// # Errors
    /// The reason for closing with 4400: at most 123 bytes, as a close frame holds no more.
    pub fn parse(query: &str, limits: &Limits) -> Result<Self, String> {
        let mut wishes = Self::default();
        let mut tags = None;
        let mut seen = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, raw) = part.split_once('=').unwrap_or((part, ""));
            let parameter = decoded(name)
                .and_then(|name| Parameter::from_name(&name))
                .ok_or_else(|| unknown(name, raw))?;
            if seen.contains(&parameter) && !parameter.is_list() {
                return Err(format!("parameter `{}` is there twice", parameter.as_str()));
            }
            seen.push(parameter);
            decoded(raw)
                .and_then(|value| wishes.set(parameter, &value, &mut tags, limits))
                .ok_or_else(|| parameter.expectation(limits))?;
        }
        if let Some(tags) = tags {
            let set = TagSet::new(tags.iter().map(String::as_str));
            wishes.tags = Some(set.map_err(|_| Parameter::Tags.expectation(limits))?);
        }
        if let Some(keys) = &mut wishes.keys {
            // The same prefixes in another order are no other wish.
            keys.sort_unstable();
            keys.dedup();
        }
        Ok(wishes)
    }

    /// Where a session begins that is created with this: unless it says otherwise, a named one
    /// with all that is there.
    pub fn replay(&self) -> Replay {
        let default = if self.client.is_some() { Replay::All } else { Replay::New };
        self.replay.unwrap_or(default)
    }

    /// How deliveries are settled: unless it says otherwise, those of a named session by ACKs.
    pub fn ack(&self) -> AckMode {
        self.ack.unwrap_or(AckMode::unless_said(self.client.is_some()))
    }

    /// Takes the value of a parameter; `None` if it is not what is expected. Tags are gathered.
    fn set(
        &mut self,
        parameter: Parameter,
        value: &str,
        tags: &mut Option<Vec<String>>,
        limits: &Limits,
    ) -> Option<()> {
        match parameter {
            Parameter::Client if is_name(value) => self.client = Some(value.into()),
            Parameter::Tags => {
                let tags = tags.get_or_insert_default();
                return add(tags, value.split(','), limits.max_tags, usize::MAX);
            }
            // Alone, it stands for no key at all.
            Parameter::Keys if value.is_empty() => {
                self.keys.get_or_insert_default();
            }
            Parameter::Keys => {
                let keys = self.keys.get_or_insert_default();
                return add(keys, value.split(','), MAX_KEY_PREFIXES, limits.max_key_bytes);
            }
            Parameter::Key => {
                let keys = self.keys.get_or_insert_default();
                return add(keys, [value], MAX_KEY_PREFIXES, limits.max_key_bytes);
            }
            Parameter::Replay => self.replay = Some(Replay::from_name(value)?),
            Parameter::Ack => self.ack = Some(AckMode::from_name(value)?),
            Parameter::Conflate => self.conflate = value.parse().ok()?,
            Parameter::Token if (1..=MAX_TOKEN_BYTES).contains(&value.len()) => {
                self.token = Some(value.into());
            }
            Parameter::Client | Parameter::Token => return None,
        }
        Some(())
    }
}

/// Adds items to a list; `None` if one of them is too long, or empty, or there are too many.
fn add<'a>(
    list: &mut Vec<String>,
    items: impl IntoIterator<Item = &'a str>,
    most: usize,
    longest: usize,
) -> Option<()> {
    for item in items {
        if list.len() >= most || !(1..=longest).contains(&item.len()) {
            return None;
        }
        list.push(item.into());
    }
    Some(())
}

impl fmt::Debug for ConnectParams {
    /// Never shows the token (P11).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectParams")
            .field("client", &self.client)
            .field("tags", &self.tags)
            .field("keys", &self.keys)
            .field("replay", &self.replay)
            .field("ack", &self.ack)
            .field("conflate", &self.conflate)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parameter {
    Client,
    Tags,
    Keys,
    Key,
    Replay,
    Ack,
    Conflate,
    Token,
}

impl Parameter {
    const ALL: [Self; 8] = [
        Self::Client,
        Self::Tags,
        Self::Keys,
        Self::Key,
        Self::Replay,
        Self::Ack,
        Self::Conflate,
        Self::Token,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Tags => "tags",
            Self::Keys => "keys",
            Self::Key => "key",
            Self::Replay => "replay",
            Self::Ack => "ack",
            Self::Conflate => "conflate",
            Self::Token => "token",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|parameter| parameter.as_str() == name)
    }

    /// Whether it may be there more than once.
    const fn is_list(self) -> bool {
        match self {
            Self::Tags | Self::Keys | Self::Key => true,
            Self::Client | Self::Replay | Self::Ack | Self::Conflate | Self::Token => false,
        }
    }

    /// What a bad value is told. The value itself is never repeated: it may be a secret that went
    /// to the wrong place.
    fn expectation(self, limits: &Limits) -> String {
        match self {
            Self::Client => "`client` is a name of 1 to 64 of A-Za-z0-9._-".into(),
            Self::Tags => format!(
                "`tags` is a list of 1 to {} tags, each 1 to 64 of A-Za-z0-9._-",
                limits.max_tags
            ),
            Self::Keys => format!(
                "`keys` is empty or a list of at most {MAX_KEY_PREFIXES} prefixes, each 1 to {} \
                 bytes of percent-encoded UTF-8",
                limits.max_key_bytes
            ),
            Self::Key => format!(
                "`key` is one of at most {MAX_KEY_PREFIXES} prefixes, each 1 to {} bytes of \
                 percent-encoded UTF-8",
                limits.max_key_bytes
            ),
            Self::Replay => "`replay` is `all` or `new`".into(),
            Self::Ack => "`ack` is `manual` or `auto`".into(),
            Self::Conflate => "`conflate` is `true` or `false`".into(),
            Self::Token => {
                format!("`token` is 1 to {MAX_TOKEN_BYTES} bytes of percent-encoded UTF-8")
            }
        }
    }
}

/// Longest name of an unknown parameter that is repeated to whoever sent it.
const MAX_ECHO_BYTES: usize = 19;

fn unknown(name: &str, value: &str) -> String {
    let known = "client, tags, keys, key, replay, ack, conflate, token";
    // What looks like no name may be a token without one.
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !is_plain || value.is_empty() || name.is_empty() || name.len() > MAX_ECHO_BYTES {
        return format!("unknown parameter; known: {known}");
    }
    let nearest = nearest(name, Parameter::ALL.map(Parameter::as_str));
    format!("unknown parameter `{name}` (nearest: `{nearest}`); known: {known}")
}

/// Takes the encoding of a form away (a plus is a space; RFC 3986 section 2.1); `None` if it is
/// broken or hides what is no UTF-8.
fn decoded(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains(['%', '+']) {
        return Some(Cow::Borrowed(raw));
    }
    let spaced = raw.replace('+', " ");
    // The library leaves a percent sign without two digits as it is; here it is a mistake.
    let is_code = |part: &str| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !spaced.split('%').skip(1).all(is_code) {
        return None;
    }
    let text = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(Cow::Owned(text.into_owned()))
}

/// Whether a web page from `origin` may connect (P11): if its origin is listed in `allowed`, or it
/// comes from this machine and the listener is on loopback.
pub fn origin_allowed(origin: &str, listener_is_loopback: bool, allowed: &[String]) -> bool {
    // `null` stands for origins that are not to be told, and is never more than text.
    if allowed.iter().any(|listed| listed.eq_ignore_ascii_case(origin)) {
        return true;
    }
    listener_is_loopback && is_loopback_origin(origin)
}

fn is_loopback_origin(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let (host, port) = match authority.rfind(':') {
        // Colons of an IPv6 address are in brackets.
        Some(colon) if !authority[colon..].contains(']') => {
            (&authority[..colon], Some(&authority[colon + 1..]))
        }
        Some(_) | None => (authority, None),
    };
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_loopback_host = host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || v6.and_then(|v6| v6.parse().ok()).is_some_and(|v6: Ipv6Addr| v6.is_loopback());
    let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    is_web && is_loopback_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// None of the subprotocols that were offered is known: to be refused in the HTTP upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no known subprotocol; offer {JSON_PROTOCOL}, {POSTCARD_PROTOCOL} or none")]
pub struct UnknownProtocol;

/// Chooses the first known subprotocol of those in `Sec-WebSocket-Protocol` (several headers joined
/// by commas; RFC 6455 section 11.3.4), and says which one to confirm. JSON without one.
///
/// # Errors
/// [`UnknownProtocol`] if some are offered and none is known.
pub fn negotiate(
    offered: Option<&str>,
) -> Result<(Protocol, Option<&'static str>), UnknownProtocol> {
    let offers = || offered.unwrap_or_default().split(',').map(str::trim);
    let known = offers().find_map(|offer| match offer {
        JSON_PROTOCOL => Some((Protocol::Json, Some(JSON_PROTOCOL))),
        POSTCARD_PROTOCOL => Some((Protocol::Postcard, Some(POSTCARD_PROTOCOL))),
        _ => None,
    });
    match known {
        Some(known) => Ok(known),
        None if offers().all(str::is_empty) => Ok((Protocol::Json, None)),
        None => Err(UnknownProtocol),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn wishes(query: &str) -> ConnectParams {
        ConnectParams::parse(query, &Limits::default()).expect(query)
    }

    fn refusal(query: &str) -> String {
        let reason = ConnectParams::parse(query, &Limits::default()).expect_err(query);
        assert!(reason.len() <= 123, "{} bytes: {reason}", reason.len());
        reason
    }

    #[test]
    fn without_parameters_everything_is_the_default() {
        for query in ["", "&", "&&"] {
            let wishes = wishes(query);
            assert_eq!(wishes, ConnectParams::default());
            assert_eq!((wishes.replay(), wishes.ack()), (Replay::New, AckMode::Auto));
        }
    }

    #[test]
    fn a_named_session_replays_all_and_acknowledges_by_default() {
        let named = wishes("client=pi-1");
        assert_eq!(named.client.as_deref(), Some("pi-1"));
        assert_eq!((named.replay(), named.ack()), (Replay::All, AckMode::Manual));
        let other = wishes("client=pi-1&replay=new&ack=auto&conflate=true");
        assert_eq!((other.replay(), other.ack()), (Replay::New, AckMode::Auto));
        assert!(other.conflate);
        let unnamed = wishes("replay=all&ack=manual&conflate=false");
        assert_eq!((unnamed.replay(), unnamed.ack()), (Replay::All, AckMode::Manual));
        assert!(!unnamed.conflate);
    }

    #[test]
    fn a_client_is_a_name_of_1_to_64_characters() {
        let name = "x".repeat(65);
        wishes(&format!("client={}", &name[..64]));
        for bad in [&*name, "", "a/b", "a%20b", "a,b"] {
            assert!(refusal(&format!("client={bad}")).contains("`client`"), "{bad}");
        }
    }

    // keeps: lenient-forms
    #[test]
    fn a_list_is_the_same_however_a_url_builder_writes_it() {
        let prefixes = ["inv:", "order:"].map(String::from).to_vec();
        for query in [
            "keys=order:,inv:",
            // URLSearchParams, url.Values, urlencode.
            "keys=order%3A%2Cinv%3A",
            "keys=order%3A&keys=inv%3A",
            "keys=order%3a%2cinv%3a&keys=order:",
            "keys=inv:&key=order:",
            "keys=&keys=order:&%6beys=inv:",
            "key=order%3A&key=inv%3A",
        ] {
            assert_eq!(wishes(query).keys.as_ref(), Some(&prefixes), "{query}");
        }
        for query in ["tags=gcp,%61ws,gcp", "tags=aws%2Cgcp", "tags=gcp&tags=aws"] {
            let tags = wishes(query).tags.expect("tags");
            assert_eq!(tags.as_str(), "aws,gcp", "{query}");
        }
    }

    #[test]
    fn a_plus_is_a_space_and_a_key_of_its_own_may_hold_a_comma() {
        let keys = |query| wishes(query).keys.expect("keys");
        assert_eq!(keys("keys=a+b%2Bc,c%3D%c3%A9"), ["a b+c", "c=é"]);
        assert_eq!(keys("key=a,b&key=c%2C+d&keys=e"), ["a,b", "c, d", "e"]);
        assert_eq!(keys("key=a,b&key=a%2Cb"), ["a,b"]);
        assert_eq!(wishes("token=a+b%2B").token.as_deref(), Some("a b+"));
        assert!(refusal("tags=a+b").contains("`tags`"));
    }

    #[test]
    fn keys_alone_is_none_and_no_keys_is_all() {
        assert_eq!(wishes("keys=").keys, Some(vec![]));
        assert_eq!(wishes("keys").keys, Some(vec![]));
        assert_eq!(wishes("tags=a").keys, None);
        for bad in ["keys=a,", "keys=,", "keys=%00%ff", "keys=%4", "keys=%zz", "keys=%+1"] {
            assert!(refusal(bad).contains("`keys`"), "{bad}");
        }
        for bad in ["key=", "key", "key=%f", "key=%ff", "key=%zz", "key=%2", "keys=a&key="] {
            assert!(refusal(bad).contains("`key`"), "{bad}");
        }
    }

    #[test]
    fn lists_and_their_items_are_limited() {
        let list = |count: usize| vec!["t"; count].join(",");
        wishes(&format!("tags={}", list(32)));
        assert!(refusal(&format!("tags={}", list(33))).contains("1 to 32 tags"));
        for bad in ["tags=", "tags=a&tags=", "tags=a,"] {
            assert!(refusal(bad).contains("`tags`"), "{bad}");
        }
        let often = |name: &str, count: usize| vec![format!("{name}=t"); count].join("&");
        wishes(&often("tags", 32));
        assert!(refusal(&often("tags", 33)).contains("1 to 32 tags"));
        wishes(&often("keys", MAX_KEY_PREFIXES));
        refusal(&often("keys", MAX_KEY_PREFIXES + 1));
        refusal(&often("key", MAX_KEY_PREFIXES + 1));
        wishes(&format!("keys={}", list(MAX_KEY_PREFIXES)));
        assert!(refusal(&format!("keys={}", list(MAX_KEY_PREFIXES + 1))).contains("1024"));
        wishes(&format!("keys={}", "k".repeat(1024)));
        assert!(refusal(&format!("keys={}", "k".repeat(1025))).contains("`keys`"));
        wishes(&format!("token={}", "k".repeat(MAX_TOKEN_BYTES)));
        refusal(&format!("token={}", "k".repeat(MAX_TOKEN_BYTES + 1)));
    }

    #[test]
    fn a_bad_value_is_answered_with_what_is_allowed() {
        assert_eq!(refusal("replay=some"), "`replay` is `all` or `new`");
        assert_eq!(refusal("ack="), "`ack` is `manual` or `auto`");
        assert_eq!(refusal("conflate"), "`conflate` is `true` or `false`");
        assert_eq!(refusal("conflate=1"), "`conflate` is `true` or `false`");
        assert_eq!(refusal("ack=auto&ack=auto"), "parameter `ack` is there twice");
        assert_eq!(refusal("ack=auto&%61ck=auto"), "parameter `ack` is there twice");
        assert_eq!(refusal("client=a&client=a"), "parameter `client` is there twice");
    }

    #[test]
    fn an_unknown_parameter_is_answered_with_the_nearest() {
        for (name, nearest) in
            [("tag", "tags"), ("Client", "client"), ("repaly", "replay"), ("key_prefix", "key")]
        {
            let reason = refusal(&format!("{name}=x"));
            assert!(reason.contains(&format!("`{name}` (nearest: `{nearest}`)")), "{reason}");
        }
    }

    #[test]
    fn every_reason_fits_into_a_close_frame() {
        let longest = "conflate".repeat(3);
        let named = refusal(&format!("{}=x", &longest[..MAX_ECHO_BYTES]));
        assert!(named.contains("nearest: `conflate`"), "{named}");
        let unnamed = refusal(&format!("{}=x", &longest[..=MAX_ECHO_BYTES]));
        assert!(!unnamed.contains("nearest"), "{unnamed}");
        let limits =
            Limits { max_tags: usize::MAX, max_key_bytes: usize::MAX, ..Limits::default() };
        for parameter in Parameter::ALL {
            assert!(parameter.expectation(&limits).len() <= 123, "{parameter:?}");
        }
    }

    // keeps: no-secrets
    #[test]
    fn a_token_is_never_repeated() {
        let wishes = wishes("token=s3cret%20");
        assert_eq!(wishes.token.as_deref(), Some("s3cret "));
        assert!(!format!("{wishes:?}").contains("s3cret"));
        for query in [
            "tokne=s3cret",
            "s3cret",
            "s3cret=",
            "s3cret=x",
            "token=s3cret%f",
            "token=s3cret&token=1",
        ] {
            assert!(!refusal(query).contains("s3cret"), "{query}");
        }
    }

    #[test]
    fn a_listed_origin_may_connect() {
        let allowed = ["https://App.example".into(), "http://b.example:8080".into()];
        let ask = |origin| origin_allowed(origin, false, &allowed);
        assert!(ask("https://app.example"));
        assert!(ask("http://b.example:8080"));
        for foreign in [
            "http://app.example",
            "https://app.example:444",
            "https://app.example.evil.example",
            "http://b.example",
            "https://evil.example",
            "null",
            "",
        ] {
            assert!(!ask(foreign), "{foreign}");
        }
        assert!(origin_allowed("null", false, &["null".into()]));
    }

    #[test]
    fn a_local_page_may_connect_to_a_loopback_listener() {
        for origin in [
            "http://localhost",
            "http://LOCALHOST:3000",
            "https://localhost:3000",
            "http://127.0.0.1:80",
            "http://127.1.2.3",
            "http://[::1]",
            "http://[::1]:3000",
        ] {
            assert!(origin_allowed(origin, true, &[]), "{origin}");
            assert!(!origin_allowed(origin, false, &[]), "{origin}");
        }
        for origin in [
            "null",
            "http://127.evil.example",
            "http://localhost.evil.example",
            "http://evil.example",
            "http://localhost:evil",
            "http://localhost:",
            "http://localhost@evil.example",
            "http://localhost:1@evil.example",
            "http://[::2]",
            "http://[::1",
            "http://::1",
            "http://10.0.0.1",
            "file://localhost",
            "http://",
            "localhost",
        ] {
            assert!(!origin_allowed(origin, true, &[]), "{origin}");
        }
    }

    #[test]
    fn the_first_known_subprotocol_is_confirmed() {
        let json = Ok((Protocol::Json, Some(JSON_PROTOCOL)));
        let postcard = Ok((Protocol::Postcard, Some(POSTCARD_PROTOCOL)));
        assert_eq!(negotiate(Some("slipstream.json.v1")), json);
        assert_eq!(negotiate(Some("slipstream.postcard.v1")), postcard);
        assert_eq!(negotiate(Some("mqtt, slipstream.json.v1,slipstream.postcard.v1")), json);
        assert_eq!(negotiate(Some("slipstream.postcard.v1 ,slipstream.json.v1")), postcard);
    }

    #[test]
    fn no_subprotocol_is_json_and_an_unknown_one_alone_is_refused() {
        assert_eq!(negotiate(None), Ok((Protocol::Json, None)));
        assert_eq!(negotiate(Some(" , ")), Ok((Protocol::Json, None)));
        for unknown in ["mqtt", "mqtt,", "slipstream.json.v2", "Slipstream.json.v1"] {
            assert_eq!(negotiate(Some(unknown)), Err(UnknownProtocol), "{unknown}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_taken_or_refused_in_a_close_frame(
            query in r"(\PC|[=&%,+]|keys|key|tags|token|[0-9a-f]{2}){0,30}",
        ) {
            if let Err(reason) = ConnectParams::parse(&query, &Limits::default()) {
                prop_assert!(reason.len() <= 123);
            }
        }

        #[test]
        fn any_origin_and_offer_is_taken(text in any::<String>()) {
            origin_allowed(&text, true, &[]);
            let _ = negotiate(Some(&text));
        }

        #[test]
        fn keys_come_back_from_percent_encoding(key in any::<String>()) {
            prop_assume!(!key.is_empty() && key.len() <= 1024);
            let encoded: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(wishes(&format!("key={encoded}")).keys, Some(vec![key]));
        }
    }
}
