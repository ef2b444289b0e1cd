//! One conformance suite for all that a program can embed: the same scenarios, compiled against
//! each shell, with the application in the node's process and behind a socket.
//!
//! That the scenarios compile against both shells shows that names and types are the same; that
//! they pass shows that both behave the same.

// The scenarios are compiled once per shell.
#![allow(clippy::duplicate_mod)]

mod mixed;
mod on_smol;
mod on_tokio;
