//! What a program has of a node, wherever that is: it opens applications there.

use alloc::string::String;
use alloc::vec::Vec;
use core::task::Waker;

use super::Application;
use super::endpoint::Endpoint;
use super::handles::{Pending, Publisher, Receiver};
use super::supervisor::Supervisor;
use crate::app::{
    ClientOptions, ConnectError, DisconnectReason, Filter, Publication, PublishError, ReadError,
    Receipt, Value,
};
use crate::host::connection::Inputs;
use crate::host::runtime::Runtime;
use crate::host::shared::{Once, Promise, Shared, Wakes};

/// Publishes, reads and subscribes at one node. Clones are the same client.
///
/// Each [`Publisher`] and each subscription is an application of its own, with one task and one
/// connection, which is opened again when it is lost.
#[derive(Debug, Clone)]
pub struct Client<R: Runtime> {
    place: Endpoint<R>,
    options: ClientOptions,
    unnamed: Shared<Unnamed>,
}

/// The application that publishes for those who want none of their own.
#[derive(Debug, Default)]
struct Unnamed {
    publisher: Option<Publisher>,
    woken: Vec<Waker>,
}

impl Wakes for Unnamed {
    fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }
}

/// An application, and what came of its first connection.
type Opening = (Publisher, Shared<Once<Result<(), ConnectError>>>);

impl<R: Runtime> Client<R> {
    /// Connects for the first time. A node that cannot be reached now is an error; later it is
    /// waited for. What is to be received stands in a [`Filter`], not in the query string of
    /// `url`.
    ///
    /// # Errors
    /// [`ConnectError`] says what is in the way.
    pub async fn connect(url: &str, options: ClientOptions) -> Result<Self, ConnectError> {
        let client = Self::new(url, options);
        client.open_unnamed()?.1.wait(Once::poll).await?;
        Ok(client)
    }

    /// Of the node behind `url`, which is connected to for the first application and not before.
    /// As for [`Client::connect`], the query string of `url` is not kept.
    pub fn new(url: &str, options: ClientOptions) -> Self {
        Self::at(Endpoint::behind(url), options)
    }

    /// Of a node of this process, which takes these inputs.
    pub(crate) fn here(inputs: Inputs<R>, options: ClientOptions) -> Self {
        Self::at(Endpoint::Here(inputs), options)
    }

    fn at(place: Endpoint<R>, options: ClientOptions) -> Self {
        Self { place, options, unnamed: R::share(Unnamed::default()) }
    }

    /// Publishes, without a name: what is unanswered when the connection is lost may be there or
    /// not. See [`Publisher::publish`].
    ///
    /// # Errors
    /// As of [`Publisher::publish`].
    pub async fn publish(&self, message: Publication) -> Result<Receipt, PublishError> {
        self.send(message).await?.await
    }

    /// [`Client::publish`] that waits only until there is room. See [`Publisher::send`].
    ///
    /// # Errors
    /// As of [`Publisher::send`].
    pub async fn send(&self, message: Publication) -> Result<Pending, PublishError> {
        match self.unnamed() {
            Ok(publisher) => publisher.send(message).await,
            Err(error) => Err(PublishError::NotSent(error.into())),
        }
    }

    /// What a key holds for an application with the node's tags. See [`Publisher::get`].
    ///
    /// # Errors
    /// As of [`Publisher::get`].
    pub async fn get(&self, key: &str) -> Result<Value, ReadError> {
        match self.unnamed() {
            Ok(publisher) => publisher.get(key).await,
            Err(error) => Err(ReadError::Ended(error.into())),
        }
    }

    /// A publisher with a name, 1 to 64 of `A-Za-z0-9._-`, that no subscription has. What is
    /// unanswered when its connection is lost it publishes again, under the same ids, and so not
    /// twice; what it could not for nearly a day is [`PublishError::Unanswered`] (P9).
    ///
    /// # Errors
    /// [`ConnectError`] says what is in the way.
    pub async fn publisher(&self, name: &str) -> Result<Publisher, ConnectError> {
        self.publisher_as(Filter::named(name)).await
    }

    /// [`Client::publisher`] with the name and the tags of `filter`, or with none: it receives
    /// nothing, and reads as an application with these tags. Without a name, what is unanswered
    /// when the connection is lost may be there or not.
    ///
    /// # Errors
    /// [`ConnectError`] says what is in the way.
    pub async fn publisher_as(&self, filter: Filter) -> Result<Publisher, ConnectError> {
        let (publisher, first) = self.open(filter.keys::<String>([]), false, true)?;
        first.wait(Once::poll).await?;
        Ok(publisher)
    }

    /// Receives what `filter` asks for. A named subscription goes on after a lost connection where
    /// it was; one without a name ends, as it could not tell what it has missed.
    ///
    /// # Errors
    /// [`ConnectError`] says what is in the way.
    pub async fn subscribe(&self, filter: Filter) -> Result<R::Stream<Receiver>, ConnectError> {
        let (goes_on, settles_when_taken) = (filter.name().is_some(), filter.settles_when_taken());
        let (publisher, first) = self.open(filter, true, goes_on)?;
        // Whoever gives this up wants nothing any more.
        let receiver = Receiver::of(publisher, settles_when_taken);
        first.wait(Once::poll).await?;
        Ok(receiver.into())
    }

    fn unnamed(&self) -> Result<Publisher, ConnectError> {
        let known = self.unnamed.with(|unnamed| unnamed.publisher.clone());
        match known.filter(|known| !known.is_over()) {
            Some(known) => Ok(known),
            None => Ok(self.open_unnamed()?.0),
        }
    }

    fn open_unnamed(&self) -> Result<Opening, ConnectError> {
        let opening = self.open(Filter::none(), false, true)?;
        let publisher = Some(opening.0.clone());
        let before =
            self.unnamed.with(|unnamed| core::mem::replace(&mut unnamed.publisher, publisher));
        // Dropped where nothing is locked.
        drop(before);
        Ok(opening)
    }

    /// Starts the task of an application, which opens its connection.
    fn open(&self, filter: Filter, receives: bool, goes_on: bool) -> Result<Opening, ConnectError> {
        let seed = R::random().map_err(DisconnectReason::Lost)?;
        let settings = self.options.settings(&filter, goes_on);
        let now = R::now().instant;
        let application = Application::new(settings, receives, seed, now);
        let (application, first) = (R::share(application), R::share(Once::default()));
        let publisher = Publisher::of(application.clone());
        let told = Promise::of(first.clone(), Err(DisconnectReason::Here.into()));
        let service = Supervisor::new(application, told, filter, self.options.clone(), now);
        R::spawn(self.place.clone().serve(service));
        Ok((publisher, first))
    }
}
