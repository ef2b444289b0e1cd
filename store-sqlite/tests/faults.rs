//! Every I/O of a run fails once, each in a run of its own: once, and from then on.
//!
//! What must hold: what was reported as committed is there, a batch is there as a whole or not
//! at all and in its order, after a failure in doubt nothing is committed, opening works or says
//! what is wrong, and what is answered under a fault is true.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::{Arc, LazyLock};

use common::Harness;
use common::workload::*;
use slipstream_core::store::{Store as _, StoreFailure};
use slipstream_faulty_disk::{Disk, Fault, Survives};
use slipstream_store_sqlite::OpenError;

/// More runs than any loop below needs.
const MOST_RUNS: u64 = 2000;

static CLEAN: LazyLock<Vec<Known>> = LazyLock::new(clean);

/// One run of all batches with a fault in it.
struct Run {
    directory: tempfile::TempDir,
    disk: Arc<Disk>,
    fault: Fault,
    for_good: bool,
    /// Batches that were reported as committed.
    committed: usize,
    /// Batches that may be there.
    attempted: usize,
    /// The run ends behind this batch: a few behind the fault.
    last: usize,
    /// Whether the store was opened where the clean one was not. Which history it deletes from
    /// then on may differ.
    departed: bool,
    broke: bool,
    refused_opens: u32,
    refused_commits: u32,
}

impl Run {
    fn new(fault: Fault, nth: u64, for_good: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::under(directory.path());
        disk.fail(fault, nth, for_good);
        Self {
            directory,
            disk,
            fault,
            for_good,
            committed: 0,
            attempted: 0,
            last: BATCHES as usize,
            departed: false,
            broke: false,
            refused_opens: 0,
            refused_commits: 0,
        }
    }

    /// Brings the batches into the store, whatever happens, mending the disk where it must.
    fn batches(&mut self) {
        while self.committed < self.last {
            let mut harness = self.open();
            let reopened = REOPENED_BEFORE.iter().map(|n| *n as usize);
            let next = reopened.filter(|n| *n > self.committed).min().unwrap_or(usize::MAX);
            while self.committed < next.min(self.last) && self.commit(&mut harness) {}
            let closed = harness.store.close();
            assert!(self.attempted == self.committed || closed.is_err());
        }
        self.mend();
        self.open();
    }

    fn mend(&mut self) {
        self.disk.heal();
        self.last = self.last.min(self.attempted + 3);
    }

    fn open(&mut self) -> Harness {
        loop {
            match Harness::with(durable(self.directory.path())) {
                Ok(mut harness) => {
                    self.disk.directory_is_synced();
                    self.is_true(&mut harness);
                    return harness;
                }
                Err(refused) => self.refused(&refused),
            }
        }
    }

    fn refused(&mut self, refused: &OpenError) {
        self.refused_opens += 1;
        assert!(self.refused_opens < 3, "it does not recover: {refused}");
        let says = refused.to_string();
        assert!(says.contains(self.directory.path().to_str().unwrap()), "{says}");
        // None of these is what happened.
        assert!(!matches!(refused, OpenError::Foreign { .. }), "{refused:?}");
        assert!(!matches!(refused, OpenError::InUse { .. }), "{refused:?}");
        assert!(!matches!(refused, OpenError::Newer { .. }), "{refused:?}");
        assert!(self.disk.fired() > 0, "{refused:?}");
        self.mend();
    }

    /// What a store that was just opened says is what was committed, with or without the batch
    /// that was in doubt.
    fn is_true(&mut self, harness: &mut Harness) {
        let told = Told::by(&harness.recovered);
        let range = self.committed..=self.attempted;
        let there = range.clone().find(|n| CLEAN[*n].told == told);
        let there = there.unwrap_or_else(|| panic!("none of {range:?} is there: {told:?}"));
        (self.committed, self.attempted) = (there, there);
        if let Ok(answers) = Answers::of(harness) {
            let clean = &CLEAN[there].answers;
            let differ = || format!("at {there}: {}", answers.difference(clean));
            if self.departed {
                assert!(answers.rows.iter().all(Answered::is_of_a_batch), "{}", differ());
                assert!(answers.latest == clean.latest, "{}", differ());
                assert!(answers.letters == clean.letters, "{}", differ());
            } else {
                assert!(answers == *clean, "{}", differ());
            }
        } else {
            assert!(self.disk.fired() > 0);
        }
        assert_eq!(harness.damaged, []);
        self.departed |= self.broke;
    }

    /// Commits the next batch. False if the store cannot be trusted any more.
    fn commit(&mut self, harness: &mut Harness) -> bool {
        self.attempted = self.committed + 1;
        let failure = match harness.try_commit(nth(self.committed as u64)) {
            Ok(_) => {
                self.committed += 1;
                if self.disk.fired() > 0 && !self.for_good {
                    self.last = self.last.min(self.committed + 3);
                }
                return true;
            }
            Err(failure) => failure,
        };
        self.refused_commits += 1;
        assert!(self.refused_commits < 3, "it does not recover: {failure}");
        assert!(self.disk.fired() > 0, "{failure}");
        match failure {
            StoreFailure::Full(_) => {
                assert_eq!(self.fault, Fault::Full);
                self.attempted = self.committed;
                self.mend();
                let rows = &CLEAN[self.committed].answers.rows;
                let head = rows.last().map_or(0, |row| row.position);
                assert_eq!(harness.positions().last().copied().unwrap_or_default(), head);
                true
            }
            StoreFailure::Unknown(_) => {
                self.mend();
                let next = harness.try_commit(nth(self.attempted as u64));
                assert!(matches!(next, Err(StoreFailure::Unknown(_))), "{next:?}");
                self.power_loss();
                self.broke = true;
                false
            }
        }
    }

    /// Also if the power goes now, nothing that was reported is gone.
    fn power_loss(&self) {
        let left = tempfile::tempdir().unwrap();
        self.disk.image(Survives::Nothing, left.path());
        let _disk = Disk::under(left.path());
        let mut harness = Harness::with(durable(left.path())).unwrap();
        let told = Told::by(&harness.recovered);
        let clean = CLEAN[self.committed..=self.attempted].iter().find(|n| n.told == told);
        let answers = Answers::of(&mut harness).unwrap();
        assert!(clean.is_some_and(|clean| self.departed || clean.answers == answers));
    }
}

/// Runs until the fault did not strike any more; answers how often it did.
fn every(fault: Fault, for_good: bool) -> u64 {
    let begun = std::time::Instant::now();
    let (mut opens, mut commits) = (0, 0);
    for nth in 1..MOST_RUNS {
        let mut run = Run::new(fault, nth, for_good);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.batches()));
        assert!(result.is_ok(), "{fault:?} at {nth}, for good: {for_good}");
        opens += run.refused_opens;
        commits += run.refused_commits;
        if run.disk.fired() == 0 {
            println!(
                "{fault:?} struck {} times (for good: {for_good}): {opens} opens and {commits} \
                 commits refused, {:?}",
                nth - 1,
                begun.elapsed()
            );
            return nth - 1;
        }
    }
    panic!("{fault:?} still strikes after {MOST_RUNS} runs");
}

fn strikes(faults: &[Fault]) {
    for fault in faults {
        for for_good in [false, true] {
            assert!(every(*fault, for_good) > 0, "{fault:?} never struck");
        }
    }
}

// keeps: survives-faults
#[test]
fn a_write_fails_at_every_point() {
    strikes(&[Fault::Write]);
}

// keeps: survives-faults
#[test]
fn a_write_finds_no_room_at_every_point() {
    strikes(&[Fault::Full]);
}

// keeps: survives-faults
#[test]
fn a_sync_fails_at_every_point_and_loses_what_was_written() {
    strikes(&[Fault::Sync]);
}

// keeps: survives-faults
#[test]
fn a_read_fails_at_every_point() {
    strikes(&[Fault::Read]);
}

// keeps: survives-faults
#[test]
fn file_operations_fail_at_every_point() {
    strikes(&[
        Fault::Open,
        Fault::Delete,
        Fault::Access,
        Fault::Size,
        Fault::Truncate,
        Fault::Lock,
    ]);
}

#[test]
fn a_failed_checkpoint_at_the_start_is_no_config_error() {
    let killed = killed(3);
    let disk = Disk::under(killed.path());
    // The first one is that of the mark that the database is open.
    disk.fail(Fault::Sync, 2, false);
    let refused = Harness::with(durable(killed.path())).err().unwrap();
    assert!(matches!(refused, OpenError::Checkpoint { .. }), "{refused:?}");
    let says = refused.to_string();
    assert!(
        says.contains("slipstream.db: checkpoint: ") && says.contains("check the disk"),
        "{says}"
    );
    assert_eq!(Told::by(&Harness::open(killed.path()).recovered), CLEAN[3].told);
}

#[test]
fn a_system_that_does_half_at_a_time_is_no_failure() {
    for fault in [Fault::ShortRead, Fault::ShortWrite] {
        let mut run = Run::new(fault, 1, true);
        run.batches();
        println!("{fault:?} struck {} times", run.disk.fired());
        assert!(run.disk.fired() > 100 && run.committed == BATCHES as usize);
        assert_eq!((run.refused_opens, run.refused_commits), (0, 0));
    }
}
