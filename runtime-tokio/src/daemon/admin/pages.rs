//! One function per path.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use slipstream_core::admin::{AdminAnswer, AdminRequest, Status};
use slipstream_core::ids::{DeadLetterId, Position};

use super::reply::{DeadLetterJson, ReplyFailure, streamed};
use super::{Admin, Running};
use crate::daemon::admin_client::segment;
use crate::daemon::config::masked;
use crate::daemon::reload::ReloadError;

pub(super) type NodePages = State<Arc<Admin>>;
pub(super) type PageAnswer = Result<Response, ReplyFailure>;

/// How long a node that lives may take to tell a probe its state.
const STATUS_TIMEOUT: Duration = Duration::from_millis(300);

/// Dead letters in one answer, if the request names no number.
const DEFAULT_DEAD_LETTERS: usize = 100;

/// Dead letters in one answer at most.
const MAX_DEAD_LETTERS: usize = 1000;

/// `GET /livez`
pub(super) async fn livez(State(admin): NodePages) -> PageAnswer {
    // A start may take as long as the store needs.
    if let Ok(Running { node, .. }) = admin.running() {
        admin.pulse.lives(node).await?;
    }
    Ok("ok\n".into_response())
}

/// `GET /readyz`
pub(super) async fn readyz(State(admin): NodePages) -> PageAnswer {
    let status = probe_status(&admin).await?;
    if status.shutting_down {
        return Err(ReplyFailure::unavailable("the node is shutting down"));
    }
    // Also while publishers are refused: what is delivered, acknowledged and read goes on.
    Ok("ready\n".into_response())
}

/// `GET /healthz`
pub(super) async fn healthz(State(admin): NodePages) -> Response {
    let check = |ok: bool, detail: &str| json!({ "ok": ok, "detail": detail });
    let state = probe_status(&admin).await;
    let (word, checks) = match &state {
        Err(failure) => ("failing", json!({ "node": check(false, &failure.to_string()) })),
        Ok(status) => {
            let store = &status.store;
            let room = format!("{} of {} bytes", store.usage.used_bytes, store.max_bytes);
            let down = peers_down(status);
            let peers = match down.len() {
                0 => "every peer is up".to_owned(),
                _ => format!("down: {}", down.join(", ")),
            };
            let refusing = if status.shutting_down {
                Some("the node is shutting down")
            } else {
                status.refusing.as_deref()
            };
            let checks = json!({
                "node": check(true, "event loop and store thread answer"),
                "publish": check(refusing.is_none(), refusing.unwrap_or("accepted")),
                "store": check(store.usage.used_bytes < store.max_bytes, &room),
                "peers": check(down.is_empty(), &peers),
            });
            let word = match (refusing, down.is_empty()) {
                (Some(_), _) => "refusing",
                (None, false) => "degraded",
                (None, true) => "ok",
            };
            (word, checks)
        }
    };
    let uptime_ms = u64::try_from(admin.since.elapsed().as_millis()).unwrap_or(u64::MAX);
    let body = json!({
        "status": word,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": uptime_ms,
        "checks": checks,
    });
    let code = if state.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(body)).into_response()
}

/// Peers without any link that is up.
fn peers_down(status: &Status) -> Vec<String> {
    let peers = || status.links.iter().filter(|link| link.is_of_peer());
    let is_up = |name: &Option<String>| {
        name.is_some() && peers().any(|link| link.state == "up" && link.name == *name)
    };
    peers()
        .filter(|link| link.state != "up" && !is_up(&link.name))
        .map(|link| masked(link.name.as_deref().unwrap_or(&link.remote)).into_owned())
        .collect()
}

/// `GET /metrics`
pub(super) async fn metrics(State(admin): NodePages) -> PageAnswer {
    let status = node_status(&admin).await?;
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    let text = admin.metrics.render(&status, admin.log.dropped_lines());
    Ok(([kind], text).into_response())
}

/// `GET /status`
pub(super) async fn status(State(admin): NodePages) -> PageAnswer {
    Ok(streamed(node_status(&admin).await?).await)
}

/// What `GET /where/{messageId}` may name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    after: Option<u64>,
}

/// `GET /where/{messageId}`
pub(super) async fn whereabouts(
    State(admin): NodePages,
    id: Result<Path<String>, PathRejection>,
    start: Result<Query<Start>, QueryRejection>,
) -> PageAnswer {
    let id = name(id)?;
    let Query(start) = start.map_err(|error| ReplyFailure::bad_request(error.body_text()))?;
    let path = format!("/where/{}", segment(&id));
    let after = Position::new(start.after.unwrap_or_default());
    match admin.running()?.node.admin(AdminRequest::Where { id, after }).await? {
        AdminAnswer::Where { found, next } => {
            let next = next.map(|after| format!("{path}?after={after}"));
            Ok((next_page(next), streamed(found).await).into_response())
        }
        other => Err(unexpected(other)),
    }
}

/// What `GET /dead-letters` may name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    after: Option<u64>,
    limit: Option<usize>,
}

/// `GET /dead-letters`
pub(super) async fn dead_letters(
    State(admin): NodePages,
    range: Result<Query<Range>, QueryRejection>,
) -> PageAnswer {
    let Query(range) = range.map_err(|error| ReplyFailure::bad_request(error.body_text()))?;
    let limit = range.limit.unwrap_or(DEFAULT_DEAD_LETTERS);
    if !(1..=MAX_DEAD_LETTERS).contains(&limit) {
        return Err(ReplyFailure::bad_request(format!("limit must be 1 to {MAX_DEAD_LETTERS}")));
    }
    let after = DeadLetterId::new(range.after.unwrap_or(0));
    match admin.running()?.node.admin(AdminRequest::DeadLetterList { after, limit }).await? {
        AdminAnswer::DeadLetterList(listed, next) => {
            let shown = listed.iter().map(|(session, it)| DeadLetterJson::listed(session, it));
            let shown = Json(shown.collect::<Vec<_>>());
            let next = next.map(|after| format!("/dead-letters?after={after}&limit={limit}"));
            Ok((next_page(next), shown).into_response())
        }
        other => Err(unexpected(other)),
    }
}

/// `GET /dead-letters/{id}`
pub(super) async fn dead_letter(
    State(admin): NodePages,
    id: Result<Path<String>, PathRejection>,
) -> PageAnswer {
    let id = letter_id(id)?;
    let request = AdminRequest::DeadLetters { after: id.before(), limit: 1 };
    let letters = match admin.running()?.node.admin(request).await? {
        AdminAnswer::DeadLetters(letters) => letters,
        other => return Err(unexpected(other)),
    };
    match letters.first().filter(|(_, letter)| letter.id == id) {
        Some((session, letter)) => Ok(Json(DeadLetterJson::new(session, letter)).into_response()),
        None => Err(ReplyFailure::not_found(format!("there is no dead letter {id}"))),
    }
}

/// Where a list that was too long goes on (RFC 8288).
fn next_page(path: Option<String>) -> Option<[(HeaderName, String); 1]> {
    path.map(|path| [(header::LINK, format!("<{path}>; rel=\"next\""))])
}

/// `POST /dead-letters/{id}/replay`
pub(super) async fn replay(
    State(admin): NodePages,
    id: Result<Path<String>, PathRejection>,
) -> PageAnswer {
    let id = letter_id(id)?;
    order(&admin, AdminRequest::ReplayDeadLetter(id), || format!("there is no dead letter {id}"))
        .await
}

/// `DELETE /dead-letters/{id}`
pub(super) async fn purge(
    State(admin): NodePages,
    id: Result<Path<String>, PathRejection>,
) -> PageAnswer {
    let id = letter_id(id)?;
    order(&admin, AdminRequest::PurgeDeadLetter(id), || format!("there is no dead letter {id}"))
        .await
}

/// `GET /sessions`
pub(super) async fn sessions(State(admin): NodePages) -> PageAnswer {
    Ok(streamed(node_status(&admin).await?.sessions).await)
}

/// `DELETE /sessions/{name}`
pub(super) async fn forget(
    State(admin): NodePages,
    id: Result<Path<String>, PathRejection>,
) -> PageAnswer {
    let name = name(id)?;
    let request = AdminRequest::ForgetSession(name.clone());
    order(&admin, request, || format!("there is no session {name}")).await
}

/// `POST /clock/reset`
pub(super) async fn reset_clock(State(admin): NodePages) -> PageAnswer {
    match admin.running()?.node.admin(AdminRequest::ResetClock).await? {
        AdminAnswer::ClockReset { restamped, lowered_ms, fault } => {
            let refusing = fault.map(|fault| fault.to_string());
            let body = json!({
                "restamped": restamped,
                "lowered_ms": lowered_ms,
                "refusing": refusing,
            });
            Ok(Json(body).into_response())
        }
        other => Err(unexpected(other)),
    }
}

/// `GET /log`
pub(super) async fn log(State(admin): NodePages) -> String {
    format!("{}\n", admin.log.filter())
}

/// `PUT /log`
pub(super) async fn set_log(
    State(admin): NodePages,
    body: Result<Bytes, BytesRejection>,
) -> PageAnswer {
    let body = body.map_err(|error| ReplyFailure::new(error.status(), error.body_text()))?;
    let filter = std::str::from_utf8(&body).map_err(|_| ReplyFailure::bad_request("not UTF-8"))?;
    admin.log.set(filter.trim()).map_err(|bad| ReplyFailure::bad_request(bad.to_string()))?;
    tracing::info!(filter = %admin.log.filter(), "the log level was changed");
    Ok(format!("{}\n", admin.log.filter()).into_response())
}

/// `POST /reload`
pub(super) async fn reload(State(admin): NodePages) -> PageAnswer {
    match admin.running()?.reloader.reload().await {
        Ok(report) => {
            let body = json!({ "reloaded": true, "needs_restart": report.needs_restart });
            Ok(Json(body).into_response())
        }
        Err(error @ (ReloadError::Config(_) | ReloadError::Log(_))) => {
            Err(ReplyFailure::bad_request(error.to_string()))
        }
        Err(ReloadError::Gone(gone)) => Err(gone.into()),
    }
}

/// The state of a node that answers at once.
async fn probe_status(admin: &Admin) -> Result<Status, ReplyFailure> {
    admin.pulse.answers(&admin.running()?.node).await?;
    match tokio::time::timeout(STATUS_TIMEOUT, node_status(admin)).await {
        Ok(answer) => answer,
        Err(_) => Err(ReplyFailure::unavailable("the event loop does not answer")),
    }
}

/// The state of the node, without user information of URLs.
async fn node_status(admin: &Admin) -> Result<Status, ReplyFailure> {
    let mut status = match admin.running()?.node.admin(AdminRequest::Status).await? {
        AdminAnswer::Status(status) => *status,
        other => return Err(unexpected(other)),
    };
    for link in &mut status.links {
        link.remote = masked(&link.remote).into_owned();
        for text in [&mut link.name, &mut link.last_error].into_iter().flatten() {
            *text = masked(text).into_owned();
        }
    }
    Ok(status)
}

/// Gives an order, and says what is missing if there is nothing to carry it out on.
async fn order(
    admin: &Admin,
    request: AdminRequest,
    missing: impl FnOnce() -> String,
) -> PageAnswer {
    match admin.running()?.node.admin(request).await? {
        AdminAnswer::Done => Ok(Json(json!({ "done": true })).into_response()),
        AdminAnswer::NotFound => Err(ReplyFailure::not_found(missing())),
        other => Err(unexpected(other)),
    }
}

/// An answer that is none to this question: a refusal, or a fault.
pub(super) fn unexpected(answer: AdminAnswer) -> ReplyFailure {
    match answer {
        AdminAnswer::Refused(refusal) => refusal.into(),
        AdminAnswer::NotFound => ReplyFailure::not_found("there is nothing of that name"),
        AdminAnswer::Status(_)
        | AdminAnswer::Where { .. }
        | AdminAnswer::DeadLetters(_)
        | AdminAnswer::DeadLetterList(..)
        | AdminAnswer::Digests(_)
        | AdminAnswer::ClockReset { .. }
        | AdminAnswer::Done => ReplyFailure::internal("the node answered another question"),
    }
}

fn name(path: Result<Path<String>, PathRejection>) -> Result<String, ReplyFailure> {
    path.map(|Path(name)| name).map_err(|error| ReplyFailure::bad_request(error.body_text()))
}

fn letter_id(path: Result<Path<String>, PathRejection>) -> Result<DeadLetterId, ReplyFailure> {
    let text = name(path)?;
    match text.parse() {
        Ok(number) => Ok(DeadLetterId::new(number)),
        Err(_) => Err(ReplyFailure::bad_request(format!("`{text}` is no number of a dead letter"))),
    }
}
