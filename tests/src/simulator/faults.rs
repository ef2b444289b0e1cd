//! Faults happen: each kind with the rate that the seed has drawn, on whatever it hits, for as
//! long as it lasts.

use slipstream_core::io::Input;

use super::counts::{Fault, Sometimes};
use super::facts::Fact;
use super::ledger::Place;
use super::network::{ConnId, End};
use super::plan::{Micros, SECOND};
use super::site::{Disk, Site};
use super::world::{Event, Over, World};
use super::wrong_clock;
use crate::world::MemoryStore;

/// Why a connection ends that a proxy has limited; no longer once everything has healed.
pub const LIFE_IS_OVER: &str = "life is over";

/// Jumps of a clock, milliseconds: minutes, days, years, both ways.
const JUMPS_MS: [i64; 6] =
    [90_000, -90_000, 86_400_000, -86_400_000, 3 * 365 * 86_400_000, -3 * 365 * 86_400_000];

impl World {
    /// Arranges the first of each fault that this seed has.
    pub fn arrange_faults(&mut self) {
        for (fault, mean) in self.plan.faults.clone() {
            let after = self.random.below(2 * mean);
            self.at(after, Event::Fault(fault));
        }
    }

    /// A fault is due.
    pub fn fault(&mut self, fault: Fault) {
        let Some(mean) = self.plan.mean(fault).filter(|_| !self.healed) else { return };
        let after = 1 + self.random.below(2 * mean);
        self.at(after, Event::Fault(fault));
        if !self.inject(fault) {
            return;
        }
        self.counts.fault(fault);
        self.trace.mix(&[self.now, 7, fault as u64]);
        let recent = |(other, at): (&Fault, &Micros)| *other != fault && at + SECOND > self.now;
        if self.last_faults.iter().any(recent) {
            self.counts.sometimes(Sometimes::TwoFaults);
        }
        self.last_faults.insert(fault, self.now);
    }

    fn length(&mut self) -> Micros {
        self.random.between(100_000, self.plan.fault_length)
    }

    /// Lets a fault happen. Answers whether there was something to hit, and it is felt at once.
    fn inject(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Cut => self.hit_conn(fault, Self::cut),
            Fault::SilentCut => self.hit_conn(fault, Self::lose),
            Fault::Stall => self.hit_conn(fault, Self::stall),
            Fault::Partition => self.part(),
            Fault::Clog => self.clog(),
            Fault::Kill => self.hit_node(fault, |world, site| world.kill(site, false)),
            Fault::PowerLoss => self.hit_node(fault, |world, site| world.kill(site, true)),
            Fault::Stop => self.hit_node(fault, |world, site| world.give(site, Input::ShutDown)),
            Fault::Freeze => self.hit_node(fault, |world, site| {
                world.sites[site].frozen_until = world.now + world.length();
            }),
            Fault::SlowCommit => {
                let slow = self.random.between(50_000, SECOND);
                self.hit_disk(|disk| disk.slow = slow);
                true
            }
            // Counted when they are felt.
            Fault::DiskFull => {
                self.hit_disk(|disk| disk.full = true);
                false
            }
            Fault::FailedSync => {
                self.hit_disk(|disk| disk.fails = true);
                false
            }
            Fault::Restore => self.restore(),
            Fault::Wipe => self.wipe(),
            Fault::Jump => self.hit_node(fault, Self::jump),
            Fault::ClockStop => self.hit_node(fault, Self::stop_clock),
            Fault::NodeAdded => self.add_node(),
            Fault::NodeRemoved => self.begin_removal(),
            Fault::LinkAdded => self.add_link(),
            Fault::LinkRemoved => self.remove_link(),
            Fault::Lie => self.arrange_lie(),
            Fault::Vanish => self.vanish(),
            Fault::Skew
            | Fault::LifeLimit
            | Fault::Corrupt
            | Fault::KillBetweenOutputs
            | Fault::KillInRecovery => false,
        }
    }

    fn hit_conn(&mut self, fault: Fault, hit: impl FnOnce(&mut Self, ConnId)) -> bool {
        let conns: Vec<ConnId> = self.network.conns.iter().map(|(conn, _)| conn).collect();
        if conns.is_empty() {
            return false;
        }
        let conn = self.random.pick(&conns);
        self.say(|_| format!("conn:{conn} is hit: {}", fault.text()));
        hit(self, conn);
        true
    }

    fn hit_node(&mut self, fault: Fault, hit: impl FnOnce(&mut Self, usize)) -> bool {
        let running = self.sites.iter().filter(|site| site.process.is_some());
        let running: Vec<usize> = running.map(|site| site.index).collect();
        if running.is_empty() {
            return false;
        }
        let site = self.random.pick(&running);
        self.say(|world| format!("{} is hit: {}", world.names[site], fault.text()));
        hit(self, site);
        true
    }

    fn hit_disk(&mut self, hit: impl FnOnce(&mut Disk)) {
        let (site, length) = (self.random.index(self.sites.len()), self.length());
        hit(&mut self.sites[site].disk);
        self.at(length, Event::Over(Over::Disk(site)));
    }

    fn stall(&mut self, conn: ConnId) {
        let (side, until) = (self.random.index(2), self.now + self.length());
        if let Some(found) = self.network.conns.get_mut(&conn) {
            let stalled = &mut found.pipes[side].stalled_until;
            *stalled = (*stalled).max(until);
        }
    }

    /// Nothing arrives any more, and nobody is told.
    fn lose(&mut self, conn: ConnId) {
        self.empty(conn, 0);
        self.empty(conn, 1);
        // An application has no heartbeat here: it notices by itself.
        let Some(ends) = self.network.conns.get(&conn).map(|conn| conn.ends) else { return };
        let (code, reason) = (None, "no answer");
        for (side, end) in ends.iter().enumerate() {
            if !matches!(end, End::Node { .. }) {
                self.at(3 * SECOND, Event::Gone { conn, side, code, reason });
            }
        }
    }

    fn part(&mut self) -> bool {
        let (a, b) = (self.random.index(self.sites.len()), self.random.index(self.sites.len()));
        if a == b {
            return false;
        }
        let until = self.now + self.length();
        self.network.blocked.insert((a, b), until);
        if self.random.chance(700) {
            self.network.blocked.insert((b, a), until);
        }
        self.say(|world| format!("{} and {} are parted", world.names[a], world.names[b]));
        true
    }

    fn clog(&mut self) -> bool {
        let (site, until) = (self.random.index(self.sites.len()), self.now + self.length());
        let outward = self.random.chance(500);
        for other in 0..self.sites.len() {
            let way = if outward { (site, other) } else { (other, site) };
            self.network.blocked.insert(way, until);
        }
        self.say(|world| format!("{} is clogged, outward: {outward}", world.names[site]));
        true
    }

    /// One clock at a time: where most nodes jump together, they believe each other.
    fn jump(&mut self, site: usize) {
        let jumps = |other: &Site| other.index != site && other.clock.jump_ms != 0;
        if self.sites.iter().any(jumps) || self.is_ahead(site) {
            return;
        }
        let (length, mut jump_ms) = (self.length(), self.random.pick(&JUMPS_MS));
        let beyond_wrong = self.plan.wrong_clock.is_some() && jump_ms > wrong_clock::AHEAD_MS;
        if beyond_wrong || self.sites[site].clock.jump_ms < 0 {
            // A clock that jumps beyond a past that was wrong, or from behind its past to beyond
            // it, seems to have been set right by that.
            jump_ms = -jump_ms.abs();
        }
        self.sites[site].clock.jump_ms = jump_ms;
        self.say(|world| format!("{} is {jump_ms} ms off", world.names[site]));
        self.look_at_jump(site);
        self.at(length, Event::Over(Over::Clock(site)));
    }

    fn stop_clock(&mut self, site: usize) {
        let (length, reading) = (self.length(), self.sites[site].clock.read(self.now));
        if self.is_ahead(site) {
            return;
        }
        self.sites[site].clock.stopped_at = Some(reading.0);
        self.at(length, Event::Over(Over::Clock(site)));
    }

    /// A jump of the wall clock must move nothing that runs on the monotonic one.
    fn look_at_jump(&mut self, site: usize) {
        let reading = self.sites[site].reading(self.now);
        self.ledger.read(site, reading.wall);
        let Some(process) = &mut self.sites[site].process else { return };
        let before = process.node.poll_timeout();
        if before.is_some_and(|at| at <= reading.instant) || process.turn {
            return;
        }
        process.node.handle(Input::Timer, reading);
        let mut said = Vec::new();
        while let Some(output) = process.node.poll_output() {
            if !matches!(output, slipstream_core::io::Output::Event(_)) {
                said.push(format!("{output:?}"));
            }
        }
        let after = process.node.poll_timeout();
        if !said.is_empty() || after != before {
            let name = self.names[site].clone();
            let what = format!("a jump alone makes {name} do {said:?}, timer {before:?}/{after:?}");
            self.fail("P6 wall clocks move no timers", what, vec![name]);
        }
    }

    /// A copy is taken at the first time, and the store is set back to it at the second.
    fn restore(&mut self) -> bool {
        let site = self.random.index(self.sites.len());
        match self.sites[site].disk.backup.take() {
            Some((copy, place)) => self.set_back(Fault::Restore, site, copy, place),
            None => {
                let copy = self.sites[site].disk.durable.clone();
                let place = self.ledger.places[site].clone();
                self.sites[site].disk.backup = Some((copy, place));
                false
            }
        }
    }

    fn wipe(&mut self) -> bool {
        let site = self.random.index(self.sites.len());
        let id = 0x99_0000 + u128::from(self.random.next());
        self.set_back(Fault::Wipe, site, MemoryStore::new(id), Place::default())
    }

    /// A store becomes an older one, once a run: what was under way then is forgiven.
    fn set_back(&mut self, fault: Fault, site: usize, copy: MemoryStore, place: Place) -> bool {
        if self.ledger.forgiven_before > 0 {
            return false;
        }
        self.say(|world| format!("{} is hit: {}", world.names[site], fault.text()));
        self.kill(site, false);
        self.sites[site].disk.durable = copy;
        self.ledger.places[site] = place;
        self.ledger.destroyed(&self.removed, self.now);
        self.tell(&Fact::SetBack { site });
        true
    }

    fn vanish(&mut self) -> bool {
        let here: Vec<usize> = self.apps.iter().filter(|app| !app.gone).map(|a| a.index).collect();
        if here.len() < 3 {
            return false;
        }
        let app = self.random.pick(&here);
        self.say(|world| format!("{} is gone for good", world.apps[app].name()));
        self.apps[app].gone = true;
        if let Some(conn) = self.apps[app].link {
            self.cut(conn);
        }
        true
    }

    /// Something that lasted is over.
    pub fn over(&mut self, over: Over) {
        match over {
            Over::Disk(site) => {
                let disk = &mut self.sites[site].disk;
                (disk.full, disk.fails, disk.slow) = (false, false, 0);
            }
            Over::Clock(site) => {
                let clock = &mut self.sites[site].clock;
                (clock.jump_ms, clock.stopped_at) = (0, None);
            }
            Over::WrongClock(site) => self.set_clock_right(site),
            Over::Doubt(site) => self.reset_clock(site, false),
            Over::Removal { site, tries } => self.go_on_removing(site, tries),
        }
    }

    /// Everything that was blocked moves on.
    pub fn move_on(&mut self) {
        self.network.blocked.clear();
        let conns: Vec<ConnId> = self.network.conns.iter().map(|(conn, _)| conn).collect();
        for conn in conns {
            for side in 0..2 {
                if let Some(found) = self.network.conns.get_mut(&conn) {
                    let pipe = &mut found.pipes[side];
                    if pipe.stalled_until != u64::MAX {
                        pipe.stalled_until = 0;
                    }
                    pipe.arranged = false;
                }
                self.arrange_arrival(conn, side);
            }
        }
    }

    /// A proxy that ends every connection after a while.
    pub fn limit_life(&mut self, conn: ConnId) {
        if let Some(mean) = self.plan.mean(Fault::LifeLimit)
            && !self.healed
        {
            self.counts.fault(Fault::LifeLimit);
            for side in 0..2 {
                let after = mean + self.random.below(100_000);
                self.at(after, Event::Gone { conn, side, code: None, reason: LIFE_IS_OVER });
            }
        }
    }
}
