//! SIGKILL again and again, at random nodes and moments, under traffic (P1, P2, P3, P6).

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::Duration;

use crate::harness::{
    App, Daemon, Delivery, LONG, Mesh, Message, PATIENCE, Publisher, Seed, Subscriber,
    each_exactly_once, never_twice_unmarked, paths_are_sound, until,
};

use super::super::{load, nodes};
use super::Tally;

/// Messages with a key of their own, of each publisher.
const EACH: usize = 3_000;
/// Kills; some come in pairs, the second during the recovery.
const KILLS: usize = 24;
/// When a node was killed.
const EARLY: &str = "during recovery";
const LATE: &str = "at work";
/// Keys that all publishers write to.
const HOT_KEYS: usize = 7;

/// Three nodes in a full mesh, published to all the time.
pub fn of_kills(binary: &str) {
    const STORY: &str = "storm of kills";
    let mut seed = Seed::of(STORY);
    let mut tally = Tally::default();
    let configs = nodes(&["aws", "azure", "gcp"]).into_iter();
    let configs = configs.map(|one| one.text("reconnect.max", "200ms")).collect();
    let mut mesh = Mesh::full(binary, configs);
    let watchers: Vec<_> =
        mesh.nodes.iter().map(|node| Subscriber::start(node, "client=watch")).collect();
    let publishers: Vec<_> = mesh
        .nodes
        .iter()
        .map(|node| Publisher::with_window(node, "till", 16, traffic(&node.config.id)))
        .collect();

    tally.expect(EARLY);
    tally.expect(LATE);
    while tally.struck.values().sum::<usize>() < KILLS || tally.struck[EARLY] == 0 {
        thread::sleep(seed.millis(0..120));
        let victim = &mut mesh.nodes[seed.below(3)];
        victim.kill();
        tally.count(LATE);
        while seed.below(3) == 0 {
            tally.count(start_and_kill(victim, seed.millis(0..60)));
        }
        victim.run();
    }

    let published: Vec<_> = publishers.into_iter().map(Publisher::finish).collect();
    assert!(published.iter().all(|one| one.refused.is_empty()), "nothing is refused for good");
    let receipts: HashSet<_> = published.iter().flat_map(|one| one.ids()).collect();
    assert_eq!(receipts.len(), 2 * 3 * EACH);
    let owed: HashSet<_> = receipts.iter().copied().filter(|id| !id.starts_with("hot")).collect();
    let hot = newest(published.iter().flat_map(|one| &one.receipts));
    for (watcher, node) in watchers.into_iter().zip(&mesh.nodes) {
        let id = &node.config.id;
        until(&format!("{id} to have everything"), LONG, || {
            owed.iter().all(|one| watcher.has(one)) && hot.values().all(|one| watcher.has(one))
        });
        let deliveries = watcher.stop();
        never_twice_unmarked(id, &deliveries, owed.iter().copied());
        paths_are_sound(&deliveries, id);
        no_key_goes_back(id, &deliveries);
        let current: Vec<_> = owed.iter().chain(hot.values()).copied().collect();
        let auditor = Subscriber::start(node, "client=auditor");
        auditor.wait_for(id, current.len(), LONG);
        each_exactly_once(id, &auditor.stop(), current);
    }
    tally.report(STORY, 1);
}

/// Starts a node and kills it after a while; whether it was at work by then.
fn start_and_kill(node: &mut Daemon, after: Duration) -> &'static str {
    let starts = |node: &Daemon| node.log().matches(r#""message":"ready""#).count();
    let before = starts(node);
    node.spawn();
    thread::sleep(after);
    node.kill();
    if starts(node) > before { LATE } else { EARLY }
}

/// Every second message is a state of a key that the other publishers write to as well.
fn traffic(of: &str) -> impl Iterator<Item = Message> + Send + use<> {
    let id = of.to_owned();
    load(of, EACH).enumerate().flat_map(move |(number, own)| {
        let key = number % HOT_KEYS;
        let hot = Message::state(format!("hot-{key}-{id}-{number}"), format!("hot/{key}"), "1");
        [own, hot]
    })
}

/// The id with the highest version of each hot key, by what the receipts say.
fn newest<'a>(receipts: impl Iterator<Item = &'a (String, String)>) -> HashMap<&'a str, &'a str> {
    let mut newest: HashMap<&str, (&str, &str)> = HashMap::new();
    for (id, version) in receipts.filter(|(id, _)| id.starts_with("hot")) {
        let key = &id[..id[4..].find('-').map_or(id.len(), |at| at + 4)];
        let best = newest.entry(key).or_default();
        *best = (*best).max((version, id));
    }
    newest.into_iter().map(|(key, (_, id))| (key, id)).collect()
}

/// P6: an application never sees a key go back to an older value.
fn no_key_goes_back(who: &str, deliveries: &[Delivery]) {
    let mut last: HashMap<&str, &str> = HashMap::new();
    for one in deliveries.iter().filter(|one| one.key.starts_with("hot/")) {
        let before = last.insert(&one.key, &one.version);
        assert!(before <= Some(&one.version), "{who}: {} after {before:?}: {one:?}", one.key);
    }
    assert_eq!(last.len(), HOT_KEYS);
}

/// A node is killed while it has an absent application's backlog, a dozen times; at the end the
/// application is handed everything it was owed, once.
pub fn of_kills_during_recovery_alone(binary: &str) {
    let mut seed = Seed::of("kills during recovery");
    let mut mesh = Mesh::line(binary, nodes(&["aws", "azure"]));
    App::connect(&mesh.nodes[1], "client=away").leave();
    mesh.nodes[1].await_away("away");
    let published = Publisher::publish_all(&mesh.nodes[0], "till", load("aws", 5_000));
    let last = published.ids().last().expect("there are receipts").to_owned();
    until("all of it at the peer", PATIENCE, || {
        mesh.nodes[1].admin("GET", &format!("/where/{last}")).body.contains("app:away")
    });
    let node = &mut mesh.nodes[1];
    node.kill();
    let mut tally = Tally::default();
    tally.expect(EARLY);
    for _ in 0..16 {
        tally.count(start_and_kill(node, seed.millis(1..40)));
    }
    node.run();
    let returned = Subscriber::start(node, "client=away");
    returned.wait_for("away", published.receipts.len(), LONG);
    each_exactly_once("away", &returned.stop(), published.ids());
    tally.report("kills during recovery", 1);
}
