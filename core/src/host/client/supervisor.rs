//! What serves an application: it wants a connection, greets the node, carries frames between the
//! two, and wants another connection when that one is lost.
//!
//! A task (`place`) gives it what comes ([`Supervisor::take`]), does what [`Supervisor::turn`]
//! says, and waits: for what comes, for [`Supervisor::changed`], and for the time that it was told.
//! What stays true:
//!
//! - A connection is given frames only when it has sent what it was given before: meanwhile they
//!   grow, as many messages fit into one.
//! - A first attempt that fails is told to whoever waits for it, and is the last one.
//! - Whatever ends the service ends the application: nobody waits for what cannot come.

use alloc::string::String;
use core::time::Duration;

use super::{Application, Turn};
use crate::app::{ClientOptions, ConnectError, DisconnectReason, Filter, connect, welcome};
use crate::host::connection::links::Link;
use crate::host::incoming::Incoming;
use crate::host::shared::{Promise, Shared};
use crate::io::{End, Frame, Input, Protocol};
use crate::types::ids::LinkId;
use crate::types::time::Instant;

/// How long a connection may take to close.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// What the task is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum SupervisorStep {
    /// Open a connection that asks for [`Supervisor::filter`], and give it to [`Supervisor::take`],
    /// or why there is none.
    Open {
        /// Why the one before is no more, if there was one.
        lost: Option<DisconnectReason>,
    },
    /// Wait, until this time at most.
    Wait(Instant),
    /// Go on with nothing.
    Done,
}

/// Where it stands.
#[derive(Debug)]
enum SupervisorState {
    /// There is no connection, and none is wanted before this time.
    Resting(Instant, Option<DisconnectReason>),
    /// One is being opened; it must be there, and greet, before this time.
    Opening(Instant),
    /// It is there and has not greeted.
    Open(Link, Instant),
    /// It has greeted. So many frames are not sent yet.
    Connected(Link, usize),
    /// It is closed when all is sent, or at this time.
    Closing(#[expect(dead_code, reason = "dropping it ends the connection")] Link, Instant),
    /// The session is over.
    Over,
}

/// See the module.
#[derive(Debug)]
pub struct Supervisor {
    application: Shared<Application>,
    /// What came of the first attempt, for whoever waits for it.
    first: Option<Promise<Result<(), ConnectError>>>,
    filter: Filter,
    options: ClientOptions,
    state: SupervisorState,
    /// The last connection: what comes from another one is not heard.
    link: LinkId,
}

impl Supervisor {
    /// Of an application that is not connected.
    pub fn new(
        application: Shared<Application>,
        first: Promise<Result<(), ConnectError>>,
        filter: Filter,
        options: ClientOptions,
        now: Instant,
    ) -> Self {
        let state = SupervisorState::Resting(now, None);
        let (first, link) = (Some(first), LinkId::default());
        Self { application, first, filter, options, state, link }
    }

    /// What the application asks for.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// How it connects.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// What to do next.
    pub fn turn(&mut self, now: Instant) -> SupervisorStep {
        loop {
            match &mut self.state {
                SupervisorState::Over => return SupervisorStep::Done,
                SupervisorState::Closing(_, until) => {
                    return if now < *until {
                        SupervisorStep::Wait(*until)
                    } else {
                        SupervisorStep::Done
                    };
                }
                SupervisorState::Connected(link, unsent) => {
                    match carry(&self.application, link, unsent, now) {
                        Ok(Some(until)) => return SupervisorStep::Wait(until),
                        Ok(None) => self.close(now),
                        Err(why) => self.failed(why.into(), now),
                    }
                }
                SupervisorState::Resting(..)
                | SupervisorState::Opening(_)
                | SupervisorState::Open(..)
                    if self.application.with(|it| it.is_done()) =>
                {
                    return SupervisorStep::Done;
                }
                SupervisorState::Resting(until, lost) if *until <= now => {
                    let lost = lost.take();
                    self.state = SupervisorState::Opening(now + self.options.timeout);
                    return SupervisorStep::Open { lost };
                }
                SupervisorState::Opening(until) | SupervisorState::Open(_, until)
                    if *until <= now =>
                {
                    self.failed(ConnectError::TimedOut(self.options.timeout), now);
                }
                SupervisorState::Resting(until, _)
                | SupervisorState::Opening(until)
                | SupervisorState::Open(_, until) => {
                    return SupervisorStep::Wait(*until);
                }
            }
        }
    }

    /// Returns when there may be something new for [`Supervisor::turn`]. Can be given up.
    pub async fn changed(&self) {
        self.application.wait(Application::poll_changed).await;
    }

    /// Takes what has come. Answers with a connection whose tasks are to be started, and which is
    /// then given to [`Supervisor::opened`].
    pub fn take<O>(&mut self, incoming: Incoming<O>, now: Instant) -> Option<O> {
        match incoming {
            Incoming::Opened(opened) => return Some(opened),
            Incoming::NotOpened(_, error) => {
                if matches!(self.state, SupervisorState::Opening(_)) {
                    self.failed(error, now);
                }
            }
            Incoming::Received(link, frames, end) if link == self.link => {
                self.received(&frames, end, now);
            }
            Incoming::Input(Input::Sent { link, frames, .. }) if link == self.link => {
                if let SupervisorState::Connected(_, unsent) = &mut self.state {
                    *unsent = unsent.saturating_sub(frames);
                }
            }
            Incoming::Input(Input::Moved { link }) if link == self.link => {
                self.application.with(|it| it.moved(now));
            }
            Incoming::Input(Input::LinkDown { link, reason, .. }) if link == self.link => {
                match self.state {
                    SupervisorState::Closing(..) => self.state = SupervisorState::Over,
                    SupervisorState::Open(..) | SupervisorState::Connected(..) => {
                        self.failed(DisconnectReason::Lost(reason).into(), now);
                    }
                    SupervisorState::Resting(..)
                    | SupervisorState::Opening(_)
                    | SupervisorState::Over => {}
                }
            }
            // Of a connection that is given up, or not for an application.
            Incoming::Received(..) | Incoming::Input(_) | Incoming::Asked(_) => {}
        }
        None
    }

    /// A number for a connection whose tasks are about to be started.
    pub fn next_link(&mut self) -> LinkId {
        self.link = self.link.next();
        self.link
    }

    /// Takes a connection. One that comes too late ends.
    pub fn opened(&mut self, mut link: Link) {
        if let SupervisorState::Opening(until) = self.state {
            // In JSON the node speaks first.
            if self.options.protocol == Protocol::Postcard {
                link.transmit(connect());
                link.flush();
            }
            self.state = SupervisorState::Open(link, until);
        }
    }

    fn received(&mut self, frames: &[Frame], end: Option<End>, now: Instant) {
        if let Err(why) = self.hear(frames, now) {
            self.failed(why.into(), now);
        }
        let Some(end) = end else { return };
        match &self.state {
            SupervisorState::Open(link, _) | SupervisorState::Connected(link, _) => {
                link.end(end.clone());
                self.failed(end.into(), now);
            }
            SupervisorState::Closing(..)
            | SupervisorState::Resting(..)
            | SupervisorState::Opening(_)
            | SupervisorState::Over => {}
        }
    }

    fn hear(&mut self, frames: &[Frame], now: Instant) -> Result<(), DisconnectReason> {
        let mut frames = frames.iter();
        while let SupervisorState::Open(..) = self.state
            && let Some(frame) = frames.next()
        {
            self.greeted(frame, now)?;
        }
        if let SupervisorState::Connected(..) = self.state {
            self.application.with(|it| frames.try_for_each(|frame| it.received(frame, now)))?;
        }
        Ok(())
    }

    fn greeted(&mut self, frame: &Frame, now: Instant) -> Result<(), DisconnectReason> {
        if let Frame::Ping(_) | Frame::Pong(_) = frame {
            return Ok(());
        }
        let welcome = welcome(frame)?;
        self.application.with(|it| it.connected(&welcome, now));
        if let Some(first) = self.first.take() {
            first.keep(Ok(()));
        }
        if let SupervisorState::Open(link, _) =
            core::mem::replace(&mut self.state, SupervisorState::Over)
        {
            self.state = SupervisorState::Connected(link, 0);
        }
        Ok(())
    }

    /// There is no connection, or not any more.
    fn failed(&mut self, error: ConnectError, now: Instant) {
        let before = core::mem::replace(&mut self.state, SupervisorState::Over);
        if let SupervisorState::Open(link, _) | SupervisorState::Connected(link, _) = before {
            link.end(farewell());
        }
        if let Some(first) = self.first.take() {
            first.keep(Err(error.clone()));
            self.application.with(|it| it.finish(error.into()));
            return;
        }
        let why = DisconnectReason::from(error);
        if let Some(wait) = self.application.with(|it| it.lost(&why)) {
            if let Some(on_lost) = &self.options.on_lost {
                on_lost(&why);
            }
            self.state = SupervisorState::Resting(now + wait, Some(why));
        }
    }

    /// Nobody wants anything any more.
    fn close(&mut self, now: Instant) {
        if let SupervisorState::Connected(link, _) =
            core::mem::replace(&mut self.state, SupervisorState::Over)
        {
            link.end(farewell());
            self.state = SupervisorState::Closing(link, now + CLOSE_DEADLINE);
        }
    }
}

/// Gives the connection what is to be said. Answers until when nothing else is; `None`: it is to
/// be closed, nobody wants anything any more.
fn carry(
    application: &Shared<Application>,
    link: &mut Link,
    unsent: &mut usize,
    now: Instant,
) -> Result<Option<Instant>, DisconnectReason> {
    loop {
        let is_sending = *unsent > 0;
        match application.with(|it| if is_sending { it.beat(now) } else { it.turn(now) })? {
            Turn::Send(frames) => {
                *unsent += frames.iter().filter(|frame| !frame.is_control()).count();
                for frame in frames {
                    link.transmit(frame);
                }
                link.flush();
            }
            Turn::Wait { reads, until } => {
                link.pause(!reads);
                return Ok(Some(until));
            }
            Turn::Done => return Ok(None),
        }
    }
}

fn farewell() -> End {
    End::here(1000, String::new())
}

impl Drop for Supervisor {
    /// Also with a runtime that ends, or by a panic.
    fn drop(&mut self) {
        self.application.with(|it| it.finish(DisconnectReason::Here));
    }
}
