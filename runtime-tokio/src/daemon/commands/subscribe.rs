//! `slipstream sub`: an application that prints what it is handed, one JSON object a line.
//!
//! What stays true: with acknowledgements, a delivery is acknowledged after its line was given to
//! standard output, and only then.

use std::io::{BufWriter, Stdout, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use slipstream_core::wire::Settle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::connecting::{BackOff, Speak, bare, duration, may_pass, told, with_query};
use crate::daemon::Failed;
use crate::daemon::connection::{Connection, ConnectionError, ConnectionOptions};
use slipstream_core::client::{Delivery, Received};

/// How long the node may take to answer a goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// Bytes that are gathered before they are written.
const BUFFER: usize = 256 << 10;

/// Arguments of `sub`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slipstream sub --keys order:,invoice: | jq .value\n  \
    slipstream sub --client archive --tags azure >> messages.ndjson\n  \
    slipstream sub --client probe --count 1 --timeout 5s\n\n\
    A named session goes on where it ended and connects again by itself. Line breaks between the \
    tokens of a value are printed as spaces; all else is as it was published.")]
pub(crate) struct Subscribe {
    /// Node to receive from
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:7400/")]
    url: String,
    /// Name of a durable session: nothing is missed between two runs
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Tags to receive by [default: those of the node]
    #[arg(long, value_delimiter = ',', value_name = "TAG,TAG")]
    tags: Option<Vec<String>>,
    /// Only keys that begin like this
    #[arg(long, value_delimiter = ',', value_name = "PREFIX,PREFIX")]
    keys: Option<Vec<String>>,
    /// The same, one prefix each time, which may hold a comma
    #[arg(long, value_name = "PREFIX")]
    key: Vec<String>,
    /// Where a new session begins [default: all with --client, else new]
    #[arg(long, value_enum)]
    replay: Option<Replay>,
    /// Whether the node waits until a line is printed [default: manual with --client, else auto]
    #[arg(long, value_enum)]
    ack: Option<Ack>,
    /// While it lags, only the newest value of each key
    #[arg(long)]
    conflate: bool,
    /// End after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time; with --count that is a failure
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// What to speak
    #[arg(long, value_enum, default_value_t = Speak::Postcard)]
    protocol: Speak,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Replay {
    /// What is there first
    All,
    /// Only what is published from now on
    New,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ack {
    /// Every delivery is acknowledged when its line was printed
    Manual,
    /// Handing it over is enough
    Auto,
}

/// Why it ended as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Counted,
    TimedOut,
    Interrupted,
}

impl Subscribe {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failed::general(format!("cannot start: {error}")))?;
        let mut printer = Printer::new(self.count);
        let end = runtime.block_on(self.run(&mut printer))?;
        match (end, self.count) {
            (End::TimedOut, Some(count)) => Err(Failed::general(format!(
                "{} of {count} messages came from {} in time",
                printer.printed,
                bare(&self.url)
            ))),
            (End::TimedOut, None) | (End::Counted | End::Interrupted, _) => Ok(ExitCode::SUCCESS),
        }
    }

    async fn run(&self, printer: &mut Printer) -> Result<End, Failed> {
        let mut stop = Stop::new(self.timeout)?;
        let url = self.query();
        let options =
            ConnectionOptions { protocol: self.protocol.into(), ..ConnectionOptions::default() };
        let mut back_off = BackOff::new(Duration::MAX);
        let mut first = true;
        loop {
            let connected = tokio::select! {
                connected = Connection::connect(&url, &options) => connected,
                end = stop.comes() => return Ok(end),
            };
            let error = match connected {
                Ok(mut client) => {
                    first = false;
                    back_off.succeeded();
                    match self.receive(&mut client, printer, &mut stop).await? {
                        Ok(end) => {
                            goodbye(client).await;
                            return Ok(end);
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            // An address that is wrong from the start is better told at once.
            if first || self.client.is_none() || !may_pass(&error) {
                return Err(told(&url, &error));
            }
            let wait = back_off.wait(None).unwrap_or_default();
            let node = bare(&url);
            let _gone = writeln!(std::io::stderr(), "{node}: {error}; connecting again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                end = stop.comes() => return Ok(end),
            }
        }
    }

    /// Prints what comes. The inner error is about the connection.
    async fn receive(
        &self,
        client: &mut Connection,
        printer: &mut Printer,
        stop: &mut Stop,
    ) -> Result<Result<End, ConnectionError>, Failed> {
        let node = client.welcome.instance.clone();
        loop {
            let received = tokio::select! {
                biased;
                end = stop.comes() => return Ok(Ok(end)),
                received = client.receiver.next() => received,
            };
            let deliveries = match received {
                Ok(Received::Deliveries(deliveries)) => deliveries,
                Ok(Received::Outcomes(_) | Received::Results(_) | Received::Synced) => continue,
                Err(error) => return Ok(Err(error)),
            };
            let printed = printer.print(&deliveries, &node)?;
            if self.acknowledges() {
                let settles: Vec<_> = printed.iter().map(|one| Settle::Ack(one.id)).collect();
                if let Err(error) = client.sender.settle(&settles).await {
                    return Ok(Err(error));
                }
            }
            if printer.is_done() {
                return Ok(Ok(End::Counted));
            }
        }
    }

    fn acknowledges(&self) -> bool {
        match self.ack {
            Some(ack) => ack == Ack::Manual,
            None => self.client.is_some(),
        }
    }

    /// The URL with all that is asked for.
    fn query(&self) -> String {
        let list = |items: &Vec<String>| {
            let items = items.iter().filter(|item| !item.is_empty());
            items.cloned().collect::<Vec<_>>()
        };
        let one = |item: &str| vec![item.to_owned()];
        let replay = |replay| match replay {
            Replay::All => one("all"),
            Replay::New => one("new"),
        };
        let ack = |ack| match ack {
            Ack::Manual => one("manual"),
            Ack::Auto => one("auto"),
        };
        let keys = self.keys.iter().flatten().chain(&self.key).cloned();
        let keys = (self.keys.is_some() || !self.key.is_empty()).then(|| keys.collect());
        let wishes = [
            ("client", self.client.as_deref().map(one)),
            ("tags", self.tags.as_ref().map(list)),
            ("keys", keys.as_ref().map(list)),
            ("replay", self.replay.map(replay)),
            ("ack", self.ack.map(ack)),
            ("conflate", self.conflate.then(|| one("true"))),
        ];
        wishes.iter().fold(self.url.clone(), |url, (name, items)| match items {
            Some(items) => {
                let items: Vec<_> = items.iter().map(String::as_str).collect();
                with_query(&url, &[(name, &items)])
            }
            None => url,
        })
    }
}

/// Says goodbye and waits until the node has read all that was said before.
async fn goodbye(mut client: Connection) {
    let wait = async {
        if client.sender.close().await.is_ok() {
            while client.receiver.next().await.is_ok() {}
        }
    };
    // A node that does not answer has still been told.
    let _ = tokio::time::timeout(GOODBYE, wait).await;
}

/// What ends it from outside.
struct Stop {
    end: Option<tokio::time::Instant>,
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new(timeout: Option<Duration>) -> Result<Self, Failed> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failed::general(format!("cannot take signals: {error}")))
        };
        Ok(Self {
            // A time beyond what the clock can tell is none.
            end: timeout.and_then(|timeout| Instant::now().checked_add(timeout)).map(Into::into),
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn comes(&mut self) -> End {
        let timeout = async {
            match self.end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timeout => End::TimedOut,
            _ = self.interrupt.recv() => End::Interrupted,
            _ = self.terminate.recv() => End::Interrupted,
        }
    }
}

/// Standard output, and how many lines went there.
struct Printer {
    out: BufWriter<Stdout>,
    printed: u64,
    count: Option<u64>,
}

impl Printer {
    fn new(count: Option<u64>) -> Self {
        Self { out: BufWriter::with_capacity(BUFFER, std::io::stdout()), printed: 0, count }
    }

    /// Prints these, up to the number that was asked for, and gives those that it printed.
    fn print<'a>(
        &mut self,
        deliveries: &'a [Delivery],
        node: &str,
    ) -> Result<&'a [Delivery], Failed> {
        let left = self.count.map_or(u64::MAX, |count| count.saturating_sub(self.printed));
        let left = usize::try_from(left).unwrap_or(usize::MAX).min(deliveries.len());
        let printed = &deliveries[..left];
        for delivery in printed {
            write_line(&mut self.out, &delivery.to_json(node))?;
        }
        self.out.flush()?;
        self.printed += printed.len() as u64;
        Ok(printed)
    }

    fn is_done(&self) -> bool {
        self.count.is_some_and(|count| self.printed >= count)
    }
}

/// Writes one line. In JSON a bare line break stands only between tokens.
fn write_line(out: &mut impl Write, json: &str) -> std::io::Result<()> {
    let mut parts = json.split(['\n', '\r']);
    out.write_all(parts.next().unwrap_or_default().as_bytes())?;
    for part in parts {
        out.write_all(b" ")?;
        out.write_all(part.as_bytes())?;
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use clap::{Parser, error::ErrorKind};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        sub: Subscribe,
    }

    fn parse(args: &[&str]) -> Subscribe {
        Line::try_parse_from([&["sub"], args].concat()).unwrap().sub
    }

    #[test]
    fn what_is_asked_for_stands_in_the_query() {
        assert_eq!(parse(&["--url", "ws://a:1"]).query(), "ws://a:1");
        let sub = parse(&[
            "--url", "ws://a:1", "--client", "pi-1", "--tags", "aws,b&c", "--keys", "order:,x",
            "--replay", "new", "--ack", "auto",
        ]);
        let expected = "ws://a:1/?client=pi-1&tags=aws,b%26c&keys=order%3A,x&replay=new&ack=auto";
        assert_eq!(sub.query(), expected);
        let conflated = parse(&["--url", "ws://a:1", "--conflate"]);
        assert_eq!(conflated.query(), "ws://a:1/?conflate=true");
        let commas = parse(&["--url", "ws://a:1", "--keys", "x,y", "--key", "a,b", "--key", "z"]);
        assert_eq!(commas.query(), "ws://a:1/?keys=x,y,z&key=a%2Cb");
        assert_eq!(parse(&["--url", "ws://a:1", "--keys", ""]).query(), "ws://a:1/?keys=");
    }

    #[test]
    fn a_named_session_acknowledges_unless_told_otherwise() {
        assert!(!parse(&[]).acknowledges());
        assert!(parse(&["--client", "a"]).acknowledges());
        assert!(!parse(&["--client", "a", "--ack", "auto"]).acknowledges());
        assert!(parse(&["--ack", "manual"]).acknowledges());
    }

    #[test]
    fn no_count_of_nothing() {
        let error = Line::try_parse_from(["sub", "--count", "0"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ValueValidation);
    }

    #[test]
    fn a_delivery_is_one_line() {
        let mut out = Vec::new();
        write_line(&mut out, "{\"value\":[1,\r\n2.0]}").unwrap();
        assert_eq!(out, b"{\"value\":[1,  2.0]}\n");
    }
}
