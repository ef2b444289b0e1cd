//! The Slipstream protocol as a state machine: data in, data out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod admin;
pub mod application;
pub mod clock;
pub mod config;
pub mod draft;
pub mod event;
pub mod ids;
pub mod io;
pub mod json;
pub mod message;
mod node;
pub mod refusal;
pub mod store;
pub mod tags;
pub mod time;
pub mod wire;

pub use node::Node;
