//! What the world tells the invariants: one fact at a time, in the order in which things happen.

use std::collections::BTreeMap;

use slipstream_core::digest::Print;
use slipstream_core::ids::Hash128;
use slipstream_core::message::Message;
use slipstream_core::store::Batch;
use slipstream_core::tags::{TagSet, list};

use super::application::{App, Said};
use super::frames::Item;
use super::ledger::{Ledger, MessageNo, Publish};
use super::network::ConnId;
use super::plan::{Micros, Plan};
use super::twins::Twins;
use super::wrong_clock::is_newer;

/// Cost that an application's link may have in flight.
pub const APPLICATION_CREDIT: usize = 256 << 10;

/// Something that happened.
#[derive(Debug)]
pub enum Fact<'a> {
    /// A node ended: killed, or by itself.
    Ended {
        /// Where.
        site: usize,
    },
    /// The store of a node is an older one than before, or empty.
    SetBack {
        /// Where.
        site: usize,
    },
    /// The database of a node was copied for another process.
    Cloned {
        /// Where the node is.
        site: usize,
        /// Where the other process is.
        twin: usize,
    },
    /// A node ordered a commit.
    Sealed {
        /// Where.
        site: usize,
        /// What.
        batch: &'a Batch,
    },
    /// A batch is durable; the node may not know yet.
    Durable {
        /// Where.
        site: usize,
        /// What.
        batch: &'a Batch,
    },
    /// A batch was rolled back.
    RolledBack {
        /// Where.
        site: usize,
    },
    /// A node has transmitted this on a connection.
    Transmitted {
        /// Which node.
        site: usize,
        /// On which connection.
        conn: ConnId,
        /// To whom.
        to: Party,
        /// What.
        item: &'a Item,
    },
    /// A node has transmitted a frame, and so much of its cost is not taken yet.
    InFlight {
        /// Which node.
        site: usize,
        /// To whom.
        to: Party,
        /// Cost of what its socket has not taken.
        cost: usize,
        /// Cost of the frame itself.
        last: usize,
    },
    /// A node was handed this frame of a peer.
    HeardFromPeer {
        /// Which node.
        site: usize,
        /// On which connection.
        conn: ConnId,
        /// What.
        items: &'a [Item],
    },
    /// An application has sent a frame.
    AppSaid {
        /// Which.
        app: usize,
        /// What.
        said: &'a Said,
    },
    /// A node has ended a turn: what it heard in it is told next, and then what it says, whatever
    /// the order was within the turn.
    Turned {
        /// Which.
        site: usize,
    },
    /// A node has taken this frame of an application, on a link that it has not closed.
    HeardFromApp {
        /// Which.
        app: usize,
        /// What.
        said: &'a Said,
    },
    /// A node has closed the link in the turn in which it got this frame of an application: it may
    /// have taken it before.
    MayHaveHeardFromApp {
        /// Which.
        app: usize,
        /// What.
        said: &'a Said,
    },
    /// An application was handed this.
    AppHeard {
        /// Which.
        app: usize,
        /// What.
        item: &'a Item,
    },
    /// An application has connected.
    AppConnected {
        /// Which.
        app: usize,
    },
    /// The connection of an application is gone.
    AppDisconnected {
        /// Which.
        app: usize,
    },
    /// A node dials.
    Dialed {
        /// Which node.
        site: usize,
        /// Where.
        url: &'a str,
    },
    /// An operator has a dead letter handed over again.
    Replayed {
        /// To which session at which node.
        session: &'a str,
        /// Where.
        site: usize,
        /// What.
        message: &'a Message,
    },
    /// A second has passed.
    Second,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// A node.
    Node(usize),
    /// An application.
    App(usize),
    /// A peer that lies.
    Liar,
}

/// What the invariants may look at besides the fact.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The time.
    pub now: Micros,
    /// What the seed has drawn.
    pub plan: &'a Plan,
    /// What is durable where.
    pub ledger: &'a Ledger,
    /// The applications.
    pub apps: &'a [App],
    /// Names of the sites.
    pub names: &'a [String],
    /// Sites that were removed for good.
    pub removed: &'a [bool],
    /// The node that was cloned.
    pub twins: Option<Twins>,
    /// What the state in each store adds up to, by tag set; only after healing.
    pub digests: &'a [BTreeMap<TagSet, Print>],
}

impl View<'_> {
    /// The tags of a node.
    pub fn node_tags(&self, site: usize) -> &[&'static str] {
        &self.plan.tags[site]
    }

    /// Whether a node is a destination of these target tags: by its own tags, or those of an
    /// application that is or was there.
    pub fn is_destination(&self, site: usize, tags: &str) -> bool {
        let apps = self.apps.iter().filter(|app| app.site == site && !app.gone);
        let mut own = apps.filter_map(|app| app.tags.as_deref());
        self.is_tagged(site, tags) || own.any(|own| list(tags).any(|tag| own.contains(&tag)))
    }

    /// Whether a node is a destination of these target tags by its own tags.
    pub fn is_tagged(&self, site: usize, tags: &str) -> bool {
        tags.is_empty() || list(tags).any(|tag| self.node_tags(site).contains(&tag))
    }

    /// Whether the application has published the message, or a copy of it, at its node.
    pub fn is_own(&self, app: usize, number: MessageNo) -> bool {
        let id = self.ledger.messages[number].message.id();
        let wanted = |(_, publish): (_, &Publish)| publish.app == app;
        let publish = self.ledger.messages[number].publish;
        publish.is_some_and(|publish| self.ledger.publishes[publish].app == app)
            || (self.apps[app].twin.is_some() && self.ledger.published(id).any(wanted))
    }

    /// Whether something newer of its key, in any tag set that matches the application, is durable
    /// at its node.
    pub fn is_outdone(&self, app: usize, number: MessageNo) -> bool {
        let message = &self.ledger.messages[number].message;
        let site = self.apps[app].site;
        let newer = |other: &MessageNo| {
            let other = &self.ledger.messages[*other].message;
            other.key() == message.key()
                && self.is_for(app, other.tags(), other.key())
                && is_newer(other, message)
        };
        let of_key = |key: Hash128| self.ledger.places[site].newest.range(key.same_key());
        let key = self.ledger.messages[number].key;
        key.is_some_and(|key| of_key(key).any(|(_, other)| newer(other)))
    }

    /// The node whose applications have sessions here: those of a twin came with the copy.
    pub fn home(&self, site: usize) -> usize {
        self.twins.filter(|twins| twins.twin == site).map_or(site, |twins| twins.original)
    }

    /// Whether a node is one of two under one id: its name on a path may be that of the other.
    pub fn is_twin(&self, site: usize) -> bool {
        self.twins.is_some_and(|twins| twins.original == site || twins.twin == site)
    }

    /// Whether the twin of a node holds this message.
    pub fn twin_holds(&self, site: usize, number: MessageNo) -> bool {
        self.twins
            .is_some_and(|twins| twins.original == site && self.ledger.holds(twins.twin, number))
    }

    /// Whether a message is for an application, by tags and keys.
    pub fn is_for(&self, app: usize, tags: &str, key: &str) -> bool {
        let app = &self.apps[app];
        app.wants(self.node_tags(app.site), tags, key)
    }
}
