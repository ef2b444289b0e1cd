//! A WebSocket whose bytes the test writes itself, to send what no library would.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::app::idle;

/// Opcodes of RFC 6455, section 5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of the same message.
    Continuation = 0,
    /// Text.
    Text = 1,
    /// Binary.
    Binary = 2,
    /// Reserved.
    Reserved = 3,
    /// The end.
    Close = 8,
    /// Are you there?
    Ping = 9,
}

/// A TCP connection that may have been upgraded.
#[derive(Debug)]
pub struct RawSocket {
    stream: TcpStream,
    received: Vec<u8>,
    over: bool,
}

impl RawSocket {
    /// Opens a TCP connection.
    ///
    /// # Panics
    /// If nobody listens.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the node listens");
        stream.set_write_timeout(Some(Duration::from_secs(5))).expect("5 s is a timeout");
        Self { stream, received: Vec::new(), over: false }
    }

    /// Opens a WebSocket, with a subprotocol if one is named.
    ///
    /// # Panics
    /// If the upgrade is refused.
    pub fn upgrade(address: &str, query: &str, subprotocol: Option<&str>) -> Self {
        let mut socket = Self::connect(address);
        let mut head = format!(
            "GET /?{query} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        if let Some(name) = subprotocol {
            head.push_str(&format!("Sec-WebSocket-Protocol: {name}\r\n"));
        }
        head.push_str("\r\n");
        socket.send(head.as_bytes());
        let head = socket.read_head();
        assert!(head.starts_with("HTTP/1.1 101"), "the upgrade was refused: {head}");
        socket
    }

    /// Gives the system little room for what is not read.
    ///
    /// # Panics
    /// If the system does not allow that.
    pub fn receive_little(&self) {
        set_socket_recv_buffer_size(&self.stream, 4096).expect("a small buffer is allowed");
    }

    /// Whether the node has hung up, once what has come so far is read.
    pub fn is_over(&mut self) -> bool {
        self.read_some();
        self.over
    }

    /// Writes bytes as they are. The node may have closed already: that is for the test to find
    /// out by reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Writes a masked frame.
    pub fn send_frame(&mut self, opcode: Opcode, last: bool, payload: &[u8]) {
        let mut frame = vec![opcode as u8 | if last { 0x80 } else { 0 }];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        // A mask of zeros is a mask.
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.send(&frame);
    }

    /// The next message of the node, opcode and payload; `None` at the end.
    ///
    /// # Panics
    /// If nothing comes within `patience`.
    pub fn read_frame(&mut self, patience: Duration) -> Option<(u8, Vec<u8>)> {
        let end = Instant::now() + patience;
        loop {
            if let Some((opcode, from, to)) = self.complete_frame() {
                let payload = self.received[from..to].to_vec();
                self.received.drain(..to);
                return Some((opcode, payload));
            }
            if self.over {
                return None;
            }
            assert!(Instant::now() < end, "no frame and no end within {patience:?}");
            self.read_some();
        }
    }

    /// Reads on to the end: the close code, or `None` if the node just hung up.
    ///
    /// # Panics
    /// If it does not end within `patience`.
    pub fn closed(&mut self, patience: Duration) -> Option<u16> {
        let mut code = None;
        while let Some((opcode, payload)) = self.read_frame(patience) {
            if opcode == Opcode::Close as u8 {
                code = Some(match payload[..] {
                    [high, low, ..] => u16::from_be_bytes([high, low]),
                    _ => 1005,
                });
                // Answering lets the node close the connection first, as the RFC wants it.
                self.send_frame(Opcode::Close, true, &payload);
                let _ = self.stream.shutdown(Shutdown::Write);
            }
        }
        code
    }

    fn read_head(&mut self) -> String {
        let end = Instant::now() + super::PATIENCE;
        loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.received[..at]).into_owned();
                self.received.drain(..at + 4);
                return head;
            }
            assert!(!self.over && Instant::now() < end, "no answer to the upgrade");
            self.read_some();
        }
    }

    fn read_some(&mut self) {
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(50)));
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.over = true,
            Ok(read) => self.received.extend_from_slice(&buffer[..read]),
            Err(error) if idle(error.kind()) => {}
            Err(_) => self.over = true,
        }
    }

    /// Opcode of the first frame, and where its payload lies, once all of it is there.
    fn complete_frame(&self) -> Option<(u8, usize, usize)> {
        let [first, second, ..] = self.received[..] else { return None };
        let (length, from) = match second & 0x7f {
            126 => {
                let bytes = self.received.get(2..4)?.try_into().expect("two bytes were asked for");
                (usize::from(u16::from_be_bytes(bytes)), 4)
            }
            127 => {
                let bytes =
                    self.received.get(2..10)?.try_into().expect("eight bytes were asked for");
                (u64::from_be_bytes(bytes) as usize, 10)
            }
            length => (usize::from(length), 2),
        };
        let to = from + length;
        (self.received.len() >= to).then_some((first & 0x0f, from, to))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use tungstenite::protocol::CloseFrame;

    use super::*;
    use crate::harness::PATIENCE;

    #[test]
    fn frames_and_the_close_code_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
            let received = socket.read().unwrap();
            socket.send(received).unwrap();
            let close = CloseFrame { code: 4400.into(), reason: "enough".into() };
            socket.close(Some(close)).unwrap();
            while socket.read().is_ok() {}
        });
        let mut socket = RawSocket::upgrade(&address, "keys=", None);
        let long = vec![b'x'; 70_000];
        socket.send_frame(Opcode::Binary, true, &long);
        assert_eq!(socket.read_frame(PATIENCE), Some((Opcode::Binary as u8, long)));
        assert_eq!(socket.closed(PATIENCE), Some(4400));
        server.join().unwrap();
    }
}
