//! The two applications: one publishes at the first node, one receives from the second.
//!
//! Message `i` has key number `i * STRIDE % keys`, so that a key comes again only after all the
//! others, and in no order that a tree of keys would like. The publisher is never further ahead
//! of the subscriber than [`BenchLoad::lead`]: with enough keys, no message is superseded on its
//! way and every one has to arrive.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use slipstream_core::application::{AckMode, Replay};
use slipstream_core::client::{
    ClientOptions, Delivery, Ended, Filter, Outcome, QueryString, Received,
};
use slipstream_core::config::Durability;
use slipstream_core::io::Protocol;
use slipstream_core::message::Kind;
use slipstream_core::wire::{Publish, Settle};

use super::board::{Board, Tally};
use super::line::{self, LineReceiver, LineSender};
use crate::daemon::commands::connecting::{not_connected, options};
use crate::daemon::failed::Failed;

/// Messages that are encoded and handed to the socket together.
const CHUNK: u64 = 256;
/// Windows of unanswered messages that the subscriber may be behind.
const LEAD_WINDOWS: u64 = 4;
/// Between two turns of a paced publisher.
const TURN: Duration = Duration::from_millis(1);
/// A prime, so that it has no divisor in common with almost any number of keys.
const STRIDE: u64 = 7919;

/// What is published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Different keys.
    pub(super) keys: u64,
    /// Bytes of a value.
    pub(super) size: usize,
    /// Messages that may be without a receipt.
    pub(super) window: usize,
    /// What the applications speak.
    pub(super) protocol: Protocol,
    /// Whether deliveries are acknowledged one by one.
    pub(super) manual: bool,
}

/// How it is published.
#[derive(Debug, Clone, Copy)]
pub(super) enum BenchPace {
    /// Each when the one before has come back and arrived.
    Alone {
        /// How many.
        messages: u64,
    },
    /// As fast as the window allows, until either is reached.
    Full {
        /// How many at most.
        messages: u64,
        /// How long at most.
        time: Duration,
    },
    /// At a steady rate.
    Rate {
        /// Messages a second.
        rate: u64,
        /// How many.
        messages: u64,
    },
}

/// What came of it.
#[derive(Debug)]
pub(super) struct BenchPhase {
    /// How many were published, and all of them answered.
    pub(super) messages: u64,
    /// How many were handed over; fewer only if there are too few keys.
    pub(super) delivered: u64,
    /// From the first publish to the last receipt.
    pub(super) receipts_in: Duration,
    /// From the first publish to the last delivery.
    pub(super) deliveries_in: Duration,
    /// From publish to receipt, in nanoseconds.
    pub(super) to_receipt: Histogram<u64>,
    /// From publish to delivery, in nanoseconds.
    pub(super) to_delivery: Histogram<u64>,
}

impl BenchPhase {
    /// Messages a second, up to the last receipt.
    pub(super) fn answered_a_second(&self) -> f64 {
        self.messages as f64 / self.receipts_in.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Messages a second, up to the last delivery.
    pub(super) fn delivered_a_second(&self) -> f64 {
        self.messages as f64 / self.deliveries_in.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Both applications at work.
#[derive(Debug)]
pub(super) struct BenchLoad {
    publisher: LineSender,
    // Without it nothing more would be asked of its connection.
    _subscriber: LineSender,
    board: Arc<Board>,
    level: Arc<OnceLock<Durability>>,
    shape: Shape,
    names: BenchNames,
    body: Arc<str>,
    sent: u64,
}

impl BenchLoad {
    /// Connects both.
    pub(super) async fn connect(from: &str, to: &str, shape: Shape) -> Result<Self, Failed> {
        let deliveries = Filter::all().keys(["bench:"]).replay(Replay::New);
        let ack = if shape.manual { AckMode::Manual } else { AckMode::Auto };
        let (subscriber, arriving) = connect(to, &deliveries, ack, shape).await?;
        let (publisher, answering) = connect(from, &Filter::none(), AckMode::Auto, shape).await?;
        let board = Arc::new(Board::new()?);
        let level = Arc::new(OnceLock::new());
        let names = BenchNames::new()?;
        let body: Arc<str> = body(shape.size).into();
        let answers =
            BenchAnswers { board: board.clone(), names: names.clone(), level: level.clone() };
        tokio::spawn(answers.run(answering));
        let arrivals = Arrivals {
            board: board.clone(),
            names: names.clone(),
            body: body.clone(),
            settle: shape.manual.then(|| subscriber.clone()),
        };
        tokio::spawn(arrivals.run(arriving));
        Ok(Self { publisher, _subscriber: subscriber, board, level, shape, names, body, sent: 0 })
    }

    /// What the receipts of the first node stand for.
    pub(super) fn level(&self) -> Durability {
        self.level.get().copied().unwrap_or(Durability::Normal)
    }

    /// Publishes, waits until all has arrived, and tells how long it took.
    pub(super) async fn measure(&mut self, pace: BenchPace) -> Result<BenchPhase, Failed> {
        let first = self.sent;
        let start = self.board.now();
        match pace {
            BenchPace::Alone { messages } => self.alone(messages).await?,
            BenchPace::Full { messages, time } => self.full(messages, time).await?,
            BenchPace::Rate { rate, messages } => self.paced(rate, messages).await?,
        }
        self.all_arrived().await?;
        let (to_receipt, last_receipt) = self.board.receipts.take();
        let (to_delivery, last_delivery) = self.board.deliveries.take();
        Ok(BenchPhase {
            messages: self.sent - first,
            delivered: to_delivery.len(),
            receipts_in: Duration::from_nanos(last_receipt.saturating_sub(start)),
            deliveries_in: Duration::from_nanos(last_delivery.saturating_sub(start)),
            to_receipt,
            to_delivery,
        })
    }

    async fn alone(&mut self, messages: u64) -> Result<(), Failed> {
        for _ in 0..messages {
            let now = self.board.now();
            self.publish(1, now).await?;
            self.all_arrived().await?;
        }
        Ok(())
    }

    async fn full(&mut self, messages: u64, time: Duration) -> Result<(), Failed> {
        let start = Instant::now();
        let mut left = messages;
        while left > 0 && start.elapsed() < time {
            let count = left.min(CHUNK);
            self.lead_allows(count).await?;
            let now = self.board.now();
            self.publish(count, now).await?;
            left -= count;
        }
        Ok(())
    }

    /// What is late counts from when it was due: a node that stalls is not spared the messages
    /// that would have come meanwhile.
    async fn paced(&mut self, rate: u64, messages: u64) -> Result<(), Failed> {
        let start = Instant::now();
        let mut done = 0;
        let mut turn = 0;
        while done < messages {
            turn += 1;
            let due_at = TURN * turn;
            if let Some(early) = due_at.checked_sub(start.elapsed()) {
                // The timers of the runtime are too coarse for this.
                tokio::task::block_in_place(|| std::thread::sleep(early));
            }
            let due = (rate as f64 * due_at.as_secs_f64()) as u64;
            let at = self.board.at(start + due_at);
            while done < due.min(messages) {
                let count = (due.min(messages) - done).min(CHUNK);
                self.lead_allows(count).await?;
                self.publish(count, at).await?;
                done += count;
            }
        }
        Ok(())
    }

    async fn publish(&mut self, count: u64, at: u64) -> Result<(), Failed> {
        let mut text = String::new();
        let mut places = Vec::new();
        let range = self.sent..self.sent + count;
        for number in range {
            let id = self.names.id(number, &mut text);
            let key = key(number * STRIDE % self.shape.keys, &mut text);
            places.push((id, key));
        }
        let messages = places.into_iter().map(|(id, key)| Publish {
            kind: Kind::Sk,
            id: &text[id],
            key: &text[key],
            tags: "",
            ttl_ms: 0,
            body: &self.body,
        });
        let messages: Vec<_> = messages.collect();
        self.board.publishing(messages.len(), at);
        self.sent += count;
        match self.publisher.publish(&messages).await {
            Ok(()) => Ok(()),
            // Whoever receives knows why.
            Err(error) => {
                self.board.receipts.until(|_| false).await?;
                Err(Failed::general(error.to_string()))
            }
        }
    }

    /// How far the publisher may be ahead of the subscriber.
    fn lead(&self) -> u64 {
        let lead = (self.shape.window as u64).saturating_mul(LEAD_WINDOWS);
        if self.supersedes() { lead } else { lead.min(self.shape.keys) }
    }

    /// Whether messages may be superseded on their way, for want of keys.
    fn supersedes(&self) -> bool {
        self.shape.keys < (self.shape.window as u64).max(CHUNK)
            || self.shape.keys.is_multiple_of(STRIDE)
    }

    async fn lead_allows(&self, count: u64) -> Result<(), Failed> {
        let least = (self.sent + count).saturating_sub(self.lead());
        self.board.deliveries.until(|tally| tally.upto >= least).await
    }

    async fn all_arrived(&self) -> Result<(), Failed> {
        let sent = self.sent;
        self.board.receipts.until(|tally| tally.count == sent).await?;
        let last = sent.saturating_sub(self.shape.keys)..sent;
        let enough = |tally: &Tally| match self.supersedes() {
            true => tally.upto == sent && last.clone().all(|number| tally.has(number)),
            false => tally.count == sent,
        };
        self.board.deliveries.until(enough).await
    }
}

async fn connect(
    url: &str,
    filter: &Filter,
    ack: AckMode,
    shape: Shape,
) -> Result<(LineSender, LineReceiver), Failed> {
    let options = options(url, shape.protocol);
    let mut query = QueryString::behind(&options.query);
    if !query.has("ack") {
        query.add("ack", [ack.as_str()]);
    }
    let query = query.as_str().to_owned();
    let options = ClientOptions { window: shape.window, query, ..options };
    let opened = line::open(url, filter, &options).await;
    opened.map_err(|error| not_connected(url, &error))
}

/// The names of messages: this run, and a number.
#[derive(Debug, Clone)]
struct BenchNames {
    run: Arc<str>,
}

impl BenchNames {
    fn new() -> Result<Self, Failed> {
        let run = getrandom::u32()
            .map_err(|error| Failed::general(format!("no random numbers: {error}")))?;
        Ok(Self { run: format!("bench-{run:08x}-").into() })
    }

    fn id(&self, number: u64, text: &mut String) -> Range<usize> {
        let start = text.len();
        // Writing to a string does not fail.
        let _ = write!(text, "{}{number}", self.run);
        start..text.len()
    }

    /// The number in an id; `None` for those of others.
    fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&*self.run)?.parse().ok()
    }
}

fn key(number: u64, text: &mut String) -> Range<usize> {
    let start = text.len();
    let _ = write!(text, "bench:{number}");
    start..text.len()
}

/// A value of `size` bytes that looks like data of an application.
fn body(size: usize) -> String {
    const EMPTY: &str = r#"{"items":[],"note":""}"#;
    const ITEM: &str = r#"{"id":"order-4711","quantity":3,"price":12.50,"open":true},"#;
    let Some(room) = size.checked_sub(EMPTY.len()) else {
        return format!("\"{}\"", "x".repeat(size.saturating_sub(2)));
    };
    // The last one goes without its comma, which leaves room for one letter more.
    let items = ITEM.repeat(room / ITEM.len());
    let items = items.trim_end_matches(',');
    let note = "x".repeat(room - items.len());
    format!(r#"{{"items":[{items}],"note":"{note}"}}"#)
}

/// Takes in what the first node answers.
struct BenchAnswers {
    board: Arc<Board>,
    names: BenchNames,
    level: Arc<OnceLock<Durability>>,
}

impl BenchAnswers {
    async fn run(self, mut receiver: LineReceiver) {
        let reason = loop {
            match receiver.next().await {
                Ok(Received::Outcomes(outcomes)) => {
                    let numbers = outcomes.iter().map(|outcome| self.number(outcome));
                    self.board.arrived(&self.board.receipts, numbers);
                }
                Ok(Received::Deliveries(_) | Received::Results(_) | Received::Synced) => {}
                Err(error) => break error.to_string(),
            }
        };
        self.board.receipts.ended(reason);
    }

    fn number(&self, outcome: &Outcome) -> Result<u64, String> {
        match outcome {
            Outcome::Receipt { id, level, .. } => {
                self.level.get_or_init(|| *level);
                self.names.number(id).ok_or_else(|| format!("a receipt for {id}"))
            }
            Outcome::Refused(refused) => Err(format!("refused, {refused}")),
        }
    }
}

/// Takes in what the second node hands over.
struct Arrivals {
    board: Arc<Board>,
    names: BenchNames,
    body: Arc<str>,
    settle: Option<LineSender>,
}

impl Arrivals {
    async fn run(self, mut receiver: LineReceiver) {
        let reason = loop {
            match receiver.next().await {
                Ok(Received::Deliveries(deliveries)) => {
                    let numbers = deliveries.iter().filter_map(|one| self.number(one));
                    self.board.arrived(&self.board.deliveries, numbers);
                    if let Err(error) = self.acknowledge(&deliveries).await {
                        break error.to_string();
                    }
                }
                Ok(Received::Outcomes(outcomes)) => {
                    let wrong = outcomes.iter().map(|outcome| Err(format!("{outcome:?}")));
                    self.board.arrived(&self.board.deliveries, wrong);
                }
                Ok(Received::Results(_) | Received::Synced) => {}
                Err(error) => break error.to_string(),
            }
        };
        self.board.deliveries.ended(reason);
    }

    /// The number of a message; `None` for those of others, who may use the same nodes.
    fn number(&self, delivery: &Delivery) -> Option<Result<u64, String>> {
        let number = self.names.number(delivery.message_id())?;
        let same = delivery.value() == &*self.body;
        Some(if same { Ok(number) } else { Err(format!("number {number} has another value")) })
    }

    async fn acknowledge(&self, deliveries: &[Delivery]) -> Result<(), Ended> {
        match (&self.settle, deliveries.last()) {
            (Some(sender), Some(last)) => sender.settle(&[Settle::AckUpTo(last.id)]).await,
            (Some(_), None) | (None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_json_of_the_size_that_was_asked_for() {
        for size in [2, 3, 21, 22, 23, 80, 81, 256, 1000, 65_536] {
            let body = body(size);
            assert_eq!(body.len(), size);
            serde_json::from_str::<serde_json::Value>(&body).unwrap();
        }
    }

    #[test]
    fn names_lead_back_to_numbers() {
        let (names, others) = (BenchNames::new().unwrap(), BenchNames { run: "other-".into() });
        let mut text = String::new();
        let range = names.id(42, &mut text);
        assert_eq!(names.number(&text[range]), Some(42));
        assert_eq!(others.number(&text), None);
    }
}
