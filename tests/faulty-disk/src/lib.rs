//! For tests: a disk under SQLite that fails, lies and loses power on demand.
//!
//! [`Disk::under`] puts itself under every database that is opened below a directory, in this
//! process; everything else is left alone. The model is SQLite's own test harness: fail the n-th
//! I/O, n + 1, ... until a run passes without the fault having fired, once and for good.
//!
//! What a power loss leaves is modelled and not tried: the disk remembers what was synced, file
//! by file, and what was written since, and [`Disk::image`] writes down what may be left of both.
//! The real files are never synced, so that thousands of runs take seconds.

mod disk;
mod image;
mod vfs;

pub use disk::{Disk, Fault};
pub use image::Survives;
