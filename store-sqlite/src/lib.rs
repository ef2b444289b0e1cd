//! The durable store of a Slipstream node: one SQLite file, one thread, one transaction a batch.
//!
//! A shell opens the store, hands it what the core wants committed and looked up, and feeds the
//! [`Completion`]s back to the core. What stays true: a [`Completion::Committed`] follows the sync
//! of its transaction (P1), a failed commit leaves nothing behind, and after a failure that leaves
//! durability unknown nothing is committed any more.
//!
//! ```
//! use std::sync::mpsc;
//!
//! use slipstream_core::config::Durability;
//! use slipstream_core::ids::{BatchId, StoreId};
//! use slipstream_core::store::Batch;
//! use slipstream_store_sqlite::{Completion, Options, Store};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let data_dir = directory.path().to_path_buf();
//! let (done, completions) = mpsc::channel();
//! let options = Options::new(data_dir, Durability::Full, StoreId(7));
//! let notify = Box::new(move |completion| done.send(completion).unwrap());
//! let (store, recovered) = Store::open(options, notify).unwrap();
//! assert_eq!(recovered.store_id, StoreId(7));
//!
//! store.commit(Box::new(Batch { id: BatchId::new(1), ..Batch::default() })).unwrap();
//! assert!(matches!(completions.recv(), Ok(Completion::Committed(_))));
//! store.close().unwrap();
//! ```

mod access;
mod bits;
mod commit;
mod copies;
mod database;
mod digest;
mod fetch;
mod files;
mod history;
mod index;
mod latest;
mod live;
mod log;
mod owner;
#[cfg(feature = "readback")]
#[doc(hidden)]
pub mod readback;
mod records;
mod recover;
mod room;
mod schema;
mod store;
mod tombstones;
mod wal;
mod writer;

pub use database::{MIN_SQLITE_VERSION, OpenError, Options};
pub use log::Damaged;
pub use store::{Completion, MAX_JOBS, Notify, Stopped, Store};
