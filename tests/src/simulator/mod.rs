//! A deterministic simulator: a mesh of real nodes in one thread, on virtual time, in a world that
//! fails in every way that a seed can draw (TigerBeetle's two phases, FoundationDB's swarm).
//!
//! A run has two phases. In the first one applications publish while faults happen. Then everything
//! heals, nothing new is published, and the mesh must settle. *Invariants*, one file each and named
//! after the promise that they keep, are told every fact as it happens and look at everything in
//! the end. Everything follows from the seed: two runs of it have the same trace.
//!
//! [`run`] runs a seed, as thoroughly as it is told; the command `simulate` runs many.

mod application;
mod carrying;
pub mod command;
mod counts;
mod driving;
mod facts;
mod faults;
mod frames;
mod healing;
mod invariants;
mod ledger;
mod liar;
mod meshing;
mod network;
mod oracle;
mod plan;
mod processes;
pub(crate) mod random;
mod site;
mod storing;
mod trace;
mod twins;
mod widening;
mod world;
mod wrong_clock;

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

pub use counts::{Counts, Fault, Sometimes};
pub use invariants::NAMES as INVARIANTS;
pub use plan::{Micros, Plan, SECOND};

use world::World;

/// Lines of the trace that are shown with a failure.
const TAIL: usize = 60;

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// What it drew.
    pub plan: Plan,
    /// What it has seen.
    pub counts: Counts,
    /// Virtual time that one of its runs took.
    pub virtual_time: Micros,
    /// Hash of the trace.
    pub hash: u64,
    /// The rule that was broken, if one was.
    pub failure: Option<Failure>,
}

impl Outcome {
    /// The run should have had this hash: that is its failure, if it has no other one.
    fn differ(&mut self, expected: u64) {
        let what = format!(
            "it has hash {:016x}, and had {expected:016x}: compare what both builds write with \
             `--seed {} --trace FILE`",
            self.hash, self.plan.seed
        );
        let (invariant, at) = ("the same as recorded", self.virtual_time);
        let (subjects, tail) = (Vec::new(), Vec::new());
        self.failure.get_or_insert(Failure { invariant, at, what, subjects, tail });
    }
}

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The invariant.
    pub invariant: &'static str,
    /// When, in virtual time.
    pub at: Micros,
    /// What happened.
    pub what: String,
    /// Names in the trace that it is about.
    pub subjects: Vec<String>,
    /// The last lines of the trace that name them.
    pub tail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} is broken at {:.6} s: {}",
            self.invariant,
            self.at as f64 / 1e6,
            self.what
        )?;
        for line in &self.tail {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static PANIC: Cell<String> = const { Cell::new(String::new()) };
}

/// Keeps what a panic says for the failure of its seed; to be set as the panic hook.
pub fn note_panic(info: &PanicHookInfo<'_>) {
    PANIC.set(info.to_string());
}

/// How much of a seed's time goes into checks that hardly ever find anything. Both have the same
/// history up to the moment in which the mesh has settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// One run, and a short look at the mesh that has settled.
    Quick,
    /// Two runs whose traces must be equal, each start of a node made twice, and a long look at
    /// the mesh that has settled.
    Thorough,
}

impl Depth {
    /// One seed in so many is thorough where nothing else is asked for.
    const THOROUGH_EVERY: u64 = 10;

    /// The depth of a seed among many.
    pub fn of(seed: u64) -> Self {
        if seed.is_multiple_of(Self::THOROUGH_EVERY) { Self::Thorough } else { Self::Quick }
    }

    /// How often the seed is run.
    pub fn runs(self) -> u64 {
        match self {
            Self::Quick => 1,
            Self::Thorough => 2,
        }
    }
}

/// Runs a seed, and once more in words if it fails.
pub fn run(seed: u64, depth: Depth) -> Outcome {
    let mut outcome = run_once(seed, depth, false);
    if outcome.failure.is_some() {
        outcome.failure = run_once(seed, depth, true).failure.or(outcome.failure);
    } else if depth == Depth::Thorough {
        let again = run_once(seed, depth, false);
        outcome.failure = differs(&outcome, &again);
    }
    outcome
}

/// The failure of a seed whose two runs have different traces.
fn differs(first: &Outcome, second: &Outcome) -> Option<Failure> {
    (first.hash != second.hash).then(|| Failure {
        invariant: "determinism",
        at: first.virtual_time,
        what: format!("two runs differ: {:016x} and {:016x}", first.hash, second.hash),
        subjects: Vec::new(),
        tail: Vec::new(),
    })
}

/// Runs a seed once and answers everything that happens in it, in words.
pub fn run_in_words(seed: u64) -> String {
    let mut world = World::new(Plan::draw(seed), Depth::Thorough, true);
    world.live();
    let mut lines = world.trace.tail(&[], usize::MAX);
    lines.extend(world.network.conns.iter().map(|(number, conn)| format!("conn:{number} {conn}")));
    lines.join("\n")
}

fn run_once(seed: u64, depth: Depth, in_words: bool) -> Outcome {
    let mut world = World::new(Plan::draw(seed), depth, in_words);
    world.live();
    let failure = world
        .failure
        .take()
        .map(|failure| Failure { tail: world.trace.tail(&failure.subjects, TAIL), ..failure });
    Outcome {
        plan: world.plan.clone(),
        counts: world.counts.clone(),
        virtual_time: world.now,
        hash: world.trace.hash(),
        failure,
    }
}

impl World {
    /// Both phases. A panic of a node is a broken rule like any other.
    fn live(&mut self) {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            self.chaos();
            self.heal();
        }));
        if panicked.is_err() {
            self.fail("P11 no panic", PANIC.take(), Vec::new());
        }
    }
}
