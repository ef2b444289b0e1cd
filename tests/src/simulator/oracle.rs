//! All that a node puts out, as numbers: two builds whose hashes agree did the same.
//!
//! Each field of each output is taken in, with the words for people: answers, reasons and events. A
//! change of the code that is to change nothing changes no hash. What the store is asked for by a
//! clock is not taken in, but shows in what it answers.

use slipstream_core::admin::{AdminAnswer, Status};
use slipstream_core::digest::DigestQuery;
use slipstream_core::ids::Position;
use slipstream_core::io::{Frame, Observation, Output};
use slipstream_core::store::{Batch, DeadLetter, Query, Row};

use super::trace::Trace;

impl Trace {
    /// Adds an output of a node.
    pub fn mix_output(&mut self, output: &Output) {
        match output {
            Output::Commit(batch) => self.mix_batch(batch),
            Output::Fetch { fetch, query } => {
                self.mix(&[1, fetch.get()]);
                self.mix_query(query);
            }
            Output::Transmit { link, frame } => {
                let (kind, bytes) = match frame {
                    Frame::Text(bytes) => (0, bytes),
                    Frame::Binary(bytes) => (1, bytes),
                    Frame::Ping(bytes) => (2, bytes),
                    Frame::Pong(bytes) => (3, bytes),
                };
                self.mix(&[2, link.get(), kind]);
                self.mix_bytes(bytes);
            }
            Output::Pause(link) => self.mix(&[3, link.get()]),
            Output::Resume(link) => self.mix(&[4, link.get()]),
            Output::Dial { dial, url } => {
                self.mix(&[5, dial.get()]);
                self.mix_bytes(url.as_bytes());
            }
            Output::Admit(link) => self.mix(&[6, link.get()]),
            Output::Close { link, close } => {
                self.mix(&[7, link.get(), u64::from(close.code.number())]);
                self.mix_bytes(close.reason.as_bytes());
            }
            Output::Admin { ticket, answer } => {
                self.mix(&[8, ticket.get()]);
                self.mix_answer(answer);
            }
            Output::Event(event) => {
                self.mix(&[9]);
                self.mix_bytes(event.to_string().as_bytes());
            }
            Output::Observe(observation) => self.mix_observation(observation),
            Output::Stopped => self.mix(&[11]),
            Output::Halt(failure) => {
                self.mix(&[12]);
                self.mix_bytes(failure.to_string().as_bytes());
            }
        }
    }

    fn mix_batch(&mut self, batch: &Batch) {
        self.mix(&[0, batch.id.get()]);
        self.mix_all(&batch.rows, Self::mix_row);
        self.mix_all(&batch.seen, |trace, seen| {
            trace.mix_bytes(seen.key.origin.as_str().as_bytes());
            trace.mix(&[seen.key.incarnation.get(), seen.key.chunk]);
            trace.mix_bytes(&seen.marks);
        });
        self.mix_all(&batch.seen_dropped, |trace, key| {
            trace.mix_bytes(key.origin.as_str().as_bytes());
            trace.mix(&[key.incarnation.get(), key.chunk]);
        });
        self.mix_all(&batch.sessions, |trace, session| {
            trace.mix(&[session.id.get(), session.cursor.get()]);
            trace.mix_bytes(session.name.as_bytes());
            trace.mix_bytes(&session.state);
        });
        self.mix_all(&batch.sessions_ended, |trace, id| trace.mix(&[id.get()]));
        self.mix_all(&batch.dead_letters, Self::mix_letter);
        self.mix_all(&batch.dead_letters_gone, |trace, id| trace.mix(&[id.get()]));
        self.mix_all(&batch.receipts, |trace, block| {
            trace.mix(&[block.session.get(), block.number, block.wall.0]);
            trace.mix_bytes(&block.receipts);
        });
        self.mix_all(&batch.receipts_dropped, |trace, (session, number)| {
            trace.mix(&[session.get(), *number]);
        });
        self.mix(&[batch.clock.0, batch.incarnation.get(), batch.floor.get()]);
        self.mix(&[batch.state_floor.get(), batch.history_max_bytes, batch.wall.0]);
        self.mix(&[batch.tombstones_before.0]);
        self.mix_position(batch.held_from);
    }

    fn mix_row(&mut self, row: &Row) {
        self.mix(&[row.position.get(), row.ends.0, u64::from(row.late)]);
        self.mix_bytes(row.message.encoded());
        for session in [row.publisher, row.only] {
            self.mix(&[session.map_or(u64::MAX, |session| session.get())]);
        }
        self.mix_bytes(row.key_hash.as_ref().map_or(&[], |hash| &hash.0));
        self.mix_bytes(row.copy.as_ref().map_or(&[], |copy| &copy.content.0));
        self.mix_position(row.copy.and_then(|copy| copy.of));
    }

    fn mix_letter(&mut self, letter: &DeadLetter) {
        self.mix(&[letter.id.get(), letter.session.get(), u64::from(letter.attempts)]);
        self.mix(&[letter.first_at.0, letter.died_at.0]);
        for text in [letter.reason.as_str(), &letter.first_error, &letter.last_error] {
            self.mix_bytes(text.as_bytes());
        }
        self.mix_bytes(letter.message.encoded());
    }

    fn mix_query(&mut self, query: &Query) {
        match query {
            Query::Rows { after, upto, newest_upto, tags, timely: _, max_rows, max_bytes } => {
                self.mix(&[0, after.get(), upto.get(), newest_upto.get()]);
                self.mix(&[*max_rows as u64, *max_bytes as u64]);
                self.mix_bytes(tags.as_ref().map_or("", |tags| tags.as_str()).as_bytes());
            }
            Query::RowsAt { positions, tags, timely: _ } => {
                self.mix(&[1]);
                self.mix_all(positions, |trace, position| trace.mix(&[position.get()]));
                self.mix_bytes(tags.as_ref().map_or("", |tags| tags.as_str()).as_bytes());
            }
            Query::Latest(keys) => {
                self.mix(&[2]);
                self.mix_all(keys, |trace, key| trace.mix_bytes(&key.0));
            }
            Query::Values { keys, tags, timely: _ } => {
                self.mix(&[3]);
                self.mix_all(keys, |trace, key| trace.mix_bytes(key.as_bytes()));
                self.mix_bytes(tags.as_str().as_bytes());
            }
            Query::Find { id, after } => {
                self.mix(&[4, after.get()]);
                self.mix_bytes(id.as_bytes());
            }
            Query::DeadLetters { after, limit } => self.mix(&[5, after.get(), *limit as u64]),
            Query::DeadLetterList { after, limit, id } => {
                self.mix(&[6, after.get(), *limit as u64]);
                self.mix_bytes(id.as_deref().unwrap_or_default().as_bytes());
            }
            Query::Digests(query) => match query {
                DigestQuery::TagSets { after } => {
                    self.mix(&[7]);
                    self.mix_bytes(after.as_ref().map_or("", |tags| tags.as_str()).as_bytes());
                }
                DigestQuery::Buckets { tags } => {
                    self.mix(&[8]);
                    self.mix_bytes(tags.as_str().as_bytes());
                }
                DigestQuery::Entries { tags, bucket, after } => {
                    self.mix(&[9, u64::from(*bucket)]);
                    self.mix_bytes(tags.as_str().as_bytes());
                    self.mix_bytes(after.as_ref().map_or(&[], |hash| &hash.0));
                }
            },
        }
    }

    fn mix_answer(&mut self, answer: &AdminAnswer) {
        match answer {
            AdminAnswer::Status(status) => self.mix_status(status),
            AdminAnswer::Where { found, next } => {
                self.mix(&[1]);
                self.mix_bytes(&serde_json::to_vec(found).expect("it is JSON"));
                self.mix_position(*next);
            }
            AdminAnswer::DeadLetters(letters) => {
                self.mix(&[2]);
                self.mix_all(letters, |trace, (name, letter)| {
                    trace.mix_bytes(name.as_bytes());
                    trace.mix_letter(letter);
                });
            }
            AdminAnswer::DeadLetterList(letters, next) => {
                self.mix(&[3, next.map_or(u64::MAX, |next| next.get())]);
                self.mix_all(letters, |trace, (name, listed)| {
                    trace.mix_bytes(name.as_bytes());
                    trace.mix(&[listed.value_bytes as u64]);
                    trace.mix_letter(&listed.letter);
                });
            }
            // The store has said what it holds; no seed asks for it.
            AdminAnswer::Digests(digests) => self.mix(&[4, digests.head.get()]),
            AdminAnswer::ClockReset { restamped, lowered_ms, fault } => {
                self.mix(&[5, *restamped, *lowered_ms]);
                self.mix_bytes(fault.map_or(String::new(), |it| it.to_string()).as_bytes());
            }
            AdminAnswer::Done => self.mix(&[6]),
            AdminAnswer::NotFound => self.mix(&[7]),
            AdminAnswer::Refused(refusal) => {
                self.mix(&[8]);
                self.mix_bytes(refusal.to_string().as_bytes());
            }
        }
    }

    fn mix_status(&mut self, status: &Status) {
        self.mix(&[0]);
        self.mix_bytes(&serde_json::to_vec(status).expect("it is JSON"));
    }

    fn mix_observation(&mut self, observation: &Observation) {
        let (kind, took, count) = match observation {
            Observation::PublishAck { took, count } => (0, took, *count),
            Observation::Propagation { origin, took, count } => {
                self.mix_bytes(origin.as_str().as_bytes());
                (1, took, *count)
            }
            Observation::Commit { took, messages } => (2, took, *messages),
        };
        self.mix(&[10, kind, took.as_nanos() as u64, count as u64]);
    }

    fn mix_position(&mut self, position: Option<Position>) {
        self.mix(&[position.map_or(u64::MAX, |position| position.get())]);
    }

    fn mix_all<T>(&mut self, all: &[T], mix: impl Fn(&mut Self, &T)) {
        self.mix(&[all.len() as u64]);
        all.iter().for_each(|one| mix(self, one));
    }
}
