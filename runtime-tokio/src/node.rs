//! Stand-in for the node, so that the daemon can be built and tried: it listens, answers an empty
//! state and ends when asked. The real one takes its place.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use slipstream_core::admin::{AdminAnswer, AdminRequest, Counters, Status, StoreStatus};
use slipstream_core::config::Config;
use slipstream_core::ids::{Position, StoreId};
use slipstream_core::store::{StoreFailure, Usage};
use slipstream_core::tags::TagSet;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What a node is started from.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the core goes by.
    pub config: Config,
    /// Folder of the database.
    pub data_dir: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Web pages that may connect.
    pub allowed_origins: Vec<String>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}; set listen.address to a free one")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl StartError {
    /// Exit code of a process that does not start for this reason.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bind { .. } => 1,
        }
    }
}

/// How a node ended.
#[derive(Debug)]
pub enum Exit {
    /// As asked.
    Stopped,
    /// Its store can no longer be trusted.
    Halted(StoreFailure),
}

/// The node is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has ended")]
pub struct NodeGone;

/// A running node.
#[derive(Debug, Clone)]
pub struct NodeHandle(Arc<Stub>);

#[derive(Debug)]
struct Stub {
    options: Options,
    address: SocketAddr,
    stop: Notify,
    since: Instant,
}

impl NodeHandle {
    /// Starts a node.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way.
    pub async fn start(options: Options) -> Result<(Self, JoinHandle<Exit>), StartError> {
        let address = options.listen;
        let failed = |source| StartError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let since = Instant::now();
        let stub = Arc::new(Stub { options, address, stop: Notify::new(), since });
        let node = Self(stub.clone());
        let task = tokio::spawn(async move {
            stub.stop.notified().await;
            drop(listener);
            Exit::Stopped
        });
        Ok((node, task))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.address
    }

    /// Asks or orders something.
    ///
    /// # Errors
    /// [`NodeGone`] if it has ended.
    pub async fn admin(&self, request: AdminRequest) -> Result<AdminAnswer, NodeGone> {
        Ok(match request {
            AdminRequest::Status => AdminAnswer::Status(Box::new(self.status())),
            AdminRequest::Where(_) => AdminAnswer::Where(Vec::new()),
            AdminRequest::DeadLetters { .. } => AdminAnswer::DeadLetters(Vec::new()),
            AdminRequest::ReplayDeadLetter(_)
            | AdminRequest::PurgeDeadLetter(_)
            | AdminRequest::ForgetSession(_) => AdminAnswer::NotFound,
        })
    }

    fn status(&self) -> Status {
        let config = &self.0.options.config;
        Status {
            node: config.id.clone(),
            version: config.version,
            tags: config.tags.clone(),
            cluster_group: config.cluster_group.clone(),
            incarnation: 1,
            uptime_ms: u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            durability: config.store.durability,
            refusing: None,
            shutting_down: false,
            links: Vec::new(),
            sessions: Vec::new(),
            store: StoreStatus {
                store_id: StoreId(1),
                head: Position::new(0),
                usage: Usage::default(),
                max_bytes: config.store.max_bytes,
                seen_bytes: 0,
                idempotency_ids: 0,
                idempotency_bytes: 0,
            },
            counters: Counters::default(),
        }
    }

    /// Changes what can be changed while running.
    ///
    /// # Errors
    /// [`NodeGone`] if it has ended.
    pub async fn reconfigure(&self, _peers: Vec<String>, _tags: TagSet) -> Result<(), NodeGone> {
        Ok(())
    }

    /// Returns when event loop and store thread have answered.
    ///
    /// # Errors
    /// [`NodeGone`] if it has ended.
    pub async fn alive(&self) -> Result<(), NodeGone> {
        Ok(())
    }

    /// Begins to end it.
    pub async fn shutdown(&self) {
        self.0.stop.notify_one();
    }
}
