//! Answers as JSON.

use std::convert::Infallible;
use std::io::{self, BufWriter, Write};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use slipstream_core::admin::AdminRefusal;
use slipstream_core::store::{DeadLetter, DeadReason, ListedLetter};
use slipstream_core::tags;
use tokio::sync::mpsc;

use crate::NodeGone;

/// Bytes of JSON that are made before those before them have left.
const PIECE_BYTES: usize = 64 * 1024;

/// An answer as JSON. One of more than a piece is made while it leaves, a piece at a time; a
/// smaller one says its length.
pub(super) async fn streamed(answer: impl Serialize + Send + 'static) -> Response {
    let (pieces, mut made) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let mut writer = BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces));
        // Whoever does not read on needs no more.
        let written = serde_json::to_writer(&mut writer, &answer);
        let _gone = written.is_ok() && writer.flush().is_ok();
    });
    let first = made.recv().await.unwrap_or_default();
    let body = match made.recv().await {
        None => Body::from(first),
        Some(second) => {
            let rest = stream::poll_fn(move |cx| made.poll_recv(cx));
            let pieces = stream::iter([first, second]).chain(rest);
            Body::from_stream(pieces.map(Ok::<_, Infallible>))
        }
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

struct Pieces(mpsc::Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(piece));
        sent.map(|()| piece.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A request that is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct ReplyFailure {
    status: StatusCode,
    message: String,
}

impl ReplyFailure {
    /// With any status.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400: the request makes no sense.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 403: not from there.
    pub(super) fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 404: there is none.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 405: not with this method.
    pub(super) fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method")
    }

    /// 503: not now.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// 500: a fault of the node.
    pub(super) fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl From<NodeGone> for ReplyFailure {
    fn from(gone: NodeGone) -> Self {
        Self::unavailable(gone.to_string())
    }
}

impl From<AdminRefusal> for ReplyFailure {
    fn from(refusal: AdminRefusal) -> Self {
        let status = match &refusal {
            AdminRefusal::Connected(_) | AdminRefusal::OffFromPeers(_) | AdminRefusal::Clock(_) => {
                StatusCode::CONFLICT
            }
            AdminRefusal::Store(_) | AdminRefusal::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refusal.to_string())
    }
}

impl IntoResponse for ReplyFailure {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}

/// A dead letter with its whole payload, the value as it was written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLetterJson<'a> {
    id: u64,
    session: &'a str,
    reason: DeadReason,
    attempts: u32,
    first_error: &'a str,
    last_error: &'a str,
    first_at_ms: u64,
    died_at_ms: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    message_id: &'a str,
    key: &'a str,
    /// `null` where it is left out of a list: `GET /dead-letters/{id}` shows it.
    value: Option<&'a RawValue>,
    value_bytes: usize,
    origin_instance_id: &'a str,
    message_path: Vec<&'a str>,
    targeted_tags: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_group_id: Option<&'a str>,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
}

impl<'a> DeadLetterJson<'a> {
    /// What a list shows of a dead letter.
    pub(super) fn listed(session: &'a str, listed: &'a ListedLetter) -> Self {
        let shown = Self::new(session, &listed.letter);
        let value = shown.value.filter(|_| listed.has_value());
        Self { value, value_bytes: listed.value_bytes, ..shown }
    }

    /// What is shown of a dead letter.
    pub(super) fn new(session: &'a str, letter: &'a DeadLetter) -> Self {
        let message = &letter.message;
        Self {
            id: letter.id.get(),
            session,
            reason: letter.reason,
            attempts: letter.attempts,
            first_error: &letter.first_error,
            last_error: &letter.last_error,
            first_at_ms: letter.first_at.0,
            died_at_ms: letter.died_at.0,
            kind: message.kind().as_str(),
            message_id: message.id(),
            key: message.key(),
            value: serde_json::from_str(message.body()).ok(),
            value_bytes: message.body().len(),
            origin_instance_id: message.origin(),
            message_path: tags::list(message.path()).collect(),
            targeted_tags: tags::list(message.tags()).collect(),
            cluster_group_id: message.group(),
            version: format!("{}-{}", message.version(), message.origin()),
            expires_at_ms: message.expires().map(|at| at.0),
        }
    }
}
