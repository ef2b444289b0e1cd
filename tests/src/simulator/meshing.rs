//! The mesh changes while it runs: nodes and links are added and removed for good, and operators
//! ask and order.

use slipstream_core::admin::{AdminAnswer, AdminRequest, SessionStatus, Status};
use slipstream_core::ids::{DeadLetterId, Ticket};
use slipstream_core::io::Input;

use super::counts::Sometimes;
use super::facts::Fact;
use super::plan::SECOND;
use super::widening::site_of;
use super::world::{Event, Over, World};

/// Tickets of questions, by what they ask.
const STATUS: Ticket = Ticket::new(1);
const DEAD_LETTERS: Ticket = Ticket::new(2);
const ORDER: Ticket = Ticket::new(3);
/// How often it is looked whether a node that is to go has handed everything on.
const REMOVAL_TRIES: u32 = 10;

impl World {
    /// The URLs that a node dials.
    pub fn urls_of(&self, site: usize) -> Vec<String> {
        let targets = self.edges.iter().filter(|(from, _)| *from == site);
        targets.flat_map(|(_, to)| self.entries(site, *to)).collect()
    }

    /// The site that a URL leads to.
    pub fn site_of_url(&self, url: &str) -> Option<usize> {
        site_of(url).filter(|site| *site < self.sites.len())
    }

    /// A node joins that was never there before.
    pub fn add_node(&mut self) -> bool {
        let site = self.sites.len();
        if site >= self.plan.tags.len() {
            return false;
        }
        let there: Vec<usize> = (0..site).filter(|other| !self.removed[*other]).collect();
        for _ in 0..2 {
            let other = self.random.pick(&there);
            let edge = if self.random.chance(500) { (site, other) } else { (other, site) };
            if !self.edges.contains(&edge) {
                self.edges.push(edge);
                self.reload(edge.0);
            }
        }
        self.counts.sometimes(Sometimes::LateNode);
        self.say(|world| format!("{} joins", world.name_for(site)));
        self.add_site(site);
        true
    }

    /// Two nodes are linked that were not.
    pub fn add_link(&mut self) -> bool {
        let (a, b) = (self.random.index(self.sites.len()), self.random.index(self.sites.len()));
        let linked = self.edges.contains(&(a, b)) || self.edges.contains(&(b, a));
        if a == b || linked || self.removed[a] || self.removed[b] {
            return false;
        }
        self.edges.push((a, b));
        self.say(|world| format!("{} dials {} from now on", world.names[a], world.names[b]));
        self.reload(a);
        true
    }

    /// A link is removed, if the mesh holds together without it.
    pub fn remove_link(&mut self) -> bool {
        if self.edges.is_empty() {
            return false;
        }
        let place = self.random.index(self.edges.len());
        let (a, b) = self.edges[place];
        let others = |edge: &(usize, usize)| *edge != (a, b) && *edge != (b, a);
        let left: Vec<_> = self.edges.iter().copied().filter(others).collect();
        if !self.holds_together(&left) {
            return false;
        }
        self.edges = left;
        self.say(|world| format!("{} and {} are linked no more", world.names[a], world.names[b]));
        self.reload(a);
        self.reload(b);
        true
    }

    fn holds_together(&self, edges: &[(usize, usize)]) -> bool {
        let there: Vec<usize> = (0..self.sites.len()).filter(|site| !self.removed[*site]).collect();
        // Several removals may be under way at once.
        let Some(first) = there.first() else { return false };
        let mut reached = vec![*first];
        let mut next = 0;
        while next < reached.len() {
            let from = reached[next];
            next += 1;
            for (a, b) in edges {
                let other = if *a == from { *b } else { *a };
                if (*a == from || *b == from) && !reached.contains(&other) {
                    reached.push(other);
                }
            }
        }
        there.iter().all(|site| reached.contains(site))
    }

    /// The peers of a node are as its edges say, now and after a restart.
    pub fn reload(&mut self, site: usize) {
        if site >= self.sites.len() {
            return;
        }
        let peers = self.urls_of(site);
        let tags = self.sites[site].config.tags.clone();
        self.sites[site].config.peers = peers.clone();
        self.give(site, Input::Reconfigure { peers, tags });
    }

    /// A node is to go: its applications leave, and it is looked whether it has handed on all.
    pub fn begin_removal(&mut self) -> bool {
        let there: Vec<usize> = (0..self.sites.len()).filter(|site| !self.removed[*site]).collect();
        if there.len() < 3 || self.sites.iter().any(|site| site.removed) {
            return false;
        }
        let site = self.random.pick(&there);
        let left: Vec<_> =
            self.edges.iter().copied().filter(|(a, b)| *a != site && *b != site).collect();
        self.removed[site] = true;
        let fine = self.holds_together(&left);
        self.removed[site] = false;
        if !fine {
            return false;
        }
        self.say(|world| format!("{} is to go", world.names[site]));
        for app in 0..self.apps.len() {
            if self.apps[app].site == site {
                self.apps[app].gone = true;
                if let Some(conn) = self.apps[app].link {
                    self.cut(conn);
                }
            }
        }
        self.at(SECOND, Event::Over(Over::Removal { site, tries: 0 }));
        true
    }

    /// Asks the node that is to go whether it has handed everything on.
    pub fn go_on_removing(&mut self, site: usize, tries: u32) {
        if self.healed || self.removed[site] {
            return;
        }
        let mut drained = false;
        if let Some(status) = self.statuses.remove(&site) {
            let peers = status.sessions.iter().filter(|session| session.role == "peer");
            let busy = |session: &SessionStatus| {
                !session.connected || session.in_flight > 0 || session.behind > 0
            };
            drained = !peers.clone().any(busy) && peers.count() > 0 && status.refusing.is_none();
        }
        if drained || tries == REMOVAL_TRIES {
            self.remove_node(site, drained);
            return;
        }
        self.ask(site, AdminRequest::Status);
        self.at(SECOND, Event::Over(Over::Removal { site, tries: tries + 1 }));
    }

    fn remove_node(&mut self, site: usize, drained: bool) {
        let left: Vec<_> =
            self.edges.iter().copied().filter(|(a, b)| *a != site && *b != site).collect();
        self.removed[site] = true;
        if !self.holds_together(&left) {
            // Links were removed meanwhile: the others need it.
            self.removed[site] = false;
            return;
        }
        self.say(|world| format!("{} is removed, drained: {drained}", world.names[site]));
        if !drained {
            // What only it held is gone.
            self.ledger.destroyed(&self.removed, self.now);
        }
        self.removed[site] = true;
        self.sites[site].removed = true;
        self.end(site, false);
        self.edges.retain(|(a, b)| *a != site && *b != site);
        for other in 0..self.sites.len() {
            self.reload(other);
        }
    }

    /// An operator asks a node something.
    pub fn ask(&mut self, site: usize, request: AdminRequest) {
        let ticket = match request {
            AdminRequest::Status => STATUS,
            AdminRequest::DeadLetters { .. } => DEAD_LETTERS,
            AdminRequest::Where { .. }
            | AdminRequest::DeadLetterList { .. }
            | AdminRequest::ReplayDeadLetter(_)
            | AdminRequest::PurgeDeadLetter(_)
            | AdminRequest::ForgetSession(_)
            | AdminRequest::Digests(_)
            | AdminRequest::ResetClock => ORDER,
        };
        self.give(site, Input::Admin { ticket, request });
    }

    /// A node answers an operator.
    pub fn answered(&mut self, site: usize, ticket: Ticket, answer: AdminAnswer) {
        match answer {
            AdminAnswer::Status(status) => {
                self.note_counters(&status);
                self.statuses.insert(site, *status);
            }
            AdminAnswer::DeadLetters(letters) => {
                if letters.is_empty() || ticket != DEAD_LETTERS {
                    return;
                }
                if self.healed {
                    for (_, letter) in letters {
                        self.ask(site, AdminRequest::PurgeDeadLetter(letter.id));
                    }
                    return;
                }
                let (session, letter) = &letters[self.random.index(letters.len())];
                let request = if self.random.chance(700) {
                    self.counts.sometimes(Sometimes::DeadLetterReplayed);
                    let message = &letter.message;
                    if session == "node" {
                        self.counts.sometimes(Sometimes::UndeliveredReplayed);
                        self.ledger.offered_again.extend(self.ledger.find(message));
                    }
                    self.tell(&Fact::Replayed { site, session, message });
                    AdminRequest::ReplayDeadLetter(letter.id)
                } else {
                    AdminRequest::PurgeDeadLetter(letter.id)
                };
                self.ask(site, request);
            }
            AdminAnswer::Where { .. }
            | AdminAnswer::DeadLetterList(..)
            | AdminAnswer::Digests(_)
            | AdminAnswer::ClockReset { .. }
            | AdminAnswer::Done
            | AdminAnswer::NotFound
            | AdminAnswer::Refused(_) => {}
        }
    }

    fn note_counters(&mut self, status: &Status) {
        let counters = &status.counters;
        let seen = [
            (counters.duplicates["seen"], Sometimes::Duplicate),
            (counters.duplicates["group"], Sometimes::CopySuppressed),
            (counters.loops_prevented, Sometimes::Loop),
            (counters.superseded, Sometimes::Superseded),
            (counters.expired, Sometimes::Expired),
        ];
        let window = self.plan.settings.window;
        let full = |session: &SessionStatus| session.role == "app" && session.in_flight >= window;
        if status.sessions.iter().any(full) {
            self.counts.sometimes(Sometimes::WindowExhausted);
        }
        for (count, event) in seen {
            if count > 0 {
                self.counts.sometimes(event);
            }
        }
    }

    /// Now and then an operator looks after dead letters.
    pub fn look_after_dead_letters(&mut self) {
        if self.healed || !self.random.chance(100) {
            return;
        }
        let site = self.random.index(self.sites.len());
        let after = DeadLetterId::default();
        self.ask(site, AdminRequest::DeadLetters { after, limit: 8 });
        self.ask(site, AdminRequest::Status);
    }
}
