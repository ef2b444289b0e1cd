//! What the node counts on its way, cheaply; [`NodeMetrics::counters`] puts names to it.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};

use crate::admin::Counters;
use crate::types::ids::NodeId;
use crate::types::refusal::Code;
use crate::wire::message::Kind;

/// Sessions and origins that are counted by name; the others share one name.
pub const MAX_NAMED: usize = 1000;

/// Why links to peers are lost.
pub const RECONNECT_REASONS: [&str; 5] = ["going_away", "timeout", "duplicate", "protocol", "lost"];

/// Counters since the start.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    processed: BTreeMap<NodeId, [u64; Kind::ALL.len()]>,
    sent: BTreeMap<String, [u64; 3]>,
    offers: BTreeMap<String, u64>,
    delivered: BTreeMap<String, [u64; 2]>,
    conflated: BTreeMap<String, u64>,
    taken_back: BTreeMap<String, u64>,
    rejected: BTreeMap<Code, u64>,
    /// Copies that came by another route.
    pub seen: u64,
    /// Publishes that were repeated.
    pub idempotent: u64,
    /// Copies that an application was not handed, because it had the message already (P10).
    pub copies: u64,
    /// Messages that came back to a node on their path.
    pub loops: u64,
    /// State messages that a newer one had overtaken.
    pub superseded: u64,
    /// Events whose time was over.
    pub expired: u64,
    /// Inputs for links that were gone.
    pub stale: u64,
    /// Rows that unnamed applications missed.
    pub missed: u64,
    /// Signs of a second process under the id of a node.
    pub identity_conflicts: u64,
    rewinds: BTreeMap<&'static str, u64>,
    clock_refused: BTreeMap<String, u64>,
    reconnects: BTreeMap<String, BTreeMap<&'static str, u64>>,
    peer_bytes: BTreeMap<String, (u64, u64)>,
}

impl NodeMetrics {
    /// Messages accepted into the log.
    pub fn processed(&mut self, origin: &str, kind: Kind) {
        let index = usize::from(kind.number());
        if let Some(counts) = self.processed.get_mut(origin) {
            counts[index] += 1;
            return;
        }
        let origin = if self.processed.len() < MAX_NAMED { origin } else { "other" };
        if let Ok(origin) = NodeId::new(origin) {
            self.processed.entry(origin).or_default()[index] += 1;
        }
    }

    /// Messages sent to a peer: unasked, not for the first time, and because it asked for them.
    pub fn sent(&mut self, peer: &str, first: u64, again: u64, pulled: u64) {
        let counts = entry(&mut self.sent, peer);
        counts[0] += first;
        counts[1] += again;
        counts[2] += pulled;
    }

    /// Messages were offered to a peer, named as its session.
    pub fn offered(&mut self, session: &str, count: u64) {
        *entry(&mut self.offers, session.trim_start_matches("peer:")) += count;
    }

    /// Deliveries to a session (named as in metrics), of which so many not for the first time.
    pub fn delivered(&mut self, session: &str, first: u64, again: u64) {
        let session = if self.delivered.len() < MAX_NAMED || self.delivered.contains_key(session) {
            session
        } else {
            "app:other"
        };
        let counts = entry(&mut self.delivered, session);
        counts[0] += first;
        counts[1] += again;
    }

    /// Values that a session (named as in metrics) was not handed, for newer ones of their keys.
    pub fn conflated(&mut self, session: &str, count: u64) {
        let is_named = self.conflated.len() < MAX_NAMED || self.conflated.contains_key(session);
        *entry(&mut self.conflated, if is_named { session } else { "app:other" }) += count;
    }

    /// A dead letter of a session was acknowledged after all.
    pub fn taken_back(&mut self, session: &str) {
        let is_named = self.taken_back.len() < MAX_NAMED || self.taken_back.contains_key(session);
        *entry(&mut self.taken_back, if is_named { session } else { "app:other" }) += 1;
    }

    /// A frame or message was refused.
    pub fn rejected(&mut self, code: Code) {
        *self.rejected.entry(code).or_default() += 1;
    }

    /// A session was set back.
    pub fn rewound(&mut self, reason: &'static str) {
        *self.rewinds.entry(reason).or_default() += 1;
    }

    /// A version of a peer was refused.
    pub fn clock_refused(&mut self, peer: &str) {
        *entry(&mut self.clock_refused, peer) += 1;
    }

    /// A peer is known: its counters are there from now on.
    pub fn peer_known(&mut self, peer: &str) {
        let reasons = entry(&mut self.reconnects, peer);
        for reason in RECONNECT_REASONS {
            reasons.entry(reason).or_default();
        }
        entry(&mut self.sent, peer);
        entry(&mut self.offers, peer);
        entry(&mut self.peer_bytes, peer);
        entry(&mut self.clock_refused, peer);
    }

    /// The link to a peer was lost, for one of [`RECONNECT_REASONS`].
    pub fn reconnect(&mut self, peer: &str, reason: &'static str) {
        *entry(&mut self.reconnects, peer).entry(reason).or_default() += 1;
    }

    /// Bytes of a peer's link that is gone.
    pub fn peer_bytes(&mut self, peer: &str, (received, sent): (u64, u64)) {
        let bytes = entry(&mut self.peer_bytes, peer);
        bytes.0 += received;
        bytes.1 += sent;
    }

    /// Everything by name.
    pub fn counters(&self) -> Counters {
        let mut processed = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (origin, counts) in &self.processed {
            for kind in Kind::ALL {
                let count = counts[usize::from(kind.number())];
                processed.entry(kind.as_str()).or_default().insert(origin.to_string(), count);
            }
        }
        let sent = self.sent.iter().map(|(peer, [first, again, pulled])| {
            let modes = [("eager", *first), ("retry", *again), ("pulled", *pulled)];
            (peer.clone(), BTreeMap::from(modes))
        });
        let per_session = |index: usize| {
            self.delivered.iter().map(move |(name, counts)| (name.clone(), counts[index])).collect()
        };
        Counters {
            processed,
            sent: sent.collect(),
            offers: self.offers.clone(),
            delivered: per_session(0),
            retransmits: per_session(1),
            conflated: self.conflated.clone(),
            taken_back: self.taken_back.clone(),
            duplicates: BTreeMap::from([
                ("seen", self.seen),
                ("idempotent", self.idempotent),
                ("group", self.copies),
            ]),
            loops_prevented: self.loops,
            superseded: self.superseded,
            rejected: self.rejected.iter().map(|(code, n)| (code.as_str(), *n)).collect(),
            expired: self.expired,
            rewinds: self.rewinds.clone(),
            clock_refused: self.clock_refused.clone(),
            reconnects: self.reconnects.clone(),
            peer_bytes: self.peer_bytes.clone(),
            stale_inputs: self.stale,
            missed: self.missed,
            identity_conflicts: self.identity_conflicts,
        }
    }
}

fn entry<'a, V: Default>(map: &'a mut BTreeMap<String, V>, name: &str) -> &'a mut V {
    if !map.contains_key(name) {
        map.insert(name.into(), V::default());
    }
    map.get_mut(name).expect("it was inserted above")
}
