//! `slipstream diff`: the keys on which two nodes differ.
//!
//! Digests of tag sets first, then of the buckets of those that differ, then of the keys in those
//! buckets; only of the keys that differ everything is asked. So little travels where little
//! differs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::table::{cell, table};
use crate::daemon::admin_client::{AdminArgs, AdminClient, segment};
use crate::daemon::digits::DIGITS;
use crate::daemon::failed::{EXIT_FAILED, Failed};

/// Messages asked for at once; each takes some bytes of a URL.
const ASKED_AT_ONCE: usize = 64;

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    slipstream diff --admin http://127.0.0.1:7401 --with http://10.0.0.2:7401\n\n\
    Compares what is for both nodes: what targets nobody, or a tag of each of them or of their \
    applications. Exit code 0 if they hold the same, 1 if not. While messages are under way two \
    nodes differ: what stays in the list when it is run again is a difference.")]
pub(crate) struct Diff {
    #[command(flatten)]
    admin: AdminArgs,
    /// Admin endpoint of the other node
    #[arg(long = "with", value_name = "URL")]
    with: String,
    /// Compare also what is not for both
    #[arg(long)]
    all: bool,
    /// Name at most so many keys
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One of the two nodes.
struct Side {
    client: AdminClient,
    node: String,
    tags: BTreeSet<String>,
    digests: BTreeMap<Vec<String>, String>,
}

#[derive(Deserialize)]
struct TagSets {
    node: String,
    tags: BTreeSet<String>,
    digests: Vec<TagSetJson>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct TagSetJson {
    tags: Vec<String>,
    digest: String,
}

#[derive(Deserialize)]
struct Buckets {
    digests: String,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    digests: String,
    #[serde(default)]
    messages: Vec<Value>,
    next: Option<String>,
}

/// A key on which the two differ: what each holds.
#[derive(Default)]
struct KeyDifference {
    here: Option<Value>,
    there: Option<Value>,
}

/// What was found so far, by key and tag set.
type Found = BTreeMap<(String, Vec<String>), KeyDifference>;

impl Diff {
    pub(super) fn execute(self) -> Result<ExitCode, Failed> {
        let here = Side::of("--admin", &self.admin.url)?;
        let there = Side::of("--with", &self.with)?;
        let sets: BTreeSet<&Vec<String>> =
            here.digests.keys().chain(there.digests.keys()).collect();
        let (mut found, mut equal, mut compared) = (Found::new(), true, 0_usize);
        for tags in sets {
            let is_for_both = here.is_for(tags) && there.is_for(tags);
            if !self.all && !is_for_both {
                continue;
            }
            compared += 1;
            if here.digests.get(tags) != there.digests.get(tags) {
                equal = false;
                self.compare(&here, &there, tags, &mut found)?;
            }
        }
        self.print(&here, &there, &found, (equal, compared))?;
        Ok(if equal { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
    }

    /// Finds the keys of a tag set on which the two differ.
    fn compare(
        &self,
        here: &Side,
        there: &Side,
        tags: &[String],
        found: &mut Found,
    ) -> Result<(), Failed> {
        let (ours, theirs) = (here.buckets(tags)?, there.buckets(tags)?);
        for (bucket, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            if ours == theirs {
                continue;
            }
            if found.len() >= self.limit {
                return Ok(());
            }
            let (ours, theirs) = (here.keys(tags, bucket)?, there.keys(tags, bucket)?);
            for message in here.messages(tags, bucket, ours.difference(&theirs))? {
                let key = name(&message, tags);
                found.entry(key).or_default().here = Some(message);
            }
            for message in there.messages(tags, bucket, theirs.difference(&ours))? {
                let key = name(&message, tags);
                found.entry(key).or_default().there = Some(message);
            }
        }
        Ok(())
    }

    fn print(
        &self,
        here: &Side,
        there: &Side,
        found: &Found,
        (equal, compared): (bool, usize),
    ) -> Result<(), Failed> {
        let mut out = std::io::stdout();
        let shown = found.iter().take(self.limit);
        if self.json {
            let keys = shown.map(|((key, tags), one)| {
                json!({ "key": key, "targetedTags": tags, "here": one.here, "there": one.there })
            });
            let report = json!({
                "here": here.node,
                "there": there.node,
                "equal": equal,
                "tagSets": compared,
                "keys": keys.collect::<Vec<_>>(),
            });
            writeln!(out, "{report}")?;
            return Ok(());
        }
        let (a, b) = (&here.node, &there.node);
        if equal {
            writeln!(out, "{a} and {b} hold the same, in {compared} tag sets that are compared")?;
            return Ok(());
        }
        if found.is_empty() {
            writeln!(out, "{a} and {b} differed, and no longer do: something was under way")?;
            return Ok(());
        }
        let mut keys = table(&["KEY", "TAGS", &a.to_uppercase(), &b.to_uppercase()]);
        for ((key, tags), KeyDifference { here, there }) in shown {
            keys.add_row([key.clone(), cell(&json!(tags)), version(here), version(there)]);
        }
        writeln!(out, "{}", keys.trim_fmt())?;
        if found.len() > self.limit {
            writeln!(out, "... and more (--limit)")?;
        }
        Ok(())
    }
}

/// Key and tag set of a message.
fn name(message: &Value, tags: &[String]) -> (String, Vec<String>) {
    (message["key"].as_str().unwrap_or_default().to_owned(), tags.to_vec())
}

fn version(message: &Option<Value>) -> String {
    message.as_ref().map_or("-".to_owned(), |message| cell(&message["version"]))
}

impl Side {
    /// The node with this admin endpoint, and its digests.
    fn of(flag: &'static str, url: &str) -> Result<Self, Failed> {
        let client = AdminClient::named(flag, url)?;
        let mut side =
            Self { client, node: String::new(), tags: BTreeSet::new(), digests: BTreeMap::new() };
        let mut path = "/digests".to_owned();
        loop {
            let body = side.client.get(&path)?;
            let page: TagSets = side.client.parse(&body)?;
            side.digests.extend(page.digests.into_iter().map(|set| (set.tags, set.digest)));
            (side.node, side.tags) = (page.node, page.tags);
            match page.next {
                Some(next) => path = format!("/digests?after={}", segment(&next)),
                None => return Ok(side),
            }
        }
    }

    /// Whether messages with these target tags are for this node.
    fn is_for(&self, tags: &[String]) -> bool {
        tags.is_empty() || tags.iter().any(|tag| self.tags.contains(tag))
    }

    /// The digest of each bucket.
    fn buckets(&self, tags: &[String]) -> Result<Vec<String>, Failed> {
        let path = format!("/digests/buckets?tags={}", segment(&tags.join(",")));
        let body = self.client.get(&path)?;
        let buckets: Buckets = self.client.parse(&body)?;
        Ok(digests(&buckets.digests).collect())
    }

    /// The digests of the keys of a bucket.
    fn keys(&self, tags: &[String], bucket: usize) -> Result<BTreeSet<String>, Failed> {
        let mut keys = BTreeSet::new();
        self.pages(tags, bucket, "", |page| keys.extend(digests(&page.digests)))?;
        Ok(keys)
    }

    /// The messages with these digests in a bucket.
    fn messages<'a>(
        &self,
        tags: &[String],
        bucket: usize,
        wanted: impl Iterator<Item = &'a String>,
    ) -> Result<Vec<Value>, Failed> {
        let wanted: Vec<&str> = wanted.map(String::as_str).collect();
        let mut messages = Vec::new();
        for some in wanted.chunks(ASKED_AT_ONCE) {
            let asked = format!("&digests={}", some.join(","));
            self.pages(tags, bucket, &asked, |page| messages.extend(page.messages))?;
        }
        Ok(messages)
    }

    fn pages(
        &self,
        tags: &[String],
        bucket: usize,
        asked: &str,
        mut take: impl FnMut(Keys),
    ) -> Result<(), Failed> {
        let first = format!("/digests/buckets/{bucket}?tags={}{asked}", segment(&tags.join(",")));
        let mut path = first.clone();
        loop {
            let body = self.client.get(&path)?;
            let page: Keys = self.client.parse(&body)?;
            let next = page.next.clone();
            take(page);
            match next {
                Some(next) => path = format!("{first}&after={next}"),
                None => return Ok(()),
            }
        }
    }
}

/// The digests that stand one behind the other.
fn digests(text: &str) -> impl Iterator<Item = String> + '_ {
    text.as_bytes().chunks(DIGITS).map(|digits| String::from_utf8_lossy(digits).into_owned())
}
