//! Places for connections to the admin endpoint, and who gives one up when all are taken.
//!
//! Whoever comes is taken at once. If that needs a place, the connection on which nothing has moved
//! for longest gives its own up; one with a request at work does so only if all have one. So
//! neither silent connections nor readers that do not read keep anybody out.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// In the order in which they came, without those that are to go.
    taken: Mutex<Vec<Arc<Activity>>>,
}

impl Places {
    /// So many.
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(count)), taken: Mutex::default() })
    }

    /// The next place, if need be another connection's.
    pub(super) async fn take(self: &Arc<Self>) -> AdminPlace {
        let free = match self.free.clone().try_acquire_owned() {
            Ok(free) => free,
            Err(_) => {
                self.make_room();
                self.free.clone().acquire_owned().await.expect("it is never closed")
            }
        };
        let activity = Arc::new(Activity::new());
        self.taken().push(activity.clone());
        AdminPlace { places: self.clone(), activity, _free: free }
    }

    fn make_room(&self) {
        let mut taken = self.taken();
        let at_rest = |activity: &Activity| {
            let is_at_work = activity.is_at_work.load(Ordering::Relaxed);
            (is_at_work, activity.moved_ms.load(Ordering::Relaxed))
        };
        let longest = (0..taken.len()).min_by_key(|&place| at_rest(&taken[place]));
        if let Some(place) = longest {
            taken.remove(place).needed.notify_one();
        }
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Arc<Activity>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection, free again when this is dropped.
#[derive(Debug)]
pub(super) struct AdminPlace {
    places: Arc<Places>,
    activity: Arc<Activity>,
    _free: OwnedSemaphorePermit,
}

impl AdminPlace {
    /// What is known of the connection.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for AdminPlace {
    fn drop(&mut self) {
        self.places.taken().retain(|other| !Arc::ptr_eq(other, &self.activity));
    }
}

/// Whether anything moves on a connection.
#[derive(Debug)]
pub(super) struct Activity {
    since: Instant,
    /// When bytes came or went last.
    moved_ms: AtomicU64,
    /// Whether a request waits for its answer to begin.
    is_at_work: AtomicBool,
    needed: Notify,
}

impl Activity {
    fn new() -> Self {
        // All count from one moment, to be compared with each other.
        static SINCE: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let new = Self {
            since: *SINCE.get_or_init(Instant::now),
            moved_ms: AtomicU64::new(0),
            is_at_work: AtomicBool::new(false),
            needed: Notify::new(),
        };
        new.moved();
        new
    }

    /// Takes note that a request is at work until what is returned is dropped.
    pub(super) fn work(self: &Arc<Self>) -> AtWork {
        self.is_at_work.store(true, Ordering::Relaxed);
        AtWork(self.clone())
    }

    /// Returns when the place is needed, or nothing has moved for so long.
    pub(super) async fn over(&self, longest: Duration) -> &'static str {
        let at_rest = async {
            loop {
                let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
                let rests = self.since.elapsed().saturating_sub(moved);
                if rests >= longest && !self.is_at_work.load(Ordering::Relaxed) {
                    return "nothing moved for too long";
                }
                let left = longest.saturating_sub(rests).max(Duration::from_secs(1));
                tokio::time::sleep(left).await;
            }
        };
        tokio::select! {
            () = self.needed.notified() => "its place was needed",
            reason = at_rest => reason,
        }
    }

    fn moved(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(now, Ordering::Relaxed);
    }
}

/// See [`Activity::work`].
#[derive(Debug)]
pub(super) struct AtWork(Arc<Activity>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.is_at_work.store(false, Ordering::Relaxed);
        self.0.moved();
    }
}

/// A connection whose activity is noted.
#[derive(Debug)]
pub(super) struct Watched {
    /// The connection.
    pub stream: TcpStream,
    /// Where that is noted.
    pub activity: Arc<Activity>,
}

impl Watched {
    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.stream)
    }

    fn written(&self, bytes: Result<usize>) -> Poll<Result<usize>> {
        if bytes.as_ref().is_ok_and(|&bytes| bytes > 0) {
            self.activity.moved();
        }
        Poll::Ready(bytes)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        ready!(self.stream().poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.moved();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = ready!(self.stream().poll_write(cx, bytes));
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = ready!(self.stream().poll_write_vectored(cx, bytes));
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
