//! The internal client.
