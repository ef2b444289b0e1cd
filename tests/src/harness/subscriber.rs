//! An application in a thread of its own that takes everything and acknowledges it.

use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tungstenite::{Error, Message, WebSocket};

use super::app::{dial, idle};
use super::{Daemon, Frame, until};

/// A message as it was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// `messageId`.
    pub id: String,
    /// Key.
    pub key: String,
    /// Value, byte for byte.
    pub value: Box<str>,
    /// The nodes that it visited.
    pub path: Vec<String>,
    /// Which repetition this is; 0 for the first hand-over.
    pub redelivery: u64,
    /// Number of the delivery.
    pub delivery_id: u64,
    /// Version.
    pub version: String,
    /// Target tags.
    pub tags: Vec<String>,
}

impl From<Frame> for Delivery {
    fn from(frame: Frame) -> Self {
        Self {
            delivery_id: frame.delivery(),
            value: frame.value_text().into(),
            path: frame.message_path,
            redelivery: frame.redelivery.unwrap_or(0),
            id: frame.message_id.unwrap_or_default(),
            key: frame.key.unwrap_or_default(),
            version: frame.version.unwrap_or_default(),
            tags: frame.targeted_tags.unwrap_or_default(),
        }
    }
}

/// A subscriber. It connects again whenever its connection is lost, until it is stopped.
#[derive(Debug)]
pub struct Subscriber {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    taken: Mutex<Taken>,
    syncs: AtomicU64,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Taken {
    deliveries: Vec<Delivery>,
    ids: HashSet<String>,
    /// Close code that says not to come back.
    turned_away: Option<u16>,
}

impl Subscriber {
    /// Connects, and returns when the replay is over.
    pub fn start(node: &Daemon, query: &str) -> Self {
        let subscriber = Self::join(node, query);
        until(&format!("?{query} to be in sync"), super::LONG, || subscriber.is_synced());
        subscriber
    }

    /// Connects in the background. Of what is published before that, a new session is handed
    /// only the newest of each key: whoever is to see every value uses [`Subscriber::start`].
    pub fn join(node: &Daemon, query: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let (own, address, query) =
            (Arc::clone(&shared), node.config.address.clone(), query.to_owned());
        let thread = thread::spawn(move || {
            while !own.stop.load(Ordering::SeqCst) && own.taken().turned_away.is_none() {
                match dial(&address, &query) {
                    Ok(socket) => listen(socket, &own),
                    Err(_) => thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Whether the replay is over.
    pub fn is_synced(&self) -> bool {
        self.shared.syncs.load(Ordering::SeqCst) > 0
    }

    /// How many different messages have come.
    pub fn distinct(&self) -> usize {
        self.shared.taken().ids.len()
    }

    /// Whether a message of this id has come.
    pub fn has(&self, id: &str) -> bool {
        self.shared.taken().ids.contains(id)
    }

    /// Waits until so many different messages have come.
    ///
    /// # Panics
    /// If they do not within `patience`.
    pub fn wait_for(&self, who: &str, count: usize, patience: Duration) {
        until(&format!("{who} to have {count} messages"), patience, || self.distinct() >= count);
    }

    /// Ends it and gives everything that came, in order.
    pub fn stop(mut self) -> Vec<Delivery> {
        self.end();
        std::mem::take(&mut self.shared.taken().deliveries)
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(thread::panicking() || ended.is_ok(), "a subscriber failed");
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, frame: Frame) {
        let delivery = Delivery::from(frame);
        let mut taken = self.taken();
        taken.ids.insert(delivery.id.clone());
        taken.deliveries.push(delivery);
    }
}

/// Takes and acknowledges until the connection ends or the subscriber is stopped.
fn listen(mut socket: WebSocket<TcpStream>, shared: &Shared) {
    // Short, so that the last acknowledgement of a burst and a stop do not wait.
    let _ = socket.get_ref().set_read_timeout(Some(Duration::from_millis(10)));
    let mut unacknowledged = 0;
    let mut highest = 0;
    loop {
        let idle = match socket.read() {
            Ok(Message::Text(text)) => {
                let frame = Frame::parse(text.as_str());
                if frame.is_delivery() {
                    highest = highest.max(frame.delivery());
                    unacknowledged += 1;
                    shared.take(frame);
                } else if frame.kind == "SYNCED" {
                    shared.syncs.fetch_add(1, Ordering::SeqCst);
                }
                false
            }
            Ok(Message::Close(close)) => {
                let code = close.map_or(1005, |close| u16::from(close.code));
                let stays_away = [4400, 4401, 4403, 4409, 4413].contains(&code);
                shared.taken().turned_away = stays_away.then_some(code);
                let _ = socket.flush();
                return;
            }
            Ok(_) => false,
            Err(Error::Io(error)) if idle(error.kind()) => true,
            Err(_) => return,
        };
        if unacknowledged >= 64 || (idle && unacknowledged > 0) {
            let ack = format!(r#"{{"type":"ACK","deliveryId":{highest},"upTo":true}}"#);
            if socket.send(Message::text(ack)).is_err() {
                return;
            }
            unacknowledged = 0;
        }
        if idle && shared.stop.load(Ordering::SeqCst) {
            let _ = socket.close(None);
            let _ = socket.flush();
            return;
        }
    }
}
