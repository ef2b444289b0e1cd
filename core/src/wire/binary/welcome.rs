//! The greeting of an application.

use alloc::string::String;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use super::append;
use crate::wire::application::InForce;

/// Greeting for an application; the same as WELCOME in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Protocol version to speak.
    pub protocol: u16,
    /// Id of the node.
    pub instance: String,
    /// Name of the session; empty without one.
    pub client: String,
    /// Whether the session was there before.
    pub resumed: bool,
    /// Tags that it receives by, in canonical form.
    pub tags: String,
    /// Deliveries that may be unacknowledged.
    pub window: u32,
    /// Largest value.
    pub max_message_bytes: u64,
    /// Version of the product.
    pub version: String,
    /// What is in force besides; `None` where one of the two speaks protocol version 1, whose
    /// greeting ends before it.
    #[serde(skip)]
    pub in_force: Option<InForce>,
}

impl Welcome {
    /// Reads what [`Welcome::append_to`] wrote; `None` if it is something else.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (mut welcome, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        if !rest.is_empty() {
            let (in_force, []) = postcard::take_from_bytes(rest).ok()? else { return None };
            welcome.in_force = Some(in_force);
        }
        Some(welcome)
    }

    pub(super) fn append_to(&self, buffer: &mut BytesMut) {
        append(buffer, self);
        if let Some(in_force) = &self.in_force {
            append(buffer, in_force);
        }
    }
}
