//! The second phase: everything heals, nothing new is published, and the mesh must settle.

use slipstream_core::admin::{AdminRequest, SessionStatus, Status};
use slipstream_core::ids::DeadLetterId;

use super::Depth;
use super::application::Consumer;
use super::plan::SECOND;
use super::world::World;

/// How long the mesh may take to settle.
const PATIENCE: u64 = 400;
/// How long it is looked at whether a settled mesh is quiet, by the depth of the run.
const QUIET: (u64, u64) = (3, 10);
/// Dead letters that the operator looks at in one go.
const PURGED_AT_ONCE: usize = 100;

impl World {
    /// The nodes that ask for an operator's word on their clocks.
    fn doubting(&self) -> Vec<usize> {
        let asks = |status: &Status| {
            status.refusing.as_ref().is_some_and(|why| why.contains("clock reset"))
        };
        let asking = self.statuses.iter().filter(|(_, status)| asks(status));
        asking.map(|(site, _)| *site).collect()
    }

    /// Heals everything, waits until nothing is owed any more, and looks at the result.
    pub fn heal(&mut self) {
        if self.failure.is_some() {
            return;
        }
        self.say(|_| "everything heals".into());
        self.healed = true;
        self.mend();
        self.settle_widening();
        self.end_twin();
        let mut settled = 0;
        let mut owed = String::new();
        for second in 0..PATIENCE {
            if second == PATIENCE / 2 {
                self.end_dying();
            }
            let doubting = self.doubting();
            self.statuses.clear();
            for site in 0..self.sites.len() {
                self.ask(site, AdminRequest::Status);
                self.make_room(site);
                self.reset_clock(site, doubting.contains(&site));
            }
            self.run_until(self.now + SECOND);
            if self.failure.is_some() {
                return;
            }
            match self.unsettled() {
                None => settled += 1,
                Some(what) => (settled, owed) = (0, what),
            }
            if settled == 2 {
                break;
            }
        }
        if settled < 2 {
            let what = format!("{PATIENCE} s after healing: {owed}");
            self.fail("P2 after healing everything settles", what, Vec::new());
            return;
        }
        let quiet = match self.depth {
            Depth::Quick => QUIET.0,
            Depth::Thorough => QUIET.1,
        };
        loop {
            let sent = self.counts.volume.get("messages sent").copied();
            let accepted = self.ledger.messages.len();
            self.run_until(self.now + quiet * SECOND);
            // A publisher may have come back only now, and sent again what was not answered.
            if self.failure.is_none() && self.ledger.messages.len() > accepted {
                continue;
            }
            if self.failure.is_none() && self.counts.volume.get("messages sent").copied() != sent {
                let what = "a mesh that has settled goes on sending messages".into();
                self.fail("P13 no livelock", what, Vec::new());
            }
            break;
        }
        self.judge();
    }

    /// Whoever dies of some messages is mended, too: with many of them, and as many attempts at
    /// each, it would not get to the end of what it is owed in time.
    fn end_dying(&mut self) {
        let dying = self.apps.iter_mut().filter(|app| app.consumer == Consumer::Mortal);
        dying.for_each(|app| app.consumer = Consumer::Prompt);
    }

    /// The operator purges the dead letters where they may fill the store, or hold their session.
    fn make_room(&mut self, site: usize) {
        let settings = &self.plan.settings;
        if settings.max_bytes.is_some() || settings.session_max.is_some() {
            let after = DeadLetterId::default();
            self.ask(site, AdminRequest::DeadLetters { after, limit: PURGED_AT_ONCE });
        }
    }

    fn mend(&mut self) {
        self.move_on();
        for site in 0..self.sites.len() {
            self.set_clock_right(site);
        }
        self.liar_leaves();
        for site in 0..self.sites.len() {
            let disk = &mut self.sites[site].disk;
            (disk.full, disk.fails, disk.slow) = (false, false, 0);
            let clock = &mut self.sites[site].clock;
            (clock.jump_ms, clock.stopped_at) = (0, None);
            self.sites[site].frozen_until = 0;
        }
        for app in 0..self.apps.len() {
            match self.apps[app].consumer {
                // Who never acknowledges goes on so: the others must not feel it. And what an
                // application dies of must come to an end.
                Consumer::Mute | Consumer::Prompt | Consumer::Mortal => {}
                Consumer::Slow(_) | Consumer::Fickle | Consumer::Cumulative | Consumer::Lazy => {
                    self.apps[app].consumer = Consumer::Prompt;
                }
            }
            if let Some(conn) = self.apps[app].link {
                self.set_paused(conn, 1, false);
            }
        }
    }

    /// What is not settled yet, in words.
    fn unsettled(&mut self) -> Option<String> {
        self.forget_who_left();
        let is_half = |conn: &super::network::Conn| conn.alive[0] != conn.alive[1];
        if self.network.conns.iter().any(|(_, conn)| is_half(conn)) {
            return Some("an end of a dead connection has not noticed".into());
        }
        for site in 0..self.sites.len() {
            if self.removed[site] {
                continue;
            }
            let name = &self.names[site];
            let Some(status) = self.statuses.get(&site) else {
                return Some(format!("{name} gives no status"));
            };
            if let Some(refusing) = &status.refusing {
                return Some(format!("{name} refuses publishers: {refusing}"));
            }
            if let Some(what) = self.unsettled_at(site, status) {
                return Some(format!("{name}: {what}"));
            }
        }
        None
    }

    fn unsettled_at(&self, site: usize, status: &Status) -> Option<String> {
        let linked =
            |a: usize, b: usize| self.edges.contains(&(a, b)) || self.edges.contains(&(b, a));
        for other in (0..self.sites.len()).filter(|other| linked(site, *other)) {
            let name = format!("peer:{}", self.names[other]);
            let session = status.sessions.iter().find(|session| session.name == name);
            if !session.is_some_and(|session| session.connected) {
                return Some(format!("no link to {}", self.names[other]));
            }
            if self.links_between(site, other).len() > 1 {
                return Some(format!("more than one link to {}", self.names[other]));
            }
            let compared = session.and_then(|session| session.digests).unwrap_or_default();
            if compared != "equal" {
                return Some(format!("digests of {}: {compared}", self.names[other]));
            }
        }
        for app in self.apps.iter().filter(|app| app.site == site && !app.gone) {
            if !app.greeted {
                return Some(format!("{} is not greeted", app.name()));
            }
        }
        let busy = |session: &&SessionStatus| {
            session.connected && (session.in_flight > 0 || session.behind > 0)
        };
        let waits = |session: &&SessionStatus| !self.is_mute(site, &session.name);
        let session = status.sessions.iter().filter(waits).find(busy)?;
        Some(format!(
            "{} has {} in flight and is {} behind",
            session.name, session.in_flight, session.behind
        ))
    }

    fn is_mute(&self, site: usize, session: &str) -> bool {
        let here = |app: &&super::application::App| app.site == site && app.manual;
        let named = self.apps.iter().filter(here).find(|app| {
            app.client.as_ref().is_some_and(|client| session == format!("app:{client}"))
        });
        match named {
            Some(app) => app.consumer == Consumer::Mute,
            // An unnamed one cannot be told from the others.
            None => {
                session.starts_with("link:")
                    && self
                        .apps
                        .iter()
                        .filter(here)
                        .any(|app| app.client.is_none() && app.consumer == Consumer::Mute)
            }
        }
    }

    /// The operator ends the sessions of those that will not come back.
    fn forget_who_left(&mut self) {
        let gone = |app: &&super::application::App| app.gone && app.client.is_some();
        let names: Vec<(usize, String)> = self
            .apps
            .iter()
            .filter(gone)
            .map(|app| (app.site, format!("app:{}", app.client.clone().unwrap_or_default())))
            .collect();
        for (site, name) in names {
            self.forget(site, name);
        }
        let lost: Vec<String> = (0..self.sites.len())
            .filter(|site| self.removed[*site] && !self.is_twin(*site))
            .map(|site| format!("peer:{}", self.names[site]))
            .chain([format!("peer:{}", super::liar::NAME)])
            .collect();
        for site in 0..self.sites.len() {
            for name in &lost {
                self.forget(site, name.clone());
            }
        }
    }

    fn forget(&mut self, site: usize, name: String) {
        let known = self.statuses.get(&site).is_some_and(|status| {
            status.sessions.iter().any(|session| session.name == name && !session.connected)
        });
        if known {
            self.ask(site, AdminRequest::ForgetSession(name));
        }
    }
}
