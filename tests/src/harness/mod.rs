//! What the scenarios are told with: real processes, real sockets, real files.
//!
//! Everything here panics when the world is not as the test needs it, and says what it waited
//! for; every wait has a bound. Nothing here knows the inside of the product.

mod app;
mod checks;
mod cli;
mod config;
mod daemon;
mod disk;
mod frame;
mod http;
mod machine;
mod mesh;
mod names;
mod payments;
mod process;
mod proxy;
mod publisher;
mod raw;
mod seed;
mod strace;
mod subscriber;
mod wait;

pub use app::{App, Refused, Said};
pub use checks::{each_exactly_once, never_twice_unmarked, paths_are_sound, values_by_id};
pub use cli::{Command, Finished, Running};
pub use config::NodeConfig;
pub use daemon::Daemon;
pub use disk::SmallDisk;
pub use frame::{Frame, Message, text};
pub use http::{Response, request, request_within};
pub use machine::{Need, announce, faketime};
pub use mesh::Mesh;
pub use names::{SilentPort, TwoAddresses};
pub use payments::Payments;
pub use proxy::{Proxy, Way};
pub use publisher::{Published, Publisher};
pub use raw::{Opcode, RawSocket};
pub use seed::Seed;
pub use strace::Injection;
pub use subscriber::{Delivery, Subscriber};
pub use wait::{LONG, PATIENCE, until};
