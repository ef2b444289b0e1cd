//! The Slipstream protocol as a state machine: data in, data out.
//!
//! A [`Node`] does no I/O, reads no clock, starts no thread and logs nothing. A *shell* tells it
//! what happened ([`io::Input`]) together with what its clocks say ([`time::Now`]), and carries out
//! what it asks ([`io::Output`]): sending frames, dialling, and above all storing. The store is
//! behind the same door: a commit or a question goes out, its outcome comes back as an input, and
//! nothing that speaks of a message leaves a node before the message is durable.
//!
//! The tasks of connections and of applications are the same on every runtime and lie here too, on
//! what a shell supplies: a [`runtime::Runtime`]. They move what the state machines say.
//!
//! The ideas are explained in [`docs`]: the log and its cursors, lazy push, retention and others.
//!
//! The loop that drives it, here with a store that remembers nothing:
//!
//! ```
//! use slipstream_core::Node;
//! use slipstream_core::clock::Hlc;
//! use slipstream_core::config::Config;
//! use slipstream_core::backlog::Backlog;
//! use slipstream_core::ids::{self, NodeId, StoreId};
//! use slipstream_core::io::{Input, Output};
//! use slipstream_core::store::{Committed, Recovered, Usage};
//! use slipstream_core::time::{Instant, Now, WallMs};
//!
//! let now = Now { instant: Instant::from_micros(0), wall: WallMs(1_790_000_000_000) };
//! let empty = Recovered {
//!     store_id: StoreId(1),
//!     head: ids::Position::default(),
//!     clock: Hlc::default(),
//!     incarnation: ids::Incarnation::default(),
//!     last_session: ids::SessionId::default(),
//!     last_dead_letter: ids::DeadLetterId::default(),
//!     sessions: Vec::new(),
//!     seen: Vec::new(),
//!     receipts: Vec::new(),
//!     copies: Vec::new(),
//!     dead_letters: Vec::new(),
//!     backlog: Backlog::default(),
//!     usage: Usage::default(),
//! };
//! let mut node = Node::new(Config::new(NodeId::new("aws-eu-1")?), empty, 42, now);
//! node.handle(Input::ShutDown, now);
//!
//! let mut stopped = false;
//! while !stopped {
//!     // Wait until something has happened, or `poll_timeout` has come; then drain the outputs.
//!     while let Some(output) = node.poll_output() {
//!         match output {
//!             Output::Commit(batch) => {
//!                 let took = core::time::Duration::ZERO;
//!                 let committed = Committed { batch, usage: Usage::default(), took };
//!                 node.handle(Input::Committed(committed), now);
//!             }
//!             Output::Stopped => stopped = true,
//!             Output::Event(event) => println!("{event}"),
//!             _ => {}
//!         }
//!     }
//! }
//! # Ok::<(), ids::BadName>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod admin;
mod app;
pub mod config;
pub mod docs;
mod host;
pub mod io;
mod log;
mod mesh;
mod node;
mod session;
pub mod store;
mod types;
pub mod wire;

pub use admin::event;
pub use host::connection::{links, memory, state as line};
pub use host::{
    connection, event_loop, event_stream, event_stream as feed, exit, handle, happy_eyeballs,
    incoming, runtime, shared, slots, socket, upgrade,
};
pub use log::{group_copies, group_copies as copies, lifetime};
pub use node::Node;
pub use session::{interests, offer};
pub use store::{backlog, digest};
pub use types::{clock, ids, nearest, refusal, tags, time, value};
pub use wire::{draft, message};

/// What an application asks for in the query of its connection.
pub mod application {
    pub use crate::wire::application::ConnectParams as Wishes;
    pub use crate::wire::application::*;
}

/// Channels between tasks of any runtime.
pub mod channel {
    pub use crate::host::channel::*;
    pub use crate::host::channel::{ChannelReceiver as Receiver, ChannelSender as Sender};
}

/// The JSON protocol of applications.
pub mod json {
    pub use crate::wire::json::*;
    pub use crate::wire::json::{
        JsonRequest as Request, SettleRequest as Settle, SettleTarget as Target,
    };
}

/// What an application asks for with a read.
pub mod read {
    pub use crate::wire::read::ReadRequest as Read;
    pub use crate::wire::read::*;
}

/// What is known of the mesh.
pub mod topology {
    pub use crate::mesh::topology::NodeRecord as Record;
    pub use crate::mesh::topology::*;
}

/// An application of a node: the state machine of its connection, and handles and tasks around it.
pub mod client {
    pub use crate::app::*;
    pub use crate::app::{
        ClientSession as Session, ClientSettings as Settings, DeliveredMessage as Delivery,
        DisconnectReason as Ended,
    };
    pub use crate::host::client::{
        Application, Client, Turn, handles, supervisor, supervisor as service,
    };
}
