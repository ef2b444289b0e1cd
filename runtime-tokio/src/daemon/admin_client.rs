//! A small blocking client of the admin endpoint, for the commands.

mod transport;

use std::borrow::Cow;
use std::time::Duration;

use clap::Args;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use slipstream_core::application::RESERVED;
use ureq::http::{Response, StatusCode};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Body};

use self::transport::Racing;
use super::failed::Failed;

/// For a whole request; the endpoint itself gives up earlier.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Largest answer that is read: one dead letter is shown whole, and the status has a row for each
/// session.
const MAX_ANSWER_BYTES: u64 = 1 << 30;

/// `text` as one segment of a path.
pub(crate) fn segment(text: &str) -> Cow<'_, str> {
    match text {
        // Unescaped, these two would be resolved.
        "." => Cow::Borrowed("%2E"),
        ".." => Cow::Borrowed("%2E%2E"),
        _ => utf8_percent_encode(text, RESERVED).into(),
    }
}

/// Where to find the admin endpoint of a node.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Admin endpoint of the node
    #[arg(long = "admin", value_name = "URL", default_value = "http://127.0.0.1:7401")]
    pub(crate) url: String,
}

/// The admin endpoint of one node.
#[derive(Debug)]
pub(crate) struct AdminClient {
    base: String,
    /// The argument that named it.
    flag: &'static str,
    agent: Agent,
}

impl AdminClient {
    /// A client of the endpoint with this URL, such as `http://127.0.0.1:7401`.
    pub(crate) fn new(url: &str) -> Result<Self, Failed> {
        Self::named("--admin", url)
    }

    /// The same, where another argument names it.
    pub(crate) fn named(flag: &'static str, url: &str) -> Result<Self, Failed> {
        let Some(host) = url.strip_prefix("http://").filter(|host| !host.is_empty()) else {
            let message = format!("{flag} {url}: needs a URL such as http://127.0.0.1:7401");
            return Err(Failed::usage(message));
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .proxy(None)
            .build();
        let base = format!("http://{}", host.trim_end_matches('/'));
        let agent = Agent::with_parts(config, Racing, DefaultResolver::default());
        Ok(Self { base, flag, agent })
    }

    /// The body of the answer to `GET`.
    pub(crate) fn get(&self, path: &str) -> Result<String, Failed> {
        let url = self.url(path);
        self.outcome("GET", &url, self.agent.get(&url).call())
    }

    /// The body of the answer to `POST`.
    pub(crate) fn post(&self, path: &str) -> Result<String, Failed> {
        let url = self.url(path);
        self.outcome("POST", &url, self.agent.post(&url).send_empty())
    }

    /// The body of the answer to `DELETE`.
    pub(crate) fn delete(&self, path: &str) -> Result<String, Failed> {
        let url = self.url(path);
        self.outcome("DELETE", &url, self.agent.delete(&url).call())
    }

    /// Takes the JSON of an answer apart.
    pub(crate) fn parse<'a, T: Deserialize<'a>>(&self, body: &'a str) -> Result<T, Failed> {
        serde_json::from_str(body).map_err(|error| {
            let base = &self.base;
            Failed::general(format!(
                "{base} gave an answer that is not understood ({error}): is it the admin \
                 endpoint of a node of this version?"
            ))
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn outcome(
        &self,
        method: &str,
        url: &str,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<String, Failed> {
        let unreachable = |error: ureq::Error| {
            Failed::general(format!(
                "{method} {url}: {error}; is the node running, and is {} its listen.admin?",
                self.flag
            ))
        };
        let mut answer = answer.map_err(unreachable)?;
        let reader = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES);
        let body = reader.read_to_string().map_err(unreachable)?;
        match answer.status() {
            status if status.is_success() => Ok(body),
            status => Err(Failed::general(format!("{method} {url}: {}", refusal(status, &body)))),
        }
    }
}

/// What an answer that is no success says.
fn refusal(status: StatusCode, body: &str) -> String {
    #[derive(Deserialize)]
    struct RefusalBody {
        error: String,
    }
    match serde_json::from_str::<RefusalBody>(body) {
        Ok(refusal) => refusal.error,
        Err(_) => format!("{status}: is it the admin endpoint of a node?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_segment() {
        assert_eq!(segment("app:pi-1"), "app%3Api-1");
        assert_eq!(segment("a/b c?#%å"), "a%2Fb%20c%3F%23%25%C3%A5");
        assert_eq!(segment(".."), "%2E%2E");
    }

    #[test]
    fn only_http_urls_are_taken() {
        assert!(AdminClient::new("http://127.0.0.1:7401/").is_ok());
        for bad in ["127.0.0.1:7401", "https://a", "http://"] {
            assert_eq!(AdminClient::new(bad).expect_err("no URL").code, 2, "{bad}");
        }
    }
}
