//! What everybody agrees on from outside: which messages exist, and where each is durable.
//!
//! The ledger is brought up to date before the invariants see a fact, and judges nothing itself
//! but whether a message is the one that its identity stands for. What a store forgot because it
//! was set back is taken out again, and what was under way then is *forgiven*: what only a
//! destroyed disk held is gone (P2).

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use slipstream_core::copies;
use slipstream_core::ids::{Hash128, Identity, Position};
use slipstream_core::json::write::version_text;
use slipstream_core::lifetime::time_to_live;
use slipstream_core::message::{Kind, Message};
use slipstream_core::store::{Batch, Row};
use slipstream_core::time::WallMs;

use super::application::Said;
use super::counts::Fault;
use super::frames::Delivery;
use super::plan::{Micros, Plan};
use super::wrong_clock::{is_newer, is_untimely};

/// An event may be over so much before its time: what clocks of milliseconds cannot tell apart.
const EARLY: Micros = 20_000;
/// A message that nobody was seen to publish may have come so long before it was sealed.
const UNHEARD: Micros = 30_000_000;

/// Number of an accepted message.
pub type MessageNo = usize;
/// Number of a message that an application wanted to publish.
pub type PublishNo = usize;

/// A message that a node has accepted.
#[derive(Debug)]
pub struct Known {
    /// As its origin sealed it.
    pub message: Message,
    /// Its version as text.
    pub version: String,
    /// When its batch was sealed.
    pub sealed_at: Micros,
    /// It was accepted no earlier than this.
    pub heard_at: Micros,
    /// What an application wanted with it.
    pub publish: Option<PublishNo>,
    /// Key and tag set, if it is state.
    pub key: Option<Hash128>,
    /// What its copies have in common, if it is of a cluster group.
    pub content: Option<Hash128>,
    /// Its batch was rolled back: it never was.
    pub rolled_back: bool,
}

impl Known {
    /// How failures and traces name it.
    pub fn name(&self) -> String {
        name_of(&self.message)
    }
}

/// How failures and traces name a message.
pub fn name_of(message: &Message) -> String {
    format!("{}@{}", message.id(), version_text(message.version(), message.origin()))
}

/// What an application wanted to publish.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Which application.
    pub app: usize,
    /// At which node.
    pub site: usize,
    /// Its `messageId`.
    pub id: String,
    /// Kind.
    pub kind: Kind,
    /// The key.
    pub key: String,
    /// Target tags in canonical form.
    pub tags: String,
    /// The value.
    pub body: String,
    /// Time to live of an event.
    pub ttl_ms: Option<u64>,
    /// How often it was sent.
    pub sends: u32,
    /// When the node that runs heard it first.
    pub heard_at: Option<Micros>,
    /// What it was told.
    pub outcome: Outcome,
}

/// What a publisher was told (Jepsen's bookkeeping).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet, or never: it may or may not appear.
    Unknown,
    /// A receipt with this version.
    Receipt(String),
    /// A refusal: it must not appear.
    Refused(String),
}

/// What is durable at one node.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Messages that are, or once were, durable here as a row.
    pub durable: HashSet<MessageNo>,
    /// The newest of each key and tag set.
    pub newest: BTreeMap<Hash128, MessageNo>,
    /// Rows by position.
    pub rows: BTreeMap<u64, (MessageNo, Row)>,
    /// Events that were forgotten as history, and when: whoever comes later does not get them
    /// (P2).
    pub forgotten: HashMap<MessageNo, Micros>,
    /// Names of the sessions, by number.
    pub sessions: BTreeMap<u64, String>,
    /// Dead letters ever, and the names of their sessions.
    pub dead: HashMap<MessageNo, Vec<String>>,
}

impl Place {
    /// Whether a message is, or once was, a dead letter of this session.
    pub fn is_dead(&self, session: &str, number: MessageNo) -> bool {
        self.dead.get(&number).is_some_and(|of| of.iter().any(|name| name == session))
    }
}

/// A moment, for what may be over by then.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moment {
    now: Micros,
    /// The latest that the clock of a node has said, where clocks may be wrong.
    wall: Option<u64>,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Every message accepted.
    pub messages: Vec<Known>,
    /// Everything that applications wanted to publish.
    pub publishes: Vec<Publish>,
    /// What is durable where.
    pub places: Vec<Place>,
    /// The time.
    pub now: Micros,
    /// So much before its time an event may be over.
    early: Micros,
    /// The highest wall clock that each node ever had, milliseconds, where clocks may be wrong.
    pub highest_wall: Option<Vec<u64>>,
    /// When a disk was destroyed; 0: never.
    pub forgiven_before: Micros,
    /// What nobody else had then.
    pub forgiven: HashSet<MessageNo>,
    /// Events that an operator had offered again, with a new time to live.
    pub offered_again: HashSet<MessageNo>,
    /// What each node has accepted in this life.
    pub undurable: Vec<Vec<MessageNo>>,
    by_identity: HashMap<Identity, MessageNo>,
    by_version: HashMap<String, Vec<MessageNo>>,
    /// What was published under an id, oldest first.
    by_id: HashMap<String, Vec<PublishNo>>,
}

impl Ledger {
    /// An empty one, of a run in which clocks may jump and stand still.
    pub fn new(plan: &Plan) -> Self {
        let are_wrong = plan.has_wrong_clocks();
        // Who starts when its clock goes on that stood still takes that for a correction.
        let stood_still = if are_wrong { 4 * plan.fault_length } else { 0 };
        // A peer that lies does not say how long an event has left: wall clocks judge that.
        let by_wall = are_wrong || plan.mean(Fault::Lie).is_some();
        let highest_wall = by_wall.then(Vec::new);
        Self { highest_wall, early: EARLY + stood_still, ..Self::default() }
    }

    /// Takes note of what an application wants to publish.
    pub fn wants(&mut self, publish: Publish) -> PublishNo {
        let number = self.publishes.len();
        self.by_id.entry_ref(&publish.id).or_default().push(number);
        self.publishes.push(publish);
        number
    }

    /// What was published under this id, oldest first.
    pub fn published(&self, id: &str) -> impl Iterator<Item = (PublishNo, &Publish)> {
        let numbers = self.by_id.get(id).into_iter().flatten();
        numbers.map(|number| (*number, &self.publishes[*number]))
    }

    /// A node has heard an application.
    pub fn heard(&mut self, said: &Said, now: Micros) {
        if let Said::Publish(number) = said {
            self.publishes[*number].heard_at.get_or_insert(now);
        }
    }

    /// The wall clock of a node was read.
    pub fn read(&mut self, site: usize, wall: WallMs) {
        if let Some(highest) = self.highest_wall.as_mut().map(|walls| &mut walls[site]) {
            *highest = (*highest).max(wall.0);
        }
    }

    /// Takes note of what a batch holds.
    ///
    /// # Errors
    /// An identity that was used before, or a message that is not what its identity stands for.
    pub fn sealed(&mut self, site: usize, batch: &Batch, now: Micros) -> Result<(), String> {
        for row in &batch.rows {
            let is_own = row.publisher.is_some() || self.is_stamped_anew(&row.message);
            if row.only.is_none() && is_own {
                self.accept(&row.message, Some(site), now)?;
            } else {
                self.find(&row.message)?;
            }
        }
        Ok(())
    }

    /// Whether a node publishes again, by an operator's order, what a wrong clock had stamped.
    fn is_stamped_anew(&self, message: &Message) -> bool {
        let is_new = || !self.by_identity.contains_key(&message.identity());
        let was_untimely = |Known { message: known, .. }: &Known| {
            let content = |it: &Message| {
                let texts = [it.group(), Some(it.id()), Some(it.key()), Some(it.tags())];
                (it.kind(), texts.map(|text| text.map(str::to_owned)), it.body().to_owned())
            };
            is_untimely(known) && content(known) == content(message)
        };
        let begins_here = !message.path().contains(',');
        begins_here && is_new() && self.messages.iter().any(was_untimely)
    }

    /// A message comes into being.
    ///
    /// # Errors
    /// An identity or a version that was used before.
    pub fn accept(
        &mut self,
        message: &Message,
        origin: Option<usize>,
        now: Micros,
    ) -> Result<MessageNo, String> {
        let identity = message.identity();
        if let Some(before) = self.by_identity.get(&identity)
            && !self.messages[*before].rolled_back
        {
            let before = self.messages[*before].name();
            return Err(format!("{} has the identity {identity} of {before}", name_of(message)));
        }
        let version = version_text(message.version(), message.origin());
        let number = self.messages.len();
        self.by_identity.insert(identity, number);
        // With its disk a node loses its clock's high-water mark, too.
        let counts = |same: &MessageNo| !self.messages[*same].rolled_back && !self.is_old(*same);
        if self.by_version.get(&version).is_some_and(|same| same.iter().any(counts)) {
            return Err(format!("version {version} was given twice"));
        }
        self.by_version.entry(version.clone()).or_default().push(number);
        if let Some(site) = origin {
            self.undurable[site].push(number);
        }
        let publish = origin.and_then(|site| {
            let same = |publish: &&Publish| publish.site == site && publish.body == message.body();
            self.published(message.id()).find(|(_, publish)| same(publish))
        });
        let publish = publish.map(|(number, _)| number);
        let heard_at = publish.and_then(|publish| self.publishes[publish].heard_at);
        self.messages.push(Known {
            key: message.key_hash(),
            content: copies::content(message),
            message: message.clone(),
            version,
            sealed_at: now,
            heard_at: heard_at.unwrap_or(now.saturating_sub(UNHEARD)),
            publish,
            rolled_back: false,
        });
        Ok(number)
    }

    /// The message with the identity of this one.
    ///
    /// # Errors
    /// Nobody accepted it, or it was altered on its way.
    pub fn find(&self, message: &Message) -> Result<MessageNo, String> {
        let number = self.by_identity.get(&message.identity()).copied();
        let Some(number) = number.filter(|number| !self.messages[*number].rolled_back) else {
            return Err(format!("nobody accepted {} ({message:?})", name_of(message)));
        };
        let (known, again) = (&self.messages[number].message, self.offered_again.contains(&number));
        // All but the rest of the path. Its identity says origin, incarnation and sequence.
        let same = known.kind() == message.kind()
            && known.version() == message.version()
            && (again || known.expires() == message.expires())
            && known.group() == message.group()
            && known.tags() == message.tags()
            && known.id_key_body() == message.id_key_body();
        if !same {
            return Err(format!("{} was altered: {message:?}", self.messages[number].name()));
        }
        Ok(number)
    }

    /// The message with this identity.
    pub fn by_identity(&self, identity: &Identity) -> Option<MessageNo> {
        self.by_identity.get(identity).copied()
    }

    /// The message with this version and `messageId`. After a loss a node may stamp another
    /// message with a version that it had given before.
    pub fn by_version(&self, version: &str, id: &str) -> Option<MessageNo> {
        let known = |number: &MessageNo| &self.messages[*number];
        let fits = |same: &MessageNo| known(same).message.id() == id && !known(same).rolled_back;
        self.by_version.get(version)?.iter().rev().copied().find(fits)
    }

    /// The message that a node hands to an application: that of the row for which the delivery
    /// stands. Once its store was set back, a node may give another message a version that it had
    /// given before, also if it is published again under the same id.
    pub fn handed(&self, site: usize, delivery: &Delivery) -> Option<MessageNo> {
        let Delivery { version, id, .. } = delivery;
        let row = self.places[site].rows.get(&delivery.delivery).map(|(number, _)| *number);
        let known = |number: &MessageNo| &self.messages[*number];
        let is_it = |number: &MessageNo| {
            known(number).version == *version && known(number).message.id() == id
        };
        row.filter(is_it).or_else(|| self.by_version(version, id))
    }

    /// The messages that were given this version: one, or more where a store was set back.
    pub fn of_version(&self, version: &str) -> impl Iterator<Item = MessageNo> + '_ {
        let all = self.by_version.get(version).into_iter().flatten().copied();
        all.filter(|number| !self.messages[*number].rolled_back)
    }

    /// A batch is durable, and the store has deleted these rows with it.
    pub fn durable(&mut self, site: usize, batch: &Batch, deleted: &[Position], now: Micros) {
        let place = &mut self.places[site];
        for position in deleted {
            if let Some((number, row)) = place.rows.get(&position.get())
                && row.key_hash.is_none()
            {
                place.forgotten.entry(*number).or_insert(now);
            }
        }
        for record in &batch.sessions {
            place.sessions.insert(record.id.get(), record.name.clone());
        }
        for row in &batch.rows {
            let Row { position, message, key_hash, .. } = row;
            let Some(number) = self.by_identity.get(&message.identity()).copied() else { continue };
            place.durable.insert(number);
            place.rows.insert(position.get(), (number, row.clone()));
            if let Some(key) = key_hash {
                let newest = place.newest.entry(*key).or_insert(number);
                if is_newer(message, &self.messages[*newest].message) {
                    *newest = number;
                }
            }
        }
        for letter in &batch.dead_letters {
            let name = place.sessions.get(&letter.session.get()).cloned().unwrap_or_default();
            if let Some(number) = self.by_identity.get(&letter.message.identity()) {
                place.dead.entry(*number).or_default().push(name);
            }
        }
    }

    /// A batch was rolled back: what it accepted never was.
    pub fn rolled_back(&mut self, site: usize, batch: &Batch) {
        for row in &batch.rows {
            if let Some(number) = self.by_identity.get(&row.message.identity())
                && self.undurable[site].contains(number)
                && !self.places[site].durable.contains(number)
            {
                self.messages[*number].rolled_back = true;
            }
        }
    }

    /// A node has ended: what it accepted and had not made durable never was.
    pub fn ended(&mut self, site: usize) {
        let there = self.publishes.iter_mut().filter(|publish| publish.site == site);
        there.for_each(|publish| publish.heard_at = None);
        let place = &self.places[site];
        for number in self.undurable[site].drain(..) {
            if !place.durable.contains(&number) {
                self.messages[number].rolled_back = true;
            }
        }
    }

    /// Whether a node has this message, or needs it no more: it is durable there, or something
    /// newer of its key is, or its time is over.
    pub fn holds(&self, site: usize, number: MessageNo) -> bool {
        let known = &self.messages[number];
        let place = &self.places[site];
        place.durable.contains(&number)
            || self.is_superseded(site, number)
            || self.is_expired(site, number)
            || known.rolled_back
    }

    /// Whether something newer of its key and tag set is durable at this node.
    pub fn is_superseded(&self, site: usize, number: MessageNo) -> bool {
        let known = &self.messages[number];
        let newest = known.key.and_then(|key| self.places[site].newest.get(&key));
        newest.is_some_and(|newest| is_newer(&self.messages[*newest].message, &known.message))
    }

    /// Whether two messages are one to applications: the same, or copies of one.
    pub fn are_one(&self, a: MessageNo, b: MessageNo) -> bool {
        let content = self.messages[a].content;
        a == b || (content.is_some() && content == self.messages[b].content)
    }

    /// Whether something newer of its key is durable at this node that may itself be lost.
    pub fn is_superseded_by_forgiven(&self, site: usize, number: MessageNo) -> bool {
        let key = self.messages[number].key;
        let newest = key.and_then(|key| self.places[site].newest.get(&key));
        newest.is_some_and(|newest| self.is_forgiven(*newest)) && self.is_superseded(site, number)
    }

    /// Whether it is an event whose time may be over at this node: it is, whatever the clocks of
    /// nodes say, or some clock that jumps or stands still has ever said so.
    pub fn is_expired(&self, site: usize, number: MessageNo) -> bool {
        self.was_expired(number, self.moment(site))
    }

    /// Whether it is an event whose time may be over at some node.
    pub fn is_expired_anywhere(&self, number: MessageNo) -> bool {
        let wall = self.highest_wall.as_ref().and_then(|walls| walls.iter().copied().max());
        self.was_expired(number, Moment { now: self.now, wall })
    }

    /// What time it is, and the latest that the clock of a node has said.
    pub fn moment(&self, site: usize) -> Moment {
        Moment { now: self.now, wall: self.highest_wall.as_ref().map(|walls| walls[site]) }
    }

    /// Whether it is an event whose time may have been over at that moment.
    pub fn was_expired(&self, number: MessageNo, moment: Moment) -> bool {
        let known = &self.messages[number];
        let Some(ttl) = time_to_live(&known.message) else { return false };
        let ends = known.message.expires().zip(moment.wall);
        let by_wall = ends.is_some_and(|(at, wall)| at.0 <= wall);
        by_wall || known.heard_at + micros(ttl) <= moment.now + self.early
    }

    /// Whether it is an event whose time is over for certain.
    pub fn is_surely_over(&self, number: MessageNo, slack: Micros) -> bool {
        let known = &self.messages[number];
        let ttl = time_to_live(&known.message);
        ttl.is_some_and(|ttl| known.sealed_at + micros(ttl) + slack < self.now)
    }

    /// A disk was destroyed: what only that held is gone (P2).
    pub fn destroyed(&mut self, removed: &[bool], now: Micros) {
        self.forgiven_before = now;
        let there = |number: &MessageNo| {
            let places = self.places.iter().zip(removed);
            places.into_iter().any(|(place, removed)| !removed && place.durable.contains(number))
        };
        let lost: Vec<MessageNo> =
            (0..self.messages.len()).filter(|number| !there(number)).collect();
        self.forgiven.extend(lost);
    }

    /// Whether it may be lost, because a disk was destroyed that alone held it: the others had
    /// not got it, or had settled and forgotten it.
    pub fn is_forgiven(&self, number: MessageNo) -> bool {
        let forgotten = |place: &Place| place.forgotten.contains_key(&number);
        self.forgiven.contains(&number)
            || (self.is_old(number) && self.places.iter().any(forgotten))
    }

    /// Whether it was sealed before a disk was destroyed: who has lost it may be asked for it, and
    /// handed it, again.
    pub fn is_old(&self, number: MessageNo) -> bool {
        self.messages[number].sealed_at <= self.forgiven_before
    }
}

fn micros(time: Duration) -> Micros {
    Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use slipstream_core::clock::Hlc;
    use slipstream_core::ids::{Incarnation, Sequence};
    use slipstream_core::message::Fields;

    use super::*;

    /// The same publication with the same version, as accepted by this start of a node.
    fn accepted_by(incarnation: u64) -> Message {
        let fields = Fields {
            kind: Kind::Sk,
            incarnation: Incarnation::new(incarnation),
            sequence: Sequence::new(1),
            version: Hlc::at(WallMs(1_790_000_000_000)),
            expires: WallMs(0),
            group: "",
            tags: "",
            path: "a",
            id: "m-1",
            key: "k",
            body: "1",
        };
        Message::encode(&fields, &mut BytesMut::new())
    }

    #[test]
    fn a_delivery_is_of_the_message_in_its_row() {
        let mut ledger = Ledger { places: vec![Place::default(); 2], ..Ledger::default() };
        ledger.undurable = vec![Vec::new(); 2];
        let before = ledger.accept(&accepted_by(1), Some(0), 10).expect("it is new");
        let row = Row::new(Position::new(7), accepted_by(1));
        ledger.places[1].rows.insert(7, (before, row));
        // The store of the first node is set back, and the publisher tries again.
        ledger.destroyed(&[false, false], 20);
        let after = ledger.accept(&accepted_by(2), Some(0), 30).expect("the version is forgiven");
        let delivery = |delivery| Delivery {
            id: "m-1".into(),
            kind: "SK".into(),
            key: "k".into(),
            body: "1".into(),
            version: ledger.messages[after].version.clone(),
            path: "a,b".into(),
            tags: String::new(),
            delivery,
            redelivery: 0,
        };
        assert_eq!(ledger.handed(1, &delivery(7)), Some(before));
        assert_eq!(ledger.handed(1, &delivery(8)), Some(after), "no row is known");
    }
}
