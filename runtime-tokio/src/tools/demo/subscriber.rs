//! A named application that takes everything, acknowledges it and comes back when its node does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slipstream_core::client::{ClientOptions, Delivery, Ended, Filter};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::check::Taken;
use crate::client::{Client, Subscription, SubscriptionEvent};
use crate::daemon::failed::Failed;

/// Until it is connected and has been told of all that there is.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// A durable subscriber with manual acknowledgements. It ends with the value.
#[derive(Debug)]
pub(super) struct Subscriber {
    shared: Arc<DemoShared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct DemoShared {
    taken: Mutex<Vec<Taken>>,
    /// Why the last connection ended, for when something is missing.
    trouble: Mutex<Option<String>>,
}

impl DemoShared {
    fn note(&self, why: &Ended) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_string());
    }
}

impl Subscriber {
    /// Connects under this name, and returns when nothing older is to be expected.
    pub(super) async fn start(
        url: String,
        name: &str,
        options: ClientOptions,
    ) -> Result<Self, Failed> {
        let shared = Arc::new(DemoShared::default());
        let (synced, mut in_sync) = watch::channel(false);
        let lost = shared.clone();
        let on_lost = move |why: &Ended| lost.note(why);
        let client =
            Client::new(&url, ClientOptions { on_lost: Some(Arc::new(on_lost)), ..options });
        let deliveries = client.subscribe(Filter::named(name)).await;
        let deliveries = deliveries
            .map_err(|error| Failed::general(format!("cannot subscribe at {url}: {error}")))?;
        let task = tokio::spawn(run(deliveries, shared.clone(), synced));
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

async fn run(mut deliveries: Subscription, shared: Arc<DemoShared>, synced: watch::Sender<bool>) {
    while let Some(event) = deliveries.next_event().await {
        match event {
            Ok(SubscriptionEvent::Synced) => drop(synced.send_replace(true)),
            Ok(SubscriptionEvent::Delivery(delivery)) => {
                let taken = Taken::from(&*delivery);
                shared.taken.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
                delivery.ack();
            }
            Err(why) => shared.note(&why),
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
