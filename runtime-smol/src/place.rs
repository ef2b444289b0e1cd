//! Where a node is, and the tasks of the applications there.
//!
//! What is said, to whom it is told, and when another connection is opened is decided by their
//! [`Service`]s.

use slipstream_core::client::Ended;
use slipstream_core::client::service::{Service, Step};
use slipstream_core::exit::NodeGone;
use slipstream_core::host::Host;
use slipstream_core::ids::DialId;
use slipstream_core::incoming::Request;
use slipstream_core::shared::{Shared, Source, Wakes};

use crate::clock::Clock;
use crate::dial;
use crate::link::{self, Incoming, Inputs, Opened, share};
use crate::stand_ins::{Alarm, bounded, select, spawn};
use crate::stream::Stream;

/// Reports of its connection that may wait for the task of an application.
const INPUTS: usize = 4;

/// Where a node is, and how smol gets there.
#[derive(Debug, Clone)]
pub struct Place(At);

#[derive(Debug, Clone)]
enum At {
    /// In this process.
    Here(Inputs),
    /// Behind this URL.
    There(String),
}

impl Host for Place {
    type Stream<S: Source + Unpin> = Stream<S>;

    fn remote(url: &str) -> Self {
        Self(At::There(url.split('?').next().unwrap_or_default().into()))
    }

    fn share<T: Wakes + Send + 'static>(what: T) -> Shared<T> {
        share(what)
    }

    fn random() -> Result<u64, String> {
        getrandom::u64().map_err(|error| error.to_string())
    }

    fn serve(&self, service: Service) {
        spawn(self.clone().turn(service));
    }

    async fn give(&self, request: Request) -> Result<(), NodeGone> {
        match &self.0 {
            At::Here(node) => node.send(Incoming::Asked(request)).await.map_err(|_| NodeGone),
            At::There(_) => Err(NodeGone),
        }
    }
}

impl Place {
    /// The node that takes these inputs.
    pub(crate) fn here(inputs: Inputs) -> Self {
        Self(At::Here(inputs))
    }

    /// Serves an application until that is done.
    async fn turn(self, mut service: Service) {
        let (clock, mut alarm) = (Clock::start(), Alarm::new());
        let (inputs, mut received) = bounded(INPUTS);
        loop {
            match service.turn(clock.now().instant) {
                Step::Open { lost } => {
                    if let Some(why) = lost {
                        tracing::debug!(target: "slipstream", %why, "connecting again");
                    }
                    spawn(self.open(&service, inputs.clone()));
                }
                Step::Wait(until) => select! {
                    incoming = received.recv_some() => {
                        if let Some(mut opened) = service.take(incoming, clock.now().instant) {
                            opened.up.link = service.next_link();
                            service.opened(link::open(*opened, inputs.clone()));
                        }
                    },
                    () = service.changed() => {},
                    () = alarm.until(Some(clock.deadline(until))) => {}
                },
                Step::Done => return,
            }
        }
    }

    /// Opens a connection, and reports what came of it.
    fn open(&self, service: &Service, inputs: Inputs) -> impl Future<Output = ()> + use<> {
        let (place, filter) = (self.0.clone(), service.filter().clone());
        let (limits, token) = (service.options().limits(), service.options().token.clone());
        async move {
            match place {
                At::There(url) => {
                    let url = filter.url(&url);
                    dial::run(DialId::default(), url, token, limits, inputs).await;
                }
                At::Here(node) => {
                    let (here, there) = Opened::pair(limits.max_frame_bytes());
                    let there = Box::new(there.up("this process".into(), filter.query()));
                    let incoming = match node.send(Incoming::Opened(there)).await {
                        Ok(()) => Incoming::Opened(Box::new(here)),
                        Err(_) => Incoming::NotOpened(DialId::default(), Ended::Here.into()),
                    };
                    // Whoever wanted it may have given up.
                    let _ = inputs.send(incoming).await;
                }
            }
        }
    }
}
