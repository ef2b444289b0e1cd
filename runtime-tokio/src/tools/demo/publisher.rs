//! A named application that publishes with many messages under way, at a pace.
//!
//! When its connection is lost it connects again and publishes again, under the same ids and in
//! the same order, everything that has no answer, and a little of what has one, as an application
//! does that is not sure: whatever the node had stored is recognised (P9).

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use slipstream_core::config::Durability;
use slipstream_core::json::write::version_text;
use slipstream_core::wire::Publish;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::check::Receipt;
use super::traffic::Sample;
use crate::daemon::Failed;
use crate::daemon::connection::{Connection, ConnectionError, ConnectionOptions, Receiver, Sender};
use slipstream_core::client::{Outcome, Received, Version};

/// Everything is published in so many steps.
const STEPS: usize = 100;

/// Between two steps.
const PAUSE: Duration = Duration::from_millis(40);

/// Messages with a receipt that are published again on a new connection.
const REPEATED: usize = 25;

/// Between two attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// So long without any receipt, and it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Close codes after which an application should not come back by itself.
const FINAL_CLOSES: [u16; 5] = [4400, 4401, 4403, 4409, 4413];

/// A publisher at work. It ends with the value.
#[derive(Debug)]
pub(super) struct Publisher {
    pace: Arc<Pace>,
    task: JoinHandle<Result<Vec<Receipt>, String>>,
}

#[derive(Debug, Default)]
struct Pace {
    /// Messages handed to a socket, at least once.
    sent: AtomicUsize,
    /// Receipts.
    answered: watch::Sender<usize>,
    /// No pauses before so many are sent.
    burst: AtomicUsize,
}

impl Publisher {
    /// Begins to publish `samples` in their order at the node `node`.
    pub(super) fn start(
        node: &'static str,
        url: String,
        options: ConnectionOptions,
        samples: Arc<[Sample]>,
    ) -> Self {
        let pace = Arc::new(Pace::default());
        let run = Run { node, url, options, samples, pace: pace.clone(), receipts: Vec::new() };
        Self { pace, task: tokio::spawn(run.all()) }
    }

    /// Messages handed to a socket so far.
    pub(super) fn sent(&self) -> usize {
        self.pace.sent.load(Ordering::SeqCst)
    }

    /// Receipts so far.
    pub(super) fn answered(&self) -> usize {
        *self.pace.answered.borrow()
    }

    /// Returns as soon as there are more than so many receipts, or never.
    pub(super) async fn answered_beyond(&self, receipts: usize) {
        let mut answered = self.pace.answered.subscribe();
        // Its other end lies in this very publisher.
        let _ = answered.wait_for(|answered| *answered > receipts).await;
    }

    /// Publishes the next so many without pauses.
    pub(super) fn burst(&self, messages: usize) {
        self.pace.burst.store(self.sent() + messages, Ordering::SeqCst);
    }

    /// Whether it has ended, well or not.
    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for the last receipt, and gives all of them in order.
    pub(super) async fn finish(mut self) -> Result<Vec<Receipt>, Failed> {
        let receipts = (&mut self.task).await;
        let receipts = receipts.map_err(|error| format!("a publisher failed: {error}"));
        receipts.and_then(|receipts| receipts).map_err(Failed::general)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a connection ended before its time.
enum Ended {
    /// It can be made again.
    Lost(String),
    /// That would change nothing.
    Final(String),
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        let text = error.to_string();
        match error {
            ConnectionError::Connect { .. } | ConnectionError::Lost(_) => Self::Lost(text),
            ConnectionError::Closed { code, .. } if !FINAL_CLOSES.contains(&code) => {
                Self::Lost(text)
            }
            ConnectionError::Closed { .. } | ConnectionError::Codec(_) => Self::Final(text),
        }
    }
}

struct Run {
    node: &'static str,
    url: String,
    options: ConnectionOptions,
    samples: Arc<[Sample]>,
    pace: Arc<Pace>,
    /// For the first so many of the samples.
    receipts: Vec<Receipt>,
}

impl Run {
    async fn all(mut self) -> Result<Vec<Receipt>, String> {
        let mut fruitless = Instant::now();
        loop {
            let before = self.receipts.len();
            let why = match self.connection().await {
                Ok(()) => return Ok(self.receipts),
                Err(Ended::Final(why)) => return Err(self.given_up(&why)),
                Err(Ended::Lost(why)) => why,
            };
            if self.receipts.len() > before {
                fruitless = Instant::now();
            }
            if fruitless.elapsed() > PATIENCE {
                return Err(self.given_up(&why));
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    fn given_up(&self, why: &str) -> String {
        let next = self.samples.get(self.receipts.len()).map_or("none", |sample| &sample.id);
        format!("publishing at {} ended before {next}: {why}", self.node)
    }

    /// Publishes over one connection what has no receipt yet, until everything has.
    async fn connection(&mut self) -> Result<(), Ended> {
        let Connection { sender, mut receiver, .. } =
            Connection::connect(&self.url, &self.options).await?;
        let from = self.receipts.len().saturating_sub(REPEATED);
        let mut sending = pin!(send(&self.samples, &self.pace, from, &sender));
        let receiving =
            receive(self.node, &self.samples, &self.pace, from, &mut self.receipts, &mut receiver);
        let mut receiving = pin!(receiving);
        tokio::select! {
            // The receiver knows best why a connection has ended.
            biased;
            ended = &mut receiving => ended,
            sent = &mut sending => match sent {
                Ok(()) => receiving.await,
                Err(error) => Err(error.into()),
            },
        }
    }
}

async fn send(
    samples: &[Sample],
    pace: &Pace,
    from: usize,
    sender: &Sender,
) -> Result<(), ConnectionError> {
    let step = samples.len().div_ceil(STEPS).max(1);
    let mut next = from;
    while next < samples.len() {
        let end = samples.len().min(next + step);
        let batch: Vec<Publish<'_>> = samples[next..end].iter().map(Sample::publish).collect();
        sender.publish(&batch).await?;
        next = end;
        let repeated = pace.sent.fetch_max(end, Ordering::SeqCst) >= end;
        if !repeated && end >= pace.burst.load(Ordering::SeqCst) {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Takes the answers to what is sent from the sample `from` on.
async fn receive(
    node: &str,
    samples: &[Sample],
    pace: &Pace,
    from: usize,
    receipts: &mut Vec<Receipt>,
    receiver: &mut Receiver,
) -> Result<(), Ended> {
    // Answers come in the order of the messages.
    let mut due = samples.iter().enumerate().skip(from);
    while receipts.len() < samples.len() {
        let Received::Outcomes(outcomes) = receiver.next().await? else { continue };
        for outcome in outcomes {
            let (id, receipt) = receipt(node, outcome)?;
            let due = due.next().filter(|(_, sample)| sample.id == id);
            let Some((number, _)) = due else {
                return Err(Ended::Final(format!("the receipt of {id} came out of order")));
            };
            match receipts.get(number) {
                None => receipts.push(receipt),
                Some(first) if *first == receipt => {}
                Some(first) => {
                    let what = format!("{id} was {first:?}, and published again {receipt:?}");
                    return Err(Ended::Final(what));
                }
            }
        }
        pace.answered.send_replace(receipts.len());
    }
    Ok(())
}

/// The receipt in an answer of `node`, and the id of its message.
fn receipt(node: &str, outcome: Outcome) -> Result<(String, Receipt), Ended> {
    match outcome {
        Outcome::Receipt { id, version, level, duplicate: _ } => {
            let version = match version {
                Version::Text(text) => text.to_string(),
                Version::Clock(clock) => version_text(clock, node),
            };
            Ok((id.to_string(), Receipt { version, durable: level == Durability::Full }))
        }
        Outcome::Refused(refused) if refused.retryable => Err(Ended::Lost(refused.to_string())),
        Outcome::Refused(refused) => Err(Ended::Final(refused.to_string())),
    }
}
