//! The power goes at every change of the disk, and what was not synced is gone, or a part of it.
//!
//! What must hold: what was reported as committed is there, a batch is there as a whole or not
//! at all, and the store goes on. Without syncing commits, what is gone is the end of the log.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use common::workload::*;
use common::{Harness, batch, state};
use slipstream_core::config::Durability;
use slipstream_core::store::{Batch, Store as _};
use slipstream_faulty_disk::{Disk, Fault, Survives};
use slipstream_store_sqlite::{Damaged, Options};

static CLEAN: LazyLock<Vec<Known>> = LazyLock::new(clean);

/// Images that are made of each loss, besides those of nothing and of everything.
const TORN: u64 = 3;

/// A run that ended with the power, or with its last batch.
struct Run {
    disk: Arc<Disk>,
    committed: usize,
    attempted: usize,
    _directory: tempfile::TempDir,
}

fn run(durability: Durability, nth: u64) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::under(directory.path());
    disk.fail(Fault::Power, nth, false);
    let (mut committed, mut attempted) = (0, 0);
    let options = Options { durability, ..durable(directory.path()) };
    while committed < BATCHES as usize {
        let Ok(mut harness) = Harness::with(options.clone()) else { break };
        disk.directory_is_synced();
        let reopened = REOPENED_BEFORE.iter().map(|n| *n as usize);
        let upto = reopened.filter(|n| *n > committed).min().unwrap_or(BATCHES as usize);
        while committed < upto {
            attempted = committed + 1;
            if harness.try_commit(nth_batch(committed)).is_err() {
                return Run { disk, committed, attempted, _directory: directory };
            }
            committed += 1;
        }
        if harness.store.close().is_err() {
            break;
        }
    }
    Run { disk, committed, attempted, _directory: directory }
}

fn nth_batch(n: usize) -> Batch {
    nth(n as u64)
}

/// Opens what a power loss left; answers after how many batches it is.
fn left(run: &Run, durability: Durability, survives: Survives) -> usize {
    let left = tempfile::tempdir().unwrap();
    run.disk.image(survives, left.path());
    let _disk = Disk::under(left.path());
    let options = Options { durability, ..durable(left.path()) };
    let mut harness = Harness::with(options).unwrap();
    let known = Known::of(&mut harness).unwrap();
    let there = CLEAN.iter().position(|clean| *clean == known);
    let there = there.unwrap_or_else(|| panic!("{survives:?} left something else: {known:?}"));
    match harness.damaged[..] {
        [] => {}
        // Without syncing, the power may take what others built on, and that is told.
        [Damaged::Wal(_)] => assert!(there < run.committed && durability == Durability::Normal),
        _ => panic!("{survives:?}: {:?}", harness.damaged),
    }
    if there < BATCHES as usize {
        harness.commit(nth_batch(there));
    }
    there
}

fn every_loss(durability: Durability) {
    let begun = std::time::Instant::now();
    let (mut whole, mut gone, mut lost) = (0, 0, 0);
    let mut nth = 0;
    loop {
        nth += 1;
        let run = run(durability, nth);
        let seeds = (0..TORN).map(|seed| Survives::Some(nth * TORN + seed));
        for survives in [Survives::Nothing, Survives::All].into_iter().chain(seeds) {
            let there = left(&run, durability, survives);
            let least = match (durability, survives) {
                (Durability::Full, _) | (Durability::Normal, Survives::All) => run.committed,
                (Durability::Normal, Survives::Nothing | Survives::Some(_)) => 0,
            };
            assert!((least..=run.attempted).contains(&there), "{nth}, {survives:?}: {there}");
            whole += u64::from(there == run.attempted && there > run.committed);
            gone += u64::from(there < run.attempted && there >= run.committed);
            lost += u64::from(there < run.committed);
        }
        if run.disk.fired() == 0 {
            break;
        }
    }
    println!(
        "power lost {} times ({durability:?}): of the batches in doubt {gone} are gone and {whole} \
         there, {lost} times committed ones are lost, {:?}",
        nth - 1,
        begun.elapsed()
    );
    assert!(nth > 300 && gone > 0);
    match durability {
        Durability::Full => assert!(whole > 0),
        // Otherwise the other test would prove nothing.
        Durability::Normal => assert!(lost > 0),
    }
}

/// Rows of 512 KiB, eight a batch: four of them fill the write-ahead log up to its checkpoint.
fn large(n: u64) -> Batch {
    let value = format!("\"{}\"", n.to_string().repeat(512 << 10));
    batch((1..=8).map(|row| state(n * 8 + row, &format!("k{row}"), &value)).collect())
}

// keeps: survives-faults
#[test]
fn a_checkpoint_at_work_loses_nothing_in_a_power_cut() {
    let mut committed_at = BTreeMap::new();
    let mut points = (1..).step_by(901);
    loop {
        let nth = points.next().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::under(directory.path());
        let mut harness = Harness::with(durable(directory.path())).unwrap();
        disk.directory_is_synced();
        for n in 0..3 {
            harness.commit(large(n));
        }
        // In the batch that makes the checkpoint due, in the checkpoint, or in what follows.
        disk.fail(Fault::Power, nth, false);
        let mut committed = 3;
        while committed < 6 && harness.try_commit(large(committed)).is_ok() {
            committed += 1;
        }
        for survives in [Survives::Nothing, Survives::Some(nth), Survives::Some(nth + 1)] {
            let left = tempfile::tempdir().unwrap();
            disk.image(survives, left.path());
            let _disk = Disk::under(left.path());
            let mut harness = Harness::with(durable(left.path())).unwrap();
            let there = harness.recovered.head.get() / 8;
            assert!((committed..=committed + 1).contains(&there), "{nth}, {survives:?}: {there}");
            let rows = harness.rows();
            assert!(harness.damaged.is_empty() && rows.len() as u64 == there * 8, "{nth}");
            for (row, sent) in rows.iter().zip((0..there).flat_map(|n| large(n).rows)) {
                assert!(row.row.message == sent.message, "{nth}, {survives:?}");
            }
        }
        *committed_at.entry(committed).or_insert(0) += 1;
        if disk.fired() == 0 {
            break;
        }
    }
    println!("power lost around a checkpoint, by batches committed: {committed_at:?}");
    assert!(committed_at.len() == 4, "{committed_at:?}");
}

// keeps: survives-faults
#[test]
fn what_was_committed_survives_a_power_loss_at_every_point() {
    every_loss(Durability::Full);
}

// keeps: unsynced-tail
#[test]
fn without_syncing_a_power_cut_takes_only_the_end() {
    every_loss(Durability::Normal);
}
