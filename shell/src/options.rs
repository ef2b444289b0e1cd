//! What a node is started with, and what may be in the way.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use rustix::io::Errno;
use slipstream_core::client::ConnectError;
use slipstream_core::config::Config;
use slipstream_core::slots::{LEAST_DESCRIPTORS, SlotCounts};
use slipstream_store_sqlite::{OpenError, StoreOptions};

use crate::random;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// What the protocol goes by.
    pub config: Config,
    /// Directory of the database; made if it is not there.
    pub data_dir: PathBuf,
    /// Where peers and applications connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Origins of web pages that may connect, besides loopback while listening on loopback.
    pub allowed_origins: Vec<String>,
    /// Whether the database of another `node.id` becomes this node's.
    pub rename_node: bool,
    /// Whether a database that was not closed is taken without its write-ahead log: what was
    /// acknowledged last is lost then.
    pub accept_missing_log: bool,
}

impl NodeOptions {
    /// A node that keeps its data in `data_dir`, and listens on loopback, port 7400.
    pub fn new(config: Config, data_dir: impl Into<PathBuf>) -> Self {
        let listen = (Ipv4Addr::LOCALHOST, 7400).into();
        Self {
            config,
            data_dir: data_dir.into(),
            listen,
            allowed_origins: Vec::new(),
            rename_node: false,
            accept_missing_log: false,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; {} (listen.address)", remedy(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A peer's URL cannot be dialled.
    #[error("a peer cannot be dialled: {0} (peers.url)")]
    Peer(#[source] ConnectError),
    /// The database cannot be opened. The message names the file and the remedy.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The process may open too few files.
    #[error(
        "too many open files: this process may open {limit}, and a node needs at least {}; raise \
         the limit (ulimit -n, or LimitNOFILE= of systemd)",
        LEAST_DESCRIPTORS
    )]
    Descriptors {
        /// How many it may open.
        limit: u64,
    },
    /// What should not fail did: the system's random numbers, or a thread of the program.
    #[error("the node could not be started: {0}")]
    Internal(String),
}

/// What to do where the system does not let a node listen.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "end what listens there, or choose another address",
        io::ErrorKind::PermissionDenied => "choose a port above 1023, or allow this one",
        _ if matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE)) => {
            "raise the limit of open files (ulimit -n, or LimitNOFILE= of systemd)"
        }
        _ => "look at the address",
    }
}

/// How many connections of each kind a node takes in this process.
///
/// # Errors
/// [`StartError::Descriptors`] if that is too few.
pub fn room(config: &Config) -> Result<SlotCounts, StartError> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.unwrap_or(u64::MAX);
    SlotCounts::within(config, limit).ok_or(StartError::Descriptors { limit })
}

/// Takes no more applications than there are descriptors for, and says so.
pub(crate) fn limit_applications(config: &mut Config, room: SlotCounts) {
    let (applications, wanted) = (room.applications, config.limits.max_connections);
    if applications < wanted {
        config.limits.max_connections = applications;
        tracing::warn!(
            target: "slipstream",
            "this process may open too few files for limits.max_connections = {wanted}: it takes \
             {applications} applications at a time; raise the limit (ulimit -n, or LimitNOFILE= of \
             systemd), or lower limits.max_connections"
        );
    }
}

/// What the store is opened with; a new one gets a random identity.
pub(crate) fn store_options(options: &NodeOptions) -> Result<StoreOptions, StartError> {
    let id = random::store_id().map_err(StartError::Internal)?;
    let durability = options.config.store.durability;
    Ok(StoreOptions {
        node: Some(options.config.id.clone()),
        rename_node: options.rename_node,
        accept_missing_log: options.accept_missing_log,
        ..StoreOptions::new(options.data_dir.clone(), durability, id)
    })
}
