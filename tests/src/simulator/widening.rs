//! What some seeds draw besides, each from a source of its own, so that the other seeds stay what
//! they were: addresses of peers that change, both ends of a link that dial at the same moment,
//! applications beyond `limits.max_connections`, and tags in the hundreds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use super::application::{App, Consumer};
use super::counts::Sometimes;
use super::network::{Conn, ConnId};
use super::plan::{Micros, SECOND};
use super::random::Random;
use super::world::{Event, World};

const MOVES: u64 = 0x6d6f_7665_0000_0004;
const CROSSINGS: u64 = 0x6372_6f73_0000_0012;
const CROWDS: u64 = 0x6372_6f77_0000_0008;
const TAGS: u64 = 0x7461_6773_0000_0004;

/// At how many of a thousand seeds each is drawn.
const SO_MANY: u64 = 100;

/// Dials that both ends of a link make within this time come to something at the same moment.
const AT_ONCE: Micros = SECOND;
/// Applications that come besides where a node has room for fewer.
const CROWD: usize = 3;
/// What the names of many tags are made of, with a number behind.
const MANY: usize = 1_400;
/// What every node takes of an application, or a message, where that is drawn.
pub const MAX_TAGS: usize = 1_200;
/// Tags of one application: more than the record of its node takes, which is 1,024.
const OF_ONE: usize = 1_100;

/// What a seed draws besides.
#[derive(Debug, Clone, Default)]
pub struct Widening {
    /// Mean time between two changes of the address of a peer.
    pub moves: Option<Micros>,
    /// Mean time between two losses of both links of two nodes that dial each other.
    pub crossings: Option<Micros>,
    /// The node that has room for its own applications only, and more come.
    pub crowd: Option<usize>,
    /// The node whose applications have tags in the hundreds.
    pub tags: Option<usize>,
}

/// What is drawn while such a seed runs, and what has become of it.
#[derive(Debug)]
pub struct Widened {
    random: Random,
    /// Which spelling of an address a node knows its peer by; none: the first.
    spellings: Vec<((usize, usize), u64)>,
    /// Peers that a node has two entries for, or none, until the change is done.
    changing: Vec<((usize, usize), Change)>,
    /// When the last dial came to something, from where and to where.
    last_dial: (Micros, usize, usize),
    /// Connections that an end has closed because there was another one, and which end.
    surplus: BTreeMap<ConnId, usize>,
}

/// How the address of a peer changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The new entry is added, and the old one, of this spelling, goes later.
    Added(u64),
    /// The entry is taken out, and put back later.
    TakenOut,
}

impl Widening {
    /// What this seed draws besides.
    pub fn draw(seed: u64, nodes: usize) -> Self {
        let drawn = |which: u64| {
            let mut random = Random::new(seed ^ which);
            random.chance(SO_MANY).then_some(random)
        };
        let mean = |mut random: Random| random.between(2, 10) * SECOND;
        let node = |mut random: Random| random.index(nodes);
        Self {
            moves: drawn(MOVES).map(mean),
            crossings: drawn(CROSSINGS).map(mean),
            crowd: drawn(CROWDS).map(node),
            tags: drawn(TAGS).map(node),
        }
    }
}

impl Widened {
    /// Nothing has happened yet.
    pub fn new(seed: u64) -> Self {
        let random = Random::new(seed ^ MOVES ^ CROSSINGS);
        let (spellings, changing) = (Vec::new(), Vec::new());
        Self { random, spellings, changing, last_dial: (0, 0, 0), surplus: BTreeMap::new() }
    }
}

impl fmt::Display for Widening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { moves, crossings, crowd, tags } = self;
        let seconds = |mean: &Micros| mean / SECOND;
        if let Some(mean) = moves {
            writeln!(f, "  addresses of peers change every {} s", seconds(mean))?;
        }
        if let Some(mean) = crossings {
            writeln!(f, "  both ends dial, and lose their links every {} s", seconds(mean))?;
        }
        if let Some(site) = crowd {
            writeln!(f, "  more applications come to node {site} than it takes")?;
        }
        if let Some(site) = tags {
            writeln!(f, "  applications of node {site} have tags in the hundreds")?;
        }
        Ok(())
    }
}

/// Many tags.
fn many_tags() -> &'static [String] {
    static NAMES: LazyLock<Vec<String>> =
        LazyLock::new(|| (0..MANY).map(|number| format!("t{number:04}")).collect());
    &NAMES
}

impl World {
    /// Arranges the first of what this seed draws besides.
    pub fn arrange_widening(&mut self) {
        for (mean, event) in [
            (self.plan.widening.moves, Event::MovePeer),
            (self.plan.widening.crossings, Event::LoseBoth),
        ] {
            self.arrange_widened(mean, event);
        }
    }

    fn arrange_widened(&mut self, mean: Option<Micros>, event: Event) {
        if let Some(mean) = mean {
            let after = 1 + self.widened.random.below(2 * mean);
            self.at(after, event);
        }
    }

    /// The URLs under which a node has this peer among its entries.
    pub fn entries(&self, from: usize, to: usize) -> Vec<String> {
        let of = |(edge, _): &&((usize, usize), u64)| *edge == (from, to);
        let spelling = self.widened.spellings.iter().find(of).map_or(0, |(_, spelling)| *spelling);
        let changing = self.widened.changing.iter().find(|(edge, _)| *edge == (from, to));
        match changing.map(|(_, change)| *change) {
            None => vec![url(to, spelling)],
            Some(Change::Added(old)) => vec![url(to, old), url(to, spelling)],
            Some(Change::TakenOut) => Vec::new(),
        }
    }

    /// The address of some peer changes by reload, mostly while the peer is away.
    pub fn move_peer(&mut self) {
        let there = |edge: &&(usize, usize)| !self.removed[edge.0] && !self.removed[edge.1];
        let edges: Vec<_> = self.edges.iter().filter(there).copied().collect();
        if self.healed {
            return;
        }
        self.arrange_widened(self.plan.widening.moves, Event::MovePeer);
        if edges.is_empty() {
            return;
        }
        let edge = self.widened.random.pick(&edges);
        let (from, to) = edge;
        if self.widened.changing.iter().any(|(of, _)| *of == edge) {
            return;
        }
        if self.widened.random.chance(700) {
            self.kill(to, false);
        }
        let place = self.widened.spellings.iter().position(|(of, _)| *of == edge);
        let place = place.unwrap_or_else(|| {
            self.widened.spellings.push((edge, 0));
            self.widened.spellings.len() - 1
        });
        let old = self.widened.spellings[place].1;
        let change = match self.widened.random.below(3) {
            0 => None,
            1 => Some(Change::Added(old)),
            _ => Some(Change::TakenOut),
        };
        if change != Some(Change::TakenOut) {
            self.widened.spellings[place].1 = old + 1;
        }
        self.say(|world| {
            let (from, to) = (&world.names[from], &world.names[to]);
            format!("{from} has the address of {to} changed: {change:?}")
        });
        if let Some(change) = change {
            self.widened.changing.push((edge, change));
            let after = self.widened.random.between(100_000, 8 * SECOND);
            self.at(after, Event::Moved(edge));
        }
        self.counts.sometimes(Sometimes::PeerMoved);
        if self.links_between(from, to).is_empty() {
            self.counts.sometimes(Sometimes::PeerMovedWhileAway);
        }
        self.reload(from);
    }

    /// The second step of such a change is made.
    pub fn moved(&mut self, edge: (usize, usize)) {
        let before = self.widened.changing.len();
        self.widened.changing.retain(|(of, _)| *of != edge);
        if self.widened.changing.len() < before {
            self.reload(edge.0);
        }
    }

    /// Every address stays as it is from now on, and the crowd leaves.
    pub fn settle_widening(&mut self) {
        for (edge, _) in self.widened.changing.clone() {
            self.moved(edge);
        }
        let Some(site) = self.plan.widening.crowd else { return };
        for index in 0..self.apps.len() {
            if self.apps[index].crowds && self.apps[index].site == site {
                self.apps[index].gone = true;
                if let Some(conn) = self.apps[index].link {
                    self.cut(conn);
                }
            }
        }
    }

    /// Connections of which both ends are there, between two nodes.
    pub fn links_between(&self, a: usize, b: usize) -> Vec<ConnId> {
        let pairs = [[Some(a), Some(b)], [Some(b), Some(a)]];
        let between = self.network.conns.iter().filter(|(_, conn)| pairs.contains(&conn.sites()));
        between.filter(|(_, conn)| conn.alive == [true; 2]).map(|(number, _)| number).collect()
    }

    /// Two nodes that dial each other lose their links at the same moment, and both dial again.
    pub fn lose_both(&mut self) {
        if self.healed {
            return;
        }
        self.arrange_widened(self.plan.widening.crossings, Event::LoseBoth);
        if self.edges.is_empty() {
            return;
        }
        let (from, to) = self.widened.random.pick(&self.edges.clone());
        for conn in self.links_between(from, to) {
            for side in 0..2 {
                self.empty(conn, side);
                self.at(1, Event::Gone { conn, side, code: None, reason: "reset" });
            }
        }
    }

    /// So much later a dial comes to something where both ends dial at once.
    pub fn at_once(&self, from: usize, to: Option<usize>, after: Micros) -> Micros {
        let both = to.is_some_and(|to| self.edges.contains(&(to, from)));
        if self.plan.widening.crossings.is_none() || !both {
            return after;
        }
        (self.now + after).next_multiple_of(AT_ONCE) - self.now
    }

    /// Takes note of a dial that has come to something at the moment of the one the other way.
    pub fn note_crossing(&mut self, from: usize, to: usize) {
        if self.widened.last_dial == (self.now, to, from) {
            self.counts.sometimes(Sometimes::DialsCrossed);
        }
        self.widened.last_dial = (self.now, from, to);
    }

    /// The end at this side closes a connection because there is another one between the two nodes:
    /// that one is not closed by the other end for the same reason, or none would be left.
    pub fn note_surplus(&mut self, conn: ConnId, side: usize) {
        self.widened.surplus.entry(conn).or_insert(side);
        let Some([Some(a), Some(b)]) = self.network.conns.get(&conn).map(Conn::sites) else {
            return;
        };
        let are_twins = self.twins.is_some_and(|twins| {
            [a, b].iter().any(|site| [twins.original, twins.twin].contains(site))
        });
        if are_twins {
            return;
        }
        let me = if side == 0 { a } else { b };
        let others = self.network.conns.iter().filter(|(number, other)| {
            let is_between = [[Some(a), Some(b)], [Some(b), Some(a)]].contains(&other.sites());
            let mine = usize::from(other.sites()[1] == Some(me));
            *number != conn && is_between && other.alive[mine]
        });
        let is_surplus_there = others.map(|(number, other)| {
            let theirs = usize::from(other.sites()[0] == Some(me));
            self.widened.surplus.get(&number) == Some(&theirs)
        });
        // None: it is gone already.
        if is_surplus_there.reduce(|a, b| a && b) == Some(true) {
            let (a, b) = (self.names[a].clone(), self.names[b].clone());
            let what = format!("{a} and {b} have each closed one of their links for the other one");
            self.fail("P13 one of two links stays", what, vec![a, b]);
        }
    }

    /// More applications than a node takes, besides its own.
    pub fn add_crowd(&mut self, site: usize) {
        if self.plan.widening.crowd != Some(site) {
            return;
        }
        // The program that publishes through both nodes of a group comes with the second one.
        let to_come = usize::from(site == 0 && self.plan.group);
        let own = self.apps.iter().filter(|app| app.site == site).count() + to_come;
        self.sites[site].config.limits.max_connections = own;
        for _ in 0..CROWD {
            let index = self.apps.len();
            let consumer = Consumer::Prompt;
            self.apps.push(App { consumer, crowds: true, ..App::blank(index, site) });
        }
    }

    /// Gives an application tags in the hundreds, if it is one of those.
    pub fn tag(&self, app: App) -> App {
        if self.plan.widening.tags != Some(app.site) {
            return app;
        }
        let first = (app.index * 200) % (MANY - OF_ONE);
        let tags = many_tags()[first..first + OF_ONE].iter().map(String::as_str).collect();
        let client = Some(format!("pi-{}", app.index));
        App { client, tags: Some(tags), ..app }
    }

    /// The tags of a message, which may be one of the many.
    pub fn target(&mut self, drawn: &str, key: u64) -> String {
        if self.plan.widening.tags.is_none() {
            return drawn.into();
        }
        let number = if self.plan.fixed_tags { key } else { self.widened.random.next() };
        if number % 3 != 0 {
            return drawn.into();
        }
        many_tags()[(number / 3).wrapping_mul(37) as usize % MANY].clone()
    }

    /// No more applications are taken than there is room for.
    pub fn check_crowd(&mut self, site: usize) {
        if self.plan.widening.crowd != Some(site) {
            return;
        }
        let Some(process) = &self.sites[site].process else { return };
        let admitted = process.links.iter().filter(|(link, conn)| {
            let to_app = |conn: &super::network::Conn| {
                conn.ends.iter().any(|end| matches!(end, super::network::End::App(_)))
            };
            process.admitted.contains(link)
                && !process.closed.contains(link)
                && self.network.conns.get(conn).is_some_and(to_app)
        });
        let (count, max) = (admitted.count(), self.sites[site].config.limits.max_connections);
        if count > max {
            let name = self.names[site].clone();
            let what = format!("{name} has taken {count} applications, and has room for {max}");
            self.fail("P8 bounded", what, vec![name]);
        }
    }
}

/// An address of a site: each spelling leads there.
fn url(site: usize, spelling: u64) -> String {
    match spelling % 3 {
        0 if spelling == 0 => format!("ws://site-{site}:7400/"),
        0 => format!("ws://site-{site}.{spelling}:7400/"),
        1 => format!("ws://SITE-{site}:7400/"),
        _ => format!("ws://site-{site}.alias{spelling}:7400"),
    }
}

/// The site that a URL leads to.
pub fn site_of(url: &str) -> Option<usize> {
    let host = url.strip_prefix("ws://")?.to_ascii_lowercase();
    let number = host.strip_prefix("site-")?;
    number.split(['.', ':']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_address_leads_to_its_site() {
        let urls: Vec<String> = (0..7).map(|spelling| url(12, spelling)).collect();
        assert!(urls.iter().all(|url| site_of(url) == Some(12)), "{urls:?}");
        assert!(urls.windows(2).all(|pair| pair[0] != pair[1]), "{urls:?}");
    }

    #[test]
    fn one_application_has_more_tags_than_a_record_takes() {
        assert!((slipstream_core::message::MAX_TAGS..=MAX_TAGS).contains(&OF_ONE) && OF_ONE < MANY);
    }
}
