//! Nodes run: they are started on what is durable, take inputs in turns, and end at any moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use slipstream_core::Node;
use slipstream_core::event::Event as Told;
use slipstream_core::ids::LinkId;
use slipstream_core::io::{Input, Output};

use super::Depth;
use super::application::Said;
use super::counts::{Fault, Sometimes};
use super::facts::Fact;
use super::frames::Item;
use super::plan::SECOND;
use super::site::{Disk, Heard, Job, Process, Site, WallClock};
use super::world::{Event, World};

/// Turns of one node in a second above which it goes round in circles.
const TURNS_A_SECOND: u32 = 20_000;
/// Outputs that one turn may give.
const OUTPUTS_A_TURN: usize = 200_000;

impl World {
    /// A new place, and a node that starts there before long.
    pub fn add_site(&mut self, index: usize) {
        let name = self.name_for(index);
        let skew = if let Some(skew) = self.plan.skew_near_limit(index) {
            self.counts.fault(Fault::Skew);
            skew
        } else if self.plan.mean(Fault::Skew).is_some() {
            self.counts.fault(Fault::Skew);
            self.random.below(40_000) as i64 - 20_000
        } else {
            self.random.below(200) as i64 - 100
        };
        let clock = WallClock { skew_ms: skew, jump_ms: 0, ahead_ms: 0, stopped_at: None };
        let config = self.plan.config(index, self.urls_of(index));
        self.sites.push(Site {
            index,
            config,
            process: None,
            disk: Disk::new(0x51_0000 + index as u128),
            clock,
            life: 0,
            removed: false,
            frozen_until: 0,
        });
        self.names.push(name);
        self.removed.push(false);
        self.ledger.places.push(Default::default());
        if let Some(walls) = &mut self.ledger.highest_wall {
            walls.push(0);
        }
        self.ledger.undurable.push(Vec::new());
        self.begin_wrong(index);
        let after = self.random.below(300_000);
        self.at(after, Event::Start { site: index });
        self.add_apps(index);
    }

    /// Starts a node that is not running.
    pub fn start(&mut self, index: usize) {
        let now = self.now;
        let site = &mut self.sites[index];
        if site.process.is_some() || site.removed {
            return;
        }
        site.life += 1;
        // Who starts a machine looks at its clock: a node cannot know better before it has peers.
        site.clock.jump_ms = site.clock.jump_ms.min(0);
        let seed = self.random.next();
        site.disk.jobs.clear();
        site.disk.busy = false;
        let recovered = site.disk.durable.recovered();
        let reading = slipstream_core::time::Now {
            instant: slipstream_core::time::Instant::from_micros(0),
            wall: site.clock.read(now),
        };
        // A recovery that ends before it has done anything must leave nothing behind.
        let first = (self.depth == Depth::Thorough).then(|| {
            let mut node = Node::new(site.config.clone(), recovered.clone(), seed, reading);
            let outputs = std::iter::from_fn(|| node.poll_output());
            outputs.map(|output| format!("{output:?}")).collect::<Vec<_>>()
        });
        let node = Node::new(site.config.clone(), recovered, seed, reading);
        site.process = Some(Process {
            node,
            started: now,
            inbox: VecDeque::new(),
            turn: false,
            timer: None,
            links: BTreeMap::new(),
            last_link: 0,
            turns_now: (0, 0),
            untold: 0,
            acknowledged: false,
            admitted: BTreeSet::new(),
            closed: BTreeSet::new(),
        });
        self.say(|world| {
            format!("{} starts, life {}", world.names[index], { world.sites[index].life })
        });
        self.recover(index, first.as_deref());
        for app in 0..self.apps.len() {
            if self.apps[app].site == index {
                let after = self.random.below(300_000);
                self.at(after, Event::Connect { app });
            }
        }
        if self.plan.mean(Fault::KillInRecovery).is_some()
            && !self.healed
            && self.random.chance(300)
        {
            let life = self.sites[index].life;
            let after = self.random.below(1_500);
            self.counts.sometimes(Sometimes::CrashInRecovery);
            self.counts.fault(Fault::KillInRecovery);
            self.at(after, Event::Kill { site: index, life });
        }
    }

    /// The first outputs of a start: they must be those of the recovery that was interrupted, if
    /// one was made.
    fn recover(&mut self, index: usize, first: Option<&[String]>) {
        let mut outputs = Vec::new();
        if let Some(process) = &mut self.sites[index].process {
            while let Some(output) = process.node.poll_output() {
                outputs.push(output);
            }
        }
        let is_same = |first: &[String]| {
            let now = outputs.iter().map(|output| format!("{output:?}"));
            now.eq(first.iter().cloned())
        };
        if !first.is_none_or(is_same) {
            let what = "a start on the same store does something else".into();
            self.fail("P1 recovery is idempotent", what, vec![self.names[index].clone()]);
        }
        for output in outputs {
            if !self.output(index, output) {
                return;
            }
        }
        self.set_timer(index);
    }

    /// Puts an input before a node, and arranges a turn.
    pub fn give(&mut self, index: usize, input: Input) {
        self.give_heard(index, input, None);
    }

    /// Puts a frame that somebody has said before a node.
    pub fn give_heard(&mut self, index: usize, input: Input, heard: Option<Heard>) {
        let site = &mut self.sites[index];
        let Some(process) = &mut site.process else { return };
        process.inbox.push_back((input, heard));
        if process.turn {
            return;
        }
        process.turn = true;
        let (life, frozen) = (site.life, site.frozen_until.saturating_sub(self.now));
        let after = frozen + self.random.below(60);
        self.at(after, Event::Turn { site: index, life });
    }

    /// A node takes some of what waits for it, and everything that comes of it is carried out.
    pub fn turn(&mut self, index: usize, life: u64) {
        let now = self.now;
        if self.sites[index].life != life || self.sites[index].process.is_none() {
            return;
        }
        let frozen = self.sites[index].frozen_until;
        if frozen > now {
            self.at(frozen - now, Event::Turn { site: index, life });
            return;
        }
        self.counts.volume("turns", 1);
        let reading = self.sites[index].reading(now);
        // A clock that was ahead from the beginning judges nothing that others may have.
        if !self.is_ahead(index) {
            self.ledger.read(index, reading.wall);
        }
        let most = self.plan.inputs_a_turn;
        let Some(process) = &mut self.sites[index].process else { return };
        process.turn = false;
        if process.turns_now.0 != now / SECOND {
            process.turns_now = (now / SECOND, 0);
        }
        process.turns_now.1 += 1;
        if process.turns_now.1 > TURNS_A_SECOND {
            let name = self.names[index].clone();
            self.fail("P13 no livelock", format!("{name} goes round in circles"), vec![name]);
            return;
        }
        let mut said = Vec::new();
        for _ in 0..most {
            if !self.take(index, reading, &mut said) {
                break;
            }
        }
        if !self.drain(index, said) {
            return;
        }
        if let Some(process) = &mut self.sites[index].process
            && !process.turn
            && !process.inbox.is_empty()
        {
            process.turn = true;
            self.at(1, Event::Turn { site: index, life });
        }
    }

    /// A node takes one input. Answers whether there was one.
    fn take(
        &mut self,
        index: usize,
        reading: slipstream_core::time::Now,
        said: &mut Vec<(LinkId, usize, Said)>,
    ) -> bool {
        let Some(process) = &mut self.sites[index].process else { return false };
        let Some((input, heard)) = process.inbox.pop_front() else { return false };
        let link = match &input {
            Input::Committed(_) => {
                process.untold = process.untold.saturating_sub(1);
                process.acknowledged = false;
                None
            }
            Input::Received { link, .. } => Some(*link),
            _ => None,
        };
        process.node.handle(input, reading);
        match (heard, link) {
            (Some(Heard::App(app, what)), Some(link)) => said.push((link, app, what)),
            (Some(Heard::Peer(conn, items)), _) => {
                process.acknowledged |= items.iter().any(|item| matches!(item, Item::Ack(_)));
                self.tell(&Fact::HeardFromPeer { site: index, conn, items: &items });
            }
            (Some(Heard::App(..)) | None, _) => {}
        }
        true
    }

    /// Carries out everything that a node has to say, after what applications have `said` to it.
    /// Answers whether it still runs.
    fn drain(&mut self, index: usize, said: Vec<(LinkId, usize, Said)>) -> bool {
        let mut outputs = Vec::new();
        let Some(process) = &mut self.sites[index].process else { return false };
        // What comes on a link that it has closed it does not look at.
        let mut said = said;
        said.retain(|(link, ..)| !process.closed.contains(link));
        while let Some(output) = process.node.poll_output() {
            if let Output::Close { link, .. } = &output {
                process.closed.insert(*link);
            }
            outputs.push(output);
            if outputs.len() > OUTPUTS_A_TURN {
                let name = self.names[index].clone();
                self.fail("P13 no livelock", format!("{name} never stops talking"), vec![name]);
                return false;
            }
        }
        let (unsure, said): (Vec<_>, Vec<_>) =
            said.into_iter().partition(|(link, ..)| process.closed.contains(link));
        self.tell(&Fact::Turned { site: index });
        for (_, app, what) in &unsure {
            self.tell(&Fact::MayHaveHeardFromApp { app: *app, said: what });
        }
        for (_, app, what) in &said {
            self.ledger.heard(what, self.now);
            self.tell(&Fact::HeardFromApp { app: *app, said: what });
        }
        let torn = match self.plan.mean(Fault::KillBetweenOutputs) {
            Some(mean) if !self.healed => mean / 10_000,
            Some(_) | None => 0,
        };
        for output in outputs {
            if !self.output(index, output) {
                return false;
            }
            if torn > 0 && self.random.below(torn) == 0 {
                self.counts.fault(Fault::KillBetweenOutputs);
                self.say(|world| format!("{} is killed between two outputs", world.names[index]));
                self.kill(index, false);
                return false;
            }
        }
        self.check_crowd(index);
        self.set_timer(index);
        true
    }

    fn set_timer(&mut self, index: usize) {
        let now = self.now;
        let site = &mut self.sites[index];
        let life = site.life;
        let Some(process) = &mut site.process else { return };
        let at = process.node.poll_timeout().map(|at| (process.started + at.as_micros()).max(now));
        if at != process.timer {
            process.timer = at;
            if let Some(at) = at {
                self.at(at - now, Event::Timer { site: index, life });
            }
        }
    }

    /// The timer of a node is due, unless it was set to another time meanwhile.
    pub fn timer(&mut self, index: usize, life: u64) {
        let now = self.now;
        let site = &mut self.sites[index];
        if site.life != life {
            return;
        }
        let Some(process) = &mut site.process else { return };
        if process.timer == Some(now) {
            process.timer = None;
            self.give(index, Input::Timer);
        }
    }

    /// Carries out one output. Answers whether the node still runs.
    fn output(&mut self, index: usize, output: Output) -> bool {
        let (now, life) = (self.now, self.sites[index].life);
        self.trace.mix(&[now, index as u64, 1]);
        self.trace.mix_output(&output);
        match output {
            Output::Commit(batch) => {
                self.say(|world| {
                    let rows: Vec<_> =
                        batch.rows.iter().map(|row| super::ledger::name_of(&row.message)).collect();
                    format!("{} seals batch {}: {rows:?}", world.names[index], batch.id)
                });
                if let Err(what) = self.ledger.sealed(index, &batch, now) {
                    self.fail("P2 nothing invented, no identity twice", what, Vec::new());
                }
                self.tell(&Fact::Sealed { site: index, batch: &batch });
                self.sites[index].disk.jobs.push_back(Job::Commit(batch));
                self.work(index);
            }
            Output::Fetch { fetch, query } => {
                if matches!(query, slipstream_core::store::Query::Latest(_)) {
                    self.counts.sometimes(Sometimes::LookedUp);
                }
                self.sites[index].disk.jobs.push_back(Job::Fetch(fetch, query));
                self.work(index);
            }
            Output::Transmit { link, frame } => self.transmit(index, link, frame),
            Output::Pause(link) => self.set_reading(index, link, false),
            Output::Resume(link) => self.set_reading(index, link, true),
            Output::Dial { dial, url } => self.dial(index, dial, &url),
            Output::Close { link, close } => self.close(index, link, &close),
            Output::Admin { ticket, answer } => self.answered(index, ticket, answer),
            Output::Event(event) => self.noticed(index, &event),
            Output::Admit(link) => {
                let process = self.sites[index].process.as_mut();
                process.map(|process| process.admitted.insert(link));
            }
            Output::Observe(_) => {}
            Output::Stopped => {
                self.counts.sometimes(Sometimes::CleanStop);
                self.end(index, false);
                let after = self.random.between(200_000, 3 * SECOND);
                self.at(after, Event::Start { site: index });
                return false;
            }
            Output::Halt(failure) => {
                self.counts.sometimes(Sometimes::Halted);
                self.say(|world| format!("{} halts: {failure}", world.names[index]));
                self.end(index, false);
                self.at(SECOND, Event::Start { site: index });
                return false;
            }
        }
        debug_assert_eq!(life, self.sites[index].life, "no output ends a node but those above");
        true
    }

    /// Kills a node if it is still the same run of it.
    pub fn kill_life(&mut self, index: usize, life: u64) {
        if self.sites[index].life == life {
            self.kill(index, false);
        }
    }

    /// Ends a process as `kill -9` does, or its machine without a word.
    pub fn kill(&mut self, index: usize, silently: bool) {
        let Some(process) = &self.sites[index].process else { return };
        if process.untold > 0 {
            self.counts.sometimes(Sometimes::CommitWithoutAnswer);
            self.counts.sometimes(Sometimes::CrashBeforeReceipt);
        }
        if process.acknowledged {
            self.counts.sometimes(Sometimes::CrashBeforeDeletion);
        }
        // The commit that is under way may or may not have made it.
        let disk = &mut self.sites[index].disk;
        if matches!(disk.jobs.front(), Some(Job::Commit(_))) {
            self.counts.sometimes(Sometimes::CrashBeforeCommit);
            let Some(Job::Commit(batch)) = disk.jobs.pop_front() else { return };
            let room = !disk.full && !disk.fails;
            if room && self.random.chance(500) {
                self.commit(index, &batch);
            }
        }
        self.end(index, silently);
        let after = self.random.between(50_000, 4 * SECOND);
        self.at(after, Event::Start { site: index });
    }

    /// A process has ended: its connections go, and what it was doing is forgotten.
    pub fn end(&mut self, index: usize, silently: bool) {
        let site = &mut self.sites[index];
        let Some(process) = site.process.take() else { return };
        site.life += 1;
        site.disk.jobs.clear();
        site.disk.busy = false;
        self.trace.mix(&[self.now, index as u64, 2]);
        self.say(|world| format!("{} has ended", world.names[index]));
        for conn in process.links.into_values() {
            self.drop_end(conn, index, silently);
        }
        self.ledger.ended(index);
        self.tell(&Fact::Ended { site: index });
    }

    fn noticed(&mut self, index: usize, event: &Told) {
        self.say(|world| format!("{} says: {event}", world.names[index]));
        match event {
            Told::PeerLostStore { .. } | Told::PeerStoreWentBack { .. } => {
                self.counts.sometimes(Sometimes::Rewound)
            }
            Told::DigestsDiffer { .. } => self.counts.volume("differences found", 1),
            Told::StoreWentBack { .. } => self.counts.sometimes(Sometimes::OldCopy),
            Told::IdentityConflict { .. } => self.counts.sometimes(Sometimes::IdOfAnother),
            Told::DeadLetter { session, .. } if session == "node" => {
                self.counts.sometimes(Sometimes::Undelivered);
            }
            Told::DeadLetter { .. } => self.counts.sometimes(Sometimes::DeadLetter),
            Told::DeadLetterTakenBack { .. } => {
                self.counts.sometimes(Sometimes::DeadLetterTakenBack);
            }
            Told::StoreFull { .. } => self.counts.sometimes(Sometimes::StoreFull),
            Told::StoreHasRoom => self.counts.sometimes(Sometimes::StoreFullRecovered),
            Told::Conflating { .. } => self.counts.sometimes(Sometimes::OutboxAboveBound),
            Told::ClockReset { restamped, .. } => {
                self.counts.sometimes(Sometimes::ClockReset);
                if *restamped > 0 {
                    self.counts.sometimes(Sometimes::StampedAnew);
                }
            }
            Told::VersionAhead { .. } => self.counts.sometimes(Sometimes::VersionRefused),
            Told::Closing { close, .. } => match close.code.number() {
                4400 if close.reason.contains("damaged") => {
                    self.counts.sometimes(Sometimes::CorruptionNoticed);
                }
                4429 if close.reason.contains("max_connections") => {
                    self.counts.sometimes(Sometimes::CrowdedOut);
                }
                4408 => self.counts.sometimes(Sometimes::HeartbeatTimeout),
                4409 => self.counts.sometimes(Sometimes::DuplicateLink),
                _ => {}
            },
            Told::Started { .. }
            | Told::NotSynced
            | Told::PeerUp { .. }
            | Told::PeerDown { .. }
            | Told::NodeReached { .. }
            | Told::NodeLost { .. }
            | Told::DialFailed { .. }
            | Told::SelfDial { .. }
            | Told::DialCovered { .. }
            | Told::ApplicationUp { .. }
            | Told::ApplicationDown { .. }
            | Told::Rejected { .. }
            | Told::SessionEnded { .. }
            | Told::ClockFault(_)
            | Told::ClockSound
            | Told::ShuttingDown
            | Told::NotAllTold => {}
        }
    }
}
