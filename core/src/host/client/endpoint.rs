//! Where a node is, and the tasks of its applications.
//!
//! What is said, to whom it is told, and when another connection is opened is decided by their
//! [`Supervisor`]s.

use alloc::boxed::Box;
use alloc::string::String;

use super::supervisor::{Supervisor, SupervisorStep};
use crate::app::DisconnectReason;
use crate::host::channel;
use crate::host::connection::memory::Memory;
use crate::host::connection::{self, Incoming, Inputs, Transport};
use crate::host::runtime::{Alarm, LogSink as _, Runtime, first};
use crate::host::socket::Opened;
use crate::io::Protocol;
use crate::types::ids::DialId;

/// Reports of its connection that may wait for the task of an application.
const INPUTS: usize = 4;

/// Where a node is.
#[derive(Debug, Clone)]
pub(super) enum Endpoint<R: Runtime> {
    /// In this process: it takes these inputs.
    Here(Inputs<R>),
    /// Behind this URL.
    There(String),
}

impl<R: Runtime> Endpoint<R> {
    /// Behind this URL. Its query string is not kept: it may hold a token.
    pub(super) fn behind(url: &str) -> Self {
        Self::There(url.split('?').next().unwrap_or_default().into())
    }

    /// Serves an application until that is done.
    pub(super) async fn serve(self, mut service: Supervisor) {
        let mut alarm = Alarm::<R>::default();
        let (inputs, mut received) = channel::bounded::<R, _>(INPUTS);
        loop {
            match service.turn(R::now().instant) {
                SupervisorStep::Open { lost } => {
                    lost.iter().for_each(R::Log::lost);
                    R::spawn(self.open(&service, inputs.clone()));
                }
                SupervisorStep::Wait(until) => {
                    let came = first(async { Some(received.next().await) }, async {
                        service.changed().await;
                        None
                    });
                    if let Some(incoming) = alarm.before(Some(until), came).await.flatten()
                        && let Some(mut opened) = service.take(incoming, R::now().instant)
                    {
                        opened.up.link = service.next_link();
                        service.opened(connection::open::<R>(*opened, inputs.clone()));
                    }
                }
                SupervisorStep::Done => return,
            }
        }
    }

    /// Opens a connection, and reports what came of it.
    fn open(
        &self,
        service: &Supervisor,
        inputs: Inputs<R>,
    ) -> impl Future<Output = ()> + Send + use<R> {
        let (place, filter) = (self.clone(), service.filter().clone());
        let options = service.options().clone();
        async move {
            let limits = options.limits();
            match place {
                Self::There(url) => {
                    let (url, token) = (options.url(&url, &filter), options.token.as_deref());
                    let opened =
                        connection::connect::<R>(&url, options.protocol, token, &limits).await;
                    let incoming = match opened {
                        Ok(opened) => {
                            Incoming::<R>::Opened(Box::new(connection::through_socket::<R>(opened)))
                        }
                        Err(error) => Incoming::<R>::NotOpened(DialId::default(), error),
                    };
                    // Whoever wanted it may have given up.
                    let _ = inputs.send(incoming).await;
                }
                Self::Here(node) => {
                    let (here, there) = Memory::pair::<R>(limits.max_frame_bytes());
                    let opened = |memory, query| {
                        let remote = "this process".into();
                        let transport = Transport::Memory(memory);
                        Box::new(Opened::new(transport, Protocol::Postcard, remote, query))
                    };
                    let there = Incoming::<R>::Opened(opened(there, filter.query()));
                    let incoming = match node.send(there).await {
                        Ok(()) => Incoming::<R>::Opened(opened(here, String::new())),
                        Err(_) => Incoming::<R>::NotOpened(
                            DialId::default(),
                            DisconnectReason::Here.into(),
                        ),
                    };
                    // Whoever wanted it may have given up.
                    let _ = inputs.send(incoming).await;
                }
            }
        }
    }
}
