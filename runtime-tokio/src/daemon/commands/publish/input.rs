//! Standard input as messages: lines, and what each of them asks to publish.
//!
//! Lines are taken apart by the code that a node uses for frames, so that one which is wrong is
//! refused here with the code that the node would give. A value stays as it was written.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read};

use slipstream_core::config::Limits;
use slipstream_core::json::{self, JsonRequest};
use slipstream_core::refusal::{Code, Refusal};
use tokio::sync::mpsc;

use super::publisher::PublishedLine;

/// Most lines, and about as many bytes, that are published together.
const BATCH_LINES: usize = 16_384;
const BATCH_BYTES: usize = 8 << 20;
/// Longest line.
const MAX_LINE: usize = 64 << 20;
/// One read.
const READ_BYTES: usize = 256 << 10;
/// Batches that are read ahead.
const AHEAD: usize = 2;

/// A line and its number, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    number: u64,
    bytes: Vec<u8>,
}

/// Lines, or why there are no more.
type Lines = Result<Vec<Line>, String>;

/// Reads standard input to its end on a thread of its own. Lines come in batches; whoever types
/// them has each published at once.
pub(super) fn read_standard_input() -> mpsc::Receiver<Lines> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut input = LineInput::new(std::io::stdin().lock());
        while let Some(lines) = input.next_batch() {
            let last = lines.is_err();
            if sender.blocking_send(lines).is_err() || last {
                break;
            }
        }
    });
    receiver
}

/// Lines of a stream.
struct LineInput<R> {
    stream: BufReader<R>,
    number: u64,
}

impl<R: Read> LineInput<R> {
    fn new(stream: R) -> Self {
        Self { stream: BufReader::with_capacity(READ_BYTES, stream), number: 0 }
    }

    /// The lines that can be had without waiting, at least one; `None` at the end.
    fn next_batch(&mut self) -> Option<Lines> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        loop {
            let mut line = Vec::new();
            let limit = MAX_LINE as u64 + 1;
            match (&mut self.stream).take(limit).read_until(b'\n', &mut line) {
                Ok(0) if lines.is_empty() => return None,
                Ok(0) => return Some(Ok(lines)),
                Ok(_) => {}
                Err(error) => return Some(Err(format!("cannot read standard input: {error}"))),
            }
            self.number += 1;
            if line.len() > MAX_LINE {
                let number = self.number;
                return Some(Err(format!("line {number} is longer than {MAX_LINE} bytes")));
            }
            bytes += line.len();
            if !line.trim_ascii().is_empty() {
                lines.push(Line { number: self.number, bytes: line });
            }
            let waits = !self.stream.buffer().contains(&b'\n');
            if !lines.is_empty() && (waits || lines.len() >= BATCH_LINES || bytes >= BATCH_BYTES) {
                return Some(Ok(lines));
            }
        }
    }
}

/// What the lines of a batch ask for.
#[derive(Debug)]
pub(super) struct LineBatch<'a> {
    /// What is to be published.
    pub(super) items: Vec<PublishedLine<'a>>,
    /// What cannot be, with the numbers of the lines.
    pub(super) refused: Vec<(u64, Refusal)>,
}

impl<'a> LineBatch<'a> {
    /// Takes lines apart. With `run`, every message has an id: its own or one of that run.
    /// `largest` is the largest value that the node takes.
    pub(super) fn parse(lines: &'a [Line], run: Option<&str>, largest: usize) -> Self {
        // All other limits are the node's affair.
        let limits = Limits {
            max_message_bytes: largest,
            max_key_bytes: usize::MAX,
            max_tags: usize::MAX - 1,
            max_json_depth: usize::MAX,
            ..Limits::default()
        };
        let mut batch = Self { items: Vec::with_capacity(lines.len()), refused: Vec::new() };
        for line in lines {
            match item(line, run, &limits) {
                Ok(item) => batch.items.push(item),
                Err(refusal) => batch.refused.push((line.number, refusal)),
            }
        }
        batch
    }
}

fn item<'a>(
    line: &'a Line,
    run: Option<&str>,
    limits: &Limits,
) -> Result<PublishedLine<'a>, Refusal> {
    let text = std::str::from_utf8(line.bytes.trim_ascii())
        .map_err(|error| Refusal::new(Code::InvalidJson, error.to_string()))?;
    let draft = match json::parse(text, limits)? {
        JsonRequest::Publish(draft) => draft,
        JsonRequest::Settle(_) | JsonRequest::Read(_) => {
            let message = "this is no message to publish";
            return Err(Refusal::new(Code::InvalidField, message));
        }
    };
    Ok(PublishedLine {
        line: line.number,
        kind: draft.kind,
        id: match (draft.id, run) {
            (Some(id), _) => id,
            (None, Some(run)) => Cow::Owned(format!("{run}-{}", line.number)),
            (None, None) => Cow::Borrowed(""),
        },
        key: draft.key,
        tags: draft.tags,
        ttl_ms: draft.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        body: draft.body,
    })
}

#[cfg(test)]
mod tests {
    use slipstream_core::message::Kind;

    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        LineInput::new(text.as_bytes()).next_batch().unwrap().unwrap()
    }

    #[test]
    fn lines_keep_their_numbers() {
        let lines = lines("a\n\n  \r\nb\r\nc");
        let numbers: Vec<_> = lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [1, 4]);
        let mut input = LineInput::new(&b"a\nb"[..]);
        assert_eq!(input.next_batch().unwrap().unwrap().len(), 1);
        assert_eq!(input.next_batch().unwrap().unwrap()[0].number, 2);
        assert!(input.next_batch().is_none());
    }

    #[test]
    fn a_value_stays_as_it_was_written() {
        let lines = lines(concat!(
            r#"{"type":"SA","key":"a\u00e9","value":[1e400,  1E+2, "\u00e9\/"],"#,
            r#""targetedTags":["gcp","aws"],"version":"x","x-more":{"a":1}}"#,
            "\n"
        ));
        let batch = LineBatch::parse(&lines, None, 1 << 20);
        let [item] = &batch.items[..] else { panic!("{batch:?}") };
        assert_eq!(item.body, r#"[1e400,  1E+2, "\u00e9\/"]"#);
        assert_eq!((item.kind, &*item.key, &*item.tags), (Kind::Sa, "aé", "aws,gcp"));
        assert_eq!(item.id, "");
    }

    #[test]
    fn ids_are_given_to_those_that_have_none() {
        let lines = lines(concat!(
            r#"{"type":"SK","key":"a","value":1}"#,
            "\n",
            r#"{"type":"CMD","key":"a","value":1,"messageId":"own","ttlMs":5}"#,
            "\n"
        ));
        let batch = LineBatch::parse(&lines, Some("run"), 1 << 20);
        let ids: Vec<_> = batch.items.iter().map(|item| (&*item.id, item.ttl_ms)).collect();
        assert_eq!(ids, [("run-1", 0), ("own", 5)]);
    }

    #[test]
    fn a_wrong_line_is_refused_with_the_code_of_a_node() {
        let lines = lines(concat!(
            "nonsense\n",
            "[]\n",
            "{\"type\":\"SK\",\"value\":1}\n",
            "{\"type\":\"ACK\",\"deliveryId\":1}\n",
            "{\"type\":\"SK\",\"key\":\"a\",\"value\":\"12345678\"}\n",
            "{\"type\":\"SK\",\"key\":\"a\",\"value\":1,\"targetTags\":[\"gcp\"]}\n",
        ));
        let batch = LineBatch::parse(&lines, None, 8);
        let codes: Vec<_> = batch.refused.iter().map(|(_, one)| one.code.as_str()).collect();
        let expected =
            ["INVALID_JSON", "NOT_AN_OBJECT", "MISSING_FIELD", "INVALID_FIELD", "TOO_LARGE"];
        assert_eq!(codes[..5], expected);
        let typo = &batch.refused[5].1;
        assert_eq!(typo.path.as_deref(), Some("$.targetTags"));
        assert!(typo.message.contains("the nearest is targetedTags"), "{typo}");
        assert!(batch.items.is_empty());
    }
}
