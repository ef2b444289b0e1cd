//! A named application that publishes with many messages under way, at a pace.
//!
//! When its connection is lost, the library opens another one and publishes again what has no
//! answer, under the same ids and in the same order. A little of what has one is published again
//! here, as an application does that is not sure: whatever the node had stored is recognised (P9).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use slipstream_core::client::{self, ClientOptions, Ended, PublishError};
use slipstream_core::config::Durability;
use slipstream_core::json::write::version_text;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::check::CheckedReceipt;
use super::traffic::DemoSample;
use crate::client::{Client, Pending};
use crate::daemon::failed::Failed;

/// Name of the application.
const NAME: &str = "demo-publisher";

/// Everything is published in so many steps.
const STEPS: usize = 100;

/// Between two steps.
const PAUSE: Duration = Duration::from_millis(40);

/// Messages with a receipt that are published again on a new connection.
const REPEATED: usize = 25;

/// Receipts that may wait to be looked at.
const WAITING: usize = 1024;

/// A publisher at work. It ends with the value.
#[derive(Debug)]
pub(super) struct DemoPublisher {
    pace: Arc<DemoPace>,
    task: JoinHandle<Result<Vec<CheckedReceipt>, String>>,
}

#[derive(Debug, Default)]
struct DemoPace {
    /// Messages given to the library.
    sent: AtomicUsize,
    /// Receipts.
    answered: watch::Sender<usize>,
    /// No pauses before so many are sent.
    burst: AtomicUsize,
    /// Whether a connection was lost since the publisher looked.
    lost: AtomicBool,
}

impl DemoPublisher {
    /// Connects to the node `node`, and begins to publish `samples` there in their order.
    pub(super) async fn start(
        node: &'static str,
        url: &str,
        options: ClientOptions,
        samples: Arc<[DemoSample]>,
    ) -> Result<Self, Failed> {
        let pace = Arc::new(DemoPace::default());
        let lost = pace.clone();
        let on_lost = move |_: &Ended| lost.lost.store(true, Ordering::SeqCst);
        let options = ClientOptions { on_lost: Some(Arc::new(on_lost)), ..options };
        let publisher = Client::new(url, options).publisher(NAME).await;
        let publisher = publisher
            .map_err(|error| Failed::general(format!("cannot publish at {url}: {error}")))?;
        let run = DemoRun { node, samples, pace: pace.clone() };
        Ok(Self { pace, task: tokio::spawn(run.all(publisher)) })
    }

    /// Messages given to the library so far.
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
    pub(super) async fn finish(mut self) -> Result<Vec<CheckedReceipt>, Failed> {
        let receipts = (&mut self.task).await;
        let receipts = receipts.map_err(|error| format!("a publisher failed: {error}"));
        receipts.and_then(|receipts| receipts).map_err(Failed::general)
    }
}

impl Drop for DemoPublisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct DemoRun {
    node: &'static str,
    samples: Arc<[DemoSample]>,
    pace: Arc<DemoPace>,
}

/// A sample by its number, and the receipt to come.
type DemoAsked = (usize, Pending);

impl DemoRun {
    /// Publishes everything, and gives the receipts in order.
    async fn all(self, publisher: crate::client::Publisher) -> Result<Vec<CheckedReceipt>, String> {
        let (asked, asking) = mpsc::channel(WAITING);
        let sending = async {
            let sent = self.send(&publisher, asked).await;
            sent.map_err(|error| format!("publishing at {} ended: {error}", self.node))
        };
        let ((), receipts) = tokio::try_join!(sending, self.receive(asking))?;
        Ok(receipts)
    }

    async fn send(
        &self,
        publisher: &crate::client::Publisher,
        asked: mpsc::Sender<DemoAsked>,
    ) -> Result<(), PublishError> {
        let step = self.samples.len().div_ceil(STEPS).max(1);
        let mut next = 0;
        while next < self.samples.len() {
            let end = self.samples.len().min(next + step);
            let again = match self.pace.lost.swap(false, Ordering::SeqCst) {
                true => {
                    let answered = *self.pace.answered.borrow();
                    answered.saturating_sub(REPEATED)..answered
                }
                false => 0..0,
            };
            for number in again.chain(next..end) {
                let pending = publisher.send(self.samples[number].publication()).await?;
                // Whoever does not take it has failed, and tells why.
                let _ = asked.send((number, pending)).await;
            }
            next = end;
            self.pace.sent.store(end, Ordering::SeqCst);
            if end >= self.pace.burst.load(Ordering::SeqCst) {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    async fn receive(
        &self,
        mut asking: mpsc::Receiver<DemoAsked>,
    ) -> Result<Vec<CheckedReceipt>, String> {
        let mut receipts = Vec::with_capacity(self.samples.len());
        while let Some((number, pending)) = asking.recv().await {
            let id = &self.samples[number].id;
            let receipt = pending.await;
            let receipt = receipt.map_err(|error| {
                format!("publishing at {} ended before {id}: {error}", self.node)
            })?;
            let receipt = self.receipt(&receipt);
            match receipts.get(number) {
                None => receipts.push(receipt),
                Some(first) if *first == receipt => {}
                Some(first) => {
                    return Err(format!("{id} was {first:?}, and published again {receipt:?}"));
                }
            }
            self.pace.answered.send_replace(receipts.len());
        }
        Ok(receipts)
    }

    fn receipt(&self, receipt: &client::Receipt) -> CheckedReceipt {
        let version = version_text(receipt.version, self.node);
        CheckedReceipt { version, durable: receipt.level == Durability::Full }
    }
}
