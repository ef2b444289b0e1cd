//! Reads: asked of the store when their turn among the answers has come, and told at once (P6).
//!
//! A read is asked when everything before it was answered, so it finds what every receipt before
//! it stands for. It is told in the moment in which the store has answered, also when the link has
//! used up its credit meanwhile: nothing that was committed later can be handed over before it,
//! and so nobody reads an older value than he was handed. A link has one question open, for all
//! reads that stand together; a question is asked only when there is credit.

use super::handlers::{AppFrames, Handover, Reads, Settling, lend};
use super::links::ActiveLink;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::admin::event::Event;
use crate::io::{Close, Output};
use crate::session::link::{AppAnswer, PendingAnswer};
use crate::store::{Query, StoredValue};
use crate::types::ids::{BatchId, FetchId, LinkId, Position, SessionId};
use crate::types::refusal::{Code, Refusal};
use crate::wire::draft::refusal;
use crate::wire::message::{Kind, Message};
use crate::wire::read::ReadRequest;
use crate::wire::{self, records};

use super::connect::protocol;
use super::handover::SessionWalk;
use super::identity::Phase;
use super::queries::Purpose;

/// Reads that one question asks for.
const READS_AT_ONCE: usize = 64;
/// Questions for reads that may be open at once.
const MAX_QUESTIONS: usize = 16;

impl AppFrames<'_> {
    pub(super) fn application_reads(
        &mut self,
        link: &mut ActiveLink<'_>,
        batch: &Bytes,
    ) -> Result<(), Close> {
        let reads =
            records::<wire::Read<'_>>(batch).map_err(|error| protocol(&format!("{error}")))?;
        let ordinal = link.traffic.frames_in;
        for read in &reads {
            if link.is_ending() {
                break;
            }
            match ReadRequest::from_wire(read, &self.config.limits) {
                Ok(read) => self.read_on(link, &read, ordinal),
                Err(refusal) => lend!(self, Settling).reject(link, refusal, ordinal),
            }
        }
        Ok(())
    }

    pub(super) fn read_on(
        &mut self,
        link: &mut ActiveLink<'_>,
        read: &ReadRequest<'_>,
        frame: u64,
    ) {
        if self.id.phase != Phase::Running {
            let message = "this node is shutting down; ask another one, or when it is back";
            let re = read.id.as_deref().map(String::from);
            let refusal = Refusal { re, ..Refusal::new(Code::ShuttingDown, message) };
            return lend!(self, Settling).reject(link, refusal, frame);
        }
        let Some(application) = link.application_mut() else { return };
        // It leaves behind the answer before it, and must not hide what that waits for.
        let batch = application.answers.back().map_or(BatchId::default(), |last| last.batch);
        let errors = application.asked();
        application.answers.push_back(PendingAnswer {
            place: Position::default(),
            batch,
            received: self.time.now.instant,
            answer: AppAnswer::Read { read: read.clone().into_owned(), frame, errors },
        });
        self.sessions.ready.insert(application.session);
    }
}

impl Reads<'_> {
    /// Asks for the reads whose turn has come.
    pub(super) fn ask_reads(&mut self, id: SessionId) {
        let (committed, open) = (self.log.tail.committed_id(), self.queries.open_reads());
        let Some(session) = self.sessions.table.get(&id) else { return };
        let Some(link) = session.link.and_then(|link| self.links.by_id.get_mut(&link)) else {
            return;
        };
        let (number, has_credit) = (link.id, link.has_credit());
        let Some(application) = link.application_mut() else { return };
        let turn = |pending: &PendingAnswer| match &pending.answer {
            AppAnswer::Read { read, .. } if pending.batch <= committed => Some(read.key.clone()),
            AppAnswer::Read { .. } | AppAnswer::Welcome(_) | AppAnswer::Receipt { .. } => None,
            AppAnswer::Result { .. } | AppAnswer::Error { .. } => None,
        };
        let mut turns = application.answers.iter().map_while(turn).peekable();
        let may = application.greeted && application.reading.is_none() && has_credit;
        if !may || turns.peek().is_none() {
            return;
        }
        if open >= MAX_QUESTIONS {
            // Any number that is never given: the link waits.
            application.reading = Some(FetchId::default());
            self.queries.waiting_reads.push_back(number);
            return;
        }
        let keys: Vec<String> = turns.take(READS_AT_ONCE).map(String::from).collect();
        let tags = session.application().and_then(|application| application.tags.clone());
        let tags = tags.unwrap_or_else(|| self.config.tags.clone());
        let timely = self.time.clock.timely();
        let fetch =
            self.queries.ask(self.out, Purpose::Read(number), Query::Values { keys, tags, timely });
        if let Some(application) = self.links.application(number) {
            application.reading = Some(fetch);
        }
    }

    /// Lets the next link ask that waits for a free question.
    pub(super) fn ask_waiting_reads(&mut self) {
        while self.queries.open_reads() < MAX_QUESTIONS
            && let Some(link) = self.queries.waiting_reads.pop_front()
        {
            if let Some(application) = self.links.application(link) {
                application.reading = None;
                let session = application.session;
                self.ask_reads(session);
            }
        }
    }
}

impl Handover<'_> {
    /// What the store found for the first reads of a link.
    pub(super) fn values_fetched(&mut self, link: LinkId, fetch: FetchId, found: Vec<StoredValue>) {
        let Some(application) = self.links.application(link) else { return };
        if application.reading != Some(fetch) {
            return;
        }
        application.reading = None;
        let session = application.session;
        self.with_session(session, |desk, _, _| desk.tell(found));
        self.sessions.ready.insert(session);
    }
}

impl SessionWalk<'_> {
    fn tell(&mut self, found: Vec<StoredValue>) {
        for value in found {
            let Some(application) = self.link.application_mut() else { return };
            let Some(PendingAnswer { answer, .. }) = application.answers.pop_front() else {
                return;
            };
            let AppAnswer::Read { read, frame, errors } = answer else { return };
            let answer = match judge(&read, value) {
                Ok(newest) => AppAnswer::Result { read, newest },
                Err(refusal) => {
                    application.asked_in_vain(errors, refusal.code, self.carrier.now.instant);
                    self.carrier.out.metrics.rejected(refusal.code);
                    let event = Event::Rejected { link: self.link.id, code: refusal.code.as_str() };
                    self.carrier.out.push(Output::Event(event));
                    AppAnswer::Error { refusal, frame }
                }
            };
            self.say(answer);
        }
    }
}

/// What the application is told of what the store found: the newest message of the key, if
/// there is one.
///
/// # Errors
/// The [`Refusal`] of a read of another kind, or of a key with more tag sets than a read looks
/// at.
fn judge(read: &ReadRequest<'_>, found: StoredValue) -> Result<Option<Message>, Refusal> {
    let refused = |code, path, message: String| {
        Err(Refusal { re: read.id.as_deref().map(String::from), ..refusal(code, path, message) })
    };
    match found {
        StoredValue::Absent => Ok(None),
        StoredValue::TooMany => {
            let message = "the key has more tag sets, or larger ones, than a read looks at";
            refused(Code::TooLarge, "$.key", message.into())
        }
        StoredValue::Newest(latest) => {
            let there = latest.message.kind();
            match read.kind {
                Some(kind) if kind != there && there != Kind::Dk => {
                    let name = ReadRequest::name_of(there).unwrap_or_default();
                    let message = format!(
                        "the key holds {}, not {}; ask with {name}",
                        there.as_str(),
                        kind.as_str()
                    );
                    refused(Code::WrongKind, "$.type", message)
                }
                Some(_) | None => Ok(Some(latest.message)),
            }
        }
    }
}
