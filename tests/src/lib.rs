//! Tests of Slipstream that need more than one crate.
//!
//! [`harness`] starts the built binary and speaks to it as its users do: WebSocket, HTTP,
//! signals, files. [`scenarios`] are the stories told with it, one function each. The thin
//! `#[test]` functions that name the binary lie in `runtime-tokio/tests/`, because Cargo tells
//! only the package of a binary where that binary is.
//!
//! [`world`] holds one node of the core on virtual time, with a store in memory, for the stories
//! that need to stop between two of its steps.
//!
//! [`figures`] measures meshes of such nodes: how many copies, how many bytes, how soon.

#[cfg(feature = "meshes")]
pub mod figures;
#[cfg(feature = "meshes")]
pub mod harness;
#[cfg(feature = "meshes")]
pub mod scenarios;
#[cfg(feature = "meshes")]
pub mod simulator;
pub mod world;
