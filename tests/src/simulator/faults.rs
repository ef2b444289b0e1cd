//! Faults happen: each kind with the rate that the seed has drawn, on whatever it hits, for as
//! long as it lasts.

use slipstream_core::io::Input;

use super::counts::{Fault, Sometimes};
use super::facts::Fact;
use super::network::{ConnId, End};
use super::plan::{Micros, SECOND};
use super::site::Disk;
use super::world::{Event, Over, World};

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

    fn running(&mut self) -> Option<usize> {
        let running: Vec<usize> = self
            .sites
            .iter()
            .filter(|site| site.process.is_some())
            .map(|site| site.index)
            .collect();
        (!running.is_empty()).then(|| self.random.pick(&running))
    }

    fn some_conn(&mut self) -> Option<ConnId> {
        let conns: Vec<ConnId> = self.network.conns.keys().copied().collect();
        (!conns.is_empty()).then(|| self.random.pick(&conns))
    }

    /// Lets a fault happen. Answers whether there was something to hit.
    fn inject(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Cut | Fault::SilentCut | Fault::Stall => {
                let Some(conn) = self.some_conn() else { return false };
                self.hit_conn(fault, conn);
                true
            }
            Fault::Partition | Fault::Clog => self.block(fault),
            Fault::Kill | Fault::PowerLoss | Fault::Stop | Fault::Freeze => {
                let Some(site) = self.running() else { return false };
                self.hit_process(fault, site);
                true
            }
            Fault::SlowCommit | Fault::DiskFull | Fault::FailedSync => {
                let site = self.random.index(self.sites.len());
                let length = self.length();
                let slow = self.random.between(50_000, SECOND);
                let disk = &mut self.sites[site].disk;
                match fault {
                    Fault::SlowCommit => disk.slow = slow,
                    Fault::DiskFull => disk.full = true,
                    _ => disk.fails = true,
                }
                self.at(length, Event::Over(Over::Disk(site)));
                // Counted when it is felt.
                fault == Fault::SlowCommit
            }
            Fault::Restore | Fault::Wipe => self.set_back(fault),
            Fault::Jump | Fault::ClockStop => self.hit_clock(fault),
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

    fn hit_conn(&mut self, fault: Fault, conn: ConnId) {
        self.say(|_| format!("conn:{conn} is hit: {}", fault.text()));
        match fault {
            Fault::Cut => self.cut(conn),
            Fault::Stall => {
                let (side, until) = (self.random.index(2), self.now + self.length());
                if let Some(found) = self.network.conns.get_mut(&conn) {
                    let stalled = &mut found.pipes[side].stalled_until;
                    *stalled = (*stalled).max(until);
                }
            }
            _ => {
                self.empty(conn, 0);
                self.empty(conn, 1);
                // An application has no heartbeat here: it notices by itself.
                let ends = self.network.conns[&conn].ends;
                for (side, end) in ends.iter().enumerate() {
                    if !matches!(end, End::Node { .. }) {
                        self.at(
                            3 * SECOND,
                            Event::Gone { conn, side, code: None, reason: "no answer" },
                        );
                    }
                }
            }
        }
    }

    fn block(&mut self, fault: Fault) -> bool {
        let (a, b) = (self.random.index(self.sites.len()), self.random.index(self.sites.len()));
        let until = self.now + self.length();
        if fault == Fault::Partition {
            if a == b {
                return false;
            }
            self.network.blocked.insert((a, b), until);
            if self.random.chance(700) {
                self.network.blocked.insert((b, a), until);
            }
        } else {
            let outward = self.random.chance(500);
            for other in 0..self.sites.len() {
                let way = if outward { (a, other) } else { (other, a) };
                self.network.blocked.insert(way, until);
            }
        }
        self.say(|world| {
            format!(
                "{} and {}: {} until {:.3}",
                world.names[a],
                world.names[b],
                { fault.text() },
                until as f64 / 1e6
            )
        });
        true
    }

    fn hit_process(&mut self, fault: Fault, site: usize) {
        self.say(|world| format!("{} is hit: {}", world.names[site], fault.text()));
        match fault {
            Fault::Kill => self.kill(site, false),
            Fault::PowerLoss => self.kill(site, true),
            Fault::Stop => self.give(site, Input::ShutDown),
            _ => {
                let until = self.now + self.length();
                self.sites[site].frozen_until = until;
            }
        }
    }

    fn hit_clock(&mut self, fault: Fault) -> bool {
        let Some(site) = self.running() else { return false };
        let length = self.length();
        let jump = self.random.pick(&JUMPS_MS);
        let before = self.sites[site].clock.read(self.now);
        let clock = &mut self.sites[site].clock;
        if fault == Fault::Jump {
            clock.jump_ms = jump;
        } else {
            clock.stopped_at = Some(before.0);
        }
        self.say(|world| format!("{} is hit: {} by {jump} ms", world.names[site], fault.text()));
        if fault == Fault::Jump {
            self.look_at_jump(site);
        }
        self.at(length, Event::Over(Over::Clock(site)));
        true
    }

    /// A jump of the wall clock must move nothing that runs on the monotonic one.
    fn look_at_jump(&mut self, site: usize) {
        let reading = self.sites[site].reading(self.now);
        let wall = &mut self.ledger.highest_wall[site];
        *wall = (*wall).max(reading.wall.0);
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

    /// A store becomes an older one: set back to a copy, or empty.
    fn set_back(&mut self, fault: Fault) -> bool {
        let site = self.random.index(self.sites.len());
        if fault == Fault::Restore && self.sites[site].disk.backup.is_none() {
            let copy = self.sites[site].disk.durable.clone();
            let place = self.ledger.places[site].clone();
            self.sites[site].disk.backup = Some((copy, place));
            return false;
        }
        if self.ledger.forgiven_before > 0 {
            return false;
        }
        let (copy, place) = match fault {
            Fault::Restore => match self.sites[site].disk.backup.take() {
                Some(backup) => backup,
                None => return false,
            },
            _ => {
                let id = 0x99_0000 + u128::from(self.random.next());
                (Disk::new(id).durable, Default::default())
            }
        };
        self.say(|world| format!("{} is hit: {}", world.names[site], fault.text()));
        self.kill(site, false);
        self.sites[site].disk.durable = copy;
        self.ledger.places[site] = place;
        self.ledger.forgiven_before = self.now;
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
            Over::Removal { site, tries } => self.go_on_removing(site, tries),
        }
    }

    /// Everything that was blocked moves on.
    pub fn move_on(&mut self) {
        self.network.blocked.clear();
        let conns: Vec<ConnId> = self.network.conns.keys().copied().collect();
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
