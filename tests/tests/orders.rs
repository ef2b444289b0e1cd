//! Words of an application in every order that chance finds, between reconnects, takeovers,
//! restarts, failed commits, replays and new filters, on one node: nothing that it was owed is lost
//! or left behind, and nothing that it has settled comes again (P2, P3, P12, P13).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::config::Config;
use slipstream_core::ids::{DeadLetterId, LinkId, NodeId};
use slipstream_core::io::Input;
use slipstream_core::store::StoreFailure;
use slipstream_tests::world::World;

/// Orders that are tried, and steps of each.
const ORDERS: u64 = 300;
const STEPS: u64 = 40;

/// Chance from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// What is known of a message from what the application was handed, has said, and was told.
#[derive(Debug, Default)]
struct Known {
    /// Deliveries of it, by the link that carried each last, and whether a word followed.
    deliveries: BTreeMap<u64, Handed>,
    handed: u64,
    /// It was acknowledged without an error, and whether that is sure.
    acked: Option<bool>,
    /// The same of a rejection.
    rejected: Option<bool>,
    /// An operator has deleted its letter.
    purged: bool,
    /// An operator has replayed its letter.
    replayed: bool,
    /// An acknowledgement may have spoken of it.
    covered: bool,
    /// It may come again, whatever was said of it before.
    again: bool,
    /// It was handed over since the last start, and since the session began again.
    named: bool,
}

#[derive(Debug)]
struct Handed {
    link: LinkId,
    /// Refused since it was handed over last.
    refused: bool,
}

struct Order {
    seed: u64,
    random: Random,
    world: World,
    app: Option<LinkId>,
    is_up: bool,
    filter: u64,
    published: u64,
    known: BTreeMap<String, Known>,
    /// Messages with words that are not durable yet.
    unsure: Vec<String>,
    story: String,
}

impl Order {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut config = Config::new(NodeId::new("a").expect("a good name"));
        config.retry.max_attempts = 1 + (random.next() % 3) as u32;
        config.limits.delivery_window = 1 + (random.next() % 5) as usize;
        let world = World::with(config);
        let (known, unsure, story) = (BTreeMap::new(), Vec::new(), String::new());
        Self {
            seed,
            random,
            world,
            app: None,
            is_up: false,
            filter: 0,
            published: 0,
            known,
            unsure,
            story,
        }
    }

    fn upto(&mut self, limit: u64) -> u64 {
        self.random.next() % limit
    }

    fn tell(&mut self, step: &str) {
        writeln!(self.story, "{step}").expect("a text takes everything");
    }

    fn check(&self, holds: bool, what: &str) {
        assert!(holds, "seed {}: {what}\n{}", self.seed, self.story);
    }

    fn step(&mut self) {
        match self.upto(20) {
            0..3 => self.publish(),
            3..5 => self.connect(),
            5 => self.lose(),
            6..14 => self.say(),
            14 => self.pass(),
            15 => self.crash(),
            16 => self.fail_commit(),
            17..19 => self.operate(),
            _ => self.settle(),
        }
        if self.upto(3) > 0 {
            self.settle();
        }
        self.hear();
    }

    fn publish(&mut self) {
        let till = self.world.connect("keys=");
        self.world.settle();
        for _ in 0..=self.upto(3) {
            self.published += 1;
            let (id, kind) =
                (format!("m-{}", self.published), ["CMD", "SK"][self.upto(2) as usize]);
            self.tell(&format!("publish {kind} {id}"));
            let frame = format!(r#"{{"type":"{kind}","messageId":"{id}","key":"{id}","value":1}}"#);
            self.world.text(till, &frame);
        }
        self.world.settle();
        for answer in self.world.said(till) {
            // After a commit has failed some are refused.
            if answer["type"] == "ACK" {
                let id = answer["messageId"].as_str().expect("a receipt has an id");
                self.known.insert(id.to_owned(), Known::default());
            }
        }
        self.settle();
        self.world.lose(till);
    }

    fn connect(&mut self) {
        let is_other = self.app.is_some() && self.upto(4) == 0;
        if is_other {
            self.filter += 1;
            for known in self.known.values_mut() {
                (known.again, known.named) = (true, false);
            }
        }
        let query = format!("client=pi&keys=m,x{}", self.filter);
        let link = self.world.connect(&query);
        self.tell(&format!("connect {link:?} {query}"));
        self.app = Some(link);
        self.is_up = true;
    }

    fn lose(&mut self) {
        if let Some(app) = self.app {
            self.tell("lose");
            self.is_up = false;
            self.world.lose(app);
        }
    }

    fn pass(&mut self) {
        let seconds = [1, 6, 15, 70][self.upto(4) as usize];
        self.tell(&format!("pass {seconds}"));
        self.settle();
        self.world.pass(Duration::from_secs(seconds));
    }

    fn crash(&mut self) {
        self.tell("crash");
        self.is_up = false;
        self.known.values_mut().for_each(|known| known.named = false);
        for id in std::mem::take(&mut self.unsure) {
            let known = self.known.get_mut(&id).expect("it was published");
            known.acked = known.acked.map(|_| false);
            known.rejected = known.rejected.map(|_| false);
            known.again = true;
        }
        self.world.crash();
    }

    fn fail_commit(&mut self) {
        if self.world.fail_if_commit(StoreFailure::Full("no room".into())) {
            self.tell("a commit fails");
            self.world.settle();
            self.hear();
            self.world.pass(Duration::from_secs(2));
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.world.settle();
        self.hear();
        self.unsure.clear();
    }

    fn operate(&mut self) {
        let letters = self.letters();
        if letters.is_empty() {
            return;
        }
        let (letter, id) = letters[self.upto(letters.len() as u64) as usize].clone();
        let replays = self.upto(3) > 0;
        self.tell(&format!("{} {letter:?} {id}", if replays { "replay" } else { "purge" }));
        let request = if replays {
            AdminRequest::ReplayDeadLetter(letter)
        } else {
            AdminRequest::PurgeDeadLetter(letter)
        };
        let known = self.known.get_mut(&id).expect("it was published");
        if replays {
            (known.again, known.rejected, known.acked) = (true, None, None);
            known.replayed = true;
        } else {
            known.purged = true;
        }
        let ticket = slipstream_core::ids::Ticket::new(1_000_000 + self.published);
        self.world.give(Input::Admin { ticket, request });
        // The store has found the letter, and its end is not durable.
        self.world.step();
    }

    fn letters(&mut self) -> Vec<(DeadLetterId, String)> {
        self.settle();
        let all = AdminRequest::DeadLetters { after: DeadLetterId::default(), limit: 999 };
        match self.world.ask(all) {
            AdminAnswer::DeadLetters(letters) => {
                letters.iter().map(|(_, it)| (it.id, it.message.id().into())).collect()
            }
            other => panic!("a list, not {other:?}"),
        }
    }

    /// Takes note of what was handed over.
    fn hear(&mut self) {
        let Some(app) = self.app else { return };
        for frame in self.world.said(app) {
            if frame["type"] == "ERR" {
                self.check(false, &format!("an error that nobody waits for: {frame}"));
            }
            let Some(delivery) = frame["deliveryId"].as_u64() else { continue };
            let id = frame["messageId"].as_str().expect("a delivery has an id").to_owned();
            let redelivery = frame["redelivery"].as_u64().unwrap_or(0);
            self.tell(&format!("  handed {delivery} {id} redelivery {redelivery}"));
            let known = &self.known[&id];
            let (is_first, settled) = (known.handed == 0, known.acked == Some(true));
            let refused = known.rejected == Some(true);
            self.check(is_first || redelivery > 0, "it came again without a mark");
            self.check(known.again || !settled, "what was acknowledged came again");
            self.check(known.again || !refused, "what was rejected came again");
            let known = self.known.get_mut(&id).expect("it was published");
            known.handed += 1;
            known.named = true;
            known.deliveries.insert(delivery, Handed { link: app, refused: false });
            // What was said before was said of another hand-over.
            (known.acked, known.rejected) = (None, None);
            known.again &= known.deliveries.len() > 1;
        }
    }

    fn say(&mut self) {
        let Some(app) = self.app else { return };
        self.hear();
        let all = self.known.iter();
        let all: Vec<(String, u64)> = all
            .flat_map(|(id, known)| known.deliveries.keys().map(|it| (id.clone(), *it)))
            .collect();
        if all.is_empty() {
            return;
        }
        // Mostly one of the last.
        let last = all.len() as u64;
        let at =
            if self.upto(2) == 0 { self.upto(last) } else { last - 1 - self.upto(last.min(3)) };
        let (id, delivery) = all[at as usize].clone();
        let target = if self.upto(3) == 0 {
            format!(r#""messageId":"{id}""#)
        } else {
            format!(r#""deliveryId":{delivery}"#)
        };
        let word = self.upto(6);
        let frame = match word {
            0 | 1 => format!(r#"{{"type":"ACK",{target}}}"#),
            2 => format!(r#"{{"type":"ACK","deliveryId":{delivery},"upTo":true}}"#),
            3 | 4 => format!(r#"{{"type":"NACK",{target},"action":"retry"}}"#),
            _ => format!(r#"{{"type":"NACK",{target},"action":"reject"}}"#),
        };
        self.tell(&format!("say {frame} of {id}"));
        let is_up = self.is_up && !self.world.closed.contains_key(&app);
        self.world.text(app, &frame);
        if !is_up {
            return;
        }
        let error = self.errors(app);
        if let Some(error) = &error {
            self.tell(&format!("  error {error}"));
        }
        let letters = error.is_some() && {
            // Another letter of it may be meant, so any will do.
            self.world.settle();
            self.hear();
            self.letters().iter().any(|(_, named)| *named == id)
        };
        let known = &self.known[&id];
        let is_ended = known.acked.is_some() || known.rejected.is_some() || known.covered;
        let may_err = is_ended || letters || known.purged || known.again;
        self.check(error.is_none() || may_err, "a word about what is open was refused");
        if error.is_none() {
            self.unsure.push(id.clone());
            self.heard(word, &id, delivery, app);
            let known = self.known.get_mut(&id).expect("it was published");
            if !known.named {
                // The node may not have written that it was handed over: it comes again.
                (known.again, known.acked) = (true, known.acked.map(|_| false));
                known.rejected = known.rejected.map(|_| false);
            }
        }
    }

    fn heard(&mut self, word: u64, id: &str, delivery: u64, app: LinkId) {
        let known = self.known.get_mut(id).expect("it was published");
        match word {
            0 | 1 => known.acked = known.acked.or(Some(true)),
            2 => {
                for known in self.known.values_mut() {
                    let covers = |(at, handed): (&u64, &Handed)| {
                        *at == delivery || (*at < delivery && handed.link == app && !handed.refused)
                    };
                    known.covered |= known.deliveries.iter().any(covers);
                }
            }
            3 | 4 => {
                let handed = known.deliveries.get_mut(&delivery).expect("it was handed over");
                handed.refused = true;
            }
            _ => {
                // Of a letter it changes nothing, and another replay of it may be to come.
                if known.acked.is_none() && !known.covered && !known.replayed {
                    known.rejected = Some(true);
                }
            }
        }
    }

    /// The error that answers what was said last; what else comes is heard.
    fn errors(&mut self, app: LinkId) -> Option<String> {
        let said = self.world.said(app);
        let (errors, rest): (Vec<Value>, Vec<Value>) =
            said.into_iter().partition(|frame| frame["type"] == "ERR");
        self.world.put_back(app, &rest);
        errors.first().map(|error| format!("{} {}", error["code"], error["message"]))
    }

    /// The application acknowledges everything from now on, and the operator replays all letters.
    fn end(&mut self) {
        self.tell("the end");
        self.settle();
        self.connect();
        for _ in 0..40 {
            self.settle();
            self.world.pass(Duration::from_secs(70));
            self.settle();
            self.acknowledge_all();
        }
        let letters = self.letters();
        let sum: u64 = self.world.status().dead_letters.values().sum::<u64>()
            + self
                .world
                .status()
                .sessions
                .iter()
                .flat_map(|it| it.dead_letters.values())
                .sum::<u64>();
        self.check(sum == letters.len() as u64, "letters are counted as they are listed");
        let ids: Vec<&String> = self.known.keys().collect();
        for id in ids {
            let known = &self.known[id];
            let is_letter = letters.iter().any(|(_, named)| named == id);
            let ended = known.acked.is_some() || known.covered || known.purged || is_letter;
            self.check(ended, &format!("{id} is lost: {known:?}"));
            let left = is_letter && known.acked == Some(true);
            self.check(!left, &format!("{id} is acknowledged, and left behind: {letters:?}"));
            let twice = letters.iter().filter(|(_, named)| named == id).count();
            self.check(twice <= 1, &format!("{id} is more than one dead letter"));
        }
        let sessions = self.world.status().sessions;
        let session = sessions.iter().find(|it| it.name == "app:pi").expect("it is there");
        let (in_flight, behind) = (session.in_flight, session.behind);
        self.check(in_flight == 0 && behind == 0, &format!("left: {in_flight} {behind}"));
    }

    fn acknowledge_all(&mut self) {
        let app = self.app.expect("it is connected");
        let deliveries = self.known.iter();
        let here = |handed: &Handed| handed.link == app;
        let open: Vec<(String, u64)> = deliveries
            .flat_map(|(id, known)| {
                let of_it = known.deliveries.iter().filter(|(_, handed)| here(handed));
                of_it.map(|(delivery, _)| (id.clone(), *delivery))
            })
            .collect();
        for (id, delivery) in open {
            self.world.text(app, &format!(r#"{{"type":"ACK","deliveryId":{delivery}}}"#));
            let error = self.errors(app);
            self.tell(&format!("  ack {delivery} {id} {error:?}"));
            let known = self.known.get_mut(&id).expect("it was published");
            if error.is_none() {
                known.acked = Some(true);
                known.deliveries.remove(&delivery);
            }
        }
        self.settle();
    }
}

// keeps: one-letter
#[test]
fn no_order_of_words_loses_or_repeats_a_message() {
    for seed in 0..ORDERS {
        let mut order = Order::new(seed);
        for _ in 0..STEPS {
            order.step();
        }
        order.end();
    }
}
