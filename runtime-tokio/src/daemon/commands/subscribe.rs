//! `slipstream sub`: an application that prints what it is handed, one JSON object a line.
//!
//! What stays true: with acknowledgements, a delivery is acknowledged after its line was given to
//! standard output, and only then.

use std::io::{BufWriter, Stdout, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use futures_util::FutureExt;
use slipstream_core::application::{AckMode, Replay as From};
use slipstream_core::client::{ClientOptions, Ended, Filter, QueryString};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::connecting::{Speak, bare, duration, ended, goodbye, not_connected, told_options};
use crate::client::{Client, Delivery, Subscription, SubscriptionEvent};
use crate::daemon::failed::Failed;

/// Deliveries that are printed together.
const BATCH: u64 = 1024;
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
    replay: Option<ReplayArg>,
    /// Whether the node waits until a line is printed [default: manual with --client, else auto]
    #[arg(long, value_enum)]
    ack: Option<AckArg>,
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
enum ReplayArg {
    /// What is there first
    All,
    /// Only what is published from now on
    New,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AckArg {
    /// Every delivery is acknowledged when its line was printed
    Manual,
    /// Handing it over is enough
    Auto,
}

/// Why it ended as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SubscribeEnd {
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
            (SubscribeEnd::TimedOut, Some(count)) => Err(Failed::general(format!(
                "{} of {count} messages came from {} in time",
                printer.printed,
                bare(&self.url)
            ))),
            (SubscribeEnd::TimedOut, None)
            | (SubscribeEnd::Counted | SubscribeEnd::Interrupted, _) => Ok(ExitCode::SUCCESS),
        }
    }

    async fn run(&self, printer: &mut Printer) -> Result<SubscribeEnd, Failed> {
        let mut stop = StopAt::new(self.timeout)?;
        let client = Client::new(&self.url, self.options());
        let subscribed = tokio::select! {
            subscribed = client.subscribe(self.filter()) => subscribed,
            end = stop.comes() => return Ok(end),
        };
        let mut deliveries = subscribed.map_err(|error| not_connected(&self.url, &error))?;
        let end = self.receive(&mut deliveries, printer, &mut stop).await?;
        goodbye(deliveries.publisher()).await;
        Ok(end)
    }

    /// Prints what comes, as much together as is there.
    async fn receive(
        &self,
        deliveries: &mut Subscription,
        printer: &mut Printer,
        stop: &mut StopAt,
    ) -> Result<SubscribeEnd, Failed> {
        loop {
            let mut next = tokio::select! {
                biased;
                end = stop.comes() => return Ok(end),
                next = deliveries.next_event() => Some(next),
            };
            let (mut batch, mut lost) = (Vec::new(), None);
            while let Some(event) = next {
                match event {
                    Some(Ok(SubscriptionEvent::Delivery(delivery))) => batch.push(delivery),
                    Some(Ok(SubscriptionEvent::Synced)) => {}
                    Some(Err(why)) => lost = Some(why),
                    None => lost = Some(lost.take().unwrap_or(Ended::Here)),
                }
                let goes_on = lost.is_none() && printer.takes(batch.len());
                next = goes_on.then(|| deliveries.next_event().now_or_never()).flatten();
            }
            let welcome = deliveries.publisher().welcome();
            printer.print(&batch, &welcome.map(|it| it.instance).unwrap_or_default())?;
            batch.into_iter().for_each(Delivery::ack);
            if printer.is_done() {
                return Ok(SubscribeEnd::Counted);
            }
            if let Some(why) = lost {
                return Err(ended(&self.url, &why));
            }
        }
    }

    fn acknowledges(&self) -> bool {
        match self.ack {
            Some(ack) => ack == AckArg::Manual,
            None => self.client.is_some(),
        }
    }

    fn acknowledged(&self) -> AckMode {
        if self.acknowledges() { AckMode::Manual } else { AckMode::Auto }
    }

    /// How it connects. Where the node is to wait for nothing, it is told so: then no window bounds
    /// what is under way.
    fn options(&self) -> ClientOptions {
        let options = told_options(&self.url, self.protocol);
        let mut query = QueryString::behind(&options.query);
        if self.ack.is_some() || !query.has("ack") {
            query.add("ack", [self.acknowledged().as_str()]);
        }
        ClientOptions { query: query.as_str().to_owned(), ..options }
    }

    /// What it asks for.
    fn filter(&self) -> Filter {
        let some = |items: &[String]| -> Vec<String> {
            items.iter().filter(|item| !item.is_empty()).cloned().collect()
        };
        let mut filter = self.client.as_ref().map_or_else(Filter::all, Filter::named);
        if let Some(tags) = &self.tags {
            filter = filter.tags(some(tags));
        }
        if self.keys.is_some() || !self.key.is_empty() {
            let keys: Vec<_> = self.keys.iter().flatten().chain(&self.key).cloned().collect();
            filter = filter.keys(some(&keys));
        }
        if let Some(replay) = self.replay {
            filter = filter.replay(match replay {
                ReplayArg::All => From::All,
                ReplayArg::New => From::New,
            });
        }
        if self.conflate {
            filter = filter.conflate();
        }
        filter.ack(self.acknowledged())
    }
}

/// What ends it from outside.
struct StopAt {
    end: Option<tokio::time::Instant>,
    interrupt: Signal,
    terminate: Signal,
}

impl StopAt {
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

    async fn comes(&mut self) -> SubscribeEnd {
        let timeout = async {
            match self.end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timeout => SubscribeEnd::TimedOut,
            _ = self.interrupt.recv() => SubscribeEnd::Interrupted,
            _ = self.terminate.recv() => SubscribeEnd::Interrupted,
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

    /// Whether one more is to be printed, with so many that are not yet.
    fn takes(&self, waiting: usize) -> bool {
        let left = self.count.map_or(BATCH, |count| count.saturating_sub(self.printed));
        (waiting as u64) < left.min(BATCH)
    }

    /// Prints these.
    fn print(&mut self, deliveries: &[Delivery], node: &str) -> Result<(), Failed> {
        for delivery in deliveries {
            write_line(&mut self.out, &delivery.to_json(node))?;
        }
        self.out.flush()?;
        self.printed += deliveries.len() as u64;
        Ok(())
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

    fn asked(args: &[&str]) -> String {
        let sub = parse(args);
        sub.options().url(&sub.url, &sub.filter())
    }

    #[test]
    fn what_is_asked_for_stands_in_the_query() {
        assert_eq!(asked(&["--url", "ws://a:1"]), "ws://a:1/?ack=auto");
        let all = asked(&[
            "--url",
            "ws://a:1?token=t",
            "--client",
            "pi-1",
            "--tags",
            "aws,b&c",
            "--keys",
            "order:,x",
            "--replay",
            "new",
            "--ack",
            "auto",
        ]);
        let expected = "ws://a:1/?token=t&ack=auto&client=pi-1&tags=aws,b%26c&keys=order%3A,x\
                        &replay=new";
        assert_eq!(all, expected);
        let conflated = asked(&["--url", "ws://a:1/?ack=manual", "--conflate"]);
        assert_eq!(conflated, "ws://a:1/?ack=manual&conflate=true");
        let commas = asked(&["--url", "ws://a:1", "--keys", "x,y", "--key", "a,b", "--key", "z"]);
        assert_eq!(commas, "ws://a:1/?ack=auto&keys=x,y,z&key=a%2Cb");
        assert_eq!(asked(&["--url", "ws://a:1", "--keys", ""]), "ws://a:1/?ack=auto&keys=");
        assert_eq!(asked(&["--url", "ws://a:1", "--client", "b"]), "ws://a:1/?ack=manual&client=b");
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
