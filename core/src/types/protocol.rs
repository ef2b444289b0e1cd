//! The two protocols that a connection speaks, and their names.

/// Subprotocol of text frames.
pub const JSON_PROTOCOL: &str = "slipstream.json.v1";

/// Subprotocol of binary frames.
pub const POSTCARD_PROTOCOL: &str = "slipstream.postcard.v1";

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `slipstream.json.v1`: text frames, applications only. Also without any subprotocol.
    Json,
    /// `slipstream.postcard.v1`: binary frames, nodes and Rust applications.
    Postcard,
}

impl Protocol {
    /// Its name as a WebSocket subprotocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => JSON_PROTOCOL,
            Self::Postcard => POSTCARD_PROTOCOL,
        }
    }
}
