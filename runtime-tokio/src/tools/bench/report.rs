//! What was measured, for people and as JSON.

use std::io::Write;
use std::time::Duration;

use bytesize::ByteSize;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use slipstream_core::config::Durability;
use slipstream_core::io::Protocol;

use super::load::{BenchPhase, Shape};
use super::mesh::{BenchPlace, BenchSample};
use crate::daemon::commands::connecting::bare;
use crate::daemon::commands::table::table;
use crate::daemon::failed::Failed;

/// The outcome of a run. Every message arrived exactly once, or there is none.
#[derive(Debug)]
pub(super) struct BenchReport {
    /// What was published.
    pub(super) shape: Shape,
    /// Where the nodes of a private mesh keep their data.
    pub(super) place: Option<BenchPlace>,
    /// What the receipts of the first node stand for.
    pub(super) level: Durability,
    /// Where messages went in.
    pub(super) from: String,
    /// Where they came out.
    pub(super) to: String,
    /// One by one.
    pub(super) alone: BenchPhase,
    /// As fast as it goes.
    pub(super) full: BenchPhase,
    /// At a steady rate.
    pub(super) paced: BenchPhase,
    /// That rate, messages a second.
    pub(super) rate: u64,
    /// What full speed cost each node of a private mesh.
    pub(super) cost: Vec<Cost>,
}

/// What messages cost a node.
#[derive(Debug)]
pub(super) struct Cost {
    /// Processor time of one message.
    pub(super) cpu: Option<Duration>,
    /// Messages in a commit.
    pub(super) batch: f64,
    /// Most memory up to the end.
    pub(super) peak_bytes: Option<u64>,
}

impl Cost {
    /// The cost of `messages` between two samples, for each node.
    pub(super) fn between(
        before: &[BenchSample],
        after: &[BenchSample],
        messages: u64,
    ) -> Vec<Self> {
        let each = before.iter().zip(after);
        let cost = each.map(|(before, after)| Self {
            cpu: before.cpu.zip(after.cpu).map(|(before, after)| {
                after.saturating_sub(before).div_f64(messages.max(1) as f64)
            }),
            batch: (after.committed - before.committed) / (after.commits - before.commits).max(1.0),
            peak_bytes: after.peak_bytes,
        });
        cost.collect()
    }
}

impl BenchReport {
    /// Prints it to standard output.
    pub(super) fn print(&self, as_json: bool) -> Result<(), Failed> {
        let mut out = std::io::stdout();
        if as_json {
            writeln!(out, "{}", self.json())?;
        } else {
            write!(out, "{}", self.text())?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut lines = vec![self.setting(), self.conditions(), String::new()];
        let mut speed = table(&["", "MESSAGES", "TO RECEIPT/S", "END TO END/S"]);
        let mut latency = table(&["LATENCY, MS", "P50", "P90", "P99", "MAX"]);
        for (name, phase) in self.phases() {
            speed.add_row([
                name.clone(),
                phase.messages.to_string(),
                format!("{:.0}", phase.answered_a_second()),
                format!("{:.0}", phase.delivered_a_second()),
            ]);
            latency.add_row(latency_row(format!("{name}, to receipt"), &phase.to_receipt));
            latency.add_row(latency_row(format!("{name}, to delivery"), &phase.to_delivery));
        }
        lines.extend([speed.trim_fmt(), String::new(), latency.trim_fmt(), String::new()]);
        lines.extend(self.costs());
        lines.push(self.account());
        lines.join("\n") + "\n"
    }

    fn phases(&self) -> [(String, &BenchPhase); 3] {
        [
            ("one alone".to_owned(), &self.alone),
            ("full speed".to_owned(), &self.full),
            (format!("{}/s", self.rate), &self.paced),
        ]
    }

    fn setting(&self) -> String {
        let Shape { keys, size, window, protocol, manual } = self.shape;
        let protocol = protocol_name(protocol);
        let ack = if manual { "acknowledged" } else { "not acknowledged" };
        format!(
            "values of {size} bytes, {keys} keys, {protocol} clients, at most {window} without \
             a receipt, deliveries {ack}"
        )
    }

    fn conditions(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let mut text = match (&self.place, self.level) {
            (Some(place), _) => format!(
                "{} nodes on this machine, each linked to each, {cores} cores for them and both \
                 clients, files in {}\nevery message synced at each node before it is \
                 acknowledged or handed on",
                self.cost.len(),
                place.folder.display()
            ),
            (None, Durability::Full) => format!(
                "published at {}, received at {}\nevery message synced at the first node before \
                 its receipt",
                bare(&self.from),
                bare(&self.to)
            ),
            (None, Durability::Normal) => format!(
                "published at {}, received at {}\nnot synced before the receipt at the first \
                 node (store.durability)",
                bare(&self.from),
                bare(&self.to)
            ),
        };
        if self.place.as_ref().is_some_and(|place| place.in_memory) {
            text += "\nNOTE: that folder is in memory, where syncing costs nothing; see --dir";
        }
        if cfg!(debug_assertions) {
            text += "\nNOTE: this is a build for debugging; use cargo run --release -- bench";
        }
        text
    }

    fn costs(&self) -> Vec<String> {
        let micros = |cpu: Duration| format!("{:.2}", cpu.as_secs_f64() * 1e6);
        let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        if self.cost.is_empty() {
            return Vec::new();
        }
        let mut table =
            table(&["AT FULL SPEED", "CPU/MESSAGE, US", "MESSAGES/COMMIT", "PEAK MEMORY"]);
        let last = self.cost.len() - 1;
        for (number, cost) in self.cost.iter().enumerate() {
            let name = match number {
                0 => "publisher's node",
                _ if number == last => "subscriber's node",
                _ => "another node",
            };
            let memory = cost.peak_bytes.map(|bytes| ByteSize(bytes).display().iec().to_string());
            table.add_row([
                name.to_owned(),
                cell(cost.cpu.map(micros)),
                format!("{:.1}", cost.batch),
                cell(memory),
            ]);
        }
        let all: Option<Duration> = self.cost.iter().map(|cost| cost.cpu).sum();
        table.add_row(["all".to_owned(), cell(all.map(micros))]);
        vec![table.trim_fmt(), String::new()]
    }

    fn account(&self) -> String {
        let published: u64 = self.phases().iter().map(|(_, phase)| phase.messages).sum();
        let delivered: u64 = self.phases().iter().map(|(_, phase)| phase.delivered).sum();
        match published - delivered {
            0 => format!("each of {published} messages was delivered exactly once"),
            superseded => format!(
                "of {published} messages {delivered} were delivered exactly once, {superseded} \
                 were superseded on their way by newer ones of the same key"
            ),
        }
    }

    fn json(&self) -> Value {
        let phase = |phase: &BenchPhase| {
            json!({
                "messages": phase.messages,
                "delivered": phase.delivered,
                "receiptsPerSecond": phase.answered_a_second().round(),
                "deliveriesPerSecond": phase.delivered_a_second().round(),
                "toReceiptMs": quantiles(&phase.to_receipt),
                "toDeliveryMs": quantiles(&phase.to_delivery),
            })
        };
        let cost = |cost: &Cost| {
            json!({
                "cpuMicrosPerMessage": cost.cpu.map(|cpu| cpu.as_secs_f64() * 1e6),
                "messagesPerCommit": cost.batch,
                "peakBytes": cost.peak_bytes,
            })
        };
        json!({
            "keys": self.shape.keys,
            "size": self.shape.size,
            "window": self.shape.window,
            "protocol": protocol_name(self.shape.protocol),
            "manual": self.shape.manual,
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "debugBuild": cfg!(debug_assertions),
            "private": self.place,
            "url": bare(&self.from),
            "to": bare(&self.to),
            "receipts": self.level,
            "rate": self.rate,
            "alone": phase(&self.alone),
            "full": phase(&self.full),
            "paced": phase(&self.paced),
            "nodes": self.cost.iter().map(cost).collect::<Vec<_>>(),
        })
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Json => "json",
        Protocol::Postcard => "binary",
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn latency_row(name: String, latencies: &Histogram<u64>) -> [String; 5] {
    let at = |quantile| format!("{:.2}", milliseconds(latencies.value_at_quantile(quantile)));
    let max = format!("{:.2}", milliseconds(latencies.max()));
    [name, at(0.5), at(0.9), at(0.99), max]
}

fn quantiles(latencies: &Histogram<u64>) -> Value {
    let at = |quantile| milliseconds(latencies.value_at_quantile(quantile));
    json!({
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "p999": at(0.999),
        "max": milliseconds(latencies.max()),
    })
}
