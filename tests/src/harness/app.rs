//! An application that does one thing after the other: JSON over a blocking WebSocket.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use tungstenite::client::{ClientRequestBuilder, client};
use tungstenite::http::Uri;
use tungstenite::{Error, HandshakeError, WebSocket};

use super::{Daemon, Frame, Message, PATIENCE};

/// A connection of an application.
#[derive(Debug)]
pub struct App {
    /// The greeting.
    pub welcome: Frame,
    socket: WebSocket<TcpStream>,
    /// Frames that came while another kind was waited for.
    early: VecDeque<Frame>,
}

/// What came next.
#[derive(Debug)]
pub enum Said {
    /// A frame.
    Frame(Box<Frame>),
    /// The end, with the close code; 1006 if the connection broke without one (RFC 6455, 7.1.5).
    Closed(u16, String),
    /// Nothing within the time given.
    Nothing,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status, or close code of a connection that was closed before its greeting; 0 if
    /// nobody answered.
    pub code: u16,
    /// What was said about it.
    pub reason: String,
}

impl App {
    /// Connects and reads the greeting.
    ///
    /// # Panics
    /// If the node does not greet.
    pub fn connect(node: &Daemon, query: &str) -> Self {
        Self::open(&node.config.address, query, &[])
            .unwrap_or_else(|refused| panic!("{}/?{query}: {refused:?}", node.config.id))
    }

    /// Connects with these HTTP headers and reads the greeting.
    ///
    /// # Errors
    /// [`Refused`] if there is none.
    pub fn open(address: &str, query: &str, headers: &[(&str, &str)]) -> Result<Self, Refused> {
        let socket = upgrade(address, query, headers)?;
        let welcome = Frame::parse(r#"{"type":""}"#);
        let mut app = Self { welcome, socket, early: VecDeque::new() };
        match app.next(PATIENCE) {
            Said::Frame(frame) if frame.kind == "WELCOME" => app.welcome = *frame,
            Said::Closed(code, reason) => return Err(Refused { code, reason }),
            other => panic!("expected a greeting, not {other:?}"),
        }
        Ok(app)
    }

    /// Sends a text frame.
    ///
    /// # Panics
    /// If the connection is gone.
    pub fn send(&mut self, frame: impl Into<String>) {
        let frame = tungstenite::Message::text(frame.into());
        self.socket.send(frame).expect("the node reads what an application sends");
    }

    /// Sends a text frame, and does not mind if nobody reads it.
    pub fn try_send(&mut self, frame: &str) {
        let _ = self.socket.send(tungstenite::Message::text(frame.to_owned()));
    }

    /// Sends a binary frame.
    ///
    /// # Panics
    /// If the connection is gone.
    pub fn send_binary(&mut self, bytes: &[u8]) {
        let frame = tungstenite::Message::binary(bytes.to_vec());
        self.socket.send(frame).expect("the node reads what an application sends");
    }

    /// Sends several text frames with one flush, so that the node finds them together.
    ///
    /// # Panics
    /// If the connection is gone.
    pub fn send_together<'a>(&mut self, frames: impl IntoIterator<Item = &'a str>) {
        for frame in frames {
            let frame = tungstenite::Message::text(frame.to_owned());
            self.socket.write(frame).expect("frames fit into the write buffer");
        }
        self.socket.flush().expect("the node reads what an application sends");
    }

    /// What comes next, within `patience`. Frames that were set aside come first.
    pub fn next(&mut self, patience: Duration) -> Said {
        match self.early.pop_front() {
            Some(frame) => Said::Frame(Box::new(frame)),
            None => self.read(patience),
        }
    }

    fn read(&mut self, patience: Duration) -> Said {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Said::Nothing;
            }
            let timeout = left.max(Duration::from_millis(1));
            let _ = self.socket.get_ref().set_read_timeout(Some(timeout));
            match self.socket.read() {
                Ok(tungstenite::Message::Text(text)) => {
                    return Said::Frame(Box::new(Frame::parse(text.as_str())));
                }
                Ok(tungstenite::Message::Close(close)) => {
                    let _ = self.socket.flush();
                    return close.map_or(Said::Closed(1005, String::new()), |close| {
                        Said::Closed(close.code.into(), close.reason.as_str().to_owned())
                    });
                }
                Ok(_) => {}
                Err(Error::Io(error)) if idle(error.kind()) => {}
                Err(error) => return Said::Closed(1006, error.to_string()),
            }
        }
    }

    /// The next frame.
    ///
    /// # Panics
    /// If there is none in time.
    pub fn frame(&mut self) -> Frame {
        match self.next(PATIENCE) {
            Said::Frame(frame) => *frame,
            other => panic!("expected a frame, not {other:?}"),
        }
    }

    /// The next receipt, result or error; deliveries before it are set aside.
    pub fn answer(&mut self) -> Frame {
        self.first("an answer", Frame::is_answer)
    }

    /// The next delivery; other frames before it are set aside.
    pub fn delivery(&mut self) -> Frame {
        self.first("a delivery", Frame::is_delivery)
    }

    /// Waits for the end of the replay and gives the deliveries that came with it.
    pub fn replay(&mut self) -> Vec<Frame> {
        self.first("SYNCED", |frame| frame.kind == "SYNCED");
        self.early.drain(..).filter(Frame::is_delivery).collect()
    }

    fn first(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        if let Some(at) = self.early.iter().position(&wanted) {
            return self.early.remove(at).expect("the position was just found");
        }
        loop {
            match self.read(PATIENCE) {
                Said::Frame(frame) if wanted(&frame) => return *frame,
                Said::Frame(frame) => self.early.push_back(*frame),
                other => panic!("expected {what}, not {other:?}; had {:?}", self.early),
            }
        }
    }

    /// Publishes and waits for the receipt.
    ///
    /// # Panics
    /// If there is an error instead.
    pub fn publish(&mut self, message: &Message) -> Frame {
        self.send(message.json());
        let answer = self.answer();
        assert_eq!(answer.kind, "ACK", "receipt of {}: {answer:?}", message.id());
        assert_eq!(answer.id(), message.id());
        answer
    }

    /// Sends a frame that must be refused, and gives the error.
    ///
    /// # Panics
    /// If it is accepted.
    pub fn refused(&mut self, frame: &str) -> Frame {
        self.send(frame);
        let answer = self.answer();
        assert_eq!(answer.kind, "ERR", "answer to {frame}: {answer:?}");
        answer
    }

    /// Acknowledges one delivery.
    pub fn ack(&mut self, delivery: &Frame) {
        self.send(format!(r#"{{"type":"ACK","deliveryId":{}}}"#, delivery.delivery()));
    }

    /// Refuses one delivery: `retry` or `reject`.
    pub fn nack(&mut self, delivery: &Frame, action: &str) {
        let id = delivery.delivery();
        self.send(format!(
            r#"{{"type":"NACK","deliveryId":{id},"action":"{action}","reason":"as the test says"}}"#
        ));
    }

    /// Reads on until the connection ends, and gives the close code and reason.
    ///
    /// # Panics
    /// If it does not end within `patience`.
    pub fn closed(&mut self, patience: Duration) -> (u16, String) {
        let end = Instant::now() + patience;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())) {
                Said::Frame(_) => {}
                Said::Closed(code, reason) => return (code, reason),
                Said::Nothing => panic!("the connection is still open after {patience:?}"),
            }
        }
    }

    /// Ends the connection by a reset (RFC 9293, 3.10.7), without a word.
    ///
    /// # Panics
    /// If the system does not allow that.
    pub fn reset(self) {
        let stream = self.socket.get_ref();
        set_socket_linger(stream, Some(Duration::ZERO)).expect("no time to linger is allowed");
    }

    /// Says goodbye and waits for the answer.
    pub fn leave(mut self) {
        let _ = self.socket.close(None);
        self.early.clear();
        self.closed(PATIENCE);
    }
}

fn upgrade(
    address: &str,
    query: &str,
    headers: &[(&str, &str)],
) -> Result<WebSocket<TcpStream>, Refused> {
    let nobody = |error: std::io::Error| Refused { code: 0, reason: error.to_string() };
    let stream = TcpStream::connect(address).map_err(nobody)?;
    stream.set_nodelay(true).map_err(nobody)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(nobody)?;
    let uri: Uri = format!("ws://{address}/?{query}").parse().expect("tests write valid URIs");
    let mut request = ClientRequestBuilder::new(uri);
    for (name, value) in headers {
        request = request.with_header(*name, *value);
    }
    match client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(Error::Http(response))) => {
            let body = response.body().as_deref().unwrap_or_default();
            let reason = String::from_utf8_lossy(body).into_owned();
            Err(Refused { code: response.status().as_u16(), reason })
        }
        Err(error) => Err(Refused { code: 0, reason: error.to_string() }),
    }
}

pub(super) fn idle(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Opens a connection for the threads of this harness.
pub(super) fn dial(address: &str, query: &str) -> Result<WebSocket<TcpStream>, Refused> {
    upgrade(address, query, &[])
}
