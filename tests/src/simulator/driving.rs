//! Applications act: they connect, publish, settle what they are handed, and come back.

use std::collections::VecDeque;

use slipstream_core::io::{Frame, Protocol};
use slipstream_core::message::Kind;

use super::application::{
    App, Consumer, Said, connect_frame, odd_frame, publish_frame, read_frame, settle_frame,
};
use super::counts::Sometimes;
use super::facts::Fact;
use super::frames::{Answer, Delivery, Item};
use super::ledger::{Outcome, Publish, PublishNo};
use super::network::{Carried, ConnId, End};
use super::plan::SECOND;
use super::world::{Event, World};

impl World {
    /// The applications of a new node.
    pub fn add_apps(&mut self, site: usize) {
        for _ in 0..self.plan.consumers {
            let consumer = match self.random.below(10) {
                // Nothing helps where its dead letters fill the store.
                0 if self.plan.settings.max_bytes.is_none() => Consumer::Mute,
                1 | 2 => Consumer::Slow(self.random.between(10_000, 800_000)),
                3 => Consumer::Fickle,
                4 => Consumer::Lazy,
                _ => Consumer::Prompt,
            };
            let index = self.apps.len();
            let named = self.random.chance(750);
            let habit = Consumer::habit(self.plan.seed, index, named);
            let some_keys = self.random.chance(200);
            let some_tags = self.random.chance(250);
            let app = App {
                index,
                site,
                client: named.then(|| format!("pi-{index}")),
                protocol: self.protocol(),
                tags: some_tags.then(|| vec![self.random.pick(&["aws", "gcp", "eu"])]),
                keys: some_keys.then(|| vec!["k1", "k2"]),
                conflate: self.plan.conflates(index),
                only_new: self.random.chance(if named { 150 } else { 700 }),
                manual: self.random.chance(if named { 900 } else { 300 }) || habit.is_some(),
                consumer: habit.unwrap_or(consumer),
                publishes: self.random.chance(200),
                ..App::blank(index, site)
            };
            self.apps.push(self.tag(app));
        }
        if site == 1 && self.plan.group {
            self.add_twins();
        }
        if self.random.chance(self.plan.publishers) || site == 0 {
            let index = self.apps.len();
            let named = self.random.chance(800);
            let app = App {
                client: named.then(|| format!("till-{index}")),
                protocol: self.protocol(),
                keys: Some(Vec::new()),
                manual: named,
                publishes: true,
                ..App::blank(index, site)
            };
            self.apps.push(app);
        }
        self.add_crowd(site);
    }

    /// A program that publishes everything through both nodes of the group: all that it says
    /// goes through the first connection, and again through the second one.
    fn add_twins(&mut self) {
        let first = self.apps.len();
        for (site, index, twin) in [(0, first, first + 1), (1, first + 1, first)] {
            let protocol = self.protocol();
            self.apps.push(App {
                client: Some(format!("twin-{index}")),
                protocol,
                keys: Some(Vec::new()),
                manual: true,
                publishes: site == 0,
                twin: Some(twin),
                ..App::blank(index, site)
            });
        }
    }

    fn protocol(&mut self) -> Protocol {
        if self.random.chance(600) { Protocol::Json } else { Protocol::Postcard }
    }

    /// An application connects, if its node is there.
    pub fn connect(&mut self, index: usize) {
        let app = &self.apps[index];
        let (site, protocol, query) = (app.site, app.protocol, app.query());
        let takes_over = app.link.is_some();
        if app.gone || (takes_over && (app.client.is_none() || self.healed)) {
            return;
        }
        let Some(end) = self.new_end(site) else { return };
        if takes_over {
            // The node ends the first connection; the application has forgotten it.
            self.counts.sometimes(Sometimes::TakenOver);
            self.forget_link(index);
        }
        let conn = self.network.open(End::App(index), end);
        self.apps[index].link = Some(conn);
        self.apps[index].greeted = false;
        self.tell(&Fact::AppConnected { app: index });
        self.link_up(end, conn, None, protocol, query);
        if protocol == Protocol::Postcard {
            self.app_sends(index, connect_frame(), Said::Connect);
        }
        self.limit_life(conn);
    }

    fn forget_link(&mut self, index: usize) {
        if let Some(conn) = self.apps[index].link.take() {
            self.tell(&Fact::AppDisconnected { app: index });
            if let Some(found) = self.network.conns.get_mut(&conn) {
                found.alive[0] = false;
                found.pipes[0].waiting.clear();
                found.pipes[0].waiting_cost = 0;
            }
        }
    }

    fn app_sends(&mut self, index: usize, frame: Frame, said: Said) {
        let Some(conn) = self.apps[index].link else { return };
        self.tell(&Fact::AppSaid { app: index, said: &said });
        self.say(|world| {
            format!(
                "{} -> {}: {said:?} {}",
                world.apps[index].name(),
                { &world.names[world.apps[index].site] },
                world.said_text(&said)
            )
        });
        let carried = Carried { frame, items: Self::no_items(), said: Some(said), counted: false };
        self.send(conn, 0, carried);
    }

    fn said_text(&self, said: &Said) -> String {
        match said {
            Said::Publish(number) => self.ledger.publishes[*number].id.clone(),
            Said::Read { key, .. } => format!("of {key}"),
            Said::Connect | Said::Odd(_) | Said::Ack { .. } | Said::Nack { .. } => String::new(),
        }
    }

    /// An application is handed a frame.
    pub fn app_hears(
        &mut self,
        index: usize,
        conn: ConnId,
        _side: usize,
        frame: &Frame,
        items: &[Item],
    ) {
        if self.apps[index].link != Some(conn) {
            return;
        }
        if let Frame::Ping(payload) = frame {
            let pong = Frame::Pong(payload.clone());
            let items = Self::no_items();
            self.send(conn, 0, Carried { frame: pong, items, said: None, counted: false });
            return;
        }
        for item in items {
            if self.apps[index].link != Some(conn) {
                // It died of what came before.
                return;
            }
            self.tell(&Fact::AppHeard { app: index, item });
            match item {
                Item::Welcome => self.greeted(index),
                Item::Answer(answer) => self.note_answer(index, answer),
                Item::Delivery(delivery) => self.consume(index, conn, delivery),
                Item::Synced
                | Item::Message(_)
                | Item::Ack(_)
                | Item::NotNow(_)
                | Item::Conflated(_)
                | Item::Topology(_)
                | Item::Digests(_)
                | Item::Named(..)
                | Item::Hello
                | Item::Ping
                | Item::Pong => {}
            }
        }
    }

    fn greeted(&mut self, index: usize) {
        self.apps[index].greeted = true;
        // Whoever retries across connections has a name (P9).
        if self.apps[index].client.is_some() {
            let again: Vec<PublishNo> = self.apps[index].unanswered.iter().copied().collect();
            for number in again {
                self.send_publish(index, number);
            }
        } else {
            self.apps[index].unanswered.clear();
        }
        if self.apps[index].publishes {
            let after = self.random.below(2 * self.plan.publish_every);
            self.at(after, Event::Publish { app: index });
        }
    }

    fn note_answer(&mut self, index: usize, answer: &Answer) {
        let id = match answer {
            Answer::Receipt { id, .. } => Some(id),
            Answer::Refusal { re, .. } => re.as_ref(),
            Answer::Result { .. } => None,
        };
        let Some(id) = id else { return };
        let app = &mut self.apps[index];
        let publishes = &self.ledger.publishes;
        let Some(place) = app.unanswered.iter().position(|n| publishes[*n].id == *id) else {
            return;
        };
        let number = app.unanswered[place];
        let outcome = match answer {
            Answer::Receipt { version, .. } => {
                app.answered.push(number);
                Outcome::Receipt(version.clone())
            }
            Answer::Refusal { code, retryable, .. } => {
                if *retryable && self.random.chance(700) && !self.healed {
                    // It stays unanswered, and is sent again at the next opportunity.
                    return;
                }
                Outcome::Refused(code.clone())
            }
            Answer::Result { .. } => return,
        };
        app.unanswered.remove(place);
        let known = &mut self.ledger.publishes[number].outcome;
        if !matches!(known, Outcome::Receipt(_)) {
            *known = outcome;
        }
    }

    fn consume(&mut self, index: usize, conn: ConnId, delivery: &Delivery) {
        if !self.apps[index].manual {
            return;
        }
        if self.apps[index].consumer.dies_of(&delivery.id) {
            self.counts.sometimes(Sometimes::DiedOfMessage);
            self.die(conn);
            return;
        }
        let delivery = delivery.delivery;
        let latency = self.random.below(2_000);
        let chaos = !self.healed;
        let (after, said) = match self.apps[index].consumer {
            Consumer::Mute => return,
            Consumer::Prompt | Consumer::Lazy if self.random.chance(100) => {
                (latency, Said::Ack { delivery, upto: true })
            }
            // It takes one message after the other: what it has done is said before it dies.
            Consumer::Mortal => {
                return self.settle(index, conn, Said::Ack { delivery, upto: false });
            }
            Consumer::Prompt => (latency, Said::Ack { delivery, upto: false }),
            Consumer::Lazy => {
                if chaos && self.random.chance(30) {
                    self.set_paused(conn, 1, true);
                    let after = self.random.between(SECOND / 2, 6 * SECOND);
                    self.at(after, Event::ReadAgain { app: index, conn });
                }
                (latency, Said::Ack { delivery, upto: false })
            }
            Consumer::Slow(after) => (after, Said::Ack { delivery, upto: false }),
            Consumer::Cumulative => {
                let after = latency + self.random.pick(&[0, 0, 50_000, 300_000]);
                match self.random.below(12) {
                    0 => (after, Said::Nack { delivery, retry: false }),
                    1 | 2 => (after, Said::Nack { delivery, retry: true }),
                    3 => (after, Said::Ack { delivery, upto: false }),
                    4..=7 => return,
                    _ => (after, Said::Ack { delivery, upto: true }),
                }
            }
            Consumer::Fickle => match self.random.below(10) {
                0 => (latency, Said::Nack { delivery, retry: false }),
                1..=3 => (latency, Said::Nack { delivery, retry: true }),
                4 => return,
                _ => (latency, Said::Ack { delivery, upto: false }),
            },
        };
        self.at(after, Event::Settle { app: index, conn, said });
    }

    /// An application settles a delivery, if it is still connected as it was.
    pub fn settle(&mut self, index: usize, conn: ConnId, said: Said) {
        if self.apps[index].link == Some(conn) {
            let frame = settle_frame(self.apps[index].protocol, &said);
            self.app_sends(index, frame, said);
        }
    }

    /// An application reads on.
    pub fn read_again(&mut self, _app: usize, conn: ConnId) {
        self.set_paused(conn, 1, false);
    }

    /// The connection of an application is gone: it comes back, unless it must not.
    pub fn app_lost(&mut self, index: usize, conn: ConnId, _code: Option<u16>) {
        if self.apps[index].link != Some(conn) {
            return;
        }
        self.apps[index].link = None;
        self.apps[index].greeted = false;
        self.tell(&Fact::AppDisconnected { app: index });
        let after = self.random.between(100_000, 2 * SECOND);
        self.at(after, Event::Connect { app: index });
    }

    /// An application publishes something, new or not.
    pub fn publish(&mut self, index: usize) {
        if self.healed || self.apps[index].gone || !self.apps[index].greeted {
            return;
        }
        let after = 1 + self.random.below(2 * self.plan.publish_every);
        self.at(after, Event::Publish { app: index });
        if self.random.chance(self.plan.odd_frames) {
            self.publish_oddly(index);
            return;
        }
        let burst = if self.random.chance(50) { self.random.between(2, 20) } else { 1 };
        for _ in 0..burst {
            let number = self.new_publish(index, None);
            self.apps[index].unanswered.push_back(number);
            self.counts.volume("published", 1);
            self.send_publish(index, number);
            self.publish_through_twin(index, number);
            if self.random.chance(self.plan.reads) {
                let key = self.ledger.publishes[number].key.clone();
                let kind = self.ledger.publishes[number].kind;
                self.read_key(index, key, kind);
            }
        }
        if self.random.chance(self.plan.reads) {
            let key = format!("k{}", self.random.below(self.plan.keys));
            self.read_key(index, key, Kind::Sk);
        }
    }

    /// An application reads a key: mostly as what it wrote there last.
    fn read_key(&mut self, index: usize, key: String, kind: Kind) {
        let reads = matches!(kind, Kind::Sk | Kind::Sa | Kind::Sw) && self.random.chance(800);
        let kind = if reads { kind } else { self.random.pick(&[Kind::Sk, Kind::Sa, Kind::Sw]) };
        self.apps[index].numbered += 1;
        let id = format!("r{index}-{}", self.apps[index].numbered);
        let frame = read_frame(self.apps[index].protocol, &id, &key, kind);
        self.counts.volume("reads", 1);
        self.app_sends(index, frame, Said::Read { id, key, kind });
    }

    /// The same id again, with the same content or another one, or a frame that is none.
    fn publish_oddly(&mut self, index: usize) {
        let known = self.apps[index].answered.clone();
        // Whoever has no name is not remembered across connections.
        let may_repeat = !known.is_empty() && self.apps[index].client.is_some();
        match self.random.below(3) {
            0 if may_repeat => {
                let number = known[self.random.index(known.len())];
                self.apps[index].unanswered.push_back(number);
                self.send_publish(index, number);
            }
            1 if may_repeat => {
                let id = self.ledger.publishes[known[self.random.index(known.len())]].id.clone();
                let number = self.new_publish(index, Some(id));
                self.send_publish(index, number);
            }
            _ => {
                let (frame, said) = odd_frame(self.apps[index].protocol, self.random.next());
                self.app_sends(index, frame, said);
            }
        }
    }

    fn new_publish(&mut self, index: usize, id: Option<String>) -> PublishNo {
        let app = &mut self.apps[index];
        app.numbered += 1;
        let known = id.clone();
        let id = id.unwrap_or_else(|| format!("m{index}-{}", app.numbered));
        let site = app.site;
        let event = self.random.chance(self.plan.events) && !self.is_ahead(site);
        let key = self.random.below(self.plan.keys);
        let choice = if self.plan.fixed_tags { key } else { self.random.next() };
        let tags = ["", "", "aws", "gcp", "aws,eu"][(choice % 5) as usize];
        let kind = if event {
            Kind::Cmd
        } else if known.is_none() && self.random.chance(self.plan.deletes) {
            // What repeats an id must have another value, and a delete has none.
            self.counts.sometimes(Sometimes::Deleted);
            Kind::Dk
        } else {
            self.random.pick(&[Kind::Sa, Kind::Sw, Kind::Sk, Kind::Sk, Kind::Sk, Kind::Sk])
        };
        let tags = self.target(tags, key);
        let number = self.ledger.publishes.len();
        let padding = self.random.between(self.plan.padding.0, self.plan.padding.1) as usize;
        let x = "x".repeat(padding);
        let body = match kind {
            Kind::Sa => format!("[{number},\"{x}\"]"),
            Kind::Sw => format!("{{\"n\":{number},\"{x}\":0.50}}"),
            Kind::Dk => "null".into(),
            Kind::Sk | Kind::Cmd => format!("{{\"n\":{number},\"x\":\"{x}\"}}"),
        };
        self.ledger.wants(Publish {
            app: index,
            site: self.apps[index].site,
            id,
            kind,
            key: format!("k{key}"),
            tags,
            body,
            heard_at: None,
            ttl_ms: self.plan.ttl_ms.filter(|_| event),
            sends: 0,
            outcome: Outcome::Unknown,
        })
    }

    /// The same message through the other node of the group (P10).
    fn publish_through_twin(&mut self, index: usize, number: PublishNo) {
        let Some(twin) = self.apps[index].twin else { return };
        let site = self.apps[twin].site;
        let copy = Publish { app: twin, site, ..self.ledger.publishes[number].clone() };
        let copy = Publish { sends: 0, heard_at: None, outcome: Outcome::Unknown, ..copy };
        let copy = self.ledger.wants(copy);
        self.apps[twin].unanswered.push_back(copy);
        if self.apps[twin].greeted {
            self.send_publish(twin, copy);
        }
    }

    fn send_publish(&mut self, index: usize, number: PublishNo) {
        self.ledger.publishes[number].sends += 1;
        let frame = publish_frame(self.apps[index].protocol, &self.ledger.publishes[number]);
        self.app_sends(index, frame, Said::Publish(number));
    }
}

impl App {
    /// An application that does nothing yet.
    pub fn blank(index: usize, site: usize) -> Self {
        Self {
            index,
            site,
            client: None,
            protocol: Protocol::Json,
            tags: None,
            keys: None,
            only_new: true,
            conflate: false,
            manual: false,
            consumer: Consumer::Prompt,
            publishes: false,
            crowds: false,
            twin: None,
            link: None,
            greeted: false,
            gone: false,
            unanswered: VecDeque::new(),
            answered: Vec::new(),
            numbered: 0,
        }
    }
}
