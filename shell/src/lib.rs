//! What the shells of Slipstream have in common: all of a node's surroundings that needs `std` and
//! is the same on every runtime.
//!
//! A shell names its runtime by two traits: [`Runtime`](slipstream_core::runtime::Runtime), with
//! clocks and tasks, and [`Net`], with its TCP streams. In return it is given a [`RunningNode`]
//! with its store, its listener and its dials. What the protocol decides is decided in
//! [`slipstream_core`].
//!
//! No runtime is in the tree of this crate: `.ci/shells` sees to that.
//!
//! # Inside
//!
//! | module | owns |
//! | --- | --- |
//! | `node`, `options` | starting a node on its store; what is asked for, and what is in the way |
//! | `net` | what a shell supplies of the network |
//! | `listen`, `dial` | how connections begin |
//! | `http` | the upgrade to WebSocket, as bytes on any stream |
//! | `socket`, `halves`, `join` | an open connection, and what reads from it and writes to it |
//! | `clocks`, `lock`, `random` | time, a lock of threads, numbers that nobody can guess |
//! | `report`, `stream` | logs and histograms; streams |
#![forbid(unsafe_code)]

pub mod clocks;
mod dial;
mod halves;
mod http;
mod join;
mod listen;
mod lock;
mod net;
mod node;
mod options;
mod random;
mod report;
mod socket;
mod stream;

pub use dial::dial;
pub use halves::{ReadHalf, WriteHalf};
pub use http::check_url;
pub use listen::{accept, bind};
pub use lock::share;
pub use net::Net;
pub use node::{Events, RunningNode};
pub use options::{NodeOptions, StartError, remedy, room};
pub use random::random;
pub use report::Tracing;
pub use socket::{Shell, TcpSocket};
pub use stream::Stream;
