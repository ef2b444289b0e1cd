//! Frames travel: they leave when the pipe has room, arrive in order, and are handed to whoever is
//! at the other end.

use std::rc::Rc;

use bytes::BytesMut;
use slipstream_core::ids::{DialId, LinkId};
use slipstream_core::io::{Close, CloseCode, Frame, Input, LinkUp, Protocol};
use slipstream_core::topology::NodeRecord;

use super::counts::{Fault, Sometimes};
use super::facts::{APPLICATION_CREDIT, Fact, Party};
use super::frames::{Item, Naming, identities, parse};
use super::network::{Carried, ConnId, End};
use super::plan::SECOND;
use super::site::Heard;
use super::world::{Event, World};

/// How long a dial into the void takes to fail.
const DIAL_TIMEOUT: u64 = 5 * SECOND;
/// How often both ends of a slow connection are told that bytes move.
const MOVING: u64 = SECOND / 5;

impl World {
    /// A node has transmitted a frame.
    pub fn transmit(&mut self, index: usize, link: LinkId, frame: Frame) {
        self.counts.volume("frames", 1);
        let Some(process) = &self.sites[index].process else { return };
        let Some(conn) = process.links.get(&link).copied() else { return };
        let items = match parse(&frame, &self.names[index]) {
            Ok(items) => Rc::new(items),
            Err(what) => {
                self.fail("P12 every frame can be read", what, vec![self.names[index].clone()]);
                return;
            }
        };
        let Some(side) = self.side_of_node(conn, index) else { return };
        let to = self.party(conn, 1 - side);
        for item in items.iter() {
            self.say(|world| format!("{} -> {}: {item}", world.names[index], world.party_name(to)));
            self.rare(item);
            self.tell(&Fact::Transmitted { site: index, conn, to, item });
        }
        let last = frame.cost();
        let counted = !frame.is_control();
        self.send(conn, side, Carried { frame, items, said: None, counted });
        if let Some(found) = self.network.conns.get(&conn) {
            let cost = found.pipes[side].waiting_cost;
            if cost >= APPLICATION_CREDIT && matches!(to, Party::App(_)) {
                self.counts.sometimes(Sometimes::CreditExhausted);
            }
            if cost > 0 {
                self.tell(&Fact::InFlight { site: index, to, cost, last });
            }
        }
    }

    fn rare(&mut self, item: &Item) {
        use super::frames::Answer;
        match item {
            Item::NotNow(_) => self.counts.sometimes(Sometimes::NotNow),
            Item::Topology(records) if records.iter().any(NodeRecord::has_any_tag) => {
                self.counts.sometimes(Sometimes::AnyTag);
            }
            Item::Delivery(delivery) if delivery.redelivery > 0 => {
                self.counts.sometimes(Sometimes::Redelivery);
            }
            Item::Delivery(_) => self.counts.volume("deliveries", 1),
            Item::Conflated(_) => self.counts.sometimes(Sometimes::Conflated),
            Item::Message(_) => self.counts.volume("messages sent", 1),
            Item::Named(naming, spans) => {
                self.counts.volume("messages named", identities(spans).count() as u64);
                self.counts.sometimes(match naming {
                    Naming::Have => Sometimes::Offered,
                    Naming::Want => Sometimes::Pulled,
                    Naming::Seen => Sometimes::SeenElsewhere,
                    Naming::Gone => Sometimes::Gone,
                });
            }
            Item::Answer(Answer::Receipt { duplicate: true, .. }) => {
                self.counts.sometimes(Sometimes::Idempotent);
            }
            Item::Answer(Answer::Refusal { code, .. }) => match code.as_str() {
                "ID_REUSED" => self.counts.sometimes(Sometimes::IdReused),
                "CLOCK" => self.counts.sometimes(Sometimes::ClockRefused),
                "WRONG_KIND" => self.counts.sometimes(Sometimes::WrongKind),
                "STORE_FULL" => {}
                _ => self.counts.sometimes(Sometimes::ErrorAnswered),
            },
            Item::Answer(Answer::Result { found: true, .. }) => {
                self.counts.sometimes(Sometimes::Read);
            }
            Item::Answer(Answer::Result { value: Some(_), .. }) => {
                self.counts.sometimes(Sometimes::ReadDeleted);
            }
            Item::Answer(Answer::Result { .. } | Answer::Receipt { .. })
            | Item::Welcome
            | Item::Synced
            | Item::Ack(_)
            | Item::Topology(_)
            | Item::Digests(_)
            | Item::Hello
            | Item::Ping
            | Item::Pong => {}
        }
    }

    fn side_of_node(&self, conn: ConnId, index: usize) -> Option<usize> {
        let life = self.sites[index].life;
        let here = |end: &End| match end {
            End::Node { site, life: of, .. } => *site == index && *of == life,
            End::App(_) | End::Liar => false,
        };
        self.network.conns.get(&conn)?.side_of(here)
    }

    /// Who is at this side of a connection.
    pub fn party(&self, conn: ConnId, side: usize) -> Party {
        match self.network.conns.get(&conn).map(|conn| conn.ends[side]) {
            Some(End::Node { site, .. }) => Party::Node(site),
            Some(End::App(app)) => Party::App(app),
            Some(End::Liar) | None => Party::Liar,
        }
    }

    fn party_name(&self, party: Party) -> String {
        match party {
            Party::Node(site) => self.names[site].clone(),
            Party::App(app) => self.apps[app].name(),
            Party::Liar => super::liar::NAME.into(),
        }
    }

    /// Gives a frame to the pipe of this side.
    pub fn send(&mut self, conn: ConnId, side: usize, carried: Carried) {
        let Some(found) = self.network.conns.get_mut(&conn) else { return };
        let pipe = &mut found.pipes[side];
        let waiting = &mut pipe.waiting;
        if carried.counted {
            pipe.waiting_cost += carried.frame.cost();
        }
        if carried.frame.is_control() {
            // It goes past what waits.
            let place = waiting.iter().take_while(|it| it.frame.is_control()).count();
            waiting.insert(place, carried);
        } else {
            waiting.push_back(carried);
        }
        self.pump(conn, side);
    }

    /// Moves what waits into the pipe as far as there is room, and tells the sender.
    pub fn pump(&mut self, conn: ConnId, side: usize) {
        let room = self.plan.pipe_bytes;
        let (latency, now) = (self.plan.latency, self.now);
        let Some(found) = self.network.conns.get_mut(&conn) else { return };
        let rate = self.plan.rate.filter(|_| found.sites().iter().all(Option::is_some));
        let (sender, pipe) = (found.ends[side], &mut found.pipes[side]);
        let (mut frames, mut cost) = (0, 0);
        while !pipe.waiting.is_empty() && (pipe.flying_bytes < room || pipe.flying.is_empty()) {
            let Some(carried) = pipe.waiting.pop_front() else { break };
            if carried.counted {
                frames += 1;
                cost += carried.frame.cost();
                pipe.waiting_cost -= carried.frame.cost();
            }
            pipe.flying_bytes += carried.frame.cost();
            if let Some(rate) = rate {
                let takes = carried.frame.cost() as u64 * SECOND / rate;
                pipe.left = pipe.left.max(now) + takes;
            }
            let arrival = pipe.left.max(now) + self.random.between(latency.0, latency.1);
            pipe.last_arrival = arrival.max(pipe.last_arrival);
            pipe.flying.push_back((pipe.last_arrival, carried));
        }
        if let End::Node { site, life, link } = sender
            && frames > 0
            && self.sites[site].life == life
        {
            self.give(site, Input::Sent { link, frames, cost });
        }
        self.arrange_moving(conn, side);
        self.arrange_arrival(conn, side);
    }

    /// Looks again soon at a pipe whose next frame takes long.
    fn arrange_moving(&mut self, conn: ConnId, side: usize) {
        let now = self.now;
        let Some(found) = self.network.conns.get_mut(&conn) else { return };
        let pipe = &mut found.pipes[side];
        let is_slow = pipe.flying.front().is_some_and(|(at, _)| *at > now + MOVING);
        if is_slow && !pipe.moving {
            pipe.moving = true;
            self.at(MOVING, Event::Moving { conn, side });
        }
    }

    /// Some of a frame has come: both ends are told, unless nothing gets through or nobody reads.
    pub fn moving(&mut self, conn: ConnId, side: usize) {
        let now = self.now;
        let Some(found) = self.network.conns.get_mut(&conn) else { return };
        found.pipes[side].moving = false;
        let Some(found) = self.network.conns.get(&conn) else { return };
        let held = found.held_until(side, |a, b| self.network.blocked_until(a, b));
        let (ends, pipe) = (found.ends, &found.pipes[side]);
        let is_full = !pipe.waiting.is_empty();
        let is_read = held <= now && !pipe.paused && found.alive == [true; 2];
        let is_awake = |end: End, world: &Self| match end {
            End::Node { site, life, .. } => {
                world.sites[site].life == life && world.sites[site].frozen_until <= now
            }
            End::App(_) | End::Liar => false,
        };
        if is_read && !pipe.flying.is_empty() && is_awake(ends[1 - side], self) {
            let told = [Some(ends[1 - side]), is_full.then_some(ends[side])];
            for end in told.into_iter().flatten() {
                if let End::Node { site, link, .. } = end
                    && is_awake(end, self)
                {
                    self.give(site, Input::Moved { link });
                }
            }
        }
        self.arrange_moving(conn, side);
    }

    /// Arranges the next arrival, if something is on its way and may arrive.
    pub fn arrange_arrival(&mut self, conn: ConnId, side: usize) {
        let Some(found) = self.network.conns.get(&conn) else { return };
        let pipe = &found.pipes[side];
        let Some((at, _)) = pipe.flying.front() else { return };
        if pipe.arranged || pipe.paused || !found.alive[1 - side] {
            return;
        }
        let held = found.held_until(side, |a, b| self.network.blocked_until(a, b));
        if held == u64::MAX {
            return;
        }
        let after = (*at).max(held).saturating_sub(self.now);
        if let Some(found) = self.network.conns.get_mut(&conn) {
            found.pipes[side].arranged = true;
        }
        self.at(after, Event::Arrival { conn, side });
    }

    /// Something arrives, unless the way is blocked or nobody reads.
    pub fn arrival(&mut self, conn: ConnId, side: usize) {
        let now = self.now;
        let Some(found) = self.network.conns.get_mut(&conn) else { return };
        found.pipes[side].arranged = false;
        let receiver = found.ends[1 - side];
        let blocked = &self.network.blocked;
        let held = found.held_until(side, |a, b| blocked.get(&(a, b)).copied().unwrap_or_default());
        let pipe = &mut found.pipes[side];
        let due = pipe.flying.front().is_some_and(|(at, _)| *at <= now);
        if pipe.paused || held > now || !due || !found.alive[1 - side] {
            self.arrange_arrival(conn, side);
            return;
        }
        if let End::Node { site, .. } = receiver
            && self.sites[site].frozen_until > now
        {
            // Nobody reads in a process that is stopped.
            let after = self.sites[site].frozen_until - now;
            if let Some(found) = self.network.conns.get_mut(&conn) {
                found.pipes[side].arranged = true;
            }
            self.at(after, Event::Arrival { conn, side });
            return;
        }
        let Some((_, carried)) = pipe.flying.pop_front() else { return };
        pipe.flying_bytes -= carried.frame.cost();
        self.pump(conn, side);
        self.hand_over(conn, side, receiver, carried);
    }

    fn hand_over(&mut self, conn: ConnId, side: usize, receiver: End, carried: Carried) {
        let Carried { frame, items, said, .. } = carried;
        match receiver {
            End::Node { site, life, link } => {
                if self.sites[site].life != life {
                    return;
                }
                if let Frame::Ping(payload) = &frame {
                    let pong = Frame::Pong(payload.clone());
                    let items = Rc::new(vec![Item::Pong]);
                    let pong = Carried { frame: pong, items, said: None, counted: false };
                    self.send(conn, 1 - side, pong);
                }
                let altered = self.alter(&frame, said.is_some());
                let heard = match (said, self.party(conn, side)) {
                    (Some(said), Party::App(app)) => Some(Heard::App(app, said)),
                    _ => Some(Heard::Peer(conn, items)),
                };
                let heard = heard.filter(|_| altered.is_none());
                let frame = altered.unwrap_or(frame);
                self.give_heard(site, Input::Received { link, frame }, heard);
            }
            End::App(app) => self.app_hears(app, conn, side, &frame, &items),
            End::Liar => self.liar_hears(conn, side, &frame, &items),
        }
    }

    /// The frame with a bit of it turned, if that fault is due. What applications send is spared:
    /// nothing guards text.
    fn alter(&mut self, frame: &Frame, from_application: bool) -> Option<Frame> {
        let mean = self.plan.mean(Fault::Corrupt).filter(|_| !self.healed)?;
        let Frame::Binary(bytes) = frame else { return None };
        if from_application || bytes.is_empty() || self.random.below(mean / 10_000) != 0 {
            return None;
        }
        self.counts.fault(Fault::Corrupt);
        let mut altered = BytesMut::from(&bytes[..]);
        let place = self.random.index(altered.len());
        altered[place] ^= 1 << self.random.below(8);
        self.say(|_| format!("a bit of byte {place} of {} is turned", bytes.len()));
        Some(Frame::Binary(altered.freeze()))
    }

    /// A node stops reading from a link, or reads on.
    pub fn set_reading(&mut self, index: usize, link: LinkId, reads: bool) {
        let process = self.sites[index].process.as_ref();
        let Some(conn) = process.and_then(|process| process.links.get(&link)).copied() else {
            return;
        };
        let Some(side) = self.side_of_node(conn, index) else { return };
        self.set_paused(conn, 1 - side, !reads);
    }

    /// The receiver of what this side sends reads, or does not.
    pub fn set_paused(&mut self, conn: ConnId, side: usize, paused: bool) {
        if let Some(found) = self.network.conns.get_mut(&conn) {
            found.pipes[side].paused = paused;
        }
        self.arrange_arrival(conn, side);
    }

    /// A node dials.
    pub fn dial(&mut self, index: usize, dial: DialId, url: &str) {
        self.tell(&Fact::Dialed { site: index, url });
        let life = self.sites[index].life;
        let target = self.site_of_url(url);
        let blocked = target.is_some_and(|to| {
            let there = self.network.blocked_until(index, to);
            let parted = there.max(self.network.blocked_until(to, index)) > self.now;
            parted || self.is_apart(index, to)
        });
        let after = if blocked {
            DIAL_TIMEOUT
        } else {
            let after = 3 * self.random.between(self.plan.latency.0, self.plan.latency.1);
            self.at_once(index, target, after)
        };
        let target = target.filter(|_| !blocked);
        self.at(after, Event::DialDone { site: index, life, dial, target });
    }

    /// What came of a dial: a connection, if somebody is there.
    pub fn dial_done(&mut self, index: usize, life: u64, dial: DialId, target: Option<usize>) {
        if self.sites[index].life != life {
            return;
        }
        let there = target.filter(|to| self.sites[*to].process.is_some());
        let Some(to) = there else {
            let reason = if target.is_some() { "refused" } else { "no answer" };
            self.give(index, Input::DialFailed { dial, reason: reason.into() });
            return;
        };
        let (from, into) = (self.new_end(index), self.new_end(to));
        let (Some(from), Some(into)) = (from, into) else { return };
        self.note_crossing(index, to);
        let conn = self.network.open(from, into);
        for (end, dial) in [(into, None), (from, Some(dial))] {
            self.link_up(end, conn, dial, Protocol::Postcard, String::new());
        }
        self.limit_life(conn);
    }

    /// A link number for a new connection of this node.
    pub fn new_end(&mut self, index: usize) -> Option<End> {
        let life = self.sites[index].life;
        let process = self.sites[index].process.as_mut()?;
        process.last_link += 1;
        Some(End::Node { site: index, life, link: LinkId::new(process.last_link) })
    }

    /// A node is told of a new connection.
    pub fn link_up(
        &mut self,
        end: End,
        conn: ConnId,
        dial: Option<DialId>,
        protocol: Protocol,
        query: String,
    ) {
        let End::Node { site, link, .. } = end else { return };
        if let Some(process) = &mut self.sites[site].process {
            process.links.insert(link, conn);
        }
        let remote = format!("conn:{conn}");
        self.give(site, Input::LinkUp(LinkUp { link, dial, protocol, remote, query }));
    }

    /// A node closes a link: what it has sent before still goes out, then the close frame.
    pub fn close(&mut self, index: usize, link: LinkId, close: &Close) {
        let Some(process) = &mut self.sites[index].process else { return };
        let Some(conn) = process.links.get(&link).copied() else { return };
        let Some(side) = self.side_of_node(conn, index) else { return };
        if close.code == CloseCode::Limit && matches!(self.party(conn, 1 - side), Party::Node(_)) {
            let node = self.names[index].clone();
            let what = format!("{node} has no place for a peer: {}", close.reason);
            self.fail("P8 bounded", what, vec![node]);
        }
        if close.code == CloseCode::Duplicate {
            self.note_surplus(conn, side);
        }
        let Some(found) = self.network.conns.get(&conn) else { return };
        // The close travels behind what is on its way, where that moves at all.
        let pipe = &found.pipes[side];
        let stuck = !pipe.waiting.is_empty()
            || found.held_until(side, |a, b| self.network.blocked_until(a, b)) > self.now;
        let behind = pipe.last_arrival.max(self.now) - self.now;
        let latency = self.random.between(self.plan.latency.0, self.plan.latency.1);
        let code = Some(close.code.number()).filter(|_| !stuck);
        self.at(1, Event::Gone { conn, side, code: None, reason: "closed here" });
        let after = behind + latency + if stuck { SECOND } else { 0 };
        self.at(after, Event::Gone { conn, side: 1 - side, code, reason: "closed there" });
    }

    /// A connection is cut: both ends notice, each in its own time.
    pub fn cut(&mut self, conn: ConnId) {
        for side in 0..2 {
            let after = self.random.below(200_000);
            self.at(after, Event::Gone { conn, side, code: None, reason: "reset" });
            self.empty(conn, side);
        }
    }

    /// The application at side 0 dies: what it has said arrives, and what it was sent is lost.
    pub fn die(&mut self, conn: ConnId) {
        let Some(found) = self.network.conns.get(&conn) else { return };
        let behind = found.pipes[0].last_arrival.max(self.now) - self.now;
        let stuck = if found.pipes[0].waiting.is_empty() { 0 } else { SECOND };
        self.empty(conn, 1);
        self.at(behind + stuck + 1, Event::Gone { conn, side: 1, code: None, reason: "reset" });
        self.gone(conn, 0, None, "died");
    }

    /// What is on its way on this side is lost, and nothing arrives any more.
    pub fn empty(&mut self, conn: ConnId, side: usize) {
        if let Some(found) = self.network.conns.get_mut(&conn) {
            let pipe = &mut found.pipes[side];
            pipe.flying.clear();
            pipe.flying_bytes = 0;
            pipe.stalled_until = u64::MAX;
        }
    }

    /// The process at this end is gone. The other end is told, unless its machine went silently.
    pub fn drop_end(&mut self, conn: ConnId, index: usize, silently: bool) {
        let Some(found) = self.network.conns.get_mut(&conn) else { return };
        let here = |end: &End| matches!(end, End::Node { site, .. } if *site == index);
        let Some(side) = found.side_of(here) else { return };
        found.alive[side] = false;
        let other = found.ends[1 - side];
        if silently && matches!(other, End::Node { .. }) {
            self.empty(conn, side);
            return;
        }
        let after = self.random.between(self.plan.latency.0, self.plan.latency.1);
        self.at(after, Event::Gone { conn, side: 1 - side, code: None, reason: "reset" });
    }

    /// An end notices that its connection is gone.
    pub fn gone(&mut self, conn: ConnId, side: usize, code: Option<u16>, reason: &str) {
        let Some(found) = self.network.conns.get_mut(&conn) else { return };
        if self.healed && reason == super::faults::LIFE_IS_OVER && found.alive == [true; 2] {
            return;
        }
        if !core::mem::replace(&mut found.alive[side], false) {
            return;
        }
        let end = found.ends[side];
        if found.alive == [false; 2] {
            self.network.conns.remove(&conn);
        }
        match end {
            End::Node { site, life, link } => {
                if self.sites[site].life != life {
                    return;
                }
                if let Some(process) = &mut self.sites[site].process {
                    process.links.remove(&link);
                }
                self.give(site, Input::LinkDown { link, code, reason: reason.into() });
            }
            End::App(app) => self.app_lost(app, conn, code),
            End::Liar => self.liar_lost(conn),
        }
    }

    /// An empty item list for frames that no node has sent.
    pub fn no_items() -> Rc<Vec<Item>> {
        Rc::new(Vec::new())
    }
}
