//! Clients, their handles and their tasks, on a clock that is set by hand.

mod endpoint;
mod handles;
mod supervisor;
