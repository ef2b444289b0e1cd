//! Whether event loop and store thread answer, for probes that have to be answered at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::reply::ReplyFailure;
use crate::Node;

/// How long a probe waits for them. Those who probe mostly give up after a second.
const PROBE_TIMEOUT: Duration = Duration::from_millis(600);

/// How long they may be silent before the process is better ended.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);

/// The question whether they live, asked at most once at a time.
#[derive(Debug, Clone)]
pub(super) struct Pulse(Arc<watch::Sender<PulseAnswer>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PulseAnswer {
    Alive,
    AwaitedSince(Instant),
    Gone,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(PulseAnswer::Alive)))
    }
}

impl Pulse {
    /// Whether they live: a short silence is none.
    ///
    /// # Errors
    /// [`ReplyFailure`] that says so if the node has ended, or has been silent for too long.
    pub(super) async fn lives(&self, node: &Node) -> Result<(), ReplyFailure> {
        match self.feel(node).await {
            PulseAnswer::AwaitedSince(since) if since.elapsed() < LONGEST_SILENCE => Ok(()),
            answer => answer.into_result(),
        }
    }

    /// Whether they answer now.
    ///
    /// # Errors
    /// [`ReplyFailure`] that says since when they do not.
    pub(super) async fn answers(&self, node: &Node) -> Result<(), ReplyFailure> {
        self.feel(node).await.into_result()
    }

    async fn feel(&self, node: &Node) -> PulseAnswer {
        let asks = self.0.send_if_modified(|answer| {
            let asks = !matches!(answer, PulseAnswer::AwaitedSince(_));
            if asks {
                *answer = PulseAnswer::AwaitedSince(Instant::now());
            }
            asks
        });
        if asks {
            let (told, node) = (self.0.clone(), node.clone());
            tokio::spawn(async move {
                let answer = node.alive().await.map_or(PulseAnswer::Gone, |()| PulseAnswer::Alive);
                told.send_replace(answer);
            });
        }
        let mut answer = self.0.subscribe();
        let awaited = answer.wait_for(|answer| !matches!(answer, PulseAnswer::AwaitedSince(_)));
        // Without an answer in time, that one is awaited is the answer.
        let _in_time = tokio::time::timeout(PROBE_TIMEOUT, awaited).await.is_ok();
        *self.0.borrow()
    }
}

impl PulseAnswer {
    fn into_result(self) -> Result<(), ReplyFailure> {
        match self {
            Self::Alive => Ok(()),
            Self::Gone => Err(ReplyFailure::unavailable("the node has ended")),
            Self::AwaitedSince(since) => Err(ReplyFailure::unavailable(format!(
                "event loop or store thread has not answered for {} ms",
                since.elapsed().as_millis()
            ))),
        }
    }
}
