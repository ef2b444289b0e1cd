//! The admin endpoint: HTTP/1 for operators, probes and Prometheus.
//!
//! Every request passes [`guard`] first, so that no web page can use a browser to get here. Bodies,
//! connections ([`places`]) and the time for a request are bounded; errors are JSON,
//! `{"error": "..."}`.

mod digests;
mod guard;
mod pages;
mod places;
mod reply;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use places::{Place, Places, Watched};
use reply::Failure;

use super::logging::LogHandle;
use super::metrics::Metrics;
use super::reload::Reloader;
use crate::Node;

/// Longest body of a request, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// From the end of a request's head to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// For the head of a request, and between two requests of one connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long nothing may move on a connection whose answer has begun.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits after the listener failed, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the pages work with.
#[derive(Debug)]
pub(super) struct Admin {
    /// The node.
    pub node: Node,
    /// The log of this process.
    pub log: LogHandle,
    /// The metrics of this process.
    pub metrics: Metrics,
    /// Reads the configuration again.
    pub reloader: Arc<Reloader>,
    /// Names in `Host` that are answered besides addresses and `localhost`.
    pub allowed_hosts: Vec<String>,
    /// When the process began.
    pub since: Instant,
}

/// Answers requests on `listener` for ever, on so many connections at a time.
pub(super) async fn serve(listener: TcpListener, places: usize, admin: Arc<Admin>) {
    let router = router(admin);
    let places = Places::new(places);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let place = places.take().await;
                tokio::spawn(converse(stream, place, router.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin endpoint cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, place: Place, router: Router) {
    let activity = place.activity();
    let pages = TowerToHyperService::new(router);
    let answer = |request: hyper::Request<hyper::body::Incoming>| {
        let (at_work, answer) = (activity.work(), pages.call(request));
        async move {
            let answer = answer.await;
            drop(at_work);
            answer
        }
    };
    let stream = Watched { stream, activity: activity.clone() };
    let conversation = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(2 * MAX_BODY_BYTES)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    let early = tokio::select! {
        outcome = conversation => outcome.err().map(|error| error.to_string()),
        reason = activity.over(STALL_TIMEOUT) => Some(reason.to_owned()),
    };
    if let Some(reason) = early {
        tracing::debug!(reason, "an admin connection ended early");
    }
}

fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/livez", get(pages::livez))
        .route("/readyz", get(pages::readyz))
        .route("/healthz", get(pages::healthz))
        .route("/metrics", get(pages::metrics))
        .route("/status", get(pages::status))
        .route("/where/{message_id}", get(pages::whereabouts))
        .route("/digests", get(digests::tag_sets))
        .route("/digests/buckets", get(digests::buckets))
        .route("/digests/buckets/{bucket}", get(digests::bucket))
        .route("/dead-letters", get(pages::dead_letters))
        .route("/dead-letters/{id}", delete(pages::purge))
        .route("/dead-letters/{id}/replay", post(pages::replay))
        .route("/sessions", get(pages::sessions))
        .route("/sessions/{name}", delete(pages::forget))
        .route("/log", get(pages::log).put(pages::set_log))
        .route("/reload", post(pages::reload))
        .fallback(async || Failure::not_found("there is nothing under this path"))
        .method_not_allowed_fallback(async || Failure::wrong_method())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(admin.clone(), around))
        .with_state(admin)
}

/// What happens around every page: the guard before it, and the time limit.
async fn around(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    guard::check(request.uri(), request.headers(), &admin.allowed_hosts)?;
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => Ok(response),
        Err(_) => Err(Failure::unavailable("the node did not answer in time")),
    }
}
