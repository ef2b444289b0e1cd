//! The rules that no run may break, one file each, named after the promise.
//!
//! Each is told every [`Fact`] in order, keeps what it needs of them, and looks at everything once
//! more when the mesh has settled. The ledger knows what is durable where; an invariant never asks
//! a node. Besides these the world itself watches that identities are never used twice
//! (`ledger`), that recovery is idempotent and a jump of a clock moves no timer (`processes`,
//! `faults`), that nothing goes round in circles, and that after healing every queue is empty
//! (`healing`).

mod p10_redundant;
mod p12_one_answer_per_frame;
mod p13_controlled_retry;
mod p1_nothing_leaves_before_its_commit;
mod p1_receipts_stand_for_durable;
mod p2_conservation;
mod p2_custody;
mod p2_nothing_invented;
mod p2_nothing_lost;
mod p2_sessions;
mod p2_time_to_live;
mod p2_undelivered;
mod p3_once;
mod p4_no_loops;
mod p5_targeted;
mod p6_convergence;
mod p6_digests;
mod p6_reads;
mod p8_bounded;
mod p9_idempotent;

use std::collections::BTreeMap;

use slipstream_core::admin::Status;

use super::facts::{Fact, View};

/// How a rule was broken.
#[derive(Debug)]
pub struct Broken {
    /// What happened.
    pub what: String,
    /// Names in the trace that it is about.
    pub subjects: Vec<String>,
}

impl Broken {
    fn new(what: String, subjects: &[&str]) -> Self {
        Self { what, subjects: subjects.iter().map(|subject| (*subject).into()).collect() }
    }
}

/// Whether a rule holds.
type Verdict = Result<(), Broken>;

/// A rule.
trait Invariant: std::fmt::Debug {
    /// Looks at what has just happened.
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict;

    /// Looks at everything, after healing.
    fn settled(&self, view: &View<'_>, statuses: &BTreeMap<usize, Status>) -> Verdict {
        let _ = (view, statuses);
        Ok(())
    }
}

macro_rules! invariants {
    ($($module:ident: $name:literal,)*) => {
        /// What the invariants are called.
        pub const NAMES: &[&str] = &[$($name,)*];

        /// All of them.
        #[derive(Debug)]
        pub struct Invariants {
            rules: Vec<(&'static str, Box<dyn Invariant>)>,
        }

        impl Default for Invariants {
            fn default() -> Self {
                Self { rules: vec![$(($name, Box::<$module::Rule>::default()),)*] }
            }
        }
    };
}

invariants! {
    p1_receipts_stand_for_durable: "P1 receipts stand for durable",
    p1_nothing_leaves_before_its_commit: "P1 nothing leaves before its commit",
    p2_nothing_invented: "P2 nothing invented or altered",
    p2_custody: "P2 custody",
    p2_nothing_lost: "P2 nothing lost",
    p2_conservation: "P2 conservation",
    p2_sessions: "P2 sessions of peers",
    p2_undelivered: "P2 undelivered events are dead letters",
    p2_time_to_live: "P2 time to live",
    p3_once: "P3 once",
    p4_no_loops: "P4 no loops",
    p5_targeted: "P5 targeted",
    p6_convergence: "P6 convergence",
    p6_digests: "P6 digests",
    p6_reads: "P6 reads",
    p8_bounded: "P8 bounded",
    p9_idempotent: "P9 idempotent publishing",
    p10_redundant: "P10 redundant nodes act as one",
    p12_one_answer_per_frame: "P12 one answer per frame",
    p13_controlled_retry: "P13 controlled retry",
}

impl Invariants {
    /// Tells every rule a fact.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), (&'static str, Broken)> {
        for (name, rule) in &mut self.rules {
            rule.see(fact, view).map_err(|broken| (*name, broken))?;
        }
        Ok(())
    }

    /// Asks every rule about the mesh that has settled.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn settled(
        &self,
        view: &View<'_>,
        statuses: &BTreeMap<usize, Status>,
    ) -> Result<(), (&'static str, Broken)> {
        for (name, rule) in &self.rules {
            rule.settled(view, statuses).map_err(|broken| (*name, broken))?;
        }
        Ok(())
    }
}
