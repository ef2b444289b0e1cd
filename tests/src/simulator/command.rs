//! The command `simulate`: many seeds, in parallel, with progress, counts and failures.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Counts, Depth, Fault, INVARIANTS, Outcome, Plan, Sometimes, run, run_in_words};

/// Runs seeds of the simulator: each is a mesh of nodes on virtual time, its faults, and its
/// traffic. Ends with 1 if a rule was broken.
///
/// One seed in ten is run twice, to compare the traces; with --seed, --replay and --complete all
/// are.
#[derive(Debug, Parser)]
#[command(
    name = "simulate",
    after_help = "Examples:\n  \
        simulate --seed 42                         one seed, its plan in full\n  \
        simulate --seed 42 --trace trace.txt       and everything that happens in it\n  \
        simulate --seeds 10000 --start 1 --jobs 2  seeds 1 to 10000\n  \
        simulate --replay tests/failing-seeds.txt  the seeds that failed once\n  \
        simulate --seeds 1000 --record hashes.txt  what a build puts out in 1,000 seeds\n  \
        simulate --oracle hashes.txt               and whether another one does the same"
)]
struct Arguments {
    /// Run this one seed and print what it draws
    #[arg(long, conflicts_with_all = ["seeds", "replay"])]
    seed: Option<u64>,
    /// Write everything that happens in that seed to this file
    #[arg(long, requires = "seed")]
    trace: Option<PathBuf>,
    /// Run so many seeds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// How many at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Run the seeds that stand in this file, one a line
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Write a hash of all that the nodes of each seed put out to this file
    #[arg(long, conflicts_with_all = ["seed", "oracle"])]
    record: Option<PathBuf>,
    /// Run the seeds of such a file, and end with 1 if one does not do the same any more
    #[arg(long, conflicts_with_all = ["seed", "replay", "seeds"])]
    oracle: Option<PathBuf>,
    /// Only each so-manieth of them
    #[arg(long, default_value_t = 1, requires = "oracle")]
    every: usize,
    /// Add seeds that fail to this file
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Stop at the first failure
    #[arg(long)]
    fail_fast: bool,
    /// Run each seed twice, and end with 1 as well if a fault or a sometimes-event never happened
    #[arg(long)]
    complete: bool,
}

impl Arguments {
    /// How thoroughly a seed is run.
    fn depth(&self, seed: u64) -> Depth {
        if self.record.is_some() || self.oracle.is_some() {
            return Depth::Quick;
        }
        let all = self.complete || self.seed.is_some() || self.replay.is_some();
        if all { Depth::Thorough } else { Depth::of(seed) }
    }
}

/// What all seeds have seen so far.
#[derive(Default)]
struct Total {
    counts: Counts,
    virtual_micros: u64,
    /// Runs of them: a seed may be run twice.
    runs: u64,
    failed: Vec<u64>,
    hashes: BTreeMap<u64, u64>,
}

/// The seeds to run, and the hash that each is to have, if that is asked.
type Seeds = Vec<(u64, Option<u64>)>;

/// Runs the command.
pub fn main() -> ExitCode {
    // A panic of a node is a failure of its seed, told there.
    std::panic::set_hook(Box::new(super::note_panic));
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return one(seed, arguments.trace.as_deref());
    }
    let seeds = match seeds(&arguments) {
        Ok(seeds) => seeds,
        Err(error) => {
            eprintln!("simulate: {error}");
            return ExitCode::from(2);
        }
    };
    many(&arguments, &seeds)
}

fn one(seed: u64, trace: Option<&Path>) -> ExitCode {
    print!("{}", Plan::draw(seed));
    if let Some(file) = trace
        && let Err(error) = fs::write(file, run_in_words(seed))
    {
        eprintln!("simulate: cannot write {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    let started = Instant::now();
    let outcome = run(seed, Depth::Thorough);
    if let Some(failure) = &outcome.failure {
        println!("{failure}");
        return ExitCode::FAILURE;
    }
    summary(&outcome.counts);
    let virtual_time = outcome.virtual_time as f64 / 1e6;
    println!(
        "seed {seed} holds: {virtual_time:.0} s of virtual time, run twice, in {:.3} s; \
         trace {:016x}",
        started.elapsed().as_secs_f64(),
        outcome.hash
    );
    ExitCode::SUCCESS
}

fn seeds(arguments: &Arguments) -> Result<Seeds, String> {
    let Some(file) = arguments.replay.as_ref().or(arguments.oracle.as_ref()) else {
        let seeds = arguments.start..arguments.start.saturating_add(arguments.seeds);
        return Ok(seeds.map(|seed| (seed, None)).collect());
    };
    let text = fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let lines = lines.filter(|line| !line.is_empty()).step_by(arguments.every.max(1));
    let seed = |line: &str| match (arguments.oracle.is_some(), line.split_once(' ')) {
        (false, None) => Some((line.parse().ok()?, None)),
        (true, Some((seed, hash))) => {
            Some((seed.parse().ok()?, Some(u64::from_str_radix(hash, 16).ok()?)))
        }
        _ => None,
    };
    let what = if arguments.oracle.is_some() { "no seed with its hash" } else { "no seed" };
    lines
        .map(|line| seed(line).ok_or_else(|| format!("{}: `{line}` is {what}", file.display())))
        .collect()
}

fn many(arguments: &Arguments, seeds: &Seeds) -> ExitCode {
    let (next, total) = (AtomicU64::new(0), Mutex::new(Total::default()));
    let started = Instant::now();
    let bar = ProgressBar::new(seeds.len() as u64).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {per_sec}, {msg}, {eta} left")
            .expect("the template is well-formed"),
    );
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while let Some((seed, hash)) =
                    seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    let mut outcome = run(*seed, arguments.depth(*seed));
                    if let Some(hash) = hash.filter(|hash| *hash != outcome.hash) {
                        outcome.differ(hash);
                    }
                    let stop = outcome.failure.is_some() && arguments.fail_fast;
                    note(arguments, *seed, &outcome, &total, &bar);
                    if stop {
                        next.store(seeds.len() as u64, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let total = total.into_inner().expect("no worker panics");
    if let Some(file) = &arguments.record
        && let Err(error) = record(file, &total.hashes)
    {
        eprintln!("simulate: cannot write {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    report(arguments, &total, seeds.len(), started.elapsed())
}

fn note(
    arguments: &Arguments,
    seed: u64,
    outcome: &Outcome,
    total: &Mutex<Total>,
    bar: &ProgressBar,
) {
    let mut total = total.lock().expect("no worker panics");
    total.counts.add(&outcome.counts);
    let runs = arguments.depth(seed).runs();
    total.virtual_micros += runs * outcome.virtual_time;
    total.runs += runs;
    total.hashes.insert(seed, outcome.hash);
    if let Some(failure) = &outcome.failure {
        total.failed.push(seed);
        bar.suspend(|| println!("seed {seed}: {failure}"));
        if let Some(file) = &arguments.keep
            && let Err(error) = keep(file, seed, failure.invariant)
        {
            eprintln!("simulate: cannot add seed {seed} to {}: {error}", file.display());
        }
    }
    bar.inc(1);
    bar.set_message(format!("{} failed", total.failed.len()));
}

fn keep(file: &PathBuf, seed: u64, invariant: &str) -> std::io::Result<()> {
    let known = fs::read_to_string(file).unwrap_or_default();
    let seeds: BTreeSet<&str> =
        known.lines().filter_map(|line| line.split_whitespace().next()).collect();
    if seeds.contains(&*seed.to_string()) {
        return Ok(());
    }
    let mut file = fs::OpenOptions::new().create(true).append(true).open(file)?;
    writeln!(file, "{seed} # {invariant}")
}

fn record(file: &Path, hashes: &BTreeMap<u64, u64>) -> std::io::Result<()> {
    let lines = hashes.iter().map(|(seed, hash)| format!("{seed} {hash:016x}\n"));
    fs::write(file, lines.collect::<String>())
}

fn report(arguments: &Arguments, total: &Total, seeds: usize, took: Duration) -> ExitCode {
    summary(&total.counts);
    let seconds = took.as_secs_f64();
    let virtual_seconds = total.virtual_micros as f64 / 1e6;
    println!(
        "{seeds} seeds in {} runs, {seconds:.1} s with {} jobs: {:.1} seeds a second, {:.0} \
         virtual seconds a second and job",
        total.runs,
        arguments.jobs,
        seeds as f64 / seconds,
        virtual_seconds / seconds / arguments.jobs.max(1) as f64,
    );
    let never = total.counts.never();
    if !never.is_empty() {
        println!("never happened: {}", never.join("; "));
    }
    if total.failed.is_empty() {
        println!("all of them hold: {} invariants", INVARIANTS.len());
    } else {
        println!("{} failed: {:?}", total.failed.len(), total.failed);
    }
    let incomplete = arguments.complete && !never.is_empty();
    if total.failed.is_empty() && !incomplete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(counts: &Counts) {
    for (what, count) in &counts.volume {
        println!("{count:>12}  {what}");
    }
    println!("faults:");
    for fault in Fault::ALL {
        println!("{:>12}  {}", counts.faults.get(fault).copied().unwrap_or(0), fault.text());
    }
    println!("sometimes:");
    for event in Sometimes::ALL {
        println!("{:>12}  {}", counts.sometimes.get(event).copied().unwrap_or(0), event.text());
    }
}
