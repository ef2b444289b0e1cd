//! Sends back what it receives, on the WebSocket code of the shell: `tests/autobahn` holds it
//! against the Autobahn suite, as a server and as a client.
//!
//! Only the loop that owns the connections is not that of a node. Limits are the node's, with
//! messages large enough for every case of the suite.
//!
//! ```text
//! echo serve                    listens, and prints its address
//! echo drive ws://HOST:PORT     runs every case that the suite's server has, then its report
//! ```

use std::time::Duration;

use bytes::Bytes;
use slipstream_core::channel::{self, Receiver};
use slipstream_core::config::Limits;
use slipstream_core::connection::{self, connect, open, through_socket};
use slipstream_core::event_loop::INPUTS;
use slipstream_core::ids::LinkId;
use slipstream_core::io::{Frame, Input, Protocol};
use slipstream_core::links::Links;
use slipstream_core::runtime::{Runtime, within};
use slipstream_core::upgrade::Rules;
use slipstream_shell::{accept, bind};
use slipstream_tokio::Tokio;

type Incoming = connection::Incoming<Tokio>;
type Inputs = connection::Inputs<Tokio>;

/// Largest message of the suite: 16 MiB. A frame may be four times as large as a value.
const MAX_VALUE_BYTES: usize = 4 << 20;
/// Handshakes that may be under way at once.
const UNFINISHED: usize = 64;
/// For one case of the suite.
const CASE: Duration = Duration::from_secs(30);
/// What the suite's report calls this program.
const AGENT: &str = "slipstream";

type Failure = Box<dyn std::error::Error>;

fn limits() -> Limits {
    Limits { max_message_bytes: MAX_VALUE_BYTES, ..Limits::default() }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve().await,
        ["drive", suite] => drive(suite).await,
        _ => Err("usage: echo serve | echo drive ws://HOST:PORT".into()),
    }
}

/// Listens until the process is ended.
async fn serve() -> Result<(), Failure> {
    let (listener, address) = bind::<Tokio>("127.0.0.1:0".parse()?)?;
    println!("{address}");
    let mut echo = Echo::new();
    let (allowed_origins, limits) = (Vec::new(), limits());
    let rules = Rules { allowed_origins, loopback: true, limits, unfinished: UNFINISHED };
    Tokio::spawn(accept::<Tokio>(listener, rules, echo.sender.clone()));
    loop {
        echo.turn().await;
    }
}

/// Runs the cases one by one, as the suite wants it.
async fn drive(suite: &str) -> Result<(), Failure> {
    let count = visit(&format!("{suite}/getCaseCount")).await?;
    let count: u32 = std::str::from_utf8(&count)?.parse()?;
    for case in 1..=count {
        visit(&format!("{suite}/runCase?case={case}&agent={AGENT}")).await?;
    }
    visit(&format!("{suite}/updateReports?agent={AGENT}")).await?;
    Ok(())
}

/// Connects and echoes until the connection ends. Returns the first text that came.
async fn visit(url: &str) -> Result<Bytes, Failure> {
    let opened = connect::<Tokio>(url, Protocol::Json, None, &limits()).await?;
    let mut echo = Echo::new();
    echo.take(Incoming::Opened(Box::new(through_socket::<Tokio>(opened))));
    let ended = async {
        while !echo.links.is_empty() {
            echo.turn().await;
        }
    };
    within::<Tokio, _>(CASE, ended).await.ok_or_else(|| format!("{url} takes too long"))?;
    Ok(echo.first)
}

/// The loop that owns the connections, in the place of the shell's.
struct Echo {
    sender: Inputs,
    inputs: Receiver<Incoming>,
    links: Links,
    first: Bytes,
}

impl Echo {
    fn new() -> Self {
        let (sender, inputs) = channel::bounded::<Tokio, _>(INPUTS);
        Self { sender, inputs, links: Links::default(), first: Bytes::new() }
    }

    async fn turn(&mut self) {
        let incoming = self.inputs.next().await;
        self.take(incoming);
        self.links.flush();
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Opened(mut opened) => {
                let id = self.links.next_id();
                opened.up.link = id;
                self.links.insert(id, open::<Tokio>(*opened, self.sender.clone()));
            }
            Incoming::Received(id, frames, end) => {
                for frame in frames {
                    self.received(id, frame);
                }
                if let Some(end) = end {
                    self.links.end_after_turn(id, end);
                }
            }
            Incoming::Input(Input::LinkDown { link, .. }) => self.links.remove(link),
            Incoming::Input(_) | Incoming::NotOpened(..) | Incoming::Asked(_) => {}
        }
    }

    fn received(&mut self, id: LinkId, frame: Frame) {
        match &frame {
            Frame::Text(text) if self.first.is_empty() => self.first = text.clone(),
            Frame::Text(_) | Frame::Binary(_) => {}
            // The shell has answered.
            Frame::Ping(_) | Frame::Pong(_) => return,
        }
        self.links.transmit(id, frame);
    }
}
