//! A named application that takes everything, acknowledges it and comes back when its node does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slipstream_core::wire::Settle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::check::Taken;
use crate::daemon::Failed;
use crate::daemon::connection::{Connection, ConnectionError, ConnectionOptions};
use slipstream_core::client::{Delivery, Received};

/// Between two attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Until it is connected and has been told of all that there is.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// A durable subscriber with manual acknowledgements. It ends with the value.
#[derive(Debug)]
pub(super) struct Subscriber {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    taken: Mutex<Vec<Taken>>,
    /// Why the last connection ended, for when something is missing.
    trouble: Mutex<Option<String>>,
}

impl Subscriber {
    /// Connects, and returns when nothing older is to be expected.
    pub(super) async fn start(url: String, options: ConnectionOptions) -> Result<Self, Failed> {
        let shared = Arc::new(Shared::default());
        let (synced, mut in_sync) = watch::channel(false);
        let task = tokio::spawn(run(url.clone(), options, shared.clone(), synced));
        let subscriber = Self { shared, task };
        let ready = in_sync.wait_for(|synced| *synced);
        match tokio::time::timeout(START_TIMEOUT, ready).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => {
                let why = subscriber.trouble().unwrap_or_else(|| "no SYNCED came".into());
                return Err(Failed::general(format!("cannot subscribe at {url}: {why}")));
            }
        }
        Ok(subscriber)
    }

    /// All that it was handed so far, in order. Not to be held over an await.
    pub(super) fn taken(&self) -> MutexGuard<'_, Vec<Taken>> {
        self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why its last connection ended, if one has.
    pub(super) fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    url: String,
    options: ConnectionOptions,
    shared: Arc<Shared>,
    synced: watch::Sender<bool>,
) {
    loop {
        let Err(error) = listen(&url, &options, &shared, &synced).await;
        *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// One connection, to its end.
async fn listen(
    url: &str,
    options: &ConnectionOptions,
    shared: &Shared,
    synced: &watch::Sender<bool>,
) -> Result<std::convert::Infallible, ConnectionError> {
    let Connection { sender, mut receiver, .. } = Connection::connect(url, options).await?;
    loop {
        match receiver.next().await? {
            Received::Synced => drop(synced.send_replace(true)),
            // Only an acknowledgement can be answered here, by a refusal: it will be repeated.
            Received::Outcomes(_) | Received::Results(_) => {}
            Received::Deliveries(batch) => {
                let Some(last) = batch.last().map(|delivery| delivery.id) else { continue };
                let taken = batch.iter().map(Taken::from);
                shared.taken.lock().unwrap_or_else(PoisonError::into_inner).extend(taken);
                sender.settle(&[Settle::AckUpTo(last)]).await?;
            }
        }
    }
}

impl From<&Delivery> for Taken {
    fn from(delivery: &Delivery) -> Self {
        Self {
            id: delivery.message_id().into(),
            kind: delivery.kind().into(),
            key: delivery.key().into(),
            value: delivery.value().into(),
            tags: delivery.tags().into(),
            origin: delivery.origin().into(),
            path: delivery.path().into(),
            version: delivery.version().into_owned(),
            redelivery: delivery.redelivery,
        }
    }
}
