//! Figures of the mesh: what it costs while nothing fails, and how late messages are when
//! something does.
//!
//! They are measured on real nodes of the core, on virtual time, in a world in which everything is
//! even and only one thing fails ([`Lab`]). The simulator draws meshes and faults to break rules;
//! here nothing is drawn, so that a figure says something about the protocol, and the same each
//! time. Bounds stand beside what they bound: [`steady`], [`failures`], [`flapping`]. The command
//! `figures` ([`command`]) prints all of them, `tests/tests/figures.rs` keeps a part of them.

mod cables;
pub mod command;
mod counts;
pub mod failures;
pub mod flapping;
mod lab;
mod shape;
pub mod steady;
mod traffic;

use std::fmt;

use serde::Serialize;

pub use counts::{Arrival, Crossings, Letter};
pub use lab::Lab;
pub use shape::Shape;
pub use traffic::Traffic;

/// The figure of a run in which something never arrived.
pub const NEVER: f64 = f64::MAX;

/// Something measured, and what it may be.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: &'static str,
    /// In which mesh.
    pub mesh: String,
    /// The worst that was seen.
    pub measured: f64,
    /// The most that it may be.
    pub bound: f64,
    /// What it is counted in.
    pub unit: &'static str,
    /// Where that was, if not everywhere.
    pub at: String,
}

impl Figure {
    /// Whether it is within its bound.
    pub fn is_kept(&self) -> bool {
        self.measured <= self.bound
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, mesh, measured, bound, unit, at } = self;
        write!(f, "{what:<32} {mesh:<22} ")?;
        if *measured == NEVER {
            write!(f, "{:>8}", "never")?;
        } else {
            write!(f, "{measured:>8.2}")?;
        }
        write!(f, " of at most {bound:.2} {unit}")?;
        if at.is_empty() { Ok(()) } else { write!(f, ", {at}") }
    }
}
