//! Starts a node and holds on to it: what a program that embeds one works with.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;

use rustix::io::Errno;
use slipstream_core::channel;
use slipstream_core::client::ConnectError;
use slipstream_core::config::Config;
use slipstream_core::event_loop::{EventLoop, INPUTS};
use slipstream_core::exit::Exit;
use slipstream_core::feed::Watcher;
use slipstream_core::handle::Handle;
use slipstream_core::ids::StoreId;
use slipstream_core::runtime::{Runtime, Task};
use slipstream_core::shared::{Once, Promise};
use slipstream_core::slots::{LEAST_DESCRIPTORS, Room};
use slipstream_core::store::Recovered;
use slipstream_core::upgrade::Rules;
use slipstream_store_sqlite::{Damaged, OpenError, Options as StoreOptions, Store};
use tracing::{Instrument, Span};

use crate::client::ClientOptions;
use crate::dial::check_url;
use crate::listen;
use crate::runtime::{Incoming, Inputs, Tokio};
use crate::stream::Stream;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Options {
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

impl Options {
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
pub(crate) fn remedy(error: &io::Error) -> &'static str {
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
pub(crate) fn room(config: &Config) -> Result<Room, StartError> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.unwrap_or(u64::MAX);
    Room::within(config, limit).ok_or(StartError::Descriptors { limit })
}

/// Takes no more applications than there are descriptors for, and says so.
fn limit_applications(config: &mut Config, room: Room) {
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

/// A stream of what happens at a node, with the methods of a [`Watcher`]; it ends with the node.
pub type Events = Stream<Watcher>;

/// A running node: all that can be done with it are methods of its [`Handle`], and of its
/// [`Client`](crate::Client).
///
/// Clones are for the same node; it goes on when all are dropped.
#[derive(Debug, Clone)]
pub struct Node(Handle<Tokio>);

impl Deref for Node {
    type Target = Handle<Tokio>;

    fn deref(&self) -> &Handle<Tokio> {
        &self.0
    }
}

impl Node {
    /// Opens the store, listens, and starts the node.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way, and what to do.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let files = store_options(&options)?;
        let Options { mut config, listen: address, allowed_origins, .. } = options;
        config.peers.iter().try_for_each(|url| check_url(url)).map_err(StartError::Peer)?;
        let cannot_listen = |source| StartError::Listen { address, source };
        let room = room(&config)?;
        limit_applications(&mut config, room);
        let listener = listen::bind(address).await.map_err(cannot_listen)?;
        let local_addr = listener.local_addr().map_err(cannot_listen)?;

        let span = tracing::info_span!(target: "slipstream", "node", id = %config.id);
        let (inputs, received) = channel::bounded::<Tokio, _>(INPUTS);
        let (store, recovered) = open(files, inputs.clone(), span.clone()).await?;
        let (limits, client) = (config.limits.clone(), ClientOptions::within(&config));
        let (loopback, unfinished) =
            (local_addr.ip().to_canonical().is_loopback(), room.unfinished);
        let rules = Rules { allowed_origins, loopback, limits: limits.clone(), unfinished };
        let seed = Tokio::random().map_err(StartError::Internal)?;
        let new = move || slipstream_core::Node::new(config, recovered, seed, Tokio::now());
        let node = Tokio::unblock(new).await.map_err(StartError::Internal)?;
        let listening = Task::spawn::<Tokio>(listen::run(listener, rules, inputs.clone()));
        let event_loop = EventLoop::<Tokio, _>::new(node, store, limits, inputs.clone(), listening);
        let exit = Tokio::share(Once::default());
        let ending = Promise::of(exit.clone(), Exit::Failed);
        let turned = event_loop.run(received).instrument(span);
        Tokio::spawn(async move { ending.keep(turned.await) });
        Ok(Self(Handle::new(local_addr, inputs, exit, client)))
    }
}

/// What the store is opened with; a new one gets a random identity.
fn store_options(options: &Options) -> Result<StoreOptions, StartError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| StartError::Internal(error.to_string()))?;
    let id = StoreId(u128::from_le_bytes(random));
    let durability = options.config.store.durability;
    Ok(StoreOptions {
        node: Some(options.config.id.clone()),
        rename_node: options.rename_node,
        accept_missing_log: options.accept_missing_log,
        ..StoreOptions::new(options.data_dir.clone(), durability, id)
    })
}

/// Opens the store, which may take a while. What it has done it tells the loop.
async fn open(
    options: StoreOptions,
    inputs: Inputs,
    span: Span,
) -> Result<(Store, Recovered), StartError> {
    // Its thread never waits. What it may report is bounded by the node: one batch is under way at
    // a time, and so many questions.
    let notify = Box::new(move |input| inputs.push(Incoming::Input(input)));
    let on_damage = Box::new(move |damaged: Damaged| {
        span.in_scope(|| tracing::error!(target: "slipstream", "{damaged}"));
    });
    let opened = Tokio::unblock(move || Store::open(options, notify, on_damage)).await;
    Ok(opened.map_err(StartError::Internal)??)
}
