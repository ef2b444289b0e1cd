//! The admin endpoint: HTTP/1 for operators, probes and Prometheus.
//!
//! It has a thread of its own, so that probes are answered whatever holds up the node, and while it
//! starts. Every request passes [`guard`] first, so that no web page can use a browser to get here.
//! Bodies, connections ([`places`]) and the time for a request are bounded; errors are JSON,
//! `{"error": "..."}`.

mod digests;
mod guard;
mod pages;
mod places;
mod pulse;
mod reply;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use slipstream_shell::bind;
use tokio::net::{TcpListener, TcpStream};

use places::{AdminPlace, Places, Watched};
use pulse::Pulse;
use reply::ReplyFailure;

use super::logging::LogHandle;
use super::metrics::Metrics;
use super::reload::Reloader;
use crate::{Node, Tokio};

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
    /// The log of this process.
    pub log: LogHandle,
    /// The metrics of this process.
    pub metrics: Metrics,
    /// Names in `Host` that are answered besides addresses and `localhost`.
    allowed_hosts: Vec<String>,
    /// When the process began.
    since: Instant,
    pulse: Pulse,
    running: OnceLock<Running>,
}

/// A node that has started.
#[derive(Debug)]
struct Running {
    node: Node,
    /// Reads the configuration again.
    reloader: Arc<Reloader>,
}

impl Admin {
    /// Of a process whose node has not started yet.
    pub(super) fn new(log: LogHandle, metrics: Metrics, allowed_hosts: Vec<String>) -> Self {
        let (since, pulse, running) = (Instant::now(), Pulse::default(), OnceLock::new());
        Self { log, metrics, allowed_hosts, since, pulse, running }
    }

    /// Takes the node, which has started.
    pub(super) fn started(&self, node: Node, reloader: Arc<Reloader>) {
        let _known = self.running.set(Running { node, reloader });
    }

    /// The node, once it has started.
    fn running(&self) -> Result<&Running, ReplyFailure> {
        self.running.get().ok_or_else(|| {
            let seconds = self.since.elapsed().as_secs();
            ReplyFailure::unavailable(format!(
                "the node is starting: its store has been opened for {seconds} s"
            ))
        })
    }
}

/// Listens on `address`, and answers requests on a thread of its own for ever, on so many
/// connections at a time. Returns where it listens.
///
/// # Errors
/// What the system says.
pub(super) fn start(
    address: SocketAddr,
    places: usize,
    admin: Arc<Admin>,
) -> io::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (listener, address) = {
        let _within = runtime.enter();
        bind::<Tokio>(address)?
    };
    let serving = move || runtime.block_on(serve(listener, places, admin));
    thread::Builder::new().name("admin".to_owned()).spawn(serving)?;
    Ok(address)
}

async fn serve(listener: TcpListener, places: usize, admin: Arc<Admin>) {
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

async fn converse(stream: TcpStream, place: AdminPlace, router: Router) {
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
        .route("/dead-letters/{id}", get(pages::dead_letter).delete(pages::purge))
        .route("/dead-letters/{id}/replay", post(pages::replay))
        .route("/sessions", get(pages::sessions))
        .route("/sessions/{name}", delete(pages::forget))
        .route("/clock/reset", post(pages::reset_clock))
        .route("/log", get(pages::log).put(pages::set_log))
        .route("/reload", post(pages::reload))
        .fallback(async || ReplyFailure::not_found("there is nothing under this path"))
        .method_not_allowed_fallback(async || ReplyFailure::wrong_method())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(admin.clone(), around))
        .with_state(admin)
}

/// What happens around every page: the guard before it, and the time limit.
async fn around(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Result<Response, ReplyFailure> {
    guard::check(request.uri(), request.headers(), &admin.allowed_hosts)?;
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => Ok(response),
        Err(_) => Err(ReplyFailure::unavailable("the node did not answer in time")),
    }
}
