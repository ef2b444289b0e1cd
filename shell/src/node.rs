//! Starts a node on its store and its listener, and holds on to it: what a program that embeds one
//! works with.

use std::ops::Deref;

use slipstream_core::channel;
use slipstream_core::client::ClientOptions;
use slipstream_core::connection::{Incoming, Inputs};
use slipstream_core::event_loop::{EventLoop, INPUTS};
use slipstream_core::event_stream::Watcher;
use slipstream_core::exit::ExitReason;
use slipstream_core::handle::Handle;
use slipstream_core::runtime::{Runtime, Task};
use slipstream_core::shared::{OneShot, OneShotSender};
use slipstream_core::store::Recovered;
use slipstream_core::upgrade::Rules;
use slipstream_store_sqlite::{Damaged, SqliteStore, StoreOptions};
use tracing::{Instrument as _, Span};

use crate::http::check_url;
use crate::listen;
use crate::options::{NodeOptions, StartError, limit_applications, room, store_options};
use crate::socket::Shell;
use crate::stream::Stream;

/// A stream of what happens at a node, with the methods of a [`Watcher`]; it ends with the node.
pub type Events = Stream<Watcher>;

/// A running node: all that can be done with it are methods of its [`Handle`], and of its
/// [`Client`](slipstream_core::client::Client).
///
/// Clones are for the same node; it goes on when all are dropped.
#[derive(Debug, Clone)]
pub struct RunningNode<N: Runtime>(Handle<N>);

impl<N: Runtime> Deref for RunningNode<N> {
    type Target = Handle<N>;

    fn deref(&self) -> &Handle<N> {
        &self.0
    }
}

impl<N: Shell> RunningNode<N> {
    /// Opens the store, listens, and starts the node.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way, and what to do.
    pub async fn start(options: NodeOptions) -> Result<Self, StartError> {
        let files = store_options(&options)?;
        let NodeOptions { mut config, listen: address, allowed_origins, .. } = options;
        config.peers.iter().try_for_each(|url| check_url(url)).map_err(StartError::Peer)?;
        let cannot_listen = |source| StartError::Listen { address, source };
        let room = room(&config)?;
        limit_applications(&mut config, room);
        let (listener, local_addr) = listen::bind::<N>(address).map_err(cannot_listen)?;

        let span = tracing::info_span!(target: "slipstream", "node", id = %config.id);
        let (inputs, received) = channel::bounded::<N, _>(INPUTS);
        let (store, recovered) = open::<N>(files, inputs.clone(), span.clone()).await?;
        let (limits, client) = (config.limits.clone(), ClientOptions::within(&config));
        let (loopback, unfinished) =
            (local_addr.ip().to_canonical().is_loopback(), room.unfinished);
        let rules = Rules { allowed_origins, loopback, limits: limits.clone(), unfinished };
        let seed = N::random().map_err(StartError::Internal)?;
        let new = move || slipstream_core::Node::new(config, recovered, seed, N::now());
        let node = N::unblock(new).await.map_err(StartError::Internal)?;
        let listening = Task::spawn::<N>(listen::accept::<N>(listener, rules, inputs.clone()));
        let event_loop = EventLoop::<N, _>::new(node, store, limits, inputs.clone(), listening);
        let exit = N::share(OneShot::default());
        let ending = OneShotSender::of(exit.clone(), ExitReason::Failed);
        let turned = event_loop.run(received).instrument(span);
        N::spawn(async move { ending.keep(turned.await) });
        Ok(Self(Handle::new(local_addr, inputs, exit, client)))
    }
}

/// Opens the store, which may take a while. What it has done it tells the loop.
async fn open<N: Shell>(
    options: StoreOptions,
    inputs: Inputs<N>,
    span: Span,
) -> Result<(SqliteStore, Recovered), StartError> {
    // Its thread never waits. What it may report is bounded by the node: one batch is under way at
    // a time, and so many questions.
    let notify = Box::new(move |input| inputs.push(Incoming::<N>::Input(input)));
    let on_damage = Box::new(move |damaged: Damaged| {
        span.in_scope(|| tracing::error!(target: "slipstream", "{damaged}"));
    });
    let opened = N::unblock(move || SqliteStore::open(options, notify, on_damage)).await;
    Ok(opened.map_err(StartError::Internal)??)
}
