//! The configuration file of one node, built key by key.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// What `slipstream run -c` is given. Ports are chosen at once, so that other nodes can be told
/// about this one before it runs.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// `node.id`.
    pub id: String,
    /// `listen.address`.
    pub address: String,
    /// `listen.admin`.
    pub admin: String,
    peers: Vec<String>,
    settings: BTreeMap<String, BTreeMap<String, String>>,
}

impl NodeConfig {
    /// A node without peers that reconnects fast; everything else as it is by default.
    pub fn new(id: &str) -> Self {
        let config = Self {
            id: id.to_owned(),
            address: format!("127.0.0.1:{}", free_port()),
            admin: format!("127.0.0.1:{}", free_port()),
            peers: Vec::new(),
            settings: BTreeMap::new(),
        };
        config
            .text("node.id", id)
            .text("node.data_dir", "data")
            .text("reconnect.initial", "50ms")
            .text("reconnect.max", "500ms")
    }

    /// Tags of the node.
    #[must_use]
    pub fn tags(self, tags: &[&str]) -> Self {
        self.raw("node.tags", format!("{tags:?}"))
    }

    /// Dials the node, or the proxy before it, at `address`.
    #[must_use]
    pub fn peer(mut self, address: &str) -> Self {
        self.peers.push(format!("ws://{address}"));
        self
    }

    /// Sets `section.key` to a string.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, format!("{value:?}"))
    }

    /// Sets `section.key` to a number.
    #[must_use]
    pub fn number(self, key: &str, value: u64) -> Self {
        self.raw(key, value.to_string())
    }

    /// Sets `section.key` to a value written as TOML.
    #[must_use]
    pub fn raw(mut self, key: &str, value: String) -> Self {
        let (section, key) = key.split_once('.').expect("keys are written section.key");
        self.settings.entry(section.to_owned()).or_default().insert(key.to_owned(), value);
        self
    }

    /// The file.
    pub fn toml(&self) -> String {
        let mut settings = self.settings.clone();
        let listen = settings.entry("listen".to_owned()).or_default();
        listen.insert("address".to_owned(), format!("{:?}", self.address));
        listen.insert("admin".to_owned(), format!("{:?}", self.admin));
        let mut toml = String::new();
        for (section, keys) in &settings {
            toml.push_str(&format!("[{section}]\n"));
            for (key, value) in keys {
                toml.push_str(&format!("{key} = {value}\n"));
            }
        }
        for url in &self.peers {
            toml.push_str(&format!("[[peers]]\nurl = {url:?}\n"));
        }
        toml
    }
}

/// A port that nobody listens on. It lies below the range from which the kernel takes the ports
/// of outgoing connections, so that nothing takes it while its node is restarted.
pub(super) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (process::id().wrapping_mul(64) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (own + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port below {}", FIRST + COUNT);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_table_per_section() {
        let mut config = NodeConfig::new("aws")
            .tags(&["a", "b"])
            .peer("127.0.0.1:1")
            .text("store.max_bytes", "1MiB")
            .number("retry.max_attempts", 3);
        config.address = "127.0.0.1:2".to_owned();
        config.admin = "127.0.0.1:3".to_owned();
        let expected = r#"[listen]
address = "127.0.0.1:2"
admin = "127.0.0.1:3"
[node]
data_dir = "data"
id = "aws"
tags = ["a", "b"]
[reconnect]
initial = "50ms"
max = "500ms"
[retry]
max_attempts = 3
[store]
max_bytes = "1MiB"
[[peers]]
url = "ws://127.0.0.1:1"
"#;
        assert_eq!(config.toml(), expected);
    }
}
