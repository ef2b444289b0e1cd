//! Commands that try the daemon out and measure it: `slipstream demo` and `slipstream bench`.
//!
//! They start nodes as processes of their own and use the daemon as any client does. The daemon
//! needs nothing of them, so a build for production can do without the feature `tools`.

pub(crate) mod bench;
pub(crate) mod demo;
