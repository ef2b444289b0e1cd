//! Where and how a store is opened.

use std::path::PathBuf;

use slipstream_core::config::Durability;
use slipstream_core::ids::{NodeId, StoreId};

/// Where and how a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The directory that holds the database; made if it is not there.
    pub data_dir: PathBuf,
    /// Whether commits wait for the disk (P1).
    pub durability: Durability,
    /// Random; the identity of the database if it is made now.
    pub new_store_id: StoreId,
    /// Most pages (of 4 KiB) that the database may have; beyond it commits fail as on a full
    /// disk. `None`: no bound but the disk.
    pub max_pages: Option<u32>,
    /// The node that it is for, which the database remembers. `None`: whatever it remembers.
    pub node: Option<NodeId>,
    /// Whether a database of another node becomes this one's.
    pub rename_node: bool,
    /// Whether a database that has lost its write-ahead log is taken as it is.
    pub accept_missing_log: bool,
}

impl StoreOptions {
    /// A store in `data_dir` without a bound on its pages.
    pub fn new(data_dir: PathBuf, durability: Durability, new_store_id: StoreId) -> Self {
        Self {
            data_dir,
            durability,
            new_store_id,
            max_pages: None,
            node: None,
            rename_node: false,
            accept_missing_log: false,
        }
    }
}
