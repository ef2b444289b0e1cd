//! Reads: the questions, and what a node answers.

use bytes::Bytes;
use slipstream_core::io::{Frame, Protocol};
use slipstream_core::json::write::version_text;
use slipstream_core::message::Kind;
use slipstream_core::wire::{BatchKind, Read, ReadResult};

use super::frames::{Outcome, Refused, Text, batches};
use super::{Client, ClientError, Received, json};

/// What a key holds for this application (P6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// `messageId` of the read.
    pub id: Text,
    /// The key.
    pub key: Text,
    /// What wrote it last, as in JSON: `SK`, `SA` or `SW`, or `DK` if it was deleted; `None` if
    /// nobody has.
    pub kind: Option<Text>,
    /// One JSON value, as it was written; `None` if there is none.
    pub value: Option<Text>,
    /// Version of the last write, a delete too. Sorts byte by byte as the clock does.
    pub version: Option<Text>,
}

impl Client {
    /// Asks for the converged value of a key, which is expected to have this kind; `None`:
    /// whichever it has. It is at least as new as all that was received on this connection, and
    /// as all that was published on it. What else arrives meanwhile is kept for
    /// [`Receiver::next`](super::Receiver::next).
    ///
    /// # Errors
    /// [`ClientError`] if there is no answer; the inner error is the node's refusal.
    pub async fn get(
        &mut self,
        key: &str,
        kind: Option<Kind>,
    ) -> Result<Result<Value, Refused>, ClientError> {
        // In JSON each question names a kind.
        let kinds = match (self.sender.protocol, kind) {
            (Protocol::Json, None) => vec![Some(Kind::Sk), Some(Kind::Sa), Some(Kind::Sw)],
            (Protocol::Json | Protocol::Postcard, kind) => vec![kind],
        };
        let mut answer = self.ask(key, kinds[0]).await?;
        for kind in &kinds[1..] {
            if !matches!(&answer, Err(refused) if refused.code.as_str() == "WRONG_KIND") {
                break;
            }
            answer = self.ask(key, *kind).await?;
        }
        Ok(answer)
    }

    async fn ask(
        &mut self,
        key: &str,
        kind: Option<Kind>,
    ) -> Result<Result<Value, Refused>, ClientError> {
        self.asked += 1;
        let id = format!("get-{}", self.asked);
        self.sender.read(&Read { kind, id: &id, key }).await?;
        loop {
            match self.receiver.receive().await? {
                Received::Results(results) => {
                    if let Some(value) = results.into_iter().find(|value| *value.id == *id) {
                        return Ok(Ok(value));
                    }
                }
                Received::Outcomes(mut outcomes) => {
                    let refused = outcomes.iter().position(|outcome| {
                        matches!(outcome, Outcome::Refused(refused)
                            if refused.id.as_deref() == Some(&id))
                    });
                    let refused = refused.map(|at| outcomes.remove(at));
                    if !outcomes.is_empty() {
                        self.receiver.kept.push_back(Received::Outcomes(outcomes));
                    }
                    if let Some(Outcome::Refused(refused)) = refused {
                        return Ok(Err(refused));
                    }
                }
                other => self.receiver.kept.push_back(other),
            }
        }
    }
}

/// A read in its frame.
pub(super) fn read(protocol: Protocol, read: &Read<'_>) -> Vec<Frame> {
    match protocol {
        Protocol::Postcard => batches(BatchKind::Reads, &[read]),
        Protocol::Json => vec![json::read(read)],
    }
}

/// A result out of its frame.
pub(super) fn of_wire(batch: &Bytes, result: &ReadResult<'_>) -> Value {
    let value = result.value.as_ref();
    let there = value.filter(|value| value.kind != Kind::Dk);
    Value {
        id: Text::within(batch, result.id),
        key: Text::within(batch, result.key),
        kind: value.map(|value| Text::from(value.kind.as_str().to_owned())),
        value: there.map(|value| Text::within(batch, value.body)),
        version: value.map(|value| version_text(value.version, value.origin).into()),
    }
}
