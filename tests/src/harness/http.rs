//! Just enough HTTP for the admin endpoint: one request per connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::PATIENCE;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body, chunks joined.
    pub body: String,
    /// Where a list that was too long goes on, as the header `Link` tells (RFC 8288).
    pub next: Option<String>,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("body is no JSON, {error}: {}", self.body))
    }
}

/// Sends a request and reads the answer; `None` if there was no whole answer. `headers` are
/// lines such as `Origin: x`; without a `Host` among them, the address is sent.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> Option<Response> {
    request_within(PATIENCE, address, method, path, headers, body)
}

/// The same, for a client that gives up when nothing comes for so long.
pub fn request_within(
    patience: Duration,
    address: &str,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> Option<Response> {
    let target = address.parse().expect("addresses are written ip:port");
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let length = body.len();
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    head.push_str(&format!("Content-Length: {length}\r\n"));
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        head.push_str(&format!("Host: {address}\r\n"));
    }
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    head.push_str("\r\n");
    head.push_str(body);
    stream.write_all(head.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Option<Response> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { joined(body)? } else { body.to_owned() };
    Some(Response { status, body, next: next_page(head) })
}

fn next_page(head: &str) -> Option<String> {
    let links = head.lines().filter_map(|line| {
        let (name, link) = line.split_once(':')?;
        name.eq_ignore_ascii_case("link").then_some(link.trim())
    });
    let mut targets = links.filter_map(|link| {
        let link = link.strip_suffix("; rel=\"next\"")?;
        link.strip_prefix('<')?.strip_suffix('>')
    });
    targets.next().map(str::to_owned)
}

fn joined(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size + 2..)?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_is_joined() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            4\r\n{\"a\"\r\n3\r\n:1}\r\n0\r\n\r\n";
        let answer = parse(bytes).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"a\":1}"));
    }

    #[test]
    fn the_next_page_is_known() {
        let bytes = b"HTTP/1.1 200 OK\r\nlink: </a?after=7>; rel=\"next\"\r\n\r\n[]";
        assert_eq!(parse(bytes).unwrap().next.as_deref(), Some("/a?after=7"));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n[]").unwrap().next, None);
    }

    #[test]
    fn an_answer_cut_off_is_none() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-"), None);
        assert_eq!(parse(b""), None);
    }
}
