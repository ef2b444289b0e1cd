//! How a program connects to its node.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;

use super::{ClientSettings, DisconnectReason, Filter, QueryString};
use crate::config::{Config, Heartbeat, Limits, Reconnect};
use crate::io::Protocol;

/// Is told why a connection is lost, or could not be opened again, each time that another one is
/// going to be opened. Called by the task of the application: it must not wait.
pub type OnLost = Arc<dyn Fn(&DisconnectReason) + Send + Sync>;

/// How applications connect.
#[derive(Clone)]
pub struct ClientOptions {
    /// What is spoken with a node behind a URL. Default [`Protocol::Postcard`], whose frames carry
    /// many messages each; within a process nothing else is spoken.
    pub protocol: Protocol,
    /// Bearer token.
    pub token: Option<String>,
    /// Parameters of the query string besides those that a [`Filter`] says, joined by `&`. Default
    /// none.
    pub query: String,
    /// For connecting, up to and with the node's greeting. Default 5 s.
    pub timeout: Duration,
    /// Messages and reads of one application that may be unanswered, and so in memory. Default
    /// 8192; above that, publishing waits. No more than the node's `limits.idempotency_ids`, or
    /// what a publisher with a name says again after a loss may be taken for new (P9).
    pub window: usize,
    /// Largest frame that is taken. Default 64 MiB.
    pub max_frame_bytes: usize,
    /// When a silent node is given up.
    pub heartbeat: Heartbeat,
    /// When a lost connection is opened again.
    pub reconnect: Reconnect,
    /// Who is told of losses. Default nobody.
    pub on_lost: Option<OnLost>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            protocol: Protocol::Postcard,
            token: None,
            query: String::new(),
            timeout: Duration::from_secs(5),
            window: 8192,
            max_frame_bytes: 64 << 20,
            heartbeat: Heartbeat::default(),
            reconnect: Reconnect::default(),
            on_lost: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("protocol", &self.protocol)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("timeout", &self.timeout)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

impl ClientOptions {
    /// Of a client within the process of its node.
    pub fn within(node: &Config) -> Self {
        let (heartbeat, limits) = (node.heartbeat.clone(), &node.limits);
        Self { heartbeat, max_frame_bytes: limits.max_frame_bytes(), ..Self::default() }
    }

    /// What a connection keeps to.
    pub fn limits(&self) -> Limits {
        Limits {
            handshake_timeout: self.timeout,
            max_message_bytes: self.max_frame_bytes / 4,
            ..Limits::default()
        }
    }

    /// The URL that an application with this filter connects to, at the node behind `url`. The
    /// query string of `url` is not kept: it may hold a token.
    pub fn url(&self, url: &str, filter: &Filter) -> String {
        let mut asking = String::from(url.split('?').next().unwrap_or_default());
        let has_path = asking.split_once("://").is_none_or(|(_, rest)| rest.contains('/'));
        asking.push_str(if has_path { "?" } else { "/?" });
        let mut query = QueryString::behind(&self.query);
        filter.add_to(&mut query);
        asking.push_str(query.as_str());
        asking
    }

    /// How the session of an application with this filter behaves.
    pub fn settings(&self, filter: &Filter, reconnects: bool) -> ClientSettings {
        ClientSettings {
            protocol: self.protocol,
            named: filter.name().is_some(),
            reconnects,
            window: self.window,
            heartbeat: self.heartbeat.clone(),
            reconnect: self.reconnect.clone(),
        }
    }
}
