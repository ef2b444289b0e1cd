//! Publishes in batches, again where that can help, and never twice.
//!
//! A lost connection is the library's affair: it opens another one, and says again what the node
//! knows by its id (P9). What stays true here: a message without an answer ends the command, and
//! one that was refused for a while does not come after a later one of the same key.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slipstream_core::client::{
    ClientOptions, Ended, Filter, Publication, PublishError, Receipt, Refused, Welcome,
};
use slipstream_core::io::Protocol;
use slipstream_core::message::Kind;
use tokio::sync::watch;

use crate::client::{self, Client};
use crate::daemon::commands::connecting::{
    WAITS, bare, ended, goodbye, not_connected, options, say_lost,
};
use crate::daemon::failed::Failed;

/// A message to publish.
#[derive(Debug, Clone)]
pub(super) struct PublishedLine<'a> {
    /// Line of the input.
    pub(super) line: u64,
    /// What it does.
    pub(super) kind: Kind,
    /// `messageId`; empty: the node gives one.
    pub(super) id: Cow<'a, str>,
    /// The key.
    pub(super) key: Cow<'a, str>,
    /// Target tags, comma-joined.
    pub(super) tags: String,
    /// Time to live in milliseconds; 0: the node's default.
    pub(super) ttl_ms: u64,
    /// One JSON value.
    pub(super) body: &'a str,
}

impl PublishedLine<'_> {
    fn publication(&self) -> Publication {
        let mut publication =
            Publication::of_kind(self.kind, &*self.key, self.body).with_id(&*self.id);
        if !self.tags.is_empty() {
            publication = publication.to(self.tags.split(','));
        }
        match self.ttl_ms {
            0 => publication,
            ms => publication.with_ttl(Duration::from_millis(ms)),
        }
    }
}

/// The node's word on a message.
pub(super) type LineAnswer = Result<Receipt, Box<Refused>>;

/// What became of a message.
#[derive(Debug)]
pub(super) enum LineFate {
    /// The node's last word.
    Answered(LineAnswer),
    /// It was refused for a while, and meanwhile a later one of its key was accepted.
    Superseded,
}

/// A publisher that connects again.
#[derive(Debug)]
pub(super) struct LinePublisher {
    url: String,
    /// Whether the node knows ids from earlier connections.
    named: bool,
    publisher: client::Publisher,
    welcome: Welcome,
    losses: Losses,
    back_off: BackOff,
}

impl LinePublisher {
    /// Connects. `timeout` bounds how long nothing may succeed.
    pub(super) async fn connect(
        url: &str,
        name: Option<&str>,
        protocol: Protocol,
        timeout: Duration,
    ) -> Result<Self, Failed> {
        let losses = Losses::new(timeout);
        let (lost, node) = (losses.clone(), bare(url).to_owned());
        let on_lost = move |why: &Ended| {
            if lost.add(why) {
                say_lost(&node, why);
            }
        };
        let options = ClientOptions { on_lost: Some(Arc::new(on_lost)), ..options(url, protocol) };
        let filter = name.map_or_else(Filter::none, Filter::named);
        let publisher = Client::new(url, options).publisher_as(filter).await;
        let publisher = publisher.map_err(|error| not_connected(url, &error))?;
        let welcome = publisher.welcome().ok_or_else(|| ended(url, &Ended::Here))?;
        let (named, back_off) = (name.is_some(), BackOff::new(timeout));
        Ok(Self { url: url.to_owned(), named, publisher, welcome, losses, back_off })
    }

    /// Id of the node.
    pub(super) fn instance(&self) -> &str {
        &self.welcome.instance
    }

    /// The largest value that the node takes.
    pub(super) fn largest(&self) -> usize {
        usize::try_from(self.welcome.max_message_bytes).unwrap_or(usize::MAX)
    }

    /// Says goodbye.
    pub(super) async fn close(&self) {
        goodbye(&self.publisher).await;
    }

    /// Publishes these and tells the fate of each, with its line.
    pub(super) async fn publish(
        &mut self,
        items: Vec<PublishedLine<'_>>,
        tell: &mut impl FnMut(u64, LineFate),
    ) -> Result<(), Failed> {
        let mut open = items;
        // Refused for now, and waiting to see what becomes of what came behind them.
        let mut held = Vec::new();
        while !open.is_empty() || !held.is_empty() {
            if open.is_empty() {
                open = held.drain(..).map(|(item, _)| item).collect();
            }
            let mut answers = Vec::with_capacity(open.len());
            let why = self.answers(&open, &mut answers).await;
            if answers.iter().any(Result::is_ok) {
                self.back_off.succeeded();
            }
            let unanswered = open.len() - answers.len();
            held = judge(held, open.drain(..).zip(answers), tell);
            if let Err(why) = why {
                return Err(self.uncertain(&why, unanswered));
            }
            if !held.is_empty() {
                let asked = held.iter().filter_map(|(_, refused)| refused.retry_after).max();
                match self.back_off.wait(asked) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => held.drain(..).for_each(|(item, refused)| {
                        tell(item.line, LineFate::Answered(Err(refused)));
                    }),
                }
            }
        }
        Ok(())
    }

    /// Publishes these and appends what the node says of them, in their order, up to the first that
    /// it will say nothing of.
    async fn answers(
        &self,
        items: &[PublishedLine<'_>],
        answers: &mut Vec<LineAnswer>,
    ) -> Result<(), Ended> {
        let begun = Instant::now();
        let messages = items.iter().map(PublishedLine::publication).collect();
        let mut receipts = self.publisher.publish_all(messages);
        loop {
            let some = tokio::select! {
                some = receipts.next() => some,
                why = self.losses.overdue(begun) => return Err(why),
            };
            let Some(some) = some else { return Ok(()) };
            for answer in some {
                answers.push(match answer {
                    Ok(receipt) => Ok(receipt),
                    Err(PublishError::Refused(refused)) => Err(refused),
                    Err(PublishError::Unanswered(why) | PublishError::NotSent(why)) => {
                        return Err(why);
                    }
                    Err(error) => return Err(Ended::Lost(error.to_string())),
                });
            }
            self.losses.clear();
        }
    }

    fn uncertain(&self, why: &Ended, unanswered: usize) -> Failed {
        let told = ended(&self.url, why);
        let advice = if self.named {
            "publish them again under the same name with the same ids"
        } else {
            "with --client NAME they are published again without becoming two"
        };
        Failed::general(format!(
            "{told}; {unanswered} messages were not answered and may be there or not: {advice}"
        ))
    }
}

/// Since when there is no connection, as the task of the connection tells it.
#[derive(Debug, Clone)]
struct Losses {
    /// How long nothing may succeed.
    limit: Duration,
    /// Since when, and why at last.
    since: watch::Sender<Option<(Instant, Ended)>>,
}

impl Losses {
    fn new(limit: Duration) -> Self {
        Self { limit, since: watch::Sender::new(None) }
    }

    /// Takes note of a loss; answers whether it is the first since something succeeded.
    fn add(&self, why: &Ended) -> bool {
        let mut is_first = false;
        self.since.send_modify(|since| {
            is_first = since.is_none();
            let first = since.as_ref().map_or_else(Instant::now, |(first, _)| *first);
            *since = Some((first, why.clone()));
        });
        is_first
    }

    /// It works again.
    fn clear(&self) {
        self.since.send_if_modified(|since| since.take().is_some());
    }

    /// Returns when nothing has succeeded for too long, counted from `begun` at the earliest.
    async fn overdue(&self, begun: Instant) -> Ended {
        let mut since = self.since.subscribe();
        let first = match since.wait_for(Option::is_some).await {
            Ok(lost) => lost.as_ref().map_or(begun, |(first, _)| begun.max(*first)),
            // The other end is held here.
            Err(_) => pending().await,
        };
        match first.checked_add(self.limit) {
            Some(end) => tokio::time::sleep_until(end.into()).await,
            // A limit beyond what the clock can tell is none.
            None => pending().await,
        }
        let why = since.borrow().as_ref().map(|(_, why)| why.clone());
        why.unwrap_or(Ended::Here)
    }
}

/// Doubling waits, until there was no success for too long.
#[derive(Debug)]
struct BackOff {
    limit: Duration,
    end: Option<Instant>,
    next: Duration,
}

impl BackOff {
    /// Gives up when `limit` has passed since the first failure after a success.
    fn new(limit: Duration) -> Self {
        Self { limit, end: None, next: WAITS.0 }
    }

    /// It works again.
    fn succeeded(&mut self) {
        *self = Self::new(self.limit);
    }

    /// How long to wait, at least as long as asked for; `None`: give up.
    fn wait(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let now = Instant::now();
        // A limit beyond what the clock can tell is none.
        let end = self.end.or_else(|| now.checked_add(self.limit));
        self.end = end;
        let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(now));
        if left.is_zero() {
            return None;
        }
        let wait = self.next.max(asked.unwrap_or_default()).min(left);
        self.next = (self.next * 2).min(WAITS.1);
        Some(wait)
    }
}

/// Tells what is final of what was held and what was answered since, and gives back what is to
/// be tried again.
fn judge<'a>(
    held: Vec<(PublishedLine<'a>, Box<Refused>)>,
    answered: impl Iterator<Item = (PublishedLine<'a>, LineAnswer)>,
    tell: &mut impl FnMut(u64, LineFate),
) -> Vec<(PublishedLine<'a>, Box<Refused>)> {
    let held = held.into_iter().map(|(item, refused)| (item, Err(refused)));
    let all: Vec<_> = held.chain(answered).collect();
    let mut accepted = HashMap::new();
    if all.iter().any(|(_, answer)| is_for_now(answer)) {
        let receipts = all.iter().filter(|(_, answer)| answer.is_ok());
        for (item, _) in receipts {
            accepted.insert((item.key.to_string(), item.tags.clone()), item.line);
        }
    }
    let mut again = Vec::new();
    for (item, answer) in all {
        match answer {
            Err(refused) if refused.retryable => {
                let place = (item.key.to_string(), item.tags.clone());
                let later = accepted.get(&place).is_some_and(|line| *line > item.line);
                if item.kind.is_state() && later {
                    tell(item.line, LineFate::Superseded);
                } else {
                    again.push((item, refused));
                }
            }
            answer => tell(item.line, LineFate::Answered(answer)),
        }
    }
    again
}

fn is_for_now(answer: &LineAnswer) -> bool {
    matches!(answer, Err(refused) if refused.retryable)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use slipstream_core::clock::Hlc;
    use slipstream_core::config::Durability;

    fn item(line: u64, kind: Kind, key: &str) -> PublishedLine<'_> {
        PublishedLine {
            line,
            kind,
            id: "".into(),
            key: key.into(),
            tags: String::new(),
            ttl_ms: 0,
            body: "1",
        }
    }

    fn receipt() -> LineAnswer {
        let (id, version) = ("m".to_owned().into(), Hlc::default());
        Ok(Receipt { id, version, duplicate: false, level: Durability::Full })
    }

    fn refused(retryable: bool) -> LineAnswer {
        Err(Box::new(Refused {
            id: None,
            frame: 1,
            code: "STORE_FULL".to_owned().into(),
            retryable,
            retry_after: None,
            message: "no".to_owned().into(),
            path: None,
        }))
    }

    #[test]
    fn waits_double_and_end() {
        let mut back_off = BackOff::new(Duration::from_secs(60));
        assert_eq!(back_off.wait(None), Some(WAITS.0));
        assert_eq!(back_off.wait(None), Some(WAITS.0 * 2));
        assert_eq!(back_off.wait(Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        back_off.succeeded();
        assert_eq!(back_off.wait(None), Some(WAITS.0));
        assert_eq!(BackOff::new(Duration::ZERO).wait(None), None);
        assert!(BackOff::new(Duration::MAX).wait(None).is_some());
    }

    #[tokio::test]
    async fn what_works_again_is_not_overdue() {
        let losses = Losses::new(Duration::ZERO);
        let why = Ended::Lost("cut".into());
        assert!(losses.add(&why));
        assert!(!losses.add(&why), "it is said once");
        assert_eq!(losses.overdue(Instant::now()).await, why);
        losses.clear();
        assert_eq!(losses.overdue(Instant::now()).now_or_never(), None);
    }

    #[test]
    fn only_what_may_still_go_is_tried_again() {
        let answered = vec![
            (item(1, Kind::Sk, "a"), receipt()),
            (item(2, Kind::Sk, "a"), refused(true)),
            (item(3, Kind::Sk, "b"), refused(true)),
            (item(4, Kind::Cmd, "c"), refused(true)),
            (item(5, Kind::Sk, "d"), refused(false)),
            (item(6, Kind::Sk, "b"), receipt()),
            (item(7, Kind::Cmd, "c"), receipt()),
        ];
        let mut told = Vec::new();
        let again = judge(Vec::new(), answered.into_iter(), &mut |line, fate| {
            told.push((line, matches!(fate, LineFate::Superseded)));
        });
        let again: Vec<_> = again.iter().map(|(item, _)| item.line).collect();
        assert_eq!(again, [2, 4]);
        assert_eq!(told, [(1, false), (3, true), (5, false), (6, false), (7, false)]);
    }
}
