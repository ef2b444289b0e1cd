//! Disks work: one job at a time, in order, each taking its time and failing as faults will.

use std::time::Duration;

use slipstream_core::io::Input;
use slipstream_core::store::{Batch, CommitFailed, Committed, StoreFailure};

use super::counts::{Fault, Sometimes};
use super::facts::Fact;
use super::site::Job;
use super::world::{Event, World};

impl World {
    /// Lets the disk begin its next job.
    pub fn work(&mut self, index: usize) {
        let (life, slow) = (self.sites[index].life, self.sites[index].disk.slow);
        let disk = &mut self.sites[index].disk;
        let Some(job) = disk.jobs.front() else { return };
        if disk.busy {
            return;
        }
        disk.busy = true;
        let took = match job {
            Job::Commit(_) => self.random.between(self.plan.commit.0, self.plan.commit.1) + slow,
            Job::Fetch(..) => self.random.between(20, 200),
        };
        self.at(took, Event::JobDone { site: index, life });
    }

    /// The disk has done a job: a commit is durable now, or has failed.
    pub fn job_done(&mut self, index: usize, life: u64) {
        if self.sites[index].life != life || self.sites[index].process.is_none() {
            return;
        }
        let disk = &mut self.sites[index].disk;
        disk.busy = false;
        let Some(job) = disk.jobs.pop_front() else { return };
        let input = match job {
            Job::Fetch(fetch, query) => {
                Input::Fetched { fetch, answer: Ok(disk.durable.answer(query)) }
            }
            Job::Commit(batch) if disk.fails => {
                disk.fails = false;
                self.counts.fault(Fault::FailedSync);
                if self.random.chance(500) {
                    self.commit(index, &batch);
                }
                let failure = StoreFailure::Unknown("a failed sync".into());
                Input::CommitFailed(CommitFailed { batch, failure })
            }
            Job::Commit(batch) if disk.full => {
                self.counts.fault(Fault::DiskFull);
                self.counts.sometimes(Sometimes::RolledBack);
                self.ledger.rolled_back(index, &batch);
                self.say(|world| {
                    format!("{} has no room for batch {}", world.names[index], { batch.id })
                });
                self.tell(&Fact::RolledBack { site: index });
                let failure = StoreFailure::Full("no room".into());
                Input::CommitFailed(CommitFailed { batch, failure })
            }
            Job::Commit(batch) => {
                self.commit(index, &batch);
                let usage = self.sites[index].disk.durable.usage();
                let took = Duration::from_micros(200);
                Input::Committed(Committed { batch, usage, took })
            }
        };
        if let Some(process) = &mut self.sites[index].process
            && matches!(input, Input::Committed(_))
        {
            process.untold += 1;
        }
        // A store answers in the order in which it was asked.
        let disk = &mut self.sites[index].disk;
        disk.last_told = disk.last_told.max(self.now + self.random.below(400));
        let after = disk.last_told - self.now;
        self.at(after, Event::Told { site: index, life, input: Box::new(input) });
        self.work(index);
    }

    /// A batch becomes durable.
    pub fn commit(&mut self, index: usize, batch: &Batch) {
        let store = &mut self.sites[index].disk.durable;
        let before = store.given_up();
        store.commit(batch);
        if store.given_up() > before {
            self.counts.sometimes(Sometimes::Forgotten);
        }
        let deleted = &self.sites[index].disk.durable.deleted;
        self.ledger.durable(index, batch, deleted, self.now);
        self.say(|world| format!("{} has batch {} durable", world.names[index], batch.id));
        self.tell(&Fact::Durable { site: index, batch });
    }

    /// A node is told what its disk has done.
    pub fn told(&mut self, index: usize, life: u64, input: Input) {
        if self.sites[index].life == life {
            self.give(index, input);
        }
    }
}
