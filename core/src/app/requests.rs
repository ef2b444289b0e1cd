//! What an application has asked and is not answered: publications and reads, in their order.
//!
//! What stays true: each question is answered once; it is said at most once on a connection; what
//! was never said, or was refused since, is known not to be there.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::answer::{Heard, Outcome, PublishError, ReadError, Receipt, Refused, Value};
use super::delivery::{Text, Version};
use super::frames::batches;
use super::{CodecError, DisconnectReason, Publication, json};
use crate::io::{Frame, Protocol};
use crate::log::receipts::WINDOW;
use crate::types::refusal::Code;
use crate::types::time::Instant;
use crate::wire::draft::check_id;
use crate::wire::message::Kind;
use crate::wire::{BatchKind, Read};

/// Publications are said again only while the node remembers their ids for certain (P9).
const REMEMBERED: Duration = Duration::from_secs(WINDOW.as_secs() / 24 * 23);
/// A frame is closed when it has this many bytes, if the node takes as many.
const FRAME_BYTES: usize = 64 * 1024;
/// In JSON, where each question is a frame, so many are given to the connection at a time: its
/// queue has an end.
const TEXTS: usize = 4096;
/// In JSON each read names a kind. One that is of any kind asks for these in turn.
const KINDS: [Kind; 3] = [Kind::Sk, Kind::Sa, Kind::Sw];

#[derive(Debug)]
enum OpenRequest<P, R> {
    Publish {
        publication: Publication,
        ticket: P,
        /// When it was first said on some connection; `None`: it cannot be there.
        said: Option<Instant>,
    },
    Read {
        id: String,
        key: String,
        kind: Option<Kind>,
        /// What it asks for next, if the key holds another kind.
        untried: &'static [Kind],
        ticket: R,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct OpenRequests<P, R> {
    /// The first `sent` were said on this connection.
    asked: VecDeque<OpenRequest<P, R>>,
    sent: usize,
    /// Refused because the node is ending: to be said on the next connection, before the others.
    postponed: Vec<OpenRequest<P, R>>,
}

impl<P, R> Default for OpenRequests<P, R> {
    fn default() -> Self {
        Self { asked: VecDeque::new(), sent: 0, postponed: Vec::new() }
    }
}

impl<P, R> OpenRequests<P, R> {
    pub(super) fn len(&self) -> usize {
        self.asked.len() + self.postponed.len()
    }

    /// Takes a publication with an id. Answers at once if the node could not name it in its answer,
    /// or the connection would not survive it.
    pub(super) fn publish(
        &mut self,
        publication: Publication,
        ticket: P,
        frame_bytes: usize,
    ) -> Option<Heard<P, R>> {
        if let Err(refusal) = check_id(publication.id()) {
            return Some(refused(None, ticket, refusal.code, refusal.message));
        }
        if publication.bytes() > frame_bytes {
            return Some(too_large(publication, ticket, frame_bytes));
        }
        self.asked.push_back(OpenRequest::Publish { publication, ticket, said: None });
        None
    }

    pub(super) fn read(
        &mut self,
        protocol: Protocol,
        id: String,
        key: String,
        kind: Option<Kind>,
        ticket: R,
    ) {
        let (kind, untried) = match (protocol, kind) {
            (Protocol::Json, None) => (Some(KINDS[0]), &KINDS[1..]),
            (Protocol::Json | Protocol::Postcard, kind) => (kind, &[][..]),
        };
        self.asked.push_back(OpenRequest::Read { id, key, kind, untried, ticket });
    }

    /// A new connection, to a node that takes frames of this size. What it would not survive, and
    /// what the node may have forgotten, is answered.
    pub(super) fn connected(
        &mut self,
        frame_bytes: usize,
        now: Instant,
        heard: &mut Vec<Heard<P, R>>,
    ) {
        for asked in core::mem::take(&mut self.asked) {
            match asked {
                OpenRequest::Publish { ticket, said: Some(said), .. }
                    if now.since(said) > REMEMBERED =>
                {
                    let why =
                        DisconnectReason::Lost("there was no connection for nearly a day".into());
                    heard.push(Heard::Published(ticket, Err(PublishError::Unanswered(why))));
                }
                OpenRequest::Publish { publication, ticket, said }
                    if publication.bytes() > frame_bytes =>
                {
                    heard.push(no_room(publication, ticket, said, frame_bytes));
                }
                kept @ (OpenRequest::Publish { .. } | OpenRequest::Read { .. }) => {
                    self.asked.push_back(kept)
                }
            }
        }
    }

    /// What was not said on this connection, in binary frames that the node takes.
    pub(super) fn batches(&mut self, frame_bytes: usize, now: Instant, frames: &mut Vec<Frame>) {
        let limit = FRAME_BYTES.min(frame_bytes);
        let mut records = Vec::new();
        let mut bytes = 0;
        for asked in self.asked.iter_mut().skip(self.sent) {
            match asked {
                OpenRequest::Publish { publication, said, .. } => {
                    said.get_or_insert(now);
                    let publication = &*publication;
                    if bytes + publication.bytes() > limit {
                        frames.append(&mut batches(BatchKind::Publish, &records));
                        records.clear();
                        bytes = 0;
                    }
                    bytes += publication.bytes();
                    records.push(publication.record());
                }
                OpenRequest::Read { id, key, kind, .. } => {
                    // Answers come in the order of the frames.
                    frames.append(&mut batches(BatchKind::Publish, &records));
                    records.clear();
                    bytes = 0;
                    let read = Read { kind: *kind, id, key };
                    frames.append(&mut batches(BatchKind::Reads, &[read]));
                }
            }
        }
        frames.append(&mut batches(BatchKind::Publish, &records));
        self.sent = self.asked.len();
    }

    /// What was not said on this connection, each in a text frame that the node takes. What is no
    /// JSON, or too large for a frame, is answered.
    pub(super) fn texts(
        &mut self,
        frame_bytes: usize,
        now: Instant,
        frames: &mut Vec<Frame>,
        heard: &mut Vec<Heard<P, R>>,
    ) {
        let until = frames.len() + TEXTS;
        while frames.len() < until
            && let Some(asked) = self.asked.get_mut(self.sent)
        {
            match asked {
                OpenRequest::Read { id, key, kind, .. } => {
                    frames.push(json::read(&Read { kind: *kind, id, key }));
                    self.sent += 1;
                }
                OpenRequest::Publish { publication, said, .. } => {
                    match json::publish(&publication.record()) {
                        Ok(text) if text.len() <= frame_bytes => {
                            said.get_or_insert(now);
                            frames.push(Frame::Text(text));
                            self.sent += 1;
                        }
                        text => heard.extend(self.give_up(text.err(), frame_bytes)),
                    }
                }
            }
        }
    }

    /// Answers the first publication that was not said on this connection: it cannot be.
    fn give_up(&mut self, error: Option<CodecError>, frame_bytes: usize) -> Option<Heard<P, R>> {
        let Some(OpenRequest::Publish { publication, ticket, said }) = self.asked.remove(self.sent)
        else {
            return None;
        };
        Some(match error {
            None => no_room(publication, ticket, said, frame_bytes),
            Some(error) => {
                let id = Some(publication.id.into());
                refused(id, ticket, Code::InvalidJson, error.to_string())
            }
        })
    }

    /// Takes an answer to a publication, or the refusal of a read. `None`: it is postponed, or the
    /// answer has no id, and so belongs to an acknowledgement.
    ///
    /// # Errors
    /// [`CodecError::Protocol`] if nobody has asked.
    pub(super) fn answered(
        &mut self,
        outcome: Outcome,
        comes_back: bool,
    ) -> Result<Option<Heard<P, R>>, CodecError> {
        let refusal = match outcome {
            Outcome::Receipt { id, version, duplicate, level } => {
                let version = version.clock().ok_or_else(|| no_version(&version))?;
                let is_publication =
                    |asked: &OpenRequest<P, R>| matches!(asked, OpenRequest::Publish { .. });
                let receipt = Receipt { id, version, duplicate, level };
                return match self.take(&receipt.id, is_publication)? {
                    OpenRequest::Publish { ticket, .. } => {
                        Ok(Some(Heard::Published(ticket, Ok(receipt))))
                    }
                    OpenRequest::Read { id, .. } => Err(not_asked(&id)),
                };
            }
            Outcome::Refused(refusal) => refusal,
        };
        let Some(id) = &refusal.id else { return Ok(None) };
        let mut asked = self.take(id, |_| true)?;
        if comes_back && &*refusal.code == Code::ShuttingDown.as_str() {
            if let OpenRequest::Publish { said, .. } = &mut asked {
                *said = None;
            }
            self.postponed.push(asked);
            return Ok(None);
        }
        if let OpenRequest::Read { kind, untried, .. } = &mut asked
            && let [next, rest @ ..] = *untried
            && &*refusal.code == Code::WrongKind.as_str()
        {
            (*kind, *untried) = (Some(*next), rest);
            self.asked.push_back(asked);
            return Ok(None);
        }
        let refusal = Box::new(refusal);
        Ok(Some(match asked {
            OpenRequest::Publish { ticket, .. } => {
                Heard::Published(ticket, Err(PublishError::Refused(refusal)))
            }
            OpenRequest::Read { ticket, .. } => {
                Heard::Read(ticket, Err(ReadError::Refused(refusal)))
            }
        }))
    }

    /// Takes the answer to a read.
    ///
    /// # Errors
    /// [`CodecError::Protocol`] if nobody has asked.
    pub(super) fn found(&mut self, value: Value) -> Result<Heard<P, R>, CodecError> {
        match self.take(&value.id, |asked| matches!(asked, OpenRequest::Read { .. }))? {
            OpenRequest::Read { ticket, .. } => Ok(Heard::Read(ticket, Ok(value))),
            OpenRequest::Publish { .. } => Err(not_asked(&value.id)),
        }
    }

    /// The connection has ended, and the session perhaps with it. What must not be said again, or
    /// never will be, is answered.
    pub(super) fn lost(
        &mut self,
        why: &DisconnectReason,
        over: bool,
        named: bool,
        heard: &mut Vec<Heard<P, R>>,
    ) {
        self.sent = 0;
        let mut kept = VecDeque::new();
        for asked in self.postponed.drain(..).chain(self.asked.drain(..)) {
            match asked {
                OpenRequest::Publish { ticket, said: Some(_), .. } if over || !named => {
                    let error = PublishError::Unanswered(why.clone());
                    heard.push(Heard::Published(ticket, Err(error)));
                }
                OpenRequest::Publish { ticket, .. } if over => {
                    let error = PublishError::NotSent(why.clone());
                    heard.push(Heard::Published(ticket, Err(error)));
                }
                OpenRequest::Read { ticket, .. } if over => {
                    heard.push(Heard::Read(ticket, Err(ReadError::Ended(why.clone()))));
                }
                waiting @ (OpenRequest::Publish { .. } | OpenRequest::Read { .. }) => {
                    kept.push_back(waiting)
                }
            }
        }
        self.asked = kept;
    }

    /// The oldest question on this connection that an answer with this id fits.
    fn take(
        &mut self,
        id: &str,
        fits: impl Fn(&OpenRequest<P, R>) -> bool,
    ) -> Result<OpenRequest<P, R>, CodecError> {
        let of = |asked: &OpenRequest<P, R>| match asked {
            OpenRequest::Publish { publication, .. } => publication.id() == id,
            OpenRequest::Read { id: own, .. } => own == id,
        };
        let found = self.asked.iter().take(self.sent).position(|asked| of(asked) && fits(asked));
        let taken = found.and_then(|at| self.asked.remove(at));
        self.sent -= usize::from(taken.is_some());
        taken.ok_or_else(|| not_asked(id))
    }
}

fn not_asked(id: &str) -> CodecError {
    CodecError::Protocol(format!("an answer to {id}, which was not asked"))
}

fn no_version(version: &Version) -> CodecError {
    CodecError::Protocol(format!("{version:?} is no version"))
}

/// It cannot be said to a node that takes frames of this size.
fn no_room<P, R>(
    publication: Publication,
    ticket: P,
    said: Option<Instant>,
    frame_bytes: usize,
) -> Heard<P, R> {
    match said {
        None => too_large(publication, ticket, frame_bytes),
        Some(_) => {
            let why = DisconnectReason::Lost("the node takes smaller frames now".into());
            Heard::Published(ticket, Err(PublishError::Unanswered(why)))
        }
    }
}

fn too_large<P, R>(publication: Publication, ticket: P, frame_bytes: usize) -> Heard<P, R> {
    let bytes = publication.bytes();
    let message = format!("the message is {bytes} bytes, the node takes {frame_bytes} at most");
    refused(Some(publication.id.into()), ticket, Code::TooLarge, message)
}

fn refused<P, R>(id: Option<Text>, ticket: P, code: Code, message: String) -> Heard<P, R> {
    let refused = Refused {
        id,
        frame: 0,
        code: Text::from(String::from(code.as_str())),
        retryable: false,
        retry_after: None,
        message: message.into(),
        path: None,
    };
    Heard::Published(ticket, Err(PublishError::Refused(Box::new(refused))))
}
