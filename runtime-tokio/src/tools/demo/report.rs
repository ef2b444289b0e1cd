//! What the demo says at its end: a table and some lines for people, or the same as JSON.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::check::{CheckFailure, CheckVerdict, CheckedCell};
use super::nodes::Figures;
use super::traffic::{LATE, NODES};
use crate::daemon::commands::table::table;
use crate::daemon::failed::Failed;

/// Failures that are told; the others are counted.
const FAILURES_TOLD: usize = 10;

/// Everything that the demo found out. Field names are those of the JSON.
#[derive(Debug, Serialize)]
pub(super) struct DemoReport {
    ok: bool,
    deliveries: Vec<DeliveredCounts>,
    receipts: usize,
    receipts_honoured: usize,
    duplicates_suppressed: Suppressed,
    loops_prevented: u64,
    redeliveries_marked: usize,
    overtaken: usize,
    copies: Vec<Copies>,
    copies_total: u64,
    copies_least: u64,
    late_site: LateSite,
    seconds: f64,
    failed: usize,
    failures: Vec<CheckFailure>,
}

#[derive(Debug, Serialize)]
struct DeliveredCounts {
    published_at: &'static str,
    destination: &'static str,
    #[serde(flatten)]
    cell: CheckedCell,
}

#[derive(Debug, Serialize)]
struct Suppressed {
    other_route: u64,
    published_again: u64,
}

#[derive(Debug, Serialize)]
struct LateSite {
    node: &'static str,
    keys: usize,
    current: usize,
}

#[derive(Debug, Serialize)]
struct Copies {
    from: &'static str,
    to: &'static str,
    messages: u64,
}

impl DemoReport {
    /// From the verdict on the messages and from what the nodes counted.
    pub(super) fn new(mut verdict: CheckVerdict, figures: &Figures, took: Duration) -> Self {
        let failed = verdict.failures.len();
        verdict.failures.truncate(FAILURES_TOLD);
        let mut deliveries = Vec::new();
        for (published_at, row) in NODES.iter().zip(&verdict.cells) {
            for (destination, cell) in NODES.iter().zip(row) {
                deliveries.push(DeliveredCounts { published_at, destination, cell: *cell });
            }
        }
        let copies = figures.copies.iter();
        Self {
            ok: failed == 0,
            deliveries,
            receipts: verdict.receipts,
            receipts_honoured: verdict.honoured,
            duplicates_suppressed: Suppressed {
                other_route: figures.other_route,
                published_again: figures.published_again,
            },
            loops_prevented: figures.loops_prevented,
            redeliveries_marked: verdict.redeliveries,
            overtaken: verdict.overtaken,
            copies: copies
                .map(|((from, to), messages)| Copies { from, to, messages: *messages })
                .collect(),
            copies_total: figures.copies.values().sum(),
            copies_least: figures.least_copies,
            late_site: LateSite {
                node: LATE,
                keys: verdict.late.keys,
                current: verdict.late.current,
            },
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            failed,
            failures: verdict.failures,
        }
    }

    /// Prints it.
    pub(super) fn print(&self, json: bool) -> Result<(), Failed> {
        let mut out = io::stdout();
        if json {
            let text = serde_json::to_string_pretty(self);
            let text = text.map_err(|error| Failed::general(format!("no JSON: {error}")))?;
            writeln!(out, "{text}")?;
        } else {
            self.write_page(&mut out)?;
        }
        Ok(())
    }

    fn write_page(&self, out: &mut impl Write) -> io::Result<()> {
        let heading: Vec<_> =
            NODES.iter().map(|node| format!("TO {}", node.to_uppercase())).collect();
        let heading = ["PUBLISHED AT", &heading[0], &heading[1], &heading[2]];
        let mut deliveries = table(&heading);
        for row in self.deliveries.chunks(NODES.len()) {
            let from = row.first().map_or("", |first| first.published_at).to_owned();
            let cells = row.iter().map(|DeliveredCounts { cell, .. }| {
                format!("{} / {}", cell.arrived, cell.expected)
            });
            deliveries.add_row(std::iter::once(from).chain(cells));
        }
        writeln!(out, "Arrived / expected, each message once:\n\n{}\n", deliveries.trim_fmt())?;
        let Suppressed { other_route, published_again } = &self.duplicates_suppressed;
        let copies = self
            .copies
            .iter()
            .map(|Copies { from, to, messages }| format!("{from} to {to} {messages}"));
        let mut lines = table(&["COUNTED", "OVER ALL NODES"]);
        for (name, text) in [
            ("receipts", format!("{}, honoured {}", self.receipts, self.receipts_honoured)),
            (
                "duplicates suppressed",
                format!("{other_route} by another route, {published_again} published again"),
            ),
            ("loops prevented", self.loops_prevented.to_string()),
            ("redeliveries marked", self.redeliveries_marked.to_string()),
            ("overtaken", format!("{} by a newer value of their key", self.overtaken)),
            ("message copies", copies.collect::<Vec<_>>().join(", ")),
            (
                "copies against least",
                format!(
                    "{} / {}, with a link cut and a node killed",
                    self.copies_total, self.copies_least
                ),
            ),
            (
                "site that joined late",
                format!(
                    "{} has {} of {} current values",
                    self.late_site.node, self.late_site.current, self.late_site.keys
                ),
            ),
            ("time taken", format!("{:.1} s", self.seconds)),
        ] {
            lines.add_row([name.to_owned(), text]);
        }
        writeln!(out, "{}", lines.trim_fmt())
    }

    /// Whether everything held; otherwise what did not, and on which message.
    pub(super) fn outcome(&self) -> Result<(), Failed> {
        if self.ok {
            return Ok(());
        }
        let mut message = format!("{} checks failed:", self.failed);
        for failure in &self.failures {
            message.push_str(&format!("\n  {failure}"));
        }
        let untold = self.failed - self.failures.len();
        if untold > 0 {
            message.push_str(&format!("\n  and {untold} more"));
        }
        message.push_str("\nthis is a fault of Slipstream: please report it with these lines");
        Err(Failed::general(message))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Late;
    use super::*;

    fn verdict(failures: usize) -> CheckVerdict {
        let failure = |number| CheckFailure {
            id: format!("aws-{number}"),
            node: "gcp".into(),
            what: "did not arrive".into(),
        };
        CheckVerdict {
            cells: vec![vec![CheckedCell { arrived: 7, expected: 8 }; 3]; 3],
            late: Late { keys: 9, current: 9, failures: Vec::new() },
            failures: (0..failures).map(failure).collect(),
            ..CheckVerdict::default()
        }
    }

    #[test]
    fn a_failure_is_named_and_ends_with_code_1() {
        let report = DemoReport::new(verdict(12), &Figures::default(), Duration::from_secs(1));
        let failed = report.outcome().expect_err("it did not hold");
        assert_eq!(failed.code, 1);
        assert!(failed.message.contains("12 checks failed"), "{failed}");
        assert!(failed.message.contains("aws-0 at gcp: did not arrive"), "{failed}");
        assert!(failed.message.contains("and 2 more"), "{failed}");
    }

    #[test]
    fn the_page_has_a_row_per_node_and_a_line_per_figure() {
        let report = DemoReport::new(verdict(0), &Figures::default(), Duration::from_millis(7_312));
        assert_eq!(report.outcome(), Ok(()));
        let mut page = Vec::new();
        report.write_page(&mut page).expect("memory can be written");
        let page = String::from_utf8(page).expect("it is text");
        let cells = |node: &str| {
            let row = page.lines().find(|line| line.trim_start().starts_with(node));
            row.map(|row| row.matches("7 / 8").count())
        };
        for node in NODES {
            assert_eq!(cells(node), Some(3), "{page}");
        }
        assert!(page.contains("7.3 s") && page.contains("oci has 9 of 9"), "{page}");
    }
}
