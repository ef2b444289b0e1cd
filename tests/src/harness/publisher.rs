//! An application in a thread of its own that publishes with many frames under way.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tungstenite::{Error, WebSocket};

use super::app::{dial, idle};
use super::{Daemon, Frame, LONG, Message, until};

/// Frames without an answer at one time.
const WINDOW: usize = 512;

/// What came of everything that was published.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Ids and versions of the receipts, in order.
    pub receipts: Vec<(String, String)>,
    /// Ids and codes of the errors that were final.
    pub refused: Vec<(String, String)>,
    /// Connections that were lost on the way.
    pub lost_connections: usize,
    /// Receipts that said `duplicate`.
    pub duplicates: usize,
}

impl Published {
    /// Ids of the receipts.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.receipts.iter().map(|(id, _)| id.as_str())
    }
}

/// A publisher. With a name it survives lost connections: it connects again and publishes again
/// what has no answer yet.
#[derive(Debug)]
pub struct Publisher {
    receipts: Arc<AtomicUsize>,
    thread: JoinHandle<Published>,
}

impl Publisher {
    /// Publishes all of `messages` through `node` under the name `client`. It receives nothing.
    pub fn start(
        node: &Daemon,
        client: &str,
        messages: impl Iterator<Item = Message> + Send + 'static,
    ) -> Self {
        Self::with_window(node, client, WINDOW, messages)
    }

    /// The same, with at most `window` frames without an answer at one time.
    pub fn with_window(
        node: &Daemon,
        client: &str,
        window: usize,
        messages: impl Iterator<Item = Message> + Send + 'static,
    ) -> Self {
        let receipts = Arc::new(AtomicUsize::new(0));
        let mut run = Run {
            window,
            address: node.config.address.clone(),
            query: format!("client={client}&keys="),
            fresh: Box::new(messages),
            unanswered: VecDeque::new(),
            again: VecDeque::new(),
            published: Published::default(),
            progress: Arc::clone(&receipts),
        };
        let thread = thread::spawn(move || {
            run.all();
            run.published
        });
        Self { receipts, thread }
    }

    /// Publishes all of `messages` and waits for the receipts.
    pub fn publish_all(
        node: &Daemon,
        client: &str,
        messages: impl Iterator<Item = Message> + Send + 'static,
    ) -> Published {
        Self::start(node, client, messages).finish()
    }

    /// Receipts so far.
    pub fn receipts(&self) -> usize {
        self.receipts.load(Ordering::SeqCst)
    }

    /// Whether everything has its answer.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until there are so many receipts.
    pub fn wait_for(&self, count: usize) {
        until(&format!("{count} receipts"), LONG, || {
            self.receipts() >= count || self.thread.is_finished()
        });
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If the publisher failed.
    pub fn finish(self) -> Published {
        until("a publisher to finish", LONG, || self.thread.is_finished());
        self.thread.join().expect("the publisher has said what went wrong")
    }
}

struct Run {
    window: usize,
    address: String,
    query: String,
    fresh: Box<dyn Iterator<Item = Message> + Send>,
    /// Sent on this connection, in order.
    unanswered: VecDeque<Message>,
    /// Sent on a lost connection, or refused for now.
    again: VecDeque<Message>,
    published: Published,
    progress: Arc<AtomicUsize>,
}

impl Run {
    fn all(&mut self) {
        let mut failing_since = None::<Instant>;
        loop {
            let before = self.published.receipts.len();
            let ended =
                dial(&self.address, &self.query).is_ok_and(|socket| self.connection(socket));
            if ended {
                return;
            }
            self.published.lost_connections += 1;
            // What was under way goes first, in its order, before what was waiting.
            while let Some(message) = self.unanswered.pop_back() {
                self.again.push_front(message);
            }
            if self.published.receipts.len() > before {
                failing_since = None;
            }
            let since = failing_since.get_or_insert_with(Instant::now);
            assert!(since.elapsed() < LONG, "{} does not take messages", self.address);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Publishes over one connection; whether everything is answered now.
    fn connection(&mut self, mut socket: WebSocket<TcpStream>) -> bool {
        let _ = socket.get_ref().set_read_timeout(Some(Duration::from_millis(50)));
        loop {
            if self.fill(&mut socket).is_err() {
                return false;
            }
            if self.unanswered.is_empty() {
                let _ = socket.close(None);
                let _ = socket.flush();
                return true;
            }
            let enough = if self.unanswered.len() < self.window { 0 } else { self.window / 2 };
            while self.unanswered.len() > enough {
                match socket.read() {
                    Ok(tungstenite::Message::Text(text)) => {
                        self.answered(&Frame::parse(text.as_str()));
                    }
                    Ok(tungstenite::Message::Close(close)) => {
                        let code = close.map_or(1005, |close| u16::from(close.code));
                        assert!([1001, 1005, 4408].contains(&code), "closed with {code}");
                        return false;
                    }
                    Ok(_) => {}
                    Err(Error::Io(error)) if idle(error.kind()) => {}
                    Err(_) => return false,
                }
            }
        }
    }

    fn fill(&mut self, socket: &mut WebSocket<TcpStream>) -> tungstenite::Result<()> {
        while self.unanswered.len() < self.window {
            let Some(message) = self.again.pop_front().or_else(|| self.fresh.next()) else { break };
            let frame = tungstenite::Message::text(message.json());
            self.unanswered.push_back(message);
            socket.write(frame)?;
        }
        socket.flush()
    }

    /// Answers come in the order of the frames, so each is for the oldest.
    fn answered(&mut self, frame: &Frame) {
        if !frame.is_answer() {
            return;
        }
        let message = self.unanswered.pop_front().expect("an answer has its question");
        if frame.kind == "ACK" {
            assert_eq!(frame.id(), message.id(), "answers come in the order of the frames");
            let receipt = (frame.id().to_owned(), frame.version().to_owned());
            self.published.receipts.push(receipt);
            self.published.duplicates += usize::from(frame.duplicate == Some(true));
            self.progress.fetch_add(1, Ordering::SeqCst);
            return;
        }
        assert_eq!(
            frame.re.as_deref(),
            Some(message.id()),
            "errors come in the order of the frames"
        );
        if frame.retryable == Some(true) && frame.code.as_deref() != Some("STORE_FULL") {
            self.again.push_back(message);
            thread::sleep(Duration::from_millis(5));
        } else {
            let code = frame.code.clone().unwrap_or_default();
            self.published.refused.push((message.id().to_owned(), code));
        }
    }
}
