//! Starts a node and holds on to it: what a program that embeds one works with.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;

use slipstream_core::admin::{AdminAnswer, AdminRequest, Status};
use slipstream_core::client::ConnectError;
use slipstream_core::config::Config;
use slipstream_core::driver::Driver;
use slipstream_core::exit::{Ending, Exit, NodeGone};
use slipstream_core::feed::{Feed, Watcher};
use slipstream_core::ids::StoreId;
use slipstream_core::io::Input;
use slipstream_core::shared::{Once, Shared};
use slipstream_core::store::Recovered;
use slipstream_core::tags::TagSet;
use slipstream_core::upgrade::Rules;
use slipstream_store_sqlite::{Completion, MAX_JOBS, OpenError, Store};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use crate::client::{Client, ClientOptions};
use crate::clock::Clock;
use crate::dial::check_url;
use crate::link::share;
use crate::listen;
use crate::pump::Target;
use crate::stream::Stream;
use crate::turn::{INPUTS, Incoming, Turn};

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
}

impl Options {
    /// A node that keeps its data in `data_dir`, and listens on loopback, port 7400.
    pub fn new(config: Config, data_dir: impl Into<PathBuf>) -> Self {
        let listen = (Ipv4Addr::LOCALHOST, 7400).into();
        Self { config, data_dir: data_dir.into(), listen, allowed_origins: Vec::new() }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another program there? (listen.address)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A peer's URL cannot be dialled.
    #[error("a peer cannot be dialled: {0} (peers.url)")]
    Peer(#[source] ConnectError),
    /// The database cannot be opened. The message names the file and the remedy.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// What should not fail did: the system's random numbers, or a thread of the program.
    #[error("the node could not be started: {0}")]
    Internal(String),
}

/// A stream of what happens at a node, with the methods of a [`Watcher`]; it ends with the node.
pub type Events = Stream<Watcher>;

/// A running node, and a [`Client`] of it: what a program publishes and receives here goes through
/// the same rules as that of an application behind a socket.
///
/// Clones are for the same node; it goes on when all are dropped.
#[derive(Debug, Clone)]
pub struct Node {
    inputs: mpsc::Sender<Incoming>,
    local_addr: SocketAddr,
    exit: Shared<Once<Exit>>,
    client: Client,
}

impl Deref for Node {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Node {
    /// Opens the store, listens, and starts the node.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way, and what to do.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let Options { config, data_dir, listen: address, allowed_origins } = options;
        config.peers.iter().try_for_each(|url| check_url(url)).map_err(StartError::Peer)?;
        let cannot_listen = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
        let local_addr = listener.local_addr().map_err(cannot_listen)?;

        // As many as jobs may wait: the store's thread never does.
        let (completed, completions) = mpsc::channel(MAX_JOBS);
        let (store, recovered) = open(&config, data_dir, completed).await?;
        let (clock, limits) = (Clock::start(), config.limits.clone());
        let client = ClientOptions {
            heartbeat: config.heartbeat.clone(),
            max_frame_bytes: limits.max_frame_bytes(),
            ..Default::default()
        };
        let span = tracing::info_span!(target: "slipstream", "node", id = %config.id);
        let seed = getrandom::u64().map_err(internal)?;
        let (inputs, received) = mpsc::channel(INPUTS);
        let loopback = local_addr.ip().to_canonical().is_loopback();
        let rules = Rules { allowed_origins, loopback, limits: limits.clone() };
        let node = slipstream_core::Node::new(config, recovered, seed, clock.now());
        let turn = Turn {
            driver: Driver::new(node),
            clock,
            store,
            limits,
            inputs: inputs.clone(),
            listener: tokio::spawn(listen::run(listener, rules, inputs.clone())).abort_handle(),
        };
        let exit = share(Once::default());
        let ending = Ending::of(exit.clone());
        let turned = turn.run(received, completions).instrument(span);
        tokio::spawn(async move { ending.end(turned.await) });
        let client = Client::of(Target::Here(inputs.clone()), client);
        Ok(Self { inputs, local_addr, exit, client })
    }

    /// The client of this node, as a value of its own.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Asks or orders something. Orders are answered when they are durable.
    ///
    /// # Errors
    /// [`NodeGone`] if the node has ended, or ends before it answers.
    pub async fn admin(&self, request: AdminRequest) -> Result<AdminAnswer, NodeGone> {
        let (answer, answered) = oneshot::channel();
        self.send(Incoming::Admin(request, answer)).await?;
        answered.await.map_err(|_| NodeGone)
    }

    /// Replaces the peers to dial and the tags of this node.
    ///
    /// # Errors
    /// [`NodeGone`] if the node has ended.
    pub async fn reconfigure(&self, peers: Vec<String>, tags: TagSet) -> Result<(), NodeGone> {
        self.send(Incoming::Input(Input::Reconfigure { peers, tags })).await
    }

    /// Returns when the loop has turned and the store's thread has answered. For as long as that
    /// takes: whoever asks sets the deadline.
    ///
    /// # Errors
    /// [`NodeGone`] if the node has ended.
    pub async fn alive(&self) -> Result<(), NodeGone> {
        let (answer, answered) = oneshot::channel();
        self.send(Incoming::Alive(answer)).await?;
        answered.await.map_err(|_| NodeGone)
    }

    /// The node, its links, sessions, store and topology, as they are now.
    ///
    /// # Errors
    /// [`NodeGone`] if the node has ended.
    pub async fn status(&self) -> Result<Box<Status>, NodeGone> {
        match self.admin(AdminRequest::Status).await? {
            AdminAnswer::Status(status) => Ok(status),
            other => unreachable!("a status was asked for, and came {other:?}"),
        }
    }

    /// What happens from now on: links, sessions, the mesh, the store. Whoever is more than 1,024
    /// events behind misses some; they are logged in any case.
    ///
    /// # Errors
    /// [`NodeGone`] if the node has ended.
    pub async fn events(&self) -> Result<Events, NodeGone> {
        let feed = share(Feed::default());
        self.send(Incoming::Watched(feed.clone())).await?;
        Ok(Stream(Watcher::of(feed)))
    }

    /// Begins to shut down: nothing new is accepted, what was accepted is committed, everyone is
    /// told 1001. [`Node::ended`] tells when that is done, after at most 5 seconds.
    ///
    /// # Errors
    /// [`NodeGone`] if the node has ended.
    pub async fn stop(&self) -> Result<(), NodeGone> {
        self.send(Incoming::Input(Input::ShutDown)).await
    }

    /// [`Node::stop`], and [`Node::ended`].
    pub async fn shutdown(&self) -> Exit {
        // A node that has ended already is what was asked for.
        let _ = self.stop().await;
        self.ended().await
    }

    /// Returns when the node has ended: its store is closed.
    pub async fn ended(&self) -> Exit {
        self.exit.wait(Once::poll).await
    }

    async fn send(&self, incoming: Incoming) -> Result<(), NodeGone> {
        self.inputs.send(incoming).await.map_err(|_| NodeGone)
    }
}

fn internal(error: impl ToString) -> StartError {
    StartError::Internal(error.to_string())
}

/// Opens the store, which may take a while, beside the runtime's threads.
async fn open(
    config: &Config,
    data_dir: PathBuf,
    completed: mpsc::Sender<Completion>,
) -> Result<(Store, Recovered), StartError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(internal)?;
    let id = StoreId(u128::from_le_bytes(random));
    let options = slipstream_store_sqlite::Options::new(data_dir, config.store.durability, id);
    // A loop that is gone needs to know nothing: the store goes on to its end.
    let notify = Box::new(move |completion| drop(completed.blocking_send(completion)));
    let opening = tokio::task::spawn_blocking(move || Store::open(options, notify));
    Ok(opening.await.map_err(internal)??)
}
