//! The handlers of a node, and the parts that each may touch.
//!
//! A [`Node`](super::Node) owns its parts. Whatever has to do with several of them at once is done
//! by a handler, which borrows them: its list of parts is its contract. A handler lends a part of
//! its own to another one with `lend!`. What stays true: no handler has more than eight parts, and
//! none has a part that it does not need.

use crate::config::Config;
use crate::log::Log;

use super::identity::NodeIdentity;
use super::links::Links;
use super::mesh::Mesh;
use super::outbox::Outbox;
use super::queries::Queries;
use super::sessions::Sessions;
use super::time::Time;

/// The type of a part.
macro_rules! part {
    (config) => {
        Config
    };
    (id) => {
        NodeIdentity
    };
    (time) => {
        Time
    };
    (log) => {
        Log
    };
    (sessions) => {
        Sessions
    };
    (links) => {
        Links
    };
    (mesh) => {
        Mesh
    };
    (queries) => {
        Queries
    };
    (out) => {
        Outbox
    };
}

/// Defines handlers: `Name[parts that are read] { parts that are changed }`; and `lend!(owner,
/// Name)`, which makes one of the parts of a node or of another handler.
macro_rules! handlers {
    ($dollar:tt $($(#[$doc:meta])* $name:ident[$($read:ident)?] { $($part:ident),* })*) => {
        $(
            $(#[$doc])*
            pub(super) struct $name<'a> {
                $(pub(super) $read: &'a part!($read),)?
                $(pub(super) $part: &'a mut part!($part),)*
            }
        )*

        /// Lends parts of `$owner` to a handler.
        macro_rules! lend {
            $(
                ($dollar owner:ident, $name) => {
                    $name {
                        $($read: &$dollar owner.$read,)?
                        $($part: &mut $dollar owner.$part,)*
                    }
                };
            )*
        }
        pub(super) use lend;
    };
}

handlers! {$
    /// Arranges that records of sessions are written.
    Records[] { time, log, sessions }
    /// Watches the room in the store.
    Room[] { time, log, out }
    /// Keeps dead letters: what becomes one, and what is none any more.
    Burial[] { time, log, sessions, out }
    /// A message comes in, from an application or a peer. Cannot touch a link.
    Ingest[config] { id, time, log, sessions, mesh, out }
    /// What applications say of deliveries.
    Settling[config] { time, log, sessions, out }
    /// Frames of applications.
    AppFrames[config] { id, time, log, sessions, mesh, out }
    /// Frames of peers.
    PeerFrames[config] { id, time, log, sessions, mesh, out }
    /// Links come and go, and with them what their sessions do.
    Connections[config] { id, time, log, sessions, links, mesh, out }
    /// Dials the peers of the configuration.
    Dialing[config] { id, time, log, sessions, mesh, out }
    /// Tells the mesh what has changed here, and passes on what others tell.
    Gossip[config] { time, log, sessions, links, mesh, out }
    /// Notices two processes under one id.
    Conflicts[config] { id, time, out }
    /// Pings links, and tells peers what the clock says.
    LinkOut[config] { time, out }
    /// Tells peers what is durable.
    Acknowledging[] { id, time, log, out }
    /// Keeps a link alive, or notices that it is not.
    LinkHeartbeat[config] { id, time, log, out }
    /// Says who this node is.
    Greeting[config] { id, time, sessions, out }
    /// Tells a peer what is known of the mesh.
    Telling[] { time, sessions, mesh, out }
    /// Claims digests to a peer, and compares what it claims.
    Claims[] { time, log, sessions, mesh, out }
    /// Refuses what a rolled-back batch carried.
    Refusals[] { log, sessions, out }
    /// Decides from which links to read on.
    Backpressure[] { time, log, links, out }
    /// Brings a session and its link together: what is handed over, and what comes of it.
    Handover[config] { id, time, log, sessions, links, mesh, out }
    /// What sockets have taken.
    Sockets[config] { time, log, sessions, links, out }
    /// Asks the store for rows of sessions.
    Fetches[config] { time, sessions, links, queries, out }
    /// Asks the store for what applications read.
    Reads[config] { time, log, sessions, links, queries, out }
    /// Seals batches, and releases or takes back what waited for them.
    Batches[config] { id, time, log, sessions, links, mesh, out }
    /// Knows from where the log is still needed.
    Retention[config] { time, log, sessions, links, mesh }
    /// Events whose time is over.
    Expiry[config] { id, time, log, sessions, mesh, queries, out }
    /// Looks at parts of the log in which events may have to go.
    Looks[config] { time, log, sessions, mesh, queries, out }
    /// Events that history has no room for.
    Forgetting[config] { time, log, sessions, links, mesh, queries, out }
    /// Compares digests with those of peers.
    DigestComparison[] { id, time, log, sessions, links, mesh, queries, out }
    /// Carries out the order to reset the clock.
    Resetting[config] { id, time, log, sessions, mesh, queries, out }
    /// Answers the questions of operators, and carries out their orders.
    Operator[config] { id, time, log, sessions, mesh, queries, out }
    /// What a node says of itself.
    StatusReport[config] { id, time, log, sessions, links, mesh, out }
    /// What is looked after once a second.
    Upkeep[config] { time, log, sessions, mesh, out }
    /// Ends a node: the last batch, and a word to everybody.
    Ending[] { id, time, log, sessions, links, queries, out }
    /// Takes up what an earlier start has stored.
    Recovery[config] { id, time, log, sessions, mesh, out }
}
