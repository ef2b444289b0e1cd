//! The durable store of a Slipstream node: one SQLite file, one thread, one transaction a batch.
//!
//! A shell opens the store and gives it to the loop of the core, which hands it what is to be
//! committed and looked up. What comes of that is reported as inputs of the node. What stays true:
//! an [`Input::Committed`](slipstream_core::io::Input::Committed) follows the sync of its
//! transaction (P1), a failed commit leaves nothing behind, and after a failure that leaves
//! durability unknown nothing is committed any more.
//!
//! ```
//! use std::sync::mpsc;
//!
//! use slipstream_core::config::Durability;
//! use slipstream_core::ids::{BatchId, StoreId};
//! use slipstream_core::io::Input;
//! use slipstream_core::store::{Batch, Store as _};
//! use slipstream_store_sqlite::{Options, Store};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let data_dir = directory.path().to_path_buf();
//! let (done, reports) = mpsc::channel();
//! let options = Options::new(data_dir, Durability::Full, StoreId(7));
//! let notify = Box::new(move |input| done.send(input).unwrap());
//! let on_damage = Box::new(|damaged| eprintln!("{damaged}"));
//! let (store, recovered) = Store::open(options, notify, on_damage).unwrap();
//! assert_eq!(recovered.store_id, StoreId(7));
//!
//! store.commit(Box::new(Batch { id: BatchId::new(1), ..Batch::default() })).unwrap();
//! assert!(matches!(reports.recv(), Ok(Input::Committed(_))));
//! store.close().unwrap();
//! ```
//!
//! # Inside
//!
//! | module | owns |
//! | --- | --- |
//! | `store`, `writer` | the handle and the thread; commits and checkpoints |
//! | `options`, `error` | what is asked for when a store is opened; why it cannot be |
//! | `database`, `schema` | opening the file and reading its settings back; the tables |
//! | `commit`, `log`, `records`, `latest` | one batch as one transaction |
//! | `state`, `meta` | what is known in memory of what is committed; the row of the whole |
//! | `fetch`, `reader`, `recover` | answers; the rows for them; what is read at the start |
//! | `access`, `owner`, `files` | who may use the files, whose they are, if they are in place |
//! | `room` | room on the disk that is taken before it is needed |
//! | `index`, `history`, `tombstones`, `bits` | which rows there are, and which of them go |
//! | `live`, `copies` | digests of the live state; events of groups that outlive their rows |
//! | `digest`, `wal` | checksums; what SQLite would drop from the write-ahead log |
//! | `readback` | rows out of given cells, for the fuzz targets (a feature) |

mod access;
mod bits;
mod commit;
mod copies;
mod database;
mod digest;
mod error;
mod fetch;
mod files;
mod history;
mod index;
mod latest;
mod live;
mod log;
mod meta;
mod options;
mod owner;
#[cfg(feature = "readback")]
#[doc(hidden)]
pub mod readback;
mod reader;
mod records;
mod recover;
mod room;
mod schema;
mod state;
mod store;
mod tombstones;
mod wal;
mod writer;

pub use database::MIN_SQLITE_VERSION;
pub use error::OpenError;
pub use log::Damaged;
pub use options::{StoreOptions, StoreOptions as Options};
pub use slipstream_core::store::Stopped;
pub use store::{MAX_JOBS, Notify, OnDamage, SqliteStore, SqliteStore as Store};
