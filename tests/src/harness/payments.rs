//! Messages that look like the real thing: `tests/data/payments.ndjson`.

use std::fs;
use std::path::Path;

use super::Frame;

/// A file of messages, one JSON object a line.
#[derive(Debug, Clone)]
pub struct Payments {
    /// The messages in the order of the file.
    pub messages: Vec<Frame>,
    /// The file as it is.
    pub text: String,
}

impl Payments {
    /// Reads the file.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/payments.ndjson");
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let messages = text.lines().map(Frame::parse).collect();
        Self { messages, text }
    }

    /// The messages that an application with this one tag is handed.
    pub fn for_tag<'a>(&'a self, tag: &str) -> Vec<&'a Frame> {
        let matches = |message: &&Frame| {
            let targets = message.targeted_tags.as_deref().unwrap_or_default();
            targets.is_empty() || targets.iter().any(|target| target == tag)
        };
        self.messages.iter().filter(matches).collect()
    }
}
