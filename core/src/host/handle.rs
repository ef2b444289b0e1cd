//! What a program holds of a node that runs within it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::Deref;

use crate::admin::{AdminAnswer, AdminRequest, Status};
use crate::app::ClientOptions;
use crate::host::client::Client;
use crate::host::connection::{Incoming, Inputs};
use crate::host::event_stream::{Feed, Watcher};
use crate::host::exit::{ExitReason, NodeGone};
use crate::host::incoming::NodeRequest;
use crate::host::runtime::Runtime;
use crate::host::shared::{OneShot, OneShotSender, Shared};
use crate::io::Input;
use crate::types::tags::TagSet;

/// A running node, and a [`Client`] of it: what a program publishes and receives here goes through
/// the same rules as that of an application behind a socket.
///
/// Clones are for the same node; it goes on when all are dropped.
#[derive(Debug, Clone)]
pub struct Handle<R: Runtime> {
    local_addr: SocketAddr,
    inputs: Inputs<R>,
    exit: Shared<OneShot<ExitReason>>,
    client: Client<R>,
}

impl<R: Runtime> Deref for Handle<R> {
    type Target = Client<R>;

    fn deref(&self) -> &Client<R> {
        &self.client
    }
}

impl<R: Runtime> Handle<R> {
    /// Of a node that listens there, takes these inputs, and will tell `exit` how it has ended.
    pub fn new(
        local_addr: SocketAddr,
        inputs: Inputs<R>,
        exit: Shared<OneShot<ExitReason>>,
        options: ClientOptions,
    ) -> Self {
        let client = Client::here(inputs.clone(), options);
        Self { local_addr, inputs, exit, client }
    }

    /// The client of this node, as a value of its own.
    pub fn client(&self) -> &Client<R> {
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
        self.ask(|asked| NodeRequest::Admin(request, asked)).await
    }

    /// Replaces the peers to dial and the tags of this node.
    ///
    /// # Errors
    /// [`NodeGone`] if the node has ended.
    pub async fn reconfigure(&self, peers: Vec<String>, tags: TagSet) -> Result<(), NodeGone> {
        self.give(NodeRequest::Input(Input::Reconfigure { peers, tags })).await
    }

    /// Returns when the loop has turned and the store's thread has answered. For as long as that
    /// takes: whoever asks sets the deadline.
    ///
    /// # Errors
    /// [`NodeGone`] if the node has ended.
    pub async fn alive(&self) -> Result<(), NodeGone> {
        self.ask(NodeRequest::Alive).await
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
    pub async fn events(&self) -> Result<R::Stream<Watcher>, NodeGone> {
        let feed = R::share(Feed::default());
        self.give(NodeRequest::Watch(feed.clone())).await?;
        Ok(Watcher::of(feed).into())
    }

    /// Begins to shut down: nothing new is accepted, what was accepted is committed, everyone is
    /// told 1001. [`Handle::ended`] tells when that is done, after at most 5 seconds.
    ///
    /// # Errors
    /// [`NodeGone`] if the node has ended.
    pub async fn stop(&self) -> Result<(), NodeGone> {
        self.give(NodeRequest::Input(Input::ShutDown)).await
    }

    /// [`Handle::stop`], and [`Handle::ended`].
    pub async fn shutdown(&self) -> ExitReason {
        // A node that has ended already is what was asked for.
        let _ = self.stop().await;
        self.ended().await
    }

    /// Returns when the node has ended: its store is closed.
    pub async fn ended(&self) -> ExitReason {
        self.exit.wait(OneShot::poll).await
    }

    async fn give(&self, request: NodeRequest) -> Result<(), NodeGone> {
        self.inputs.send(Incoming::<R>::Asked(request)).await.map_err(|_| NodeGone)
    }

    async fn ask<T: Clone + Send + 'static>(
        &self,
        ask: impl FnOnce(OneShotSender<Result<T, NodeGone>>) -> NodeRequest,
    ) -> Result<T, NodeGone> {
        let answer = R::share(OneShot::default());
        self.give(ask(OneShotSender::of(answer.clone(), Err(NodeGone)))).await?;
        answer.wait(OneShot::poll).await
    }
}
