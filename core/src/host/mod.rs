//! Tasks and handles over any runtime and any store.
//!
//! Owns what is asynchronous: the loop of a node, connections, applications within the process, and
//! what waits for the node. What a runtime supplies is behind [`runtime::Runtime`]. Decides nothing
//! about messages: that is for the node and for the state machine of the application.

pub mod channel;
pub mod client;
pub mod connection;
pub mod event_loop;
pub mod event_stream;
pub mod exit;
pub mod handle;
pub mod happy_eyeballs;
pub mod incoming;
pub mod runtime;
pub mod shared;
pub mod slots;
pub mod socket;
pub mod upgrade;
