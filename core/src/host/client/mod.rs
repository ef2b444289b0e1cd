//! An application with those who wait for it, and the task that gives it connections.
//!
//! Owns an [`Application`]: a session of [`crate::app`] and whoever waits for an answer, whom
//! [`handles`] serve; a [`service`] opens its connections. What is said on them is decided there.

mod application;
mod endpoint;
pub mod handles;
mod opening;
pub mod supervisor;
mod waiting;

#[cfg(test)]
mod tests;

pub use application::{Application, Turn};
pub use opening::Client;
