//! Real faults on real processes: one file a kind of fault, one function a story.
//!
//! Each story counts the faults that really struck, says so on standard error, and fails if one
//! of its kinds never did.

pub mod clock;
pub mod crash;
pub mod damage;
pub mod descriptors;
pub mod disk;
pub mod files;
pub mod hang;
pub mod links;
pub mod slow;
pub mod storm;
pub mod sync;
pub mod twins;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{
    App, Daemon, Message, NodeConfig, PATIENCE, Published, Publisher, Subscriber, announce, until,
};

use super::load;

/// How often each kind of fault struck.
#[derive(Debug, Default)]
struct Tally {
    struck: BTreeMap<String, usize>,
}

impl Tally {
    /// Makes a kind known, before it strikes or does not.
    fn expect(&mut self, kind: &str) {
        self.struck.entry(kind.to_owned()).or_default();
    }

    fn count(&mut self, kind: &str) {
        *self.struck.entry(kind.to_owned()).or_default() += 1;
    }

    /// Says what struck how often.
    ///
    /// # Panics
    /// If a kind struck less than `least` times.
    fn report(&self, story: &str, least: usize) {
        let all: Vec<_> =
            self.struck.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        announce(&format!("{story}: {}", all.join(", ")));
        for (kind, count) in &self.struck {
            assert!(*count >= least, "{story}: {kind} struck {count} times, not {least}");
        }
    }
}

/// A publisher that goes on until it is told to stop, with a key of its own for every message.
#[derive(Debug)]
struct Traffic {
    stop: Arc<AtomicBool>,
    publisher: Publisher,
}

impl Traffic {
    /// A message every `pace`, at most, of ids that begin with `name`.
    fn start(node: &Daemon, name: &str, pace: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let messages = load(name, usize::MAX).take_while(move |_| {
            thread::sleep(pace);
            !told.load(Ordering::SeqCst)
        });
        let publisher = Publisher::with_window(node, &format!("traffic-{name}"), 4, messages);
        Self { stop, publisher }
    }

    /// Waits until there are `more` receipts than now.
    fn goes_on(&self, more: usize) {
        let now = self.publisher.receipts();
        until("traffic to go on", PATIENCE, || self.publisher.receipts() >= now + more);
    }

    fn stop(self) -> Published {
        self.stop.store(true, Ordering::SeqCst);
        self.publisher.finish()
    }
}

/// Publishes one command at a node and waits until a watcher elsewhere has it.
fn probe(from: &Daemon, to: &Subscriber, id: &str) {
    let mut app = App::connect(from, "client=probe&keys=");
    app.publish(&Message::event(id, format!("probe/{id}"), "1"));
    until(&format!("{id} to arrive"), PATIENCE, || to.has(id));
}

/// A configuration whose links notice silence within two seconds.
fn quick(config: NodeConfig) -> NodeConfig {
    config
        .text("heartbeat.interval", "250ms")
        .text("heartbeat.timeout", "1500ms")
        .text("reconnect.max", "200ms")
}

/// A newcomer is handed exactly the messages under `prefix` that were published, as they were.
fn holds_exactly<'a>(
    node: &Daemon,
    prefix: &str,
    published: impl Iterator<Item = &'a str>,
    made: &[Message],
) {
    let handed = App::connect(node, &format!("replay=all&keys={prefix}")).replay();
    let made: HashMap<_, _> = made.iter().map(|one| (one.id(), one.value())).collect();
    let mut receipts: Vec<_> = published.collect();
    let mut ids: Vec<_> = handed.iter().map(|one| one.id()).collect();
    receipts.sort_unstable();
    ids.sort_unstable();
    assert_eq!(ids, receipts, "{prefix} at {}", node.config.id);
    for one in &handed {
        assert_eq!(Some(&one.value_text()), made.get(one.id()), "{one:?}");
    }
}
