//! The Slipstream protocol as a state machine: data in, data out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod admin;
pub mod application;
pub mod clock;
pub mod config;
mod dial;
pub mod draft;
pub mod event;
pub mod ids;
pub mod io;
pub mod json;
mod link;
mod log;
pub mod message;
mod newest;
mod node;
mod rate;
mod receipts;
pub mod refusal;
mod seen;
mod session;
pub mod store;
pub mod tags;
mod tally;
pub mod time;
mod timers;
pub mod wire;

pub use node::Node;
