//! Clients, their handles and their tasks, on a clock that is set by hand.

mod handles;
mod place;
mod service;
