//! Publishes in batches, again where that can help, and never twice.
//!
//! Answers come in the order of the messages, so the first that has none is known when a
//! connection breaks. What stays true: a message without an answer is published again only if
//! its id lets the node see that it had it (P9), and one that was refused for a while does not
//! come after a later one of the same key.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use slipstream_core::io::Protocol;
use slipstream_core::message::Kind;
use slipstream_core::wire::Publish;

use crate::daemon::Failed;
use crate::daemon::commands::connecting::{BackOff, bare, may_pass, told, with_query};
use crate::daemon::connection::{Connection, ConnectionError, ConnectionOptions};
use slipstream_core::client::{Outcome, Refused};

/// A message to publish.
#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
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

impl Item<'_> {
    fn wire(&self) -> Publish<'_> {
        Publish {
            kind: self.kind,
            id: &self.id,
            key: &self.key,
            tags: &self.tags,
            ttl_ms: self.ttl_ms,
            body: self.body,
        }
    }
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Fate {
    /// The node's last word.
    Answered(Outcome),
    /// It was refused for a while, and meanwhile a later one of its key was accepted.
    Superseded,
}

/// A publisher that connects again.
#[derive(Debug)]
pub(super) struct Publisher {
    url: String,
    options: ConnectionOptions,
    /// Whether the node knows ids from earlier connections.
    named: bool,
    client: Connection,
    back_off: BackOff,
}

impl Publisher {
    /// Connects. `timeout` bounds how long nothing may succeed.
    pub(super) async fn connect(
        url: &str,
        name: Option<&str>,
        protocol: Protocol,
        timeout: Duration,
    ) -> Result<Self, Failed> {
        // Without keys nothing is handed to it.
        let url = match name {
            Some(name) => with_query(url, &[("keys", &[]), ("client", &[name])]),
            None => with_query(url, &[("keys", &[])]),
        };
        let options = ConnectionOptions { protocol, ..ConnectionOptions::default() };
        let client = Connection::connect(&url, &options).await;
        let client = client.map_err(|error| told(&url, &error))?;
        let back_off = BackOff::new(timeout);
        Ok(Self { url, options, named: name.is_some(), client, back_off })
    }

    /// Id of the node.
    pub(super) fn instance(&self) -> &str {
        &self.client.welcome.instance
    }

    /// The largest value that the node takes.
    pub(super) fn largest(&self) -> usize {
        usize::try_from(self.client.welcome.max_message_bytes).unwrap_or(usize::MAX)
    }

    /// Publishes these and tells the fate of each, with its line.
    pub(super) async fn publish(
        &mut self,
        items: Vec<Item<'_>>,
        tell: &mut impl FnMut(u64, Fate),
    ) -> Result<(), Failed> {
        let mut open = items;
        // Refused for now, and waiting to see what becomes of what came behind them.
        let mut held = Vec::new();
        while !open.is_empty() || !held.is_empty() {
            if open.is_empty() {
                open = held.drain(..).map(|(item, _)| item).collect();
            }
            let messages: Vec<_> = open.iter().map(Item::wire).collect();
            let mut outcomes = Vec::with_capacity(messages.len());
            let ended = self.client.publish(&messages, &mut outcomes).await;
            if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Receipt { .. })) {
                self.back_off.succeeded();
            }
            let unanswered = open.split_off(outcomes.len().min(open.len()));
            held = judge(held, open.drain(..).zip(outcomes), tell);
            match ended {
                Err(error) => {
                    let safe = self.named && unanswered.iter().all(|item| !item.id.is_empty());
                    if !(safe || unanswered.is_empty()) || !may_pass(&error) {
                        return Err(self.uncertain(&error, unanswered.len()));
                    }
                    self.reconnect(&error, unanswered.len()).await?;
                    open = unanswered;
                }
                Ok(()) if held.is_empty() => {}
                Ok(()) => {
                    let asked = held.iter().filter_map(|(_, refused)| refused.retry_after).max();
                    match self.back_off.wait(asked) {
                        Some(wait) => tokio::time::sleep(wait).await,
                        None => held.drain(..).for_each(|(item, refused)| {
                            tell(item.line, Fate::Answered(Outcome::Refused(refused)));
                        }),
                    }
                }
            }
        }
        Ok(())
    }

    async fn reconnect(
        &mut self,
        cause: &ConnectionError,
        unanswered: usize,
    ) -> Result<(), Failed> {
        // If standard error is gone, there is nobody to tell.
        let _gone = writeln!(std::io::stderr(), "{}: {cause}; connecting again", bare(&self.url));
        let mut last = None;
        while let Some(wait) = self.back_off.wait(None) {
            tokio::time::sleep(wait).await;
            match Connection::connect(&self.url, &self.options).await {
                Ok(client) => {
                    self.client = client;
                    return Ok(());
                }
                Err(error) if may_pass(&error) => last = Some(error),
                Err(error) => return Err(self.uncertain(&error, unanswered)),
            }
        }
        Err(self.uncertain(last.as_ref().unwrap_or(cause), unanswered))
    }

    fn uncertain(&self, error: &ConnectionError, unanswered: usize) -> Failed {
        let told = told(&self.url, error);
        if unanswered == 0 {
            return told;
        }
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

/// Tells what is final of what was held and what was answered since, and gives back what is to
/// be tried again.
fn judge<'a>(
    held: Vec<(Item<'a>, Refused)>,
    answered: impl Iterator<Item = (Item<'a>, Outcome)>,
    tell: &mut impl FnMut(u64, Fate),
) -> Vec<(Item<'a>, Refused)> {
    let held = held.into_iter().map(|(item, refused)| (item, Outcome::Refused(refused)));
    let all: Vec<_> = held.chain(answered).collect();
    let mut accepted = HashMap::new();
    if all.iter().any(|(_, outcome)| is_for_now(outcome)) {
        let receipts = all.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Receipt { .. }));
        for (item, _) in receipts {
            accepted.insert((item.key.to_string(), item.tags.clone()), item.line);
        }
    }
    let mut again = Vec::new();
    for (item, outcome) in all {
        match outcome {
            Outcome::Refused(refused) if refused.retryable => {
                let place = (item.key.to_string(), item.tags.clone());
                let later = accepted.get(&place).is_some_and(|line| *line > item.line);
                if item.kind.is_state() && later {
                    tell(item.line, Fate::Superseded);
                } else {
                    again.push((item, refused));
                }
            }
            Outcome::Receipt { .. } | Outcome::Refused(_) => {
                tell(item.line, Fate::Answered(outcome));
            }
        }
    }
    again
}

fn is_for_now(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(refused) if refused.retryable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipstream_core::client::Version;
    use slipstream_core::clock::Hlc;
    use slipstream_core::config::Durability;

    fn item(line: u64, kind: Kind, key: &str) -> Item<'_> {
        Item {
            line,
            kind,
            id: "".into(),
            key: key.into(),
            tags: String::new(),
            ttl_ms: 0,
            body: "1",
        }
    }

    fn receipt() -> Outcome {
        Outcome::Receipt {
            id: "m".to_owned().into(),
            version: Version::Clock(Hlc::default()),
            duplicate: false,
            level: Durability::Full,
        }
    }

    fn refused(retryable: bool) -> Outcome {
        Outcome::Refused(Refused {
            id: None,
            frame: 1,
            code: "STORE_FULL".to_owned().into(),
            retryable,
            retry_after: None,
            message: "no".to_owned().into(),
            path: None,
        })
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
            told.push((line, matches!(fate, Fate::Superseded)));
        });
        let again: Vec<_> = again.iter().map(|(item, _)| item.line).collect();
        assert_eq!(again, [2, 4]);
        assert_eq!(told, [(1, false), (3, true), (5, false), (6, false), (7, false)]);
    }
}
